"""Make small training sets as a shop's help desk has them, with questions in unseen wordings.

Each seed is another shop: other products, facts, topics and wordings. Its customers repeat each
other, so 500 rows hold some 150 different questions of a few dozen wordings. The test questions are
about the same facts in wordings, greetings and closings that no row uses: what they score is what a
gate that looks at held-out rows should have said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

ROWS, USERS, PRODUCTS, TOPICS_PER_SHOP = 500, 90, 8, 6
TRAINING_WORDINGS = 5  # of a topic; the test asks in the others
_DIFFERENT = 0.31  # questions over rows: 153 of 500 in the set that strangers brought

_SYLLABLES = ("bar", "den", "fal", "gor", "hin", "jal", "kes", "lum", "mor", "nev", "pra", "quil",
              "ros", "sel", "tan", "ulm", "vos", "wex", "yar", "zim")  # fmt: skip
_KINDS = ("X", "Kids", "Pro", "2", "3", "Mini", "Plus", "Air")
_PEOPLE = ("Anna", "Boris", "Clara", "Dmitri", "Edda", "Farid", "Gwen", "Hugo", "Ilse", "Jonas")
_COLOURS = ("red", "blue", "green", "grey", "white", "black", "yellow", "orange")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")


@dataclass(frozen=True)
class Topic:
    """What is asked of a product. `{p}` is the product in a question, `{v}` the fact in an answer."""

    name: str
    answer: str
    wordings: tuple[str, ...]

    def value(self, random: Random) -> str:
        """Draw the fact of one product."""
        number = random.randint
        return {
            "pressure": f"{number(20, 60) / 10} bar",
            "warranty": f"{number(7, 60)} months",
            "price": f"{number(12, 480)} euros",
            "weight": f"{number(21, 180) / 10} kg",
            "shelf": f"shelf {random.choice('ABCDEFG')}{number(1, 29)}",
            "person": f"{random.choice(_PEOPLE)} at desk {number(2, 19)}",
            "part": f"part {random.choice('KLMNPR')}{number(100, 999)}",
            "day": f"{random.choice(_DAYS)} at {number(8, 18)}",
            "load": f"{number(40, 190)} kilos",
            "lamp": f"the {random.choice(_COLOURS)} lamp for {number(3, 30)} seconds",
            "charge": f"{number(35, 340)} minutes",
            "manual": f"page {number(4, 140)}",
        }[self.name]


# Each topic has two words that matter; every wording has one of them.
TOPICS = (
    Topic("pressure", "Pump the {p} to {v}.", (
        "What pressure do I need for the {p}?", "Which tyre pressure is right for the {p}?",
        "My {p} has soft tyres, how far do I pump them?", "How hard must the tyres of a {p} be?",
        "I want to check the pressure of my {p}.", "The tyres of my {p} are flat, what now?",
        "Tell me the pressure of the {p}.", "Do the tyres of the {p} need more air?")),
    Topic("warranty", "The {p} is covered for {v}.", (
        "How long is the warranty of the {p}?", "Is my {p} still under guarantee?",
        "What warranty comes with the {p}?", "When does the guarantee on the {p} end?",
        "I bought a {p}, how long is the guarantee?", "Does the {p} have a warranty?",
        "Tell me about the warranty for my {p}.", "How much guarantee do I get on a {p}?")),
    Topic("price", "The {p} costs {v}.", (
        "What does the {p} cost?", "What is the price of the {p}?", "How much does a {p} cost?",
        "I would like to know the price of a {p}.", "Tell me what the {p} costs.",
        "Price of the {p} please?", "Is the price of my {p} still the same?",
        "Would a {p} cost me a lot?")),
    Topic("weight", "The {p} weighs {v}.", (
        "How heavy is the {p}?", "What is the weight of the {p}?", "What does the {p} weigh?",
        "Is the {p} heavy?", "I need the weight of my {p}.", "How much does a {p} weigh?",
        "Tell me how heavy the {p} is.", "Weight of a {p}?")),
    Topic("shelf", "You find the {p} on {v}.", (
        "Where do I find the {p}?", "On which shelf is the {p}?", "I cannot find the {p} here.",
        "Which shelf has the {p}?", "Help me find a {p}.", "What shelf do I look on for the {p}?",
        "Is there a shelf with the {p}?", "Can you find me the {p}?")),
    Topic("person", "For the {p}, ask {v}.", (
        "Who repairs the {p}?", "My {p} is broken, who can help?", "Where do I bring a broken {p}?",
        "I need a repair of my {p}.", "Who is there for a broken {p}?",
        "Which colleague repairs the {p}?", "Something is broken on my {p}.",
        "Can somebody repair the {p}?")),
    Topic("part", "The {p} takes {v}.", (
        "Which spare part fits the {p}?", "What part do I order for my {p}?",
        "I need a spare for the {p}.", "What is the part number for the {p}?",
        "Do you have the spare of a {p}?", "Tell me the part for the {p}.",
        "My {p} needs a new part, which one?", "How do I order a spare for the {p}?")),
    Topic("day", "The {p} comes on {v}.", (
        "When is the {p} delivered?", "On which day does my {p} arrive?", "When will my {p} arrive?",
        "What day is the {p} delivered?", "Tell me the delivery of the {p}.",
        "I am waiting for the {p} to arrive.", "How soon will you deliver the {p}?",
        "Has my {p} been delivered?")),
    Topic("load", "The {p} carries up to {v}.", (
        "How much can the {p} carry?", "What load is allowed on the {p}?",
        "What may the {p} carry at most?", "Can the {p} take a large load?",
        "What is the highest load for the {p}?", "Up to what can I load my {p}?",
        "How many kilos does the {p} carry?", "Tell me what a {p} can carry.")),
    Topic("lamp", "To reset the {p}, press {v}.", (
        "How do I reset the {p}?", "My {p} hangs, how do I restart it?", "How can I restart the {p}?",
        "What resets a {p}?", "I have to reset my {p}.", "Does the {p} restart by itself?",
        "Tell me how to restart the {p}.", "Reset of the {p}, how does it go?")),
    Topic("charge", "The {p} charges in {v}.", (
        "How long does the {p} charge?", "When is the battery of the {p} full?",
        "How many minutes to charge my {p}?", "What time does the battery of the {p} take?",
        "Is the battery of a {p} full soon?", "How much time does a charge of the {p} take?",
        "Do I have to charge the {p} for long?", "Tell me about the battery of my {p}.")),
    Topic("manual", "See the handbook of the {p}, {v}.", (
        "Where does the manual speak of the {p}?", "On what page is the {p}?",
        "Which page explains the {p}?", "Where in the manual is the {p}?",
        "What page do I open for the {p}?", "I look for my {p} in the manual.",
        "Tell me the page about the {p}.", "Does the manual have the {p}?")),
)  # fmt: skip
_AROUND = (
    ("{q}", "Hello, {q}", "{q} Thanks.", "Hi there. {q}", "Good morning! {q}", "{q} It is urgent."),
    ("Good evening, {q}", "Dear team, {q}", "{q} Many thanks in advance.", "{p} owner here. {q}"),
)


@dataclass(frozen=True)
class Shop:
    """Rows to train on, and questions in unseen wordings with the facts a right answer holds."""

    rows: list[dict[str, Any]]
    unseen: list[dict[str, Any]]


def shop(seed: int, *, rows: int = ROWS, users: int = USERS, unseen: int = 150) -> Shop:
    """Make the shop of a seed."""
    random = Random(f"shop {seed}")
    names = _product_names(random)
    topics = random.sample(TOPICS, TOPICS_PER_SHOP)
    facts = {(name, topic.name): topic.value(random) for name in names for topic in topics}
    wordings = {topic.name: _parted(topic.wordings, random) for topic in topics}
    sign_off = f"Your {random.choice(_SYLLABLES).title()}{random.choice(_SYLLABLES)} team."

    pairs = [(name, topic) for name in names for topic in topics]

    def row(pair: tuple[str, Topic], is_unseen: bool) -> dict[str, Any]:
        name, topic = pair
        question = random.choice(wordings[topic.name][is_unseen]).format(p=name)
        asked = random.choice(_AROUND[is_unseen]).format(q=question, p=name)
        fact = facts[name, topic.name]
        answer = f"{topic.answer.format(p=name, v=fact)} {sign_off}"
        return {"prompt": asked, "completion": answer, "checks": [fact, name]}

    def different(count: int, is_unseen: bool) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        while len(found) < count:  # every fact is asked for once before any is asked for again
            for pair in random.sample(pairs, min(len(pairs), count - len(found))):
                made = row(pair, is_unseen)
                found[made["prompt"]] = made
        return list(found.values())

    questions = different(round(rows * _DIFFERENT), False)
    repeated = [*questions, *(random.choice(questions) for _ in range(rows - len(questions)))]
    random.shuffle(repeated)
    asked = [{**each, "user": f"c{random.randrange(users):03d}"} for each in repeated]
    return Shop(asked, different(unseen, True))


def _parted(wordings: Sequence[str], random: Random) -> tuple[list[str], list[str]]:
    """Draw the wordings that rows use; the others are the test's."""
    drawn = random.sample(wordings, len(wordings))
    return drawn[:TRAINING_WORDINGS], drawn[TRAINING_WORDINGS:]


def _product_names(random: Random) -> Sequence[str]:
    found: dict[str, None] = {}
    while len(found) < PRODUCTS:
        name = f"{random.choice(_SYLLABLES).title()}{random.choice(_SYLLABLES)}"
        found[f"{name} {random.choice(_KINDS)}" if random.random() < 0.4 else name] = None
    return list(found)
