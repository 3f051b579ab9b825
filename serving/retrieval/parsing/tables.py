"""Reads CSV and JSONL: each row is a passage of its own, with the names of its columns."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from serving.retrieval.parsing.blocks import Block, Kind, ParsedDocument, ParseError
from serving.retrieval.parsing.texts import NoticeCounter, clean, paragraph
from whet.json_types import JsonObject
from whet.lines import split_lines

CSV_TYPE, JSONL_TYPE = "text/csv", "application/jsonl"
_SNIFF_FROM = 16_384  # characters; enough lines to tell the separator
_LONGEST_FIELD = 4_000_000  # characters; the csv module's own limit is 131,072
_DEEPEST = 8  # objects inside of a row; below it, JSON is kept as text


def parse_csv(text: str, *, counter: NoticeCounter) -> ParsedDocument:
    """Read CSV with a header, whatever separates its columns. Raises ParseError for no header."""
    csv.field_size_limit(_LONGEST_FIELD)
    text = clean(text, counter)
    try:
        dialect: Any = csv.Sniffer().sniff(text[:_SNIFF_FROM], delimiters=",;\t|")
    except csv.Error:  # one column
        dialect = csv.excel
    rows = csv.reader(io.StringIO(text), dialect)
    try:
        names = [name.strip() for name in next(rows, [])]
        if not any(names):
            raise ParseError("Its first line names no columns.", hint="Give it a header.")
        fields = (zip(names, row, strict=False) for row in rows if any(row))
        return _document(CSV_TYPE, (list(pairs) for pairs in fields), counter)
    except csv.Error as error:
        raise ParseError(f"Line {rows.line_num} is no CSV: {error}.") from None


def parse_jsonl(text: str, *, counter: NoticeCounter) -> ParsedDocument:
    """Read JSON objects, one a line. Raises ParseError for a line that is none."""
    return _document(JSONL_TYPE, _json_rows(text, counter), counter)


def _json_rows(text: str, counter: NoticeCounter) -> Iterator[list[tuple[str, str]]]:
    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise ParseError(f"Line {number} is no JSON.") from None
        if not isinstance(row, dict):
            raise ParseError(f"Line {number} is no JSON object.")
        yield [(name, clean(value, counter)) for name, value in _flat(row)]


def _flat(row: JsonObject, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    for name, value in row.items():
        if isinstance(value, dict) and depth < _DEEPEST:
            yield from _flat(value, f"{prefix}{name}.", depth + 1)
        elif isinstance(value, list) and all(isinstance(one, str | int | float) for one in value):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        elif isinstance(value, str):
            yield f"{prefix}{name}", value
        elif value is not None:
            yield f"{prefix}{name}", json.dumps(value, ensure_ascii=False)


def _document(
    media_type: str, rows: Iterable[list[tuple[str, str]]], counter: NoticeCounter
) -> ParsedDocument:
    blocks = []
    for pairs in rows:
        told = [(clean(name, counter), paragraph(value)) for name, value in pairs]
        text = "\n".join(f"{name}: {value}" if name else value for name, value in told if value)
        if text:
            blocks.append(Block(Kind.RECORD, text))
    return ParsedDocument(title="", media_type=media_type, blocks=blocks, notices=counter.notices())
