"""Make passages say otherwise: one key fact of a row's answer is another one, in passage and
answer.

A row with passages (`context`) whose answer states a fact of theirs becomes a row in which passages
and answer agree on another value. A model that reads its passages gives the new value; one that
answers from its weights gives the old one. Pure functions of a row and a seed.

Facts are numbers, dates, times, codes and names, found by their form. A fact counts where it stands
in the answer and in a passage, and nowhere else in the conversation.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from training.data.rows import Row, read_lines

MADE_BY = "counterfactual"  # of the rows that training mixes in
NUMBER, DATE, TIME, CODE, NAME, DAY, WORD = "number", "date", "time", "code", "name", "day", "word"

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_NUMBER_WORDS = (
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
_MONTH = "|".join(_MONTHS)
# In this order: what an earlier form has taken, a later one does not look at.
_FORMS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (DATE, re.compile(r"(?<!\w)\d{4}-\d{2}-\d{2}(?!\w)")),
    (DATE, re.compile(rf"(?<!\w)\d{{1,2}} (?:{_MONTH})(?:,? \d{{4}})?(?!\w)")),
    (DATE, re.compile(rf"(?<!\w)(?:{_MONTH}) \d{{1,2}}(?:,? \d{{4}})?(?!\w)")),
    (TIME, re.compile(r"(?<![\w:])\d{1,2}:\d{2}(?![\w:])")),
    # Letters and digits in one word, such as L17 or AB-204; figures with a unit (20kg) are numbers.
    (CODE, re.compile(r"(?<![\w-])(?!\d+[A-Za-z]{1,3}\b)(?=[\w-]*[A-Za-z])(?=[\w-]*\d)[A-Za-z0-9]+(?:[-_][A-Za-z0-9]+)*(?![\w-])")),
    (NUMBER, re.compile(r"(?<![\w-])(?<!\d[.,])\d+(?:[.,]\d+)*(?!\d)")),
    (DAY, re.compile(rf"(?<!\w)(?:{'|'.join(_DAYS)})(?!\w)")),
    (WORD, re.compile(rf"(?<!\w)(?:{'|'.join(_NUMBER_WORDS)})(?!\w)")),
    # Capital letters within a sentence; at its beginning any word has one.
    (NAME, re.compile(r"(?<=[a-z,;] )[A-Z][\w'’]+(?: [A-Z][\w'’]+)*")),
)  # fmt: skip
_FIGURES = (NUMBER, WORD)
_CITATION = re.compile(r"\[\s*\d+\s*\]")  # `[1]` names a passage, it is no fact of one
# Of names that nobody has, so that no model knows anything about them.
_SYLLABLES = (
    "bra", "cor", "dal", "fen", "gal", "hov", "jun", "kel", "lor", "mer", "nar", "pel", "quin",
    "ros", "sol", "tav", "ul", "ven", "wil", "zan",
)  # fmt: skip
# A value of more of the answers is part of their manner, such as the house's name in a greeting.
_MANNER, _FEW_ANSWERS = 0.3, 10  # share of the answers; below so many rows nothing can be said
_TRIES = 50  # drawings of a value that does not occur in the row; of one digit there are nine
_LATEST_DAY, _LATEST_HOUR = 28, 23  # of dates in every month; of times


@dataclass(frozen=True, slots=True)
class Fact:
    """A value that an answer has from its passages."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """A row, and the same with passages and answer that agree on another value."""

    original: Row
    row: Row
    fact: Fact
    replacement: str

    def follows(self, answer: str) -> bool:
        """Whether an answer to `row` gives the value of its passages, and not the other one."""
        return states(answer, self.replacement) and not states(answer, self.fact.text)

    def keeps(self, answer: str) -> bool:
        """Whether an answer gives the value of the original row, which the passages of `row` no
        longer have: from the weights."""
        return states(answer, self.fact.text)


def manner_of(rows: Sequence[Row]) -> frozenset[str]:
    """Return the values, in small letters, that so many answers have that they are no facts asked
    for; none of fewer than 10 rows."""
    if len(rows) < _FEW_ANSWERS:
        return frozenset()
    counts = Counter(fact.text.casefold() for row in rows for fact in _facts(row.words))
    return frozenset(value for value, count in counts.items() if count > _MANNER * len(rows))


def key_facts(row: Row, manner: frozenset[str] = frozenset()) -> list[Fact]:
    """Return the values that the answer has from the passages alone, each once.

    `manner`: values that are none, see `manner_of`.

    Figures are left out where the answer repeats one of the question, or has one that stands in
    no passage: something is computed there, and would be wrong for another figure.
    """
    if not row.context or row.calls or row.is_text:
        return []
    answer = _CITATION.sub(" ", row.words)
    passages = "\n".join(row.context)
    others = "\n".join(str(message["content"]) for message in row.messages[:-1])
    found = _facts(answer)
    figures = [fact for fact in found if fact.kind in _FIGURES]
    computed = any(states(others, fact.text) or not states(passages, fact.text) for fact in figures)
    return [
        fact
        for fact in found
        if not (computed and fact.kind in _FIGURES)
        and fact.text.casefold() not in manner
        and states(passages, fact.text)
        and not states(others, fact.text)
    ]


def make_counterfactual(
    row: Row, seed: str, manner: frozenset[str] = frozenset()
) -> Counterfactual | None:
    """Return the row with one key fact replaced; None where it has none that can be.

    `seed` and the row's digest decide which one, and by what.
    """
    facts = key_facts(row, manner)
    if not facts:
        return None
    draw = random.Random(f"{seed}:{row.digest}")
    fact = draw.choice(facts)
    texts = "\n".join([*row.context, *(str(message["content"]) for message in row.messages)])
    replacement = _another(fact, texts, draw)
    if replacement is None:
        return None
    made = _with_replaced(row, fact, replacement)
    return Counterfactual(row, made, fact, replacement) if made else None


def states(text: str, value: str) -> bool:
    """Whether a value stands in a text as a word of its own: 18 does not stand in 118 or 18.5."""
    return _as_word(value).search(text) is not None


def _facts(text: str) -> list[Fact]:
    found: dict[str, Fact] = {}
    for kind, form in _FORMS:
        for match in form.finditer(text):
            found.setdefault(match.group().casefold(), Fact(kind, match.group()))
        text = form.sub(lambda match: " " * len(match.group()), text)
    return list(found.values())


def _as_word(value: str) -> re.Pattern[str]:
    before = r"(?<![\w-])(?<!\d[.,])" if value[0].isdigit() else r"(?<!\w)"
    after = r"(?!\d)(?![.,]\d)" if value[-1].isdigit() else r"(?!\w)"
    return re.compile(before + re.escape(value) + after, re.IGNORECASE)


def _another(fact: Fact, texts: str, draw: random.Random) -> str | None:
    """Return a value of the fact's kind that `texts` do not hold; None where none was drawn."""
    make = _MAKERS[fact.kind]
    for _ in range(_TRIES):
        value = make(fact.text, draw)
        if value.casefold() != fact.text.casefold() and not states(texts, value):
            return value
    return None


def _other_digits(text: str, draw: random.Random) -> str:
    """Return the text with other digits; a number of several keeps a first one above 0."""
    found, is_first = [], True
    for character in text:
        if character.isdigit():
            character = str(draw.randint(1, 9) if is_first else draw.randint(0, 9))
            is_first = False
        found.append(character)
    return "".join(found)


def _other_date(text: str, draw: random.Random) -> str:
    day, month = draw.randint(1, _LATEST_DAY), draw.randint(1, len(_MONTHS))
    if match := re.fullmatch(r"(\d{4})-\d{2}-\d{2}", text):
        return f"{match[1]}-{month:02d}-{day:02d}"
    text = re.sub(rf"(?:{_MONTH})", _MONTHS[month - 1], text)
    return re.sub(r"(?<!\d)\d{1,2}(?!\d)", str(day), text, count=1)


def _other_time(text: str, draw: random.Random) -> str:
    return f"{draw.randint(1, _LATEST_HOUR)}:{draw.choice(('00', '15', '30', '45'))}"


def _other_name(text: str, draw: random.Random) -> str:
    coined = ("".join(draw.sample(_SYLLABLES, 2)).capitalize() for _ in text.split(" "))
    return " ".join(coined)


def _one_of(values: Sequence[str]) -> Callable[[str, random.Random], str]:
    return lambda text, draw: draw.choice(values)


_MAKERS: dict[str, Callable[[str, random.Random], str]] = {
    NUMBER: _other_digits,
    CODE: _other_digits,
    DATE: _other_date,
    TIME: _other_time,
    NAME: _other_name,
    DAY: _one_of(_DAYS),
    WORD: _one_of(_NUMBER_WORDS),
}


def _with_replaced(row: Row, fact: Fact, replacement: str) -> Row | None:
    """Return the row as one of its own; None where that is no row (a template of its form)."""
    word = _as_word(fact.text)

    def replaced(text: str) -> str:
        return word.sub(lambda _: replacement, text)

    messages = row.weighted_messages()
    messages[-1] = {**messages[-1], "content": replaced(str(messages[-1]["content"]))}
    raw = {
        "id": f"{row.id}:{MADE_BY}",
        "messages": messages,
        "context": [replaced(text) for text in row.context],
        "checks": [replaced(check) for check in row.checks],
        "task": row.task or None,
        "user": row.user,
        "weight": row.weight,
        "tools": list(row.tools),
        "scrubbed": list(row.scrubbed),
        "train": row.mode,
        "origin": "synthetic",
        "parent": row.id,
        "made_by": MADE_BY,
    }
    kept = {name: value for name, value in raw.items() if value not in (None, [])}
    found = read_lines([json.dumps(kept, ensure_ascii=False).encode()]).rows
    return found[0] if found else None
