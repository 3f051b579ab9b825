"""Divides a document into passages along its structure.

A passage is a run of whole sections that fit together, or a part of one that is longer. The
headings that all its sections have stand in `section`, the others are lines of its text. Tables and
code stay whole where they fit. Passages do not overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

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

VERSION = 3  # raise it when the same document gives other passages
DEFAULT_CHUNK_TOKENS = 250  # of the 256 that the default embedder reads
LEAST_CHUNK_TOKENS = 32
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
    level: int = 0  # of the outermost heading; 0: none

    @property
    def tokens(self) -> int:
        return sum(unit.tokens for unit in self.units)

    @property
    def has_record(self) -> bool:
        return any(unit.is_alone for unit in self.units)


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
            section = _Section(tuple(text for _, text in headings), level=headings[0][0])
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
    """Join sections that follow each other while they fit one passage.

    Headings of the first level are topics of their own, and stay apart.
    """
    gathered: list[_Section] = []
    for section in sections:
        if gathered:
            whole = _merged([*gathered, section], count)
            room = _room(whole.path, title, chunk_tokens, count)
            is_topic = not whole.path and section.level == 1
            if is_topic or whole.has_record or whole.tokens > room:
                yield _merged(gathered, count)
                gathered = []
        gathered.append(section)
    if gathered:
        yield _merged(gathered, count)


def _merged(sections: Sequence[_Section], count: CountTokens) -> _Section:
    """Return one section under the headings that all have; the others become lines of its text."""
    if len(sections) == 1:
        return sections[0]
    path = _common([section.path for section in sections])
    units: list[_Unit] = []
    before = path
    for section in sections:
        known = max(len(_common([before, section.path])), len(path))
        units += [_heading_unit(name, section, count) for name in section.path[known:]]
        units += section.units
        before = section.path
    return _Section(path, units)


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the headings that all paths begin with."""
    return tuple(names[0] for names in takewhile(_are_equal, zip(*paths, strict=False)))


def _are_equal(names: Sequence[str]) -> bool:
    return len(set(names)) == 1


def _heading_unit(name: str, section: _Section, count: CountTokens) -> _Unit:
    return _Unit(name, without_special(count)(name), section.units[0].page, opens=True)


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
