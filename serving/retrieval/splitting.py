"""Divides one text into parts of at most so many tokens, at the best places it has."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

CountTokens = Callable[[str], int]
# A sentence ends at its mark and the space after it, or at a full stop of Chinese or Japanese.
_SENTENCE_END = re.compile(r"(?<=[.!?…][\"'”’)\]])\s+|(?<=[.!?…])\s+|(?<=[。！？])\s*|\n+")
_LINE_END = re.compile(r"\n")
_WORD_END = re.compile(r"\s+")


def without_special(count: CountTokens) -> CountTokens:
    """Return a counter of a part's own tokens, without those that a whole text gets once."""
    special = count("")
    return lambda text: count(text) - special


def split_text(text: str, limit: int, count: CountTokens) -> list[str]:
    """Divide prose between sentences, a long sentence between words, a long word anywhere."""
    return list(_pack(_SENTENCE_END.split(text), " ", limit, count))


def split_lines_of(text: str, limit: int, count: CountTokens) -> list[str]:
    """Divide code or a table between lines; a line that is too long like prose."""
    return list(_pack(_LINE_END.split(text), "\n", limit, count))


def split_table(text: str, has_header: bool, limit: int, count: CountTokens) -> list[str]:
    """Divide a table between rows, with its header in front of each part."""
    header, _, rows = text.partition("\n") if has_header else ("", "", text)
    # A header that takes most of the room is no help.
    if not header or not rows or count(header) > limit // 2:
        return split_lines_of(text, limit, count)
    parts = split_lines_of(rows, limit - count(header), count)
    return [f"{header}\n{part}" for part in parts]


def _pack(pieces: Iterable[str], joint: str, limit: int, count: CountTokens) -> Iterator[str]:
    """Join pieces again while they fit, and divide those that do not fit alone."""
    gathered, tokens = "", 0
    for piece in pieces:
        if not piece.strip():
            continue
        size = count(piece)
        if gathered and tokens + size > limit:
            yield gathered
            gathered, tokens = "", 0
        if size > limit:
            yield from _divide(piece, limit, count)
            continue
        gathered = f"{gathered}{joint}{piece}" if gathered else piece
        tokens += size
    if gathered:
        yield gathered


def _divide(piece: str, limit: int, count: CountTokens) -> Iterator[str]:
    words = _WORD_END.split(piece.strip())
    if len(words) > 1:
        yield from _pack(words, " ", limit, count)
        return
    while count(piece) > limit:  # one word: halve what is cut off until it fits
        end = max(len(piece) // 2, 1)
        while end > 1 and count(piece[:end]) > limit:
            end //= 2
        yield piece[:end]
        piece = piece[end:]
    if piece:
        yield piece


def shorten(text: str, limit: int, count: CountTokens) -> str:
    """Return `text`, or its first words, in at most `limit` tokens."""
    if count(text) <= limit:
        return text
    parts = split_text(text, max(limit - count("…"), 1), count)
    return f"{parts[0]}…" if parts else ""
