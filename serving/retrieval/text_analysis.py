"""Makes the terms that the lexical index holds: words, stemmed by language, and CJK bigrams."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache

import Stemmer

# ISO 639-1 → the Snowball stemmer.
_STEMMERS = {
    "ar": "arabic", "ca": "catalan", "da": "danish", "nl": "dutch", "en": "english",
    "fi": "finnish", "fr": "french", "de": "german", "el": "greek", "hi": "hindi",
    "hu": "hungarian", "id": "indonesian", "it": "italian", "lt": "lithuanian", "ne": "nepali",
    "no": "norwegian", "nb": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian",
    "sr": "serbian", "es": "spanish", "sv": "swedish", "ta": "tamil", "tr": "turkish",
}  # fmt: skip
_UNKNOWN = "en"  # of a document whose language is unknown: English endings are few
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
# A run of CJK characters, or a word; an identifier such as max_connections is one word.
_TOKEN = re.compile(rf"[{_CJK}]+|(?:(?![{_CJK}])\w)+")
_IS_CJK = re.compile(rf"[{_CJK}]")
_CACHED_WORDS = 200_000


def terms_of(text: str, languages: Sequence[str]) -> list[str]:
    """Return the terms of a text in order, each word once per language's stem.

    An identifier with underscores gives itself and its parts. CJK text, which has no spaces,
    gives overlapping pairs of characters.
    """
    found: list[str] = []
    for match in _TOKEN.finditer(unicodedata.normalize("NFKC", text).lower()):
        token = match.group()
        if _IS_CJK.match(token):
            found += _bigrams(token)
            continue
        for word in _words(token):
            found += _stems(word, tuple(languages))
    return found


def _words(token: str) -> Iterator[str]:
    if "_" not in token:
        yield token
        return
    parts = [part for part in token.split("_") if part]
    if len(parts) > 1:
        yield token.strip("_")
    yield from parts


def _bigrams(run: str) -> list[str]:
    return [run[at : at + 2] for at in range(len(run) - 1)] or [run]


@lru_cache(maxsize=_CACHED_WORDS)
def _stems(word: str, languages: tuple[str, ...]) -> tuple[str, ...]:
    stems = (_stemmer(language).stemWord(word) for language in languages or (_UNKNOWN,))
    return tuple(dict.fromkeys(stems))


@cache
def _stemmer(language: str) -> Stemmer.Stemmer:
    return Stemmer.Stemmer(_STEMMERS.get(language, _STEMMERS[_UNKNOWN]))
