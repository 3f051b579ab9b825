"""Personal data in texts: found by linear-time patterns (google-re2), confirmed by libraries that
know the numbers, replaced by placeholders.

A pattern proposes, a check decides: e-mail addresses by form; IP addresses by the standard library;
IBANs and payment cards by their check digits (python-stdnum); phone numbers by the numbering plans
(phonenumbers). No pattern can take more than time linear in the text, and what a library is given
is some dozens of characters long.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial

import phonenumbers
import re2
from phonenumbers import SUPPORTED_REGIONS
from stdnum import iban, luhn

from whet.errors import InputError
from whet.json_types import Json, JsonObject
from whet.store import digest_json

KINDS = ("EMAIL", "IBAN", "CARD", "IP", "PHONE")
PLACEHOLDER = re.compile(rf"<({'|'.join(KINDS)})_([0-9]+)>")
# Letters of e-mail addresses beyond ASCII (RFC 6531): of scripts that put spaces between words. In
# Chinese or Japanese text an address stands between letters without a space, and it would take
# those with it.
_LETTERS = r"\p{Latin}\p{Greek}\p{Cyrillic}\p{Armenian}\p{Georgian}\p{Hebrew}\p{Arabic}\p{Devanagari}\p{Mn}"
# Candidates: for e-mail the thing itself, for the others a stretch of the characters that it is
# written in, or how it begins. No part of the first has a bound on its length: such large classes,
# repeated by count, would be more states than RE2 keeps, and it would find nothing.
_PATTERNS = {
    "EMAIL": (
        rf"[{_LETTERS}\p{{Nd}}._%+\-]+@[{_LETTERS}\p{{Nd}}](?:[{_LETTERS}\p{{Nd}}\-]*\.)+(?:xn--[A-Za-z0-9\-]+|[{_LETTERS}][{_LETTERS}]+)"
    ),
    "IBAN": r"\b[A-Za-z]{2}[0-9]{2} ?[A-Za-z0-9]{4}",
    "CARD": r"\b[0-9](?:[ \-]?[0-9]){12,}\b",
    "IP": r"[0-9A-Fa-f:.]{7,45}",
    "PHONE": r"[+(]*[0-9][0-9 ()./\-]{5,}[0-9]\b",
}
# Characters before the @ at most, by RFC 5321: more is text that ran into the address
_LOCAL_PART = 64
_IBAN_CHARACTERS = (15, 42)  # Norway's without spaces; the longest possible, 34, in groups of four
_CARD_DIGITS = (13, 19)
_GROUPS = 6  # in which either is written at most; a list of small numbers is neither
_PHONE_DIGITS = (7, 15)  # E.164 allows 15; shorter numbers than 7 belong to nobody
# Fields that tie rows together: a stable pseudonym instead of a placeholder
_IDENTIFIERS = ("id", "user", "group", "parent", "task")
# Of a field: without a digit, a dot and an @ there is nothing to find in it
_PLAIN_NAME = re.compile("[A-Za-z_]+")
_SAME_NAMES = {"parent": "id"}  # a parent is the id of another row: both get the same pseudonym


@dataclass(frozen=True, slots=True)
class Found:
    """One piece of personal data."""

    kind: str
    start: int
    end: int


def known_region(text: str) -> str | None:
    """A country as `find` takes it; None for an empty text.

    Raises InputError for what is no country: its phone numbers would never be found.
    """

    region = text.strip().upper()
    if region and region not in SUPPORTED_REGIONS:
        raise InputError(
            f"The region {text!r} is not one that phone numbers are known of.",
            hint="Give the two letters of ISO 3166, such as GB or DE.",
        )
    return region or None


def find(text: str, region: str | None = None) -> list[Found]:
    """Personal data in a text, in order, without overlaps.

    `region`: two letters of the country whose numbers may stand without +.

    Kinds that come first in KINDS win where two claim the same characters.
    """
    taken: list[Found] = []
    for kind in KINDS:
        found = [Found(kind, start, end) for start, end in _confirmed(kind, text, region)]
        if found:  # what is taken is blank for the kinds that follow
            characters = list(text)
            for each in found:
                characters[each.start : each.end] = "\n" * (each.end - each.start)
            text = "".join(characters)
        taken += found
    return sorted(taken, key=lambda found: found.start)


@cache
def _compiled(kind: str) -> re.Pattern[str]:
    compiled: re.Pattern[str] = re2.compile(_PATTERNS[kind])  # re2 has the same interface
    return compiled


def _confirmed(kind: str, text: str, region: str | None) -> Iterator[tuple[int, int]]:
    for match in _compiled(kind).finditer(text):
        start, end = match.span()
        if kind == "EMAIL":
            yield max(start, text.index("@", start) - _LOCAL_PART), end
        elif kind == "IP":
            yield from _ip(match.group(), start)
        elif kind == "IBAN":
            yield from _iban(text, start)
        elif kind == "CARD":
            yield from _numbers(text, start, end, _CARD_DIGITS, _is_card)
        else:
            yield from _numbers(text, start, end, _PHONE_DIGITS, partial(_is_phone, region=region))


def _numbers(
    text: str, start: int, end: int, digits: tuple[int, int], check: Callable[[str], bool]
) -> Iterator[tuple[int, int]]:
    """Of a stretch of digits and what is written between them, the parts that are numbers of a
    kind: from group to group, the longest first.
    """
    groups = [
        (start + group.start(), start + group.end(), len(re.sub("[^0-9]", "", group.group())))
        for group in re.finditer(r"[+(]*[0-9]+", text[start:end])
    ]
    first = 0
    while first < len(groups):
        held, last = 0, first
        while last < min(len(groups), first + _GROUPS) and held + groups[last][2] <= digits[1]:
            held += groups[last][2]
            last += 1
        for after in range(last, first, -1):
            if held < digits[0]:
                break
            if check(text[groups[first][0] : groups[after - 1][1]]):
                yield groups[first][0], groups[after - 1][1]
                first = after - 1
                break
            held -= groups[after - 1][2]
        first += 1


def _iban(text: str, start: int) -> Iterator[tuple[int, int]]:
    """The words after an IBAN look like more of it: the longest beginning with right check digits
    counts.
    """

    shortest, longest = _IBAN_CHARACTERS
    for stop in range(min(len(text), start + longest), start + shortest - 1, -1):
        whole = text[stop - 1].isalnum() and not text[stop : stop + 1].isalnum()
        if whole and iban.is_valid(text[start:stop]):
            yield start, stop
            return


def _ip(candidate: str, start: int) -> Iterator[tuple[int, int]]:
    """A full stop or a colon after an address belongs to the sentence."""
    for stripped in (candidate.strip("."), candidate.strip(".:")):
        if _is_ip(stripped):
            at = start + candidate.index(stripped)
            yield at, at + len(stripped)
            return


def _is_ip(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)  # those name no machine of anybody


def _is_card(text: str) -> bool:
    number = re.sub("[^0-9]", "", text)
    # The first digits that card schemes issue
    return number[0] in "23456" and luhn.is_valid(number)


def _is_phone(text: str, region: str | None) -> bool:
    if not (region or text.lstrip("(").startswith("+")):
        return False
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(text, region))
    except phonenumbers.NumberParseException:
        return False


@dataclass
class Scrubber:
    """Replaces personal data in one row: the same text gets the same placeholder wherever it stands
    in the row.
    """

    region: str | None = None
    find: Callable[[str, str | None], list[Found]] = find
    counts: Counter[str] = field(default_factory=Counter)  # kind -> pieces replaced in this row
    _names: dict[tuple[str, str], str] = field(default_factory=dict)
    _last: Counter[str] = field(default_factory=Counter)

    def row(self, raw: JsonObject) -> JsonObject:
        """The row without personal data, with the placeholders in it listed in `scrubbed`.

        Whatever goes wrong is raised: nothing is let through.
        """
        everything = "\n".join(texts_in(raw))
        for kind, number in PLACEHOLDER.findall(everything):
            self._last[kind] = max(self._last[kind], int(number))
        clean = self._object({name: value for name, value in raw.items() if name != "scrubbed"})
        used = sorted(
            {match.group() for match in PLACEHOLDER.finditer("\n".join(texts_in(clean)))}
            & {*self._names.values(), *_placeholders(raw)}
        )
        return {**clean, "scrubbed": [*used]} if used else clean

    def _field(self, name: str, value: Json) -> Json:
        if isinstance(value, dict):
            return self._object(value)
        if isinstance(value, list):
            return [self._field(name, item) for item in value]
        if (
            name in _IDENTIFIERS
            and isinstance(value, str | int)
            and self.find(str(value), self.region)
        ):
            self.counts["IDENTIFIER"] += 1
            return f"{_SAME_NAMES.get(name, name)}-{digest_json(['pseudonym', str(value)])[:16]}"
        if (
            isinstance(value, int)
            and not isinstance(value, bool)
            and self.find(str(value), self.region)
        ):
            return self._text(str(value))  # a card's number may be written as a number
        return self._text(value) if isinstance(value, str) else value

    def _object(self, value: JsonObject) -> JsonObject:
        """Names of fields are texts too: a table of addresses may have been turned on its side."""
        clean = {
            key if _PLAIN_NAME.fullmatch(key) else self._text(key): self._field(key, item)
            for key, item in value.items()
        }
        if len(clean) < len(value):
            raise ValueError("two names of fields that are one without personal data")
        return clean

    def _text(self, text: str) -> str:
        pieces, at = [], 0
        for found in self.find(text, self.region):
            pieces += [
                text[at : found.start],
                self._placeholder(found.kind, text[found.start : found.end]),
            ]
            self.counts[found.kind] += 1
            at = found.end
        return "".join([*pieces, text[at:]])

    def _placeholder(self, kind: str, text: str) -> str:
        key = (
            kind,
            (
                text.casefold()
                if kind == "EMAIL"
                else re.sub(r"[ ()./\-]", "", text).upper()
                if kind != "IP"
                else text
            ),
        )
        if key not in self._names:
            self._last[kind] += 1
            self._names[key] = f"<{kind}_{self._last[kind]}>"
        return self._names[key]


def _placeholders(raw: JsonObject) -> list[str]:
    known = raw.get("scrubbed")
    return [item for item in known if isinstance(item, str)] if isinstance(known, list) else []


def texts_in(value: Json) -> Iterator[str]:
    """Every text and whole number of a row at any depth, names of fields too: all that scrubbing
    looks at.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from texts_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item)
    elif isinstance(value, str | int):
        yield str(value)
