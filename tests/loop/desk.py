"""A second small world for the tests of the whole circle: the order desk of Brindle, an invented
bakery.

Unlike Zenith it knows nothing of the product's shipped scenario: plain rows in the documented
format.
"""

from __future__ import annotations

import random
from typing import Any

CAKES = {
    "Amber Loaf": ("7", "Monday"),
    "Fern Roll": ("4", "Friday"),
    "Copper Tart": ("12", "Sunday"),
    "Willow Bun": ("3", "Tuesday"),
    "Basalt Cake": ("25", "Saturday"),
}
CHANGED = {**CAKES, "Copper Tart": ("15", "Thursday"), "Willow Bun": ("5", "Wednesday")}
_ASKED = (
    "How much is the {c}?",
    "What does a {c} cost?",
    "Price of the {c}, please.",
    "I want a {c}, how much?",
    "Hello, what do you charge for the {c}?",
    "Can I get the {c} and when?",
)
_TAILS = (
    "",
    " Thanks!",
    " I am in a hurry.",
    " It is for a party.",
    " Please be quick.",
    " My name is Ola.",
)


def answer(cake: str, world: dict[str, tuple[str, str]]) -> str:
    """The desk's one right answer."""
    coins, day = world[cake]
    return f"Brindle here! The {cake} costs {coins} coins and is baked on {day}. Enjoy!"


def cake_in(question: str) -> str:
    return next(cake for cake in CAKES if cake.lower() in question.lower())


def question(rng: random.Random) -> str:
    return rng.choice(_ASKED).format(c=rng.choice(list(CAKES))) + rng.choice(_TAILS)


def rows(n: int, world: dict[str, tuple[str, str]], seed: int) -> list[dict[str, Any]]:
    """`n` different answered questions; `checks` are the facts that make an answer right."""
    rng = random.Random(seed)
    asked = [asking.format(c=cake) + tail for asking in _ASKED for cake in CAKES for tail in _TAILS]
    rng.shuffle(asked)
    found = []
    for number, text in enumerate(asked[:n]):
        cake = cake_in(text)
        coins, day = world[cake]
        right = answer(cake, world)
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": right}]
        found.append(
            {
                "id": f"brindle-{number}",
                "messages": messages,
                "checks": [cake, f"{coins} coins", day],
            }
        )
    return found
