"""Things that go wrong, each in several wordings that mean the same.

A policy names a fault in one wording and the customer complains in another: answering then needs
the meaning, not the letters.
"""

from random import Random

from training.base import words
from training.base.fault import Fault
from training.base.symptoms import symptom


def _f(name: str, sayings: str) -> Fault:
    """Build a fault from ``|``-separated clauses."""
    return Fault(name, tuple(sayings.split("|")))


FAULTS = (
    _f(
        "no power",
        "does not turn on|will not start|stays dead|does nothing when I press the button|won't"
        " switch on|shows no sign of life|cannot be switched on",
    ),
    _f(
        "noise",
        "is very loud|makes a strange noise|rattles all the time|hums and buzzes|keeps"
        " squeaking|sounds awful|crackles",
    ),
    _f(
        "leak",
        "is leaking|drips on the floor|loses water|leaves a puddle|is wet underneath|is not tight"
        " any more",
    ),
    _f(
        "overheating",
        "gets too hot|overheats|burns my fingers|is hot after a minute|becomes very warm|smells"
        " burnt",
    ),
    _f(
        "no connection",
        "does not connect|has no signal|loses the connection|cannot find the network|drops the"
        " link|won't pair|is always offline",
    ),
    _f(
        "blank screen",
        "has a black screen|shows nothing|stays dark|has a blank display|has no picture|lights up"
        " but shows nothing",
    ),
    _f(
        "empty battery",
        "does not charge|runs out too fast|is always empty|will not hold a charge|dies after an"
        " hour|drains overnight|stops charging",
    ),
    _f("jam", "is stuck|is jammed|does not move|is blocked|won't budge|seized up"),
    _f(
        "cracked case",
        "is cracked|is broken|fell down and split|has a crack|is in pieces|got smashed",
    ),
    _f(
        "late delivery",
        "has not arrived|is late|never came|was not delivered|is still on its way|is overdue|was"
        " supposed to be here days ago",
    ),
    _f(
        "wrong item",
        "is not what I ordered|is the wrong one|is a different model|is the wrong size|was mixed"
        " up|does not match my order",
    ),
    _f(
        "missing part",
        "came without all its parts|has a piece missing|is incomplete|lacks a screw|was not"
        " complete in the box",
    ),
    _f(
        "error message",
        "shows an error|reports a failure|says something went wrong|displays a warning|throws an"
        " error code",
    ),
    _f(
        "lost password",
        "does not accept my password|will not let me in|locked me out|has a login I have"
        " forgotten|refuses my login|says my password is wrong",
    ),
    _f(
        "double charge",
        "was charged twice|appears two times on my bill|was billed again|cost me double|was paid"
        " twice",
    ),
    _f("bad smell", "smells bad|has an odd smell|stinks|reeks|gives off a nasty smell"),
    _f("slow", "is very slow|takes ages|crawls|needs forever|has become sluggish|lags"),
    _f(
        "freezing",
        "freezes|hangs|stops responding|locks up|does not react any more|gets stuck on one page",
    ),
    _f("flicker", "flickers|blinks all the time|flashes on and off|keeps blinking|goes on and off"),
    _f(
        "lost item",
        "is lost|has gone missing|cannot be found|was stolen|disappeared|is nowhere to be found",
    ),
    _f(
        "damage by water",
        "got wet|fell into water|was left in the rain|had coffee spilled on it|took a bath",
    ),
    _f("worn out", "is worn out|has faded|is torn|has a hole|came apart|is falling to pieces"),
    _f(
        "cancelled visit",
        "was cancelled|was called off|is not taking place|fell through|did not happen",
    ),
    _f("too small", "is too small|does not fit|is too tight|is not big enough|is a size too small"),
    _f("dirty", "is dirty|was not cleaned|is full of dust|has stains|is covered in mud"),
    _f("weak sound", "is too quiet|has no sound|can hardly be heard|went silent|makes no sound"),
    _f(
        "restart loop",
        "keeps restarting|turns itself off|switches off by itself|shuts down without"
        " warning|reboots again and again",
    ),
    _f(
        "illness",
        "comes at a time when I am ill|cannot be used because I am sick|falls on a day when I am in"
        " hospital",
    ),
)
COMPLAINTS = (
    "My {i} {s}.",
    "The {i} {s}.",
    "Hello, the {i} I have {s}.",
    "My {i} {s} since yesterday.",
    "Our {i} {s}, what now?",
    "I have a {i} and it {s}.",
    "There is a problem: my {i} {s}.",
    "I got a {i} last week and it {s}.",
    "What should I do when the {i} {s}?",
    "What can I do if my {i} {s}?",
    "It seems that my {i} {s}.",
    "My {i} {s}. Any advice?",
    "Can you help? The {i} {s}.",
    "Why is it that my {i} {s}?",
    "{i} {s}",
    "The new {i} of my mother {s}.",
    "Every day my {i} {s}.",
    "Sadly the {i} {s}. Help!",
    "I think the {i} {s}.",
    "Whenever I need it, my {i} {s}.",
    "I am writing about my {i}. It {s}.",
    "We have a {i} that {s}.",
    "Somebody please look at my {i}, it {s}.",
    "For a week now my {i} {s}.",
    "The {i} we use at work {s}.",
    "Do you know why the {i} {s}?",
    "I need help with a {i}: it {s}.",
    "My son's {i} {s}.",
    "Is it normal that the {i} {s}?",
    "I bought this {i} from you and now it {s}.",
    "You sold me a {i} that {s}.",
    "Today I noticed that my {i} {s}.",
    "How do I fix a {i} that {s}?",
    "Who repairs a {i} when it {s}?",
    "This {i} {s} and I do not know why.",
    "{i}: {s}",
    "It is about the {i}, which {s}.",
    "Yet again the {i} {s}.",
    "What now? The {i} of ours {s}.",
    "I must complain: the {i} {s}.",
)


def complaint(rng: Random, item: str, fault: Fault) -> str:
    """A customer's sentence about ``fault`` of ``item``."""
    return rng.choice(COMPLAINTS).format(i=item, s=rng.choice(fault.sayings))


def invented_fault(rng: Random) -> Fault:
    """A fault about one part, named and said in the same words: copying instead of meaning."""
    part = rng.choice(words.PARTS)
    symptom = rng.choice(words.SYMPTOMS)
    return Fault(
        f"{part} {symptom}",
        (f"has a problem: the {part} {symptom}", f"came with a {part} that {symptom}"),
    )


def sample_fault(rng: Random) -> Fault:
    """One of the listed faults, one made by grammar, or one about a part."""
    roll = rng.random()
    if roll < 0.35:
        return rng.choice(FAULTS)
    return symptom(rng) if roll < 0.85 else invented_fault(rng)


def sample_faults(rng: Random, count: int) -> tuple[Fault, ...]:
    """Up to ``count`` faults no two of which share a name or a wording: the customer's words must
    say which one it is.
    """
    found: list[Fault] = []
    used: set[str] = set()
    for _ in range(count):
        fault = sample_fault(rng)
        if not used & {fault.name, *fault.sayings}:
            found.append(fault)
            used |= {fault.name, *fault.sayings}
    return tuple(found)
