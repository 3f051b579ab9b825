"""Marks the words of a question in a passage, as the lexical ranking counts them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from serving.retrieval.stop_words import without_stop_words
from serving.retrieval.text_analysis import terms_of

_WORD = re.compile(r"\w+")
Piece = tuple[str, bool]  # (text, whether it is marked)


def mark_words(text: str, query: str, languages: Sequence[str]) -> list[Piece]:
    """Return the text in pieces; marked are words that share a stem with one of the question's.

    The pieces joined are the text. `languages`: ISO 639-1 codes, of the document and the like.
    """
    wanted = set(terms_of(without_stop_words(query, languages), languages))
    pieces: list[Piece] = []
    at = 0
    for match in _WORD.finditer(text):
        if wanted.isdisjoint(terms_of(match.group(), languages)):
            continue
        if match.start() > at:
            pieces.append((text[at : match.start()], False))
        pieces.append((match.group(), True))
        at = match.end()
    if at < len(text):
        pieces.append((text[at:], False))
    return pieces
