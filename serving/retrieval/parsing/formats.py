"""Which parser reads a file: by its first bytes where they tell, else by its name."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import PurePosixPath

import msgspec

from serving.retrieval.parsing.blocks import ParsedDocument, ParseError
from serving.retrieval.parsing.docx import MAIN_PART, parse_docx
from serving.retrieval.parsing.html import parse_html
from serving.retrieval.parsing.language import detect_language
from serving.retrieval.parsing.markdown import parse_markdown
from serving.retrieval.parsing.pdf import parse_pdf
from serving.retrieval.parsing.plain import parse_plain
from serving.retrieval.parsing.suffixes import (
    CSV_SUFFIXES,
    HTML_SUFFIXES,
    JSONL_SUFFIXES,
    MARKDOWN_SUFFIXES,
)
from serving.retrieval.parsing.tables import parse_csv, parse_jsonl
from serving.retrieval.parsing.texts import NoticeCounter, decode

_PDF_WITHIN = 1024  # bytes from the beginning in which readers look for its mark
_HTML_WITHIN = 2048
_LARGEST_TEXT = 30_000_000  # characters of one document
_MOST_BLOCKS = 300_000
_LONGEST_TITLE = 300  # characters


def parse_file(name: str, content: bytes) -> ParsedDocument:
    """Read a file as a document. Raises ParseError with the reason when it is none."""
    parsed = _parse(name, content, NoticeCounter())
    if len(parsed.blocks) > _MOST_BLOCKS:
        raise ParseError(f"It has {len(parsed.blocks):,} paragraphs; at most {_MOST_BLOCKS:,}.")
    length = sum(len(block.text) for block in parsed.blocks)
    if length > _LARGEST_TEXT:
        raise ParseError(f"It has {length:,} characters of text; at most {_LARGEST_TEXT:,}.")
    return msgspec.structs.replace(
        parsed,
        title=parsed.title[:_LONGEST_TITLE],
        language=parsed.language or detect_language(parsed.blocks),
    )


def _parse(name: str, content: bytes, counter: NoticeCounter) -> ParsedDocument:
    if not content.strip():
        raise ParseError("It is empty.")
    suffix = PurePosixPath(name).suffix.lower()
    if b"%PDF-" in content[:_PDF_WITHIN]:
        return parse_pdf(content, counter=counter)
    if content.startswith(b"PK\x03\x04"):
        return _parse_archive(content, counter)
    if suffix in (".pdf", ".docx"):
        raise ParseError(f"Its name ends in {suffix}, and its content is something else.")
    text = decode(content)
    if suffix in HTML_SUFFIXES or _is_html(text):
        return parse_html(text, counter=counter)
    parsers: dict[str, Callable[..., ParsedDocument]] = {
        **dict.fromkeys(MARKDOWN_SUFFIXES, parse_markdown),
        **dict.fromkeys(CSV_SUFFIXES, parse_csv),
        **dict.fromkeys(JSONL_SUFFIXES, parse_jsonl),
    }
    return parsers.get(suffix, parse_plain)(text, counter=counter)


def _parse_archive(content: bytes, counter: NoticeCounter) -> ParsedDocument:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        raise ParseError("It is damaged: its archive cannot be unpacked.") from None
    if MAIN_PART not in names:
        raise ParseError("It is an archive, or an office document other than DOCX.")
    return parse_docx(content, counter=counter)


def _is_html(text: str) -> bool:
    beginning = text[:_HTML_WITHIN].lstrip().lower()
    return beginning.startswith(("<!doctype html", "<html")) or (
        beginning.startswith("<?xml") and "<html" in beginning
    )
