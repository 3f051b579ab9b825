"""The one form that every parser gives: a document as a list of blocks."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from serving.retrieval.records import Notice
from whet.errors import InputError


class Kind(StrEnum):
    """What a block is; it decides where the block may be divided."""

    HEADING = "heading"
    PARAGRAPH = "paragraph"  # divided between sentences
    ITEM = "item"  # of a list; divided between sentences
    TERM = "term"  # names what the blocks after it describe; stays with the first of them
    CODE = "code"  # divided between lines
    TABLE = "table"  # lines of cells; divided between rows, with the header in front of each part
    RECORD = "record"  # a row of data: a passage of its own


class Block(msgspec.Struct, frozen=True):
    """One block of a document, in the order of reading."""

    kind: Kind
    text: str  # lines of a table are its rows, the first one its header when `has_header`
    level: int = 0  # of a heading, from 1
    page: int | None = None  # from 1, where the format has pages
    has_header: bool = False


class ParsedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What a parser read."""

    title: str  # empty: the file does not say
    media_type: str
    language: str = ""  # ISO 639-1; empty: unknown
    blocks: list[Block]
    notices: list[Notice] = []


class ParseError(InputError):
    """A file cannot be read as a document: damaged, encrypted, over a limit, or of another type."""

    code = "document_unreadable"
