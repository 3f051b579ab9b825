"""Divides a document into passages along its structure.

A passage is a section, or a part of one: it never goes on into another section, unless the section
is small and the two lie side by side under one heading. Its heading path stands in `section`.
Tables and code stay whole where they fit. Passages do not overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from serving.retrieval.parsing.blocks import Block, Kind
from serving.retrieval.passages import SECTION_SEPARATOR, embedded_text
from serving.retrieval.splitting import (
    CountTokens,
    shorten,
    split_lines_of,
    split_table,
    split_text,
    without_special,
)

VERSION = 2  # raise it when the same document gives other passages
DEFAULT_CHUNK_TOKENS = 200  # of the 256 that MiniLM reads; its count and others' differ a little
LEAST_CHUNK_TOKENS = 32
_SMALL_SHARE = 0.4  # of the limit; a section below joins its neighbour
_PATH_SHARE = 0.35  # of the limit, that title and headings may take
_TITLE_SHARE = 0.25
_SLACK = 2  # tokens by which a text may count more than its parts


@dataclass(frozen=True)
class Chunk:
    """A passage before it has an id."""

    section: str
    text: str
    tokens: int
    page: int | None


@dataclass
class _Unit:
    """What stays together: a block, or a part of one that is too long."""

    text: str
    tokens: int
    page: int | None
    opens: bool = False  # belongs to what follows it
    is_alone: bool = False  # a record


@dataclass
class _Section:
    path: tuple[str, ...]
    units: list[_Unit] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(unit.tokens for unit in self.units)


def shorten_title(title: str, chunk_tokens: int, count: CountTokens) -> str:
    """Return a title that leaves room for text in a passage."""
    return shorten(title, int(chunk_tokens * _TITLE_SHARE), count)


def chunk(
    title: str, blocks: Sequence[Block], chunk_tokens: int, count: CountTokens
) -> list[Chunk]:
    """Divide blocks into chunks of at most `chunk_tokens`, title and headings included.

    `count` is the embedder's; `title` comes from `shorten_title`.
    """
    chunks: list[Chunk] = []
    sections = list(_sections(blocks, title, chunk_tokens, count))
    for section in _joined(sections, chunk_tokens, title, count):
        chunks += _packed(section, title, chunk_tokens, count)
    return chunks


def _sections(
    blocks: Sequence[Block], title: str, chunk_tokens: int, count: CountTokens
) -> Iterator[_Section]:
    headings: list[tuple[int, str]] = []
    section = _Section(())
    for block in blocks:
        if block.kind is Kind.HEADING:
            if section.units:
                yield section
            headings = [known for known in headings if known[0] < block.level]
            headings.append((block.level, block.text))
            section = _Section(tuple(text for _, text in headings))
        else:
            room = _room(section.path, title, chunk_tokens, count)
            section.units += _units(block, room, count)
    if section.units:
        yield section


def _room(path: tuple[str, ...], title: str, chunk_tokens: int, count: CountTokens) -> int:
    """Return the tokens that are left for text beside title and headings."""
    told = _path_text(path, title, chunk_tokens, count)
    left = chunk_tokens - count(embedded_text(title, told, "")) - _SLACK
    return max(left, chunk_tokens // 4)


def _path_text(path: tuple[str, ...], title: str, chunk_tokens: int, count: CountTokens) -> str:
    """Return the path as text: headings from the inside out, as many as have room."""
    limit = int(chunk_tokens * _PATH_SHARE)
    kept = list(path)
    while len(kept) > 1 and count(SECTION_SEPARATOR.join(kept)) > limit:
        kept.pop(1 if kept[0] == title and len(kept) > 2 else 0)
    return shorten(SECTION_SEPARATOR.join(kept), limit, count)


def _units(block: Block, room: int, count: CountTokens) -> list[_Unit]:
    count = without_special(count)
    if block.kind is Kind.TABLE:
        parts = _split_if(block.text, room, count) or split_table(
            block.text, block.has_header, room, count
        )
    elif block.kind in (Kind.CODE, Kind.RECORD):
        parts = _split_if(block.text, room, count) or split_lines_of(block.text, room, count)
    else:
        text = f"- {block.text}" if block.kind is Kind.ITEM else block.text
        parts = _split_if(text, room, count) or split_text(text, room, count)
    return [
        _Unit(
            part,
            count(part),
            block.page,
            opens=block.kind is Kind.TERM and number == len(parts) - 1,
            is_alone=block.kind is Kind.RECORD,
        )
        for number, part in enumerate(parts)
    ]


def _split_if(text: str, room: int, count: CountTokens) -> list[str]:
    return [text] if count(text) <= room else []


def _joined(
    sections: list[_Section], chunk_tokens: int, title: str, count: CountTokens
) -> Iterator[_Section]:
    """Join small sections with the next one of the same parent while both fit one passage.

    The headings of joined sections become lines of their text, under the parent's path.
    """
    small = chunk_tokens * _SMALL_SHARE
    waiting: _Section | None = None
    for section in sections:
        if waiting is None:
            waiting = section
            continue
        room = _room(waiting.path[:-1], title, chunk_tokens, count)
        if min(waiting.tokens, section.tokens) < small and _are_siblings(waiting, section):
            both = _with_heading(waiting, count).units + _with_heading(section, count).units
            if sum(unit.tokens for unit in both) <= room:
                waiting = _Section((*section.path[:-1], ""), both)
                continue
        yield _without_mark(waiting)
        waiting = section
    if waiting is not None:
        yield _without_mark(waiting)


def _are_siblings(first: _Section, second: _Section) -> bool:
    is_record = any(unit.is_alone for unit in first.units + second.units)
    return (
        not is_record
        and len(first.path) == len(second.path) > 0
        and first.path[:-1] == second.path[:-1]
    )


def _with_heading(section: _Section, count: CountTokens) -> _Section:
    name = section.path[-1]
    if not name:  # joined already
        return section
    heading = _Unit(name, without_special(count)(name), section.units[0].page, opens=True)
    return _Section(section.path, [heading, *section.units])


def _without_mark(section: _Section) -> _Section:
    is_joined = bool(section.path) and not section.path[-1]
    return _Section(section.path[:-1], section.units) if is_joined else section


def _packed(
    section: _Section, title: str, chunk_tokens: int, count: CountTokens
) -> Iterator[Chunk]:
    """Fill passages with a section's units, in order."""
    path = _path_text(section.path, title, chunk_tokens, count)
    start = 0
    while start < len(section.units):
        end = _fitting(section.units, start, path, title, chunk_tokens, count)
        units = section.units[start:end]
        text = _text(units)
        yield Chunk(path, text, count(embedded_text(title, path, text)), units[0].page)
        start = end


def _fitting(
    units: list[_Unit], start: int, path: str, title: str, chunk_tokens: int, count: CountTokens
) -> int:
    """Return the end of the longest run from `start` that fits one passage."""
    end = start + 1
    total = count(embedded_text(title, path, "")) + units[start].tokens
    while end < len(units) and not (units[start].is_alone or units[end].is_alone):
        total += units[end].tokens
        if total > chunk_tokens:
            break
        end += 1
    while end - start > 1:
        text = _text(units[start:end])
        if count(embedded_text(title, path, text)) <= chunk_tokens:
            break
        end -= 1
    cut = end
    while end < len(units) and cut - start > 1 and units[cut - 1].opens:
        cut -= 1  # a term goes with what it names
    return end if units[cut - 1].opens else cut  # a list of terms alone, such as an index


def _text(units: Sequence[_Unit]) -> str:
    return "\n".join(unit.text for unit in units)
