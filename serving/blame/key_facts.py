"""Finds the key facts of an answer: numbers with units, dates, codes, names, and negation.

Pure functions. A fact is compared in a normal form: `2 years` is `24 months`, `€9.50` is
`9.5 euros`, `8:15 pm` is `20:15`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from enum import StrEnum

import msgspec

from serving.blame.units import COUNTED_UNITS, NUMBER_WORDS, unit_of


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_MONTHS = _words(
    "january february march april may june july august september october november december"
)
_MONTH_NAME = "|".join(f"{month[:3]}(?:{month[3:]})?" for month in _MONTHS)
_ISO_DATE = re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b")
_DAY_FIRST = re.compile(
    rf"\b(\d{{1,2}})(?:st|nd|rd|th)?\.?\s+(?:of\s+)?({_MONTH_NAME})\b\.?,?(?:\s+(\d{{4}})\b)?",
    re.IGNORECASE,
)
_MONTH_FIRST = re.compile(
    rf"\b({_MONTH_NAME})\.?\s+(\d{{1,2}})(?:st|nd|rd|th)?\b(?!\s*(?:am|pm|:))(?:,?\s+(\d{{4}})\b)?",
    re.IGNORECASE,
)
_DOTTED_DATE = re.compile(r"\b(\d{1,2})[./](\d{1,2})[./](\d{4})\b")
_CLOCK = re.compile(r"\b(\d{1,2}):(\d{2})\s*(am|pm)?\b|\b(\d{1,2})\s*(am|pm)\b", re.IGNORECASE)
# An address, an identifier, a word with letters and digits, or digits in groups as of a telephone.
_CODE = re.compile(
    r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+|\bhttps?://\S+[\w/]"
    r"|\b\w+(?:_\w+)+\b"
    r"|\b(?=[\w-]*[A-Za-z])(?=[\w-]*\d)[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*\b"
    r"|\+?\b\d{2,}(?:[ -]\d{2,})+\b|\b0\d{4,}\b"
)
_THOUSANDS = re.compile(r"\d{1,3}(?:[ ,]\d{3})+(?:\.\d+)?$")
_NUMBER = re.compile(
    r"(?P<sign>[€$£]\s*)?(?P<value>\d+(?:[.,]\d+)*|\b(?:" + "|".join(NUMBER_WORDS) + r")\b)"
    r"(?:\s?(?P<mark>[%€$£°])|[\s-]?(?P<unit>[^\W\d_]+))?",
    re.IGNORECASE,
)
# "24h", "5kg", "24-month": a number with its unit, not a code.
_NUMBER_WITH_UNIT = re.compile(r"\d+(?:[.,]\d+)?-?([^\W\d_]+)$")
_WORD = re.compile(r"[^\W\d_][\w'’-]*")
_SENTENCE = re.compile(r"[.!?]\s+|\n+")
_NEGATIONS = frozenset(
    _words("no not never none nobody nothing cannot without nor neither nicht kein keine nie")
)
_AROUND = " .,;!?:\"'()*_-|"  # of a sentence that is one word
# Capitalised words that name nothing.
_NO_NAMES = frozenset(_words("i i'm i'll i've ok yes no mr mrs ms dr dear kind regards hello hi"))
# Words that begin a sentence and belong to no name.
_STARTS = frozenset(
    _words("the a an my your our its for with about does is are can who what on in")
)


class FactKind(StrEnum):
    """What a fact is. `word` stands in where an answer has none of the others."""

    NUMBER = "number"
    DATE = "date"
    CODE = "code"
    NAME = "name"
    NEGATION = "negation"
    WORD = "word"


# What a document can state word for word, so that a passage can be checked for it.
DOCUMENTABLE = frozenset({FactKind.NUMBER, FactKind.DATE, FactKind.CODE, FactKind.NAME})


class Fact(msgspec.Struct, frozen=True):
    """One fact. `unit` is that of a number, in its base unit; empty where it has none."""

    kind: FactKind
    value: str
    unit: str = ""

    def __str__(self) -> str:
        if self.kind is FactKind.NEGATION:
            return "a negation" if self.value == "not" else "no negation"
        unit = f"{self.unit}s" if self.unit in COUNTED_UNITS and self.value != "1" else self.unit
        return f"{self.value} {unit}".strip()

    def equals(self, other: Fact) -> bool:
        """Tell whether both say the same; a number without a unit equals one that has it."""
        if self.kind is not other.kind or self.value != other.value:
            return False
        return self.unit == other.unit or not (self.unit and other.unit)


def find_facts(text: str) -> frozenset[Fact]:
    """Return the facts of a text, without negation (`is_negated`)."""
    rest = unicodedata.normalize("NFKC", text).replace("’", "'")
    found: set[Fact] = set()
    for find in (_find_dates, _find_clocks, _find_codes, _find_numbers):
        for fact, start, end in list(find(rest)):
            found.add(fact)
            rest = rest[:start] + "\0" * (end - start) + rest[end:]  # the same length: not twice
    found.update(_find_names(rest))
    return frozenset(found)


def is_negated(text: str) -> bool:
    """Tell whether a text denies something."""
    words = [word.lower().replace("’", "'") for word in _WORD.findall(text)]
    return any(word in _NEGATIONS or word.endswith("n't") for word in words)


def find_names(text: str) -> list[str]:
    """Return names and codes of a text in lower case: what it is about."""
    facts = find_facts(text)
    return sorted(fact.value for fact in facts if fact.kind in (FactKind.NAME, FactKind.CODE))


_Found = Iterator[tuple[Fact, int, int]]


def _find_dates(text: str) -> _Found:
    for match in _ISO_DATE.finditer(text):
        year, month, day = match.groups()
        yield _date(year, month, day, match)
    for match in _DOTTED_DATE.finditer(text):
        day, month, year = match.groups()
        yield _date(year, month, day, match)
    for match in _DAY_FIRST.finditer(text):
        day, month, year = match.groups()
        yield _date(year, str(_month(month)), day, match)
    for match in _MONTH_FIRST.finditer(text):
        month, day, year = match.groups()
        yield _date(year, str(_month(month)), day, match)


def _date(year: str | None, month: str, day: str, match: re.Match[str]) -> tuple[Fact, int, int]:
    value = f"{year or '-'}-{int(month):02d}-{int(day):02d}"
    return Fact(FactKind.DATE, value), match.start(), match.end()


def _month(name: str) -> int:
    return next(n for n, month in enumerate(_MONTHS, 1) if month.startswith(name.lower()[:3]))


def _find_clocks(text: str) -> _Found:
    for match in _CLOCK.finditer(text):
        hour = int(match[1] or match[4])
        half = (match[3] or match[5] or "").lower()
        if half:
            hour = hour % 12 + (12 if half == "pm" else 0)
        value = f"{hour:02d}:{match[2] or '00'}"
        yield Fact(FactKind.NUMBER, value, "time"), match.start(), match.end()


def _find_codes(text: str) -> _Found:
    for match in _CODE.finditer(text):
        code = match.group()
        with_unit = _NUMBER_WITH_UNIT.match(code)
        if _THOUSANDS.match(code) or (with_unit and unit_of(with_unit[1]) is not None):
            continue
        yield Fact(FactKind.CODE, code.casefold().rstrip(".")), match.start(), match.end()


def _find_numbers(text: str) -> _Found:
    joined = re.sub(r"(?<=\d) (?=\d{3}\b)", ",", text)  # 20 000; the same length
    for match in _NUMBER.finditer(joined):
        written = match["value"].lower()
        number = NUMBER_WORDS.get(written)
        if number is None:
            number = _read_number(written)
        elif not match["unit"] or unit_of(match["unit"]) is None:
            continue  # "one of them" counts nothing
        sign = (match["sign"] or match["mark"] or "").strip()
        scale = unit_of(sign) if sign else unit_of(match["unit"] or "")
        unit, factor = scale or ("", 1.0)
        end = match.end() if scale else match.end("value")
        yield Fact(FactKind.NUMBER, f"{number * factor:.10g}", unit), match.start(), end


def _read_number(text: str) -> float:
    """Read `1,200`, `9.50`, `1.200,50` and `9,5`."""
    last = max(text.rfind("."), text.rfind(","))
    if last < 0:
        return float(text)
    mark, after = text[last], len(text) - last - 1
    is_thousands = after == 3 and (text.count(mark) > 1 or mark == ",")
    whole = re.sub(r"[.,]", "", text if is_thousands else text[:last]) or "0"
    return float(whole if is_thousands else f"{whole}.{text[last + 1 :]}")


def _find_names(text: str) -> Iterator[Fact]:
    for sentence in _SENTENCE.split(text):
        yield from _names_of(sentence)


def _names_of(sentence: str) -> Iterator[Fact]:
    words = [(match.group(), match.start(), match.end()) for match in _WORD.finditer(sentence)]
    group: list[int] = []
    for at in range(len(words) + 1):
        is_name = at < len(words) and _is_capitalised(words[at][0])
        follows = bool(group) and is_name and sentence[words[at - 1][2] : words[at][1]] == " "
        if group and not follows:
            is_whole = len(words) == 1 and sentence.strip(_AROUND) == words[0][0]
            yield from _name(words, group, is_whole=is_whole)
            group = []
        if is_name:
            group.append(at)


def _name(words: list[tuple[str, int, int]], group: list[int], *, is_whole: bool) -> Iterator[Fact]:
    """Yield the name; a sentence's first word alone is none, unless it is the whole sentence."""
    is_start = len(group) == 1 or words[0][0].lower() in _STARTS
    if group[0] == 0 and is_start and not is_whole:
        group = group[1:]
    name = " ".join(words[at][0] for at in group).casefold().removesuffix("'s")
    if name and name not in _NO_NAMES:
        yield Fact(FactKind.NAME, name)


def _is_capitalised(word: str) -> bool:
    return word[0].isupper() and word.lower() not in _NO_NAMES
