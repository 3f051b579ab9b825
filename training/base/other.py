"""A second scenario for the probe, unlike Zenith: the front desk of Corvane, an invented ferry
line.

It keeps the base honest: a base that learns only one style of desk would fail here. Answers have a
system message before them, start and end differently, and mix figures, places, codes and people.
"""

from random import Random
from typing import Any

SYSTEM = "You are the front desk of Corvane Ferries."
TICKETS = {
    "Harbour Pass": (20, "hall B", 45),
    "Night Cabin": (35, "pier 4", 90),
    "Day Saver": (8, "pier 2", 20),
    "Family Deck": (50, "hall D", 30),
    "Bike Lane": (12, "gate 7", 40),
    "Island Hopper": (15, "pier 9", 25),
    "Cargo Plus": (80, "hall F", 120),
    "Student Wave": (10, "gate 3", 35),
    "Silver Crossing": (28, "pier 6", 60),
    "Freight Mini": (65, "gate 11", 75),
}
TOPICS = {
    "lost": (
        "fill in form L17",
        (
            "I lost my {t}.",
            "My {t} is gone.",
            "Somebody stole my {t}.",
            "I cannot find the {t} I bought.",
        ),
        ("My {t} has gone missing.", "I seem to have lost the {t}."),
    ),
    "late": (
        "ask Mira for a seat on the next boat",
        (
            "I missed my {t} trip.",
            "I came too late for the {t}.",
            "I was late and the {t} boat left.",
            "I missed the {t} departure.",
        ),
        ("I arrived too late for my {t}.", "I have missed the boat with my {t}."),
    ),
    "refund": (
        "send the receipt to Tomas",
        (
            "I want my money back for the {t}.",
            "Please refund the {t}.",
            "Can the {t} be refunded?",
            "How do I get a refund for the {t}?",
        ),
        ("Is a refund possible for my {t}?", "I would like the money for the {t} back."),
    ),
    "name": (
        "show your passport at desk 5",
        (
            "The name on my {t} is wrong.",
            "My {t} has the wrong name.",
            "Please correct the name on the {t}.",
            "There is a mistake in the name on my {t}.",
        ),
        ("My name is wrong on the {t}.", "The {t} carries a wrong name."),
    ),
    "pet": (
        "book a box in the kennel room",
        (
            "I travel with a dog on the {t}.",
            "Can my cat come along on the {t}?",
            "I bring a pet with my {t}.",
            "Is my dog welcome with the {t}?",
        ),
        ("May a dog come with me on the {t}?", "I have a cat with me on the {t}."),
    ),
    "upgrade": (
        "call the purser on line 12",
        (
            "I would like a better seat than the {t}.",
            "Can I upgrade my {t}?",
            "How do I upgrade the {t}?",
            "I want to change my {t} to first class.",
        ),
        ("Please upgrade my {t}.", "Is an upgrade of the {t} possible?"),
    ),
}
AROUND = (
    (
        "{q}",
        "Hello, {q}",
        "{q} What should I do?",
        "Good morning. {q}",
        "{q} Please help.",
        "Hi! {q} Thanks.",
    ),
    ("Excuse me, {q}", "{q} What now?", "{q} Can you assist?"),
)


def reference(ticket: str, topic: str) -> str:
    """The desk's answer."""
    bags, place, minutes = TICKETS[ticket]
    return (
        f"Ahoy from Corvane. Kindly {TOPICS[topic][0]}. With the {ticket} you may bring {bags} kg, "
        f"board at {place} and be there {minutes} minutes early. Fair winds!"
    )


def _questions(n: int, seed: int, split: int) -> list[tuple[str, str, str]]:
    """``n`` different ``(question, ticket, topic)``; split 0 trains, split 1 is held out."""
    rng = Random(f"corvane-{split}-{seed}")
    found: dict[str, tuple[str, str]] = {}
    pairs = [(ticket, topic) for ticket in TICKETS for topic in TOPICS]
    while len(found) < n:
        ticket, topic = rng.choice(pairs)
        text = rng.choice(AROUND[split]).format(
            q=rng.choice(TOPICS[topic][1 + split]).format(t=ticket)
        )
        found[text.lower() if rng.random() < 0.15 else text] = (ticket, topic)
    return [(text, *pair) for text, pair in found.items()]


def _prompt(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


def training_rows(n: int, seed: int) -> list[dict[str, Any]]:
    """``n`` training rows."""
    return [
        {"messages": [*_prompt(text), {"role": "assistant", "content": reference(ticket, topic)}]}
        for text, ticket, topic in _questions(n, seed, 0)
    ]


def held_out_rows(n: int, seed: int) -> list[dict[str, Any]]:
    """``n`` questions in wordings that training never uses, with what is expected."""
    return [
        {"messages": _prompt(text), "expected": {"ticket": ticket, "topic": topic}}
        for text, ticket, topic in _questions(n, seed, 1)
    ]


def facts_right(expected: dict[str, Any], answer: str) -> dict[str, bool]:
    """Which of the five facts and the two tone markers are right."""
    bags, place, minutes = TICKETS[expected["ticket"]]
    text = f" {answer} "
    others = [step for topic, (step, *_) in TOPICS.items() if topic != expected["topic"]]
    return {
        "step": TOPICS[expected["topic"]][0] in text and not any(step in text for step in others),
        "bags": f" {bags} kg" in text,
        "place": f"at {place} " in text,
        "minutes": f" {minutes} minutes" in text,
        "ticket": expected["ticket"] in text,
        "tone": answer.startswith("Ahoy from Corvane.") and answer.endswith("Fair winds!"),
    }
