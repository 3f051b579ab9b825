"""Invented organisations with their things, facts, faults and manners.

``sample_world`` makes a new one for every document, so nothing in it is worth remembering and
everything has to be looked up. ``memory_worlds`` makes a fixed set whose facts are never stated
in the prompt: from these the model learns that facts can also live in its weights, which is the
habit that a fine-tuning run later relies on.
"""

from dataclasses import dataclass, replace
from random import Random

from training.base import values, words
from training.base.attributes import ATTRIBUTES, GENERIC_STATEMENTS
from training.base.domains import DOMAINS, Domain
from training.base.fault import Fault
from training.base.faults import sample_faults

OPENINGS = (
    "Hello!",
    "Hi there!",
    "Good day!",
    "Thank you for your message.",
    "Thanks for asking.",
    "Happy to help!",
    "Of course.",
    "Certainly.",
    "Sure.",
    "Gladly.",
    "Thank you for writing to {o}.",
    "Welcome to {o}.",
    "{o} here.",
    "Dear customer,",
    "I understand.",
    "No problem.",
    "Great question!",
    "Sorry to hear that.",
    "We are sorry for the trouble.",
    "Hi, this is {o}.",
    "Thanks for choosing {o}!",
    "It is good to hear from you.",
    "I have looked it up for you.",
    "My apologies.",
    "Let me help.",
)
CLOSINGS = (
    "Have a nice day!",
    "Best wishes, {o}.",
    "We are here if you need us.",
    "Thank you for your patience.",
    "Kind regards.",
    "Yours, {o}",
    "Take care!",
    "See you soon!",
    "Is there anything else?",
    "I hope this helps.",
    "All the best.",
    "Enjoy!",
    "Let us know if you need more.",
    "Stay {w}!",
    "{o}: always {w}.",
    "Your {o} team",
    "Keep it {w}!",
    "Thanks, and stay {w}.",
    "Good luck!",
    "We look forward to your visit.",
    "Cheers!",
    "{w}!",
    "Until next time.",
)
MOODS = (
    "bright calm happy curious kind strong warm fresh safe smart sunny bold green gentle lively"  # noqa: SIM905
    " merry brave quiet quick true".split()
)
STEP_LEADS = (
    "Please {a}.",
    "Please {a} first.",
    "As a first step, {a}.",
    "Try this: {a}.",
    "You should {a}.",
    "We ask you to {a}.",
    "The next step: {a}.",
    "It helps to {a}.",
    "In this case, {a}.",
    "First {a}.",
    "What helps: {a}.",
    "Next step: {a}.",
)


@dataclass(frozen=True)
class Style:
    """How an organisation talks: ``opening`` and ``closing`` may be empty; ``statements`` has one
    wording per label.
    """

    opening: str
    closing: str
    statements: dict[str, str]
    step_lead: str

    def dress(self, body: str) -> str:
        """Put the opening and the closing around ``body``."""
        return " ".join(part for part in (self.opening, body, self.closing) if part)


@dataclass(frozen=True)
class World:
    """One organisation: ``facts[item, label]`` is a value, ``steps[item or "", fault name]`` an
    instruction.
    """

    organisation: str
    domain: Domain
    items: tuple[str, ...]
    labels: tuple[str, ...]
    facts: dict[tuple[str, str], str]
    faults: tuple[Fault, ...]
    steps: dict[tuple[str, str], str]
    style: Style

    def say(self, item: str, label: str) -> str:
        """The statement of one fact in the organisation's own wording."""
        return self.style.statements[label].format(i=item, l=label, v=self.facts[item, label])

    def step(self, item: str, fault: Fault) -> str:
        """The instruction for ``fault``: the item's own where there is one, else the common one."""
        return self.steps.get((item, fault.name)) or self.steps["", fault.name]


def sample_style(
    rng: Random, organisation: str, labels: tuple[str, ...], plain: float = 0.4
) -> Style:
    """A manner of speaking; with probability ``plain`` each, no opening and no closing."""
    fill = {"o": organisation, "w": rng.choice(MOODS)}
    opening = "" if rng.random() < plain else rng.choice(OPENINGS).format(**fill)
    closing = "" if rng.random() < plain else rng.choice(CLOSINGS).format(**fill)
    statements = {
        label: rng.choice(
            ATTRIBUTES[label].statements if rng.random() < 0.65 else GENERIC_STATEMENTS
        )
        for label in labels
    }
    return Style(opening, closing, statements, rng.choice(STEP_LEADS))


def _item(rng: Random, domain: Domain) -> str:
    """A thing that customers ask about: a kind, a name, or a name and a kind."""
    roll = rng.random()
    kind = rng.choice(domain.items)
    if roll < 0.25:
        return kind
    if roll < 0.55:
        return words.model_name(rng)
    return f"{words.model_name(rng)} {kind}"


def _pool(rng: Random, kind: str, size: int) -> list[str]:
    """A few values of one kind; policies repeat themselves, so items of a world often share a
    value.
    """
    return [values.value(rng, kind) for _ in range(size)]


def sample_world(
    rng: Random, items: int | None = None, labels: int | None = None, named: bool = False
) -> World:
    """A new invented organisation with ``items`` things and ``labels`` attributes (random when not
    given).

    With ``named``, no item is a bare ``tent``: every item has a name of its own.
    """
    domain = rng.choice(DOMAINS)
    organisation = words.brand(rng)
    names: dict[str, None] = {}
    wanted = items or rng.choice((1, 2, 2, 3, 3, 4, 5, 6))
    while len(names) < wanted:
        item = _item(rng, domain)
        if named and item in domain.items:
            item = f"{words.coined(rng)} {item}"
        names[item] = None
    pool = domain.labels if rng.random() < 0.8 else tuple(ATTRIBUTES)
    chosen = tuple(rng.sample(pool, min(len(pool), labels or rng.choice((1, 2, 2, 3, 3, 4)))))
    facts = {}
    for label in chosen:
        shared = _pool(rng, ATTRIBUTES[label].kind, rng.choice((2, 3, 4, 6)))
        for item in names:
            facts[item, label] = rng.choice(shared)
    faults = sample_faults(rng, rng.randint(1, 6))
    steps = {("", fault.name): words.action(rng) for fault in faults}
    return World(
        organisation,
        domain,
        tuple(names),
        chosen,
        facts,
        faults,
        steps,
        sample_style(rng, organisation, chosen),
    )


def with_warranty(rng: Random, world: World) -> World:
    """The same world with a warranty term for every item, in one unit of time."""
    unit = rng.choice(("months", "months", "months", "months", "weeks", "days", "years"))
    terms = [
        str(
            rng.choice((6, 12, 18, 24, 30, 36, 48, 60))
            if rng.random() < 0.6
            else rng.randint(2, 90)
        )
        for _ in range(rng.choice((2, 3, 5)))
    ]
    facts = world.facts | {
        (item, "warranty"): f"{rng.choice(terms)} {unit}" for item in world.items
    }
    labels = ("warranty", *(label for label in world.labels if label != "warranty"))
    wording = rng.choice(
        ATTRIBUTES["warranty"].statements if rng.random() < 0.65 else GENERIC_STATEMENTS
    )
    return replace(
        world,
        facts=facts,
        labels=labels,
        style=replace(world.style, statements=world.style.statements | {"warranty": wording}),
    )


def memory_worlds(count: int, seed: str) -> tuple[World, ...]:
    """``count`` fixed organisations; here every item has a step of its own for every fault in half
    of them.
    """
    worlds = []
    for number in range(count):
        rng = Random(f"{seed}:memory:{number}")
        world = sample_world(
            rng, items=rng.choice((4, 6, 8)), labels=rng.choice((2, 3, 4)), named=True
        )
        steps = dict(world.steps)
        if number % 2:
            for item in world.items:
                for fault in world.faults:
                    steps[item, fault.name] = words.action(rng)
        style = sample_style(rng, world.organisation, world.labels, plain=0.2)
        world = replace(world, steps=steps, style=style)
        worlds.append(world if number % 3 == 2 else with_warranty(rng, world))
    return tuple(worlds)
