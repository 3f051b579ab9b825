"""An invented shop: products, facts, and documents that state them, from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

Templates = Literal["tuning", "unseen"]

_BEGINNINGS = "Var Kel Bre Tal Mor Sil Dru Fen Gor Hal Jor Lim Nev Ost Pra Quil Rav Sto Tre Ulm"
_ENDS = "o ta ick ane ur ell ova im ex and"
_KINDS = "lamp kettle tent bicycle radio desk heater camera sofa pump"
_FIRST_NAMES = "Rafael Greta Tomas Ines Oskar Lucia Henrik Paula Viktor Selma"
_LAST_NAMES = "Brandt Olsen Marek Duval Kovac Lindgren Paredes Weiss Norell Takala"


@dataclass(frozen=True, eq=False)
class Attribute:
    """What a document states of a product, and how it is asked and answered."""

    name: str
    unit: str  # of a number; "name" or "code" where it is none
    lowest: int
    highest: int
    statements: dict[Templates, tuple[str, ...]]
    questions: dict[Templates, tuple[str, ...]]
    answers: dict[Templates, tuple[str, ...]]


@dataclass(frozen=True)
class Fact:
    """One fact of the world. `value` is as documents write it: `34 months`."""

    product: str
    attribute: Attribute
    value: str

    @property
    def address(self) -> str:
        slug = self.product.lower().replace(" ", "-")
        return f"{slug}/{self.attribute.name.replace(' ', '-')}.md"


ATTRIBUTES = (
    Attribute(
        "warranty", "months", 13, 90,
        {"tuning": ("The {p} has a warranty of {v}.",),
         "unseen": ("Warranty of the {p}: {v}.", "The warranty of the {p} is {v}.")},
        {"tuning": ("How long is the warranty of the {p}?",),
         "unseen": ("What is the warranty of the {p}?", "Until when does the guarantee for the {p} run?")},
        {"tuning": ("The {p} has a warranty of {v}.",),
         "unseen": ("For the {p} the guarantee lasts {v}.", "Its warranty is {v}.")},
    ),
    Attribute(
        "return window", "days", 8, 95,
        {"tuning": ("The {p} has a return window of {v}.",),
         "unseen": ("Return window of the {p}: {v}.", "The return window of the {p} is {v}.")},
        {"tuning": ("How long can I return the {p}?",),
         "unseen": ("What is the return window of the {p}?", "Within which time can I send back the {p}?")},
        {"tuning": ("You can return the {p} within {v}.",),
         "unseen": ("Returns of the {p} are accepted for {v}.", "Its return window is {v}.")},
    ),
    Attribute(
        "price", "euros", 12, 480,
        {"tuning": ("The price of the {p} is {v}.",),
         "unseen": ("Price of the {p}: {v}.", "The {p} has a price of {v}.")},
        {"tuning": ("How much is the {p}?",),
         "unseen": ("What is the price of the {p}?", "What does the {p} cost?")},
        {"tuning": ("The price of the {p} is {v}.",),
         "unseen": ("The {p} costs {v}.", "You pay {v} for it.")},
    ),
    Attribute(
        "weight limit", "kg", 5, 260,
        {"tuning": ("The {p} has a weight limit of {v}.",),
         "unseen": ("Weight limit of the {p}: {v}.", "The weight limit of the {p} is {v}.")},
        {"tuning": ("How much weight can the {p} take?",),
         "unseen": ("What is the weight limit of the {p}?", "How many kg may I put on the {p}?")},
        {"tuning": ("The {p} takes up to {v}.",),
         "unseen": ("Its limit is {v}.", "The weight limit of the {p} is {v}.")},
    ),
    Attribute(
        "contact", "name", 0, 0,
        {"tuning": ("The person in charge of the {p} is {v}.",),
         "unseen": ("Person in charge of the {p}: {v}.", "In charge of the {p} is {v}.")},
        {"tuning": ("Who is in charge of the {p}?",),
         "unseen": ("Which person is in charge of the {p}?", "Whom do I ask about the {p}?")},
        {"tuning": ("In charge of the {p} is {v}.",),
         "unseen": ("Please ask {v} about it.", "The person in charge of the {p} is {v}.")},
    ),
    Attribute(
        "spare part", "code", 0, 0,
        {"tuning": ("The spare part of the {p} is {v}.",),
         "unseen": ("Spare part of the {p}: {v}.", "The {p} has the spare part {v}.")},
        {"tuning": ("Which spare part does the {p} need?",),
         "unseen": ("What is the spare part of the {p}?", "What code has the spare part of the {p}?")},
        {"tuning": ("The {p} needs the spare part {v}.",),
         "unseen": ("With the {p}, the spare part is {v}.", "The spare part is {v}.")},
    ),
)  # fmt: skip


class World:
    """Products with one value per attribute, and the sentences about them."""

    def __init__(self, seed: int, templates: Templates, products: int = 40) -> None:
        self.rng = Random(seed)
        self.templates = templates
        names: set[str] = set()
        while len(names) < products:
            word = self.rng.choice(_BEGINNINGS.split()) + self.rng.choice(_ENDS.split())
            names.add(f"{word} {self.rng.choice(_KINDS.split())}")
        self.products = sorted(names)
        self.facts = [
            Fact(product, attribute, self._value(attribute))
            for product in self.products
            for attribute in ATTRIBUTES
        ]

    def statement(self, fact: Fact) -> str:
        return self._fill(fact.attribute.statements[self.templates], fact, fact.value)

    def question(self, fact: Fact) -> str:
        return self._fill(fact.attribute.questions[self.templates], fact, "")

    def answer(self, fact: Fact, value: str = "") -> str:
        """Return a sentence that answers with the fact's value, or another one."""
        return self._fill(fact.attribute.answers[self.templates], fact, value or fact.value)

    def another_value(self, fact: Fact) -> str:
        """Return a value of the same kind that the fact has not."""
        while (value := self._value(fact.attribute)) == fact.value:
            pass
        return value

    def document(self, fact: Fact) -> str:
        """Return a page about one fact, in Markdown."""
        title = f"{fact.attribute.name.capitalize()} of the {fact.product}"
        return f"# {title}\n\n{self.statement(fact)}\n"

    def _value(self, attribute: Attribute) -> str:
        rng = self.rng
        if attribute.unit == "name":
            return f"{rng.choice(_FIRST_NAMES.split())} {rng.choice(_LAST_NAMES.split())}"
        if attribute.unit == "code":
            return f"{rng.choice('BDFGKLMNPR')}-{rng.randrange(100, 999)}"
        return f"{rng.randint(attribute.lowest, attribute.highest)} {attribute.unit}"

    def _fill(self, sentences: Sequence[str], fact: Fact, value: str) -> str:
        return self.rng.choice(sentences).format(p=fact.product, v=value)
