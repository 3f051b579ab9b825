"""Files of plain text as rows for continued pre-training.

A `.txt` file becomes rows of consecutive paragraphs, at most `SECTION` characters each, so that
some of it can be held out. A paragraph above that is cut at line feeds; a single longer line stays
one row. Between the rows only empty lines are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from training.data.shapes import TEXT

# About 1,000 tokens of English, the engine's default window: a row is then mostly one window, and
# 40 kilobytes of text are the 10 rows of which a tenth can be held out.
SECTION = 4000
_EMPTY_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")
_LEADING_LINES = re.compile(r"(?:[^\S\n]*\n)*")


def is_plain_text(content: str) -> bool:
    """Tell whether a `.txt` file holds text; else it holds a JSON object in each line."""
    return not content.lstrip().startswith(('{"', "{ "))


def text_rows(content: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line on which it starts, row) for the sections of a text, in order."""
    content = content.replace("\r\n", "\n")
    start = end = 0
    for piece_start, piece_end in _pieces(content):
        if end > start and piece_end - start > SECTION:
            yield _row(content, start, end)
            start = end = piece_start
        start = start if end > start else piece_start
        end = piece_end
    if end > start:
        yield _row(content, start, end)


def _row(content: str, start: int, end: int) -> tuple[int, dict[str, str]]:
    return content.count("\n", 0, start) + 1, {TEXT: content[start:end]}


def _pieces(content: str) -> Iterator[tuple[int, int]]:
    """Yield [start, end) of each paragraph, or of its lines where it is above SECTION."""
    leading = _LEADING_LINES.match(content)
    start = leading.end() if leading else 0
    edges = [(match.start(), match.end()) for match in _EMPTY_LINES.finditer(content, start)]
    for end, following in [*edges, (len(content.rstrip("\n")), len(content))]:
        if end - start <= SECTION:
            lines = [(start, end)]
        else:
            lines = [
                (start + match.start(), start + match.end())
                for match in re.finditer(r"[^\n]+", content[start:end])
            ]
        yield from ((first, last) for first, last in lines if content[first:last].strip())
        start = following
