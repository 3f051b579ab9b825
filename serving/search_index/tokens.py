"""Splits texts into the words that a search compares, the same for both databases.

Letters are compared without case and, in the Latin, Greek and Cyrillic scripts, without accents. A
character of a script that is written without spaces is a word by itself, so that a phrase of them
is found inside of a sentence.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable

# A row's first words of a text; a tsvector of PostgreSQL knows places up to 16,383
MOST_TOKENS = 8_000
LONGEST_TOKEN = 64  # characters; what is longer is several words in a row
FIELD_MARK = "="  # begins the token of a filter's value; no word of a text holds it
# Stands between question and answer, so that no phrase is found across; every row has it
EVERY_ROW = f"{FIELD_MARK}row"

_ACCENTED = ((0x00C0, 0x0530), (0x1E00, 0x2000))  # Latin, Greek, Cyrillic
_UNSPACED = (
    (0x0E00, 0x0F00), (0x1000, 0x10A0), (0x1780, 0x1800),  # Thai, Lao, Burmese, Khmer
    (0x3040, 0x3100), (0x31F0, 0x3200), (0x3400, 0x4DC0), (0x4E00, 0xA000),  # kana, ideographs
    (0xF900, 0xFB00), (0x20000, 0x323B0),
)  # fmt: skip


class _Folding(dict[int, str]):
    """Character → what is indexed for it; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        folded = self[code] = _fold_character(chr(code))
        return folded


def _fold_character(character: str) -> str:
    if unicodedata.category(character)[0] not in "LNM":
        return " "
    code = ord(character)
    if any(first <= code < end for first, end in _ACCENTED):
        parts = unicodedata.normalize("NFKD", character)
        character = "".join(part for part in parts if not unicodedata.combining(part))
    else:
        character = unicodedata.normalize("NFKC", character)
    folded = "".join(
        part if unicodedata.category(part)[0] in "LNM" else " " for part in character.casefold()
    )
    if any(first <= code < end for first, end in _UNSPACED):
        return f" {folded} "
    return folded


class _NarrowFolding(dict[int, str]):
    """The same with one character for each, so that places stay as they are."""

    def __missing__(self, code: int) -> str:
        narrow = self[code] = (_folding[code].strip() or " ")[0]
        return narrow


_folding = _Folding()
_narrow_folding = _NarrowFolding()


def split_tokens(text: str, most: int = MOST_TOKENS) -> list[str]:
    """Return the words of a text in their order, `most` of them."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    tokens = text.translate(_folding).split(maxsplit=most)[:most]
    if all(len(token) <= LONGEST_TOKEN for token in tokens):
        return tokens
    pieces = [
        token[start : start + LONGEST_TOKEN]
        for token in tokens
        for start in range(0, len(token), LONGEST_TOKEN)
    ]
    return pieces[:most]


def fold_in_place(text: str) -> str:
    """Return the text as it is compared, each character in its place; what is no letter or digit is
    a space."""
    return text.translate(_narrow_folding)


def is_unspaced(token: str) -> bool:
    """Whether the word is a character of a script that is written without spaces."""
    return any(first <= ord(token[0]) < end for first, end in _UNSPACED)


def field_token(field: str, value: str) -> str:
    """Return the token of a filter's value. It holds a hash, so any value may be in it."""
    digest = hashlib.blake2b(value.encode("utf-8", "replace"), digest_size=8).hexdigest()
    return f"{FIELD_MARK}{field}{digest}"


def as_tsvector(tokens: Iterable[str]) -> str:
    """Return PostgreSQL's text of a tsvector: each word with its places, counted from 1."""
    places: dict[str, list[str]] = {}
    for place, token in enumerate(tokens, 1):
        places.setdefault(token, []).append(str(min(place, 16_383)))
    return " ".join(f"'{token}':{','.join(at[:255])}" for token, at in places.items())
