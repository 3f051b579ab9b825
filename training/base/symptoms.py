"""Faults made by grammar: one symptom said in every way that English has for it.

``does not print``, ``refuses to print``, ``is not printing``, ``no longer prints``: a customer may
use any of them, and the policy one more. ``faults`` lists what needs a human ear; this module adds
a few hundred faults whose wordings follow from the word alone, so that the model learns the forms
and not the words.
"""

from random import Random

from training.base.fault import Fault

VERBS = (  # noqa: SIM905
    "charge connect start open close print spin heat cool play ring load save sync pair scan record"
    " freeze drain pump turn move respond unlock lock fold cut mix brew toast inflate steer brake"
    " shift glow vibrate dry rinse sort wake update boot zoom focus"
).split()
SOUNDS = (
    "buzz hum rattle squeak click hiss whistle knock crackle beep howl rumble clank whine chirp"  # noqa: SIM905
    " grind".split()
)
STATES = (
    "hot warm cold loud dim dark slow weak soft bright stiff wet dusty dirty sticky loose tight"  # noqa: SIM905
    " heavy sharp flat".split()
)
DAMAGES = "crack dent scratch stain chip mark bend leak".split()  # noqa: SIM905
PARTS = (
    "button key lid handle filter wheel door screen switch valve cable hinge strap pedal tray lens"  # noqa: SIM905
    " cover drawer knob plug".split()
)
# Each group is one condition of a part in several words, adjectives first and clauses after the
# bar.
CONDITIONS = (
    ("stuck jammed blocked", "does not move|will not move|is stuck"),
    ("broken dead defective", "does not work|does nothing|is broken"),
    ("loose wobbly", "is coming off|hangs loose|does not hold"),
    ("missing", "is missing|is not there|was never in the box"),
    ("bent crooked", "is bent|is not straight|is out of shape"),
    ("worn faded", "is worn out|has had its day"),
)
LINKS = (
    ("connection", "connect"),
    ("signal", ""),
    ("link", "link up"),
    ("picture", ""),
    ("sound", ""),
    ("power", "power up"),
    ("network", "log in"),
    ("pressure", ""),
    ("light", "light up"),
)
REFUSALS = (  # noqa: SIM905
    "does not {v}|will not {v}|won't {v}|cannot {v}|refuses to {v}|fails to {v}|is not {g}|no"
    " longer {s}|never {s}|stopped {g}|has stopped {g}|is unable to {v}|does not {v} any more|has"
    " trouble {g}|does not start {g}|has not been {g}|doesn't {v}|would not {v}|shows no sign of"
    " {g}|has quit {g}|hardly {s}"
).split("|")
NOISES = (  # noqa: SIM905
    "is {g}|keeps {g}|started {g}|started to {v}|makes a {g} noise|gives off a {g} sound|{s} all"
    " day|{s} loudly|has a loud {v}|has a strange {v}|began to {v}|produces a {g} sound|emits a"
    " {v}|will not stop {g}|has been {g}|has a {g} sound|makes a strange {g} noise|{s}"
).split("|")
TOO = (  # noqa: SIM905
    "is too {a}|is far too {a}|is much too {a}|is very {a}|gets too {a}|gets very {a}|gets"
    " {a}|becomes {a}|becomes too {a}|has become {a}|is getting {a}|gets {a} quickly|feels"
    " {a}|turns {a}|is {a} all the time|is so {a}|got {a}|has been {a}|is {a}"
).split("|")
HARMS = (  # noqa: SIM905
    "has a {n}|shows a {n}|came with a {n}|got a {n}|has a {n} on the side|has {n}s|shows {n}s|has"
    " a {d} case|is {d}|arrived {d}|arrived with a {n}|has a big {n}|has a {d} side|was delivered"
    " with a {n}|suffers from a {n}|has a {n} in the case|came out of the box {d}"
).split("|")
PART_HARMS = (  # noqa: SIM905
    "has a {a} {p}|has a {p} that is {a}|has one {p} that is {a}|has a {p} {a}|suffers from a {a}"
    " {p}|came with a {a} {p}|shows a {a} {p}|has one {a} {p}|got a {a} {p}|has a problem with a"
    " {a} {p}"
).split("|")
LOSSES = (  # noqa: SIM905
    "has no {n}|loses the {n}|lost its {n}|lost the {n}|drops the {n}|keeps losing its {n}|keeps"
    " losing the {n}|finds no {n}|has lost the {n}|is without {n}|gets no {n}|has a bad {n}|cannot"
    " keep the {n}|cannot find a {n}"
).split("|")


def third(verb: str) -> str:
    """``print`` → ``prints``; of several words, the first changes."""
    first, _, rest = verb.partition(" ")
    if first.endswith(("s", "sh", "ch", "x", "z")):
        first += "es"
    elif first.endswith("y") and first[-2] not in "aeiou":
        first = first[:-1] + "ies"
    else:
        first += "s"
    return f"{first} {rest}".strip()


def doubled(verb: str) -> str:
    """The stem before ``ing`` and ``ed``: ``spin`` → ``spinn``, ``charge`` → ``charg``."""
    if verb.endswith("e") and not verb.endswith("ee"):
        return verb[:-1]
    vowels = "aeiou"
    short = (
        len(verb) > 2
        and verb[-1] not in vowels + "wxy"
        and verb[-2] in vowels
        and verb[-3] not in vowels
    )
    return verb + verb[-1] if short and verb not in ("open", "focus", "rattle") else verb


def gerund(verb: str) -> str:
    """``print`` → ``printing``."""
    first, _, rest = verb.partition(" ")
    return f"{doubled(first)}ing {rest}".strip()


def _refusal(rng: Random) -> Fault:
    verb = rng.choice(VERBS)
    forms = {"v": verb, "s": third(verb), "g": gerund(verb)}
    name = rng.choice(("does not {v}", "not {g}", "no {g}", "{g} problem")).format(**forms)
    return Fault(name, tuple(pattern.format(**forms) for pattern in REFUSALS))


def _noise(rng: Random) -> Fault:
    verb = rng.choice(SOUNDS)
    forms = {"v": verb, "s": third(verb), "g": gerund(verb)}
    return Fault(
        rng.choice(("{g}", "{g} noise", "a {v}")).format(**forms),
        tuple(pattern.format(**forms) for pattern in NOISES),
    )


def _state(rng: Random) -> Fault:
    state = rng.choice(STATES)
    return Fault(
        rng.choice(("too {a}", "gets {a}", "{a}")).format(a=state),
        tuple(pattern.format(a=state) for pattern in TOO),
    )


def _damage(rng: Random) -> Fault:
    noun = rng.choice(DAMAGES)
    forms = {"n": noun, "d": "bent" if noun == "bend" else doubled(noun) + "ed"}
    return Fault(
        rng.choice(("{n}", "{d} case", "{d}")).format(**forms),
        tuple(pattern.format(**forms) for pattern in HARMS),
    )


def _part(rng: Random) -> Fault:
    part, (adjectives, clauses) = rng.choice(PARTS), rng.choice(CONDITIONS)
    words = adjectives.split()
    sayings = [pattern.format(a=word, p=part) for word in words for pattern in PART_HARMS]
    sayings += [f"has a {part} that {clause}" for clause in clauses.split("|")]
    return Fault(f"{words[0]} {part}", tuple(dict.fromkeys(sayings)))


def _loss(rng: Random) -> Fault:
    noun, verb = rng.choice(LINKS)
    sayings = [pattern.format(n=noun) for pattern in LOSSES]
    if verb:
        sayings += [pattern.format(v=verb, s=third(verb), g=gerund(verb)) for pattern in REFUSALS]
    return Fault(rng.choice((f"no {noun}", f"lost {noun}", f"{noun} problem")), tuple(sayings))


KINDS = (_refusal, _refusal, _noise, _state, _state, _damage, _part, _part, _loss)


def symptom(rng: Random) -> Fault:
    """A fault with ten to thirty wordings."""
    return rng.choice(KINDS)(rng)
