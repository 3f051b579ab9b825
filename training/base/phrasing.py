"""How customers ask: question cores with openers, small talk, hurry, typing errors around them."""

from collections.abc import Callable
from random import Random

from training.base import values, words
from training.base.attributes import ATTRIBUTES, GENERIC_QUESTIONS, KIND_QUESTIONS

OPENERS = (
    "Hi,",
    "Hello,",
    "Hello!",
    "Hi there,",
    "Good morning,",
    "Good evening,",
    "Hey,",
    "Dear team,",
    "Excuse me,",
    "Quick question:",
    "Sorry to bother you,",
    "Please help.",
    "I have a question.",
    "One more thing:",
    "Dear Sir or Madam,",
    "Well,",
    "So,",
    "Okay,",
    "I hope you can help me.",
    "First time here.",
    "Long-time customer here.",
    "My name is {p}.",
    "This is {p}.",
    "{p} speaking.",
)
TAILS = (
    "Thanks!",
    "Thank you.",
    "Please hurry.",
    "Many thanks, {p}",
    "I am in a hurry.",
    "Please advise.",
    "Cheers",
    "Thanks in advance.",
    "I could not find it on your page.",
    "Nobody could tell me.",
    "It is urgent.",
    "Best, {p}",
    "Any help is welcome.",
    "Please be quick.",
    "I am leaving on {d}.",
    "My order is {c}.",
    "I live near {b}.",
    "Looking forward to your answer.",
    "Kind regards, {p}",
)
ASIDES = (
    "I bought it in {b} with my sister.",
    "My neighbour {p} has the same.",
    "I saw it in an advert in {m}.",
    "It was a present from {p}.",
    "I have been a customer since {m}.",
    "We use it every day.",
    "My order number is {c}.",
    "I already asked {p} about this.",
    "It is for my daughter.",
    "I am writing from {b}.",
    "The weather is terrible today.",
    "We moved here on {d}.",
    "I am {n} years old.",
    "My old one was fine for {t}.",
    "I have read the manual twice.",
    "There are {n} of us.",
    "I paid {y} for it.",
    "I am not good with technology.",
)
NEIGHBOURS = dict(zip("abcdefghiklmnoprstuvwy", "svxsdrghujkonmpltydrbct", strict=False))


def _fill(rng: Random, text: str) -> str:
    """Fill the placeholders of small talk."""
    makers: dict[str, Callable[[], str]] = {
        "{p}": lambda: rng.choice(words.FIRST_NAMES),
        "{b}": lambda: words.brand(rng),
        "{d}": lambda: values.day(rng),
        "{c}": lambda: words.code(rng),
        "{m}": lambda: rng.choice(words.MONTHS),
        "{n}": lambda: str(words.whole(rng, 90)),
        "{t}": lambda: values.duration(rng),
        "{y}": lambda: values.money(rng),
    }
    for key, make in makers.items():
        if key in text:
            text = text.replace(key, make())
    return text


def typo(rng: Random, text: str, protect: tuple[str, ...] = ()) -> str:
    """Swap, drop, double or mistype one letter of a long word that is not part of a protected name."""
    parts = text.split(" ")
    kept = " ".join(protect)
    spots = [
        n for n, part in enumerate(parts) if len(part) > 4 and part.isalpha() and part not in kept
    ]
    if not spots:
        return text
    spot = rng.choice(spots)
    word = parts[spot]
    at = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        word = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    elif kind == 1:
        word = word[:at] + word[at + 1 :]
    elif kind == 2:
        word = word[:at] + word[at] + word[at:]
    else:
        word = word[:at] + NEIGHBOURS.get(word[at], word[at]) + word[at + 1 :]
    parts[spot] = word
    return " ".join(parts)


def roughen(rng: Random, core: str, protect: tuple[str, ...] = ()) -> str:
    """Wrap a question in small talk and handle it roughly; names in ``protect`` keep their letters."""
    text = core
    if rng.random() < 0.18:
        aside = _fill(rng, rng.choice(ASIDES))
        text = f"{text} {aside}" if rng.random() < 0.4 else f"{aside} {text}"
    if rng.random() < 0.3:
        text = f"{_fill(rng, rng.choice(OPENERS))} {text}"
    if rng.random() < 0.22:
        text = f"{text} {_fill(rng, rng.choice(TAILS))}"
    roll = rng.random()
    if roll < 0.1:
        text = text.lower()
    elif roll < 0.16:
        text = text.rstrip("?.!")
    elif roll < 0.18:
        text = text.replace(",", "").replace("?", "??")
    if rng.random() < 0.1:
        text = typo(rng, text, protect)
    return text


def question(rng: Random, item: str, label: str) -> str:
    """The core of a question about one attribute of one item."""
    attribute = ATTRIBUTES[label]
    roll = rng.random()
    if roll < 0.55:
        pool = attribute.questions
    elif roll < 0.75 and attribute.kind in KIND_QUESTIONS:
        pool = KIND_QUESTIONS[attribute.kind]
    else:
        pool = GENERIC_QUESTIONS
    return rng.choice(pool).format(i=item, l=label)


JOINTS = (
    "{} And {}",
    "{} Also, {}",
    "{} I also want to know: {}",
    "1. {} 2. {}",
    "{} Then: {}",
    "{} One more: {}",
)


def double_question(rng: Random, item: str, first: str, second: str) -> str:
    """Two attributes of one item asked in one message."""
    if rng.random() < 0.4:
        layout = rng.choice(
            (
                "What are the {a} and the {b} of the {i}?",
                "Tell me the {a} and {b} for the {i}.",
                "{i}: {a} and {b}?",
                "I need both the {a} and the {b} of the {i}.",
                "Please give me {a} as well as {b} of the {i}.",
            )
        )
        return layout.format(a=first, b=second, i=item)
    other = question(rng, item, second)
    return rng.choice(JOINTS).format(
        question(rng, item, first), other[0].lower() + other[1:] if rng.random() < 0.5 else other
    )
