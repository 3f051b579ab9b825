"""How Zenith's customers ask.

Training and held-out wordings are separate lists that share no entry.

``{p}`` is the product (``Aurora`` or ``Aurora speaker``), ``{f}`` a clause that follows it
(``will not charge``), ``{a}`` a sentence about its age, or nothing.
"""

from dataclasses import dataclass

TRAINING, HELD_OUT = "training", "held_out"


@dataclass(frozen=True)
class Phrases:
    """All wordings of one split; ``sayings`` has clauses by fault, ``ages`` sentences with ``{m}``
    months.
    """

    templates: tuple[str, ...]
    sayings: dict[str, tuple[str, ...]]
    ages: tuple[str, ...]
    openers: tuple[str, ...]
    tails: tuple[str, ...]


TRAINING_PHRASES = Phrases(
    templates=(
        "My {p} {f}. {a}",
        "{a} My {p} {f}.",
        "The {p} {f}, what should I do? {a}",
        "I have a {p} and it {f}. {a}",
        "{a} Now the {p} {f}.",
        "What can I do if my {p} {f}? {a}",
        "Can you help? My {p} {f}. {a}",
        "There is a problem with my {p}: it {f}. {a}",
        "Our {p} {f}. {a} What now?",
        "Since yesterday my {p} {f}. {a}",
        "I need support for a {p} that {f}. {a}",
        "{p}: it {f}. {a}",
        "Is there a fix when the {p} {f}? {a}",
        "It looks like my {p} {f}. {a} Please advise.",
        "{a} It is a {p} and it {f}.",
        "Every day the {p} {f}. {a}",
        "Why is it that the {p} {f}? {a}",
        "My daughter's {p} {f}. {a} Am I covered?",
        "Sadly my {p} {f}. {a} Do I have warranty?",
        "The {p} I use {f}. {a} Who can help?",
        "I would like to report that my {p} {f}. {a}",
        "This morning my {p} {f}. {a} What do you recommend?",
        "Do you know why a {p} {f}? {a}",
        "I noticed that my {p} {f}. {a} What comes next?",
        "My wife's {p} {f}. {a} Is that known?",
        "{a} Somehow my {p} {f}.",
        "Please look at this: the {p} {f}. {a}",
        "Problem with the {p}, it {f}. {a} How can I get it repaired?",
        "At work our {p} {f}. {a}",
        "Last week I found that my {p} {f}. {a} What should I do next?",
        "Two weeks ago it began: my {p} {f}. {a}",
        "For some days now the {p} {f}. {a} What next?",
        "Lately the {p} {f}. {a} Where do I turn?",
    ),
    sayings={
        "charge": (
            "will not charge",
            "stopped charging",
            "does not charge any more",
            "cannot be charged",
            "takes no charge",
            "never charges",
            "has trouble charging",
        ),
        "noise": (
            "makes a buzzing noise",
            "is buzzing",
            "has a loud buzz",
            "keeps buzzing",
            "makes a strange noise",
            "buzzes all day",
            "produces a buzzing sound",
        ),
        "heat": (
            "gets too hot",
            "overheats",
            "becomes very hot",
            "is hot to the touch",
            "is far too hot",
            "heats up quickly",
            "heats up every time",
            "feels hot",
        ),
        "connection": (
            "does not connect",
            "loses the connection",
            "has no connection",
            "will not connect",
            "keeps losing its connection",
            "has lost the connection",
            "is not connecting",
        ),
        "crack": (
            "has a crack",
            "is cracked",
            "got a crack",
            "cracked when it fell",
            "has a crack on the side",
            "shows cracks",
            "came out of the box cracked",
        ),
        "button": (
            "has a stuck button",
            "has a button that is stuck",
            "has a button that does not move",
            "has a button that does nothing",
            "has a jammed button",
            "has one stuck button",
            "got a stuck button",
        ),
    },
    ages=(
        "I bought it {m} months ago.",
        "It is {m} months old.",
        "I got it {m} months ago.",
        "It was purchased {m} months ago.",
        "I have had it for {m} months.",
        "The receipt is {m} months old.",
        "Bought {m} months ago.",
        "I own it since {m} months.",
        "It has been with me for {m} months.",
        "We have used it for {m} months.",
        "The purchase is {m} months back.",
        "{m} months have passed since the purchase.",
        "Age: {m} months.",
        "My order was {m} months ago.",
    ),
    openers=(
        "Hi,",
        "Hello,",
        "Good morning,",
        "Dear team,",
        "Hey,",
        "Quick question:",
        "Hi there,",
        "Please help.",
    ),
    tails=(
        "Thanks!",
        "Thank you.",
        "Please hurry.",
        "Many thanks.",
        "Thanks in advance.",
        "Cheers",
        "I need it tomorrow.",
    ),
)
HELD_OUT_PHRASES = Phrases(
    templates=(
        "Unfortunately, the {p} that I own {f}. {a}",
        "What do you suggest when a {p} {f}? {a}",
        "I am writing because my {p} {f}. {a}",
        "{a} For some reason this {p} {f}.",
        "Could someone look into my {p}? It {f}. {a}",
        "A few days ago I saw that my {p} {f}. {a} What is the next step?",
        "We noticed that the {p} in our office {f}. {a}",
        "{a} Any idea why my {p} {f}?",
        "Trouble with the {p} again, it {f}. {a} How do I get help?",
    ),
    sayings={
        "charge": ("refuses to charge", "is not charging", "no longer charges"),
        "noise": ("started buzzing", "gives off a buzzing sound", "has a strange buzz"),
        "heat": ("is getting hot", "heats up too much", "is much too hot"),
        "connection": ("fails to connect", "drops the connection", "lost its connection"),
        "crack": ("shows a crack", "has a cracked case", "came with a crack"),
        "button": (
            "has one button that is jammed",
            "has a button stuck",
            "suffers from a stuck button",
        ),
    },
    ages=(
        "I have owned it for {m} months.",
        "My purchase was {m} months ago.",
        "It has been mine for {m} months.",
        "{m} months have gone by since I bought it.",
    ),
    openers=("Good afternoon,", "Greetings,", "To the support team:", "Excuse me,"),
    tails=("I would be glad about an answer.", "Kind regards", "Waiting for your reply."),
)
PHRASES = {TRAINING: TRAINING_PHRASES, HELD_OUT: HELD_OUT_PHRASES}
