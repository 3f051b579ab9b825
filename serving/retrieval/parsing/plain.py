"""Reads plain text: paragraphs between blank lines, indented ones as code."""

from __future__ import annotations

from serving.retrieval.parsing.blocks import Block, Kind, ParsedDocument
from serving.retrieval.parsing.texts import NoticeCounter, clean, paragraph, paragraphs
from whet.lines import split_lines

MEDIA_TYPE = "text/plain"


def parse_plain(text: str, *, counter: NoticeCounter) -> ParsedDocument:
    """Read plain text. It has no title and no headings."""
    blocks = []
    for part in paragraphs(clean(text, counter)):
        is_indented = all(line.startswith(("    ", "\t")) for line in split_lines(part)[1:])
        kind = Kind.CODE if is_indented and "\n" in part else Kind.PARAGRAPH
        body = part.expandtabs(4).rstrip() if kind is Kind.CODE else paragraph(part)
        blocks.append(Block(kind, body))
    return ParsedDocument(title="", media_type=MEDIA_TYPE, blocks=blocks, notices=counter.notices())
