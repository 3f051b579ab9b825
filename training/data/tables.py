"""Tables as numbered rows: CSV and TSV as spreadsheets write them, Parquet."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.parquet

from training.data.columns import (
    ANSWERS,
    DIALOGUES,
    QUESTIONS,
    READ_NAMES,
    Columns,
    listed,
    plain_name,
)
from training.data.rows import BLANK, KNOWN_FIELDS, BadLine
from training.data.turns import decoded, is_messages
from training.data.wrong import Wrong, one_of_each, shown
from whet.errors import InputError
from whet.json_types import Json

_DELIMITERS = ",;\t|"  # a spreadsheet writes the one that its country uses
# Cells that must hold a list, and cells that may hold JSON. The texts of a row may be JSON for
# another reason (an answer to "write JSON"): they are read only where they are messages.
_LIST_CELLS = ("messages", *DIALOGUES, "checks", "scrubbed")
_JSON_CELLS = {
    *_LIST_CELLS, "context", "history", "tools", "data", "annotations", "fields", "responses",
    "suggestions", "scores",
}  # fmt: skip
_MESSAGES_CELLS = {
    "chosen", "rejected", "preferred_output", "non_preferred_output", *QUESTIONS, *ANSWERS,
}  # fmt: skip
_ROWS_ALONE = ("text", "data", "fields")  # columns that make a row without a question
_NUMBER_CELLS = ("weight", "rating")
_ID_CELLS = ("id", "user", "group")
_LONGEST_CELL = (
    16 << 20
)  # characters; the csv module's own 131,072 is less than a long conversation
_EMPTY_LINES = re.compile(r'(?:[ ,;\t|"]*\r?\n)*')  # that a spreadsheet has above its table
_BATCH = 1024  # rows of a Parquet file in memory at a time

Numbered = Iterator[tuple[int, object]]  # a row, a BadLine, or BLANK


def read_csv(path: Path, text: str, columns: Columns) -> Numbered:
    """Yield (line on which the row starts, row).

    Empty cells are absent fields, cells of JSON fields are read as JSON, rows of empty cells are
    blank. Raises InputError when the first line names no field of a row.
    """
    if "\n" not in text:  # as Excel for the Macintosh writes
        text = text.replace("\r", "\n")
    text, skipped, delimiter = _said_delimiter(text)
    if path.suffix.lower() == ".tsv":
        delimiter = delimiter or "\t"
    csv.field_size_limit(_LONGEST_CELL)
    delimiter = delimiter or _delimiter(text, columns)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        names = next((cells for cells in reader if any(cell.strip() for cell in cells)), [])
        header = _header(names, columns)
        _check_header(path, header, columns)
        start = reader.line_num + 1
        for cells in reader:
            yield start + skipped, _row(start + skipped, header, cells)
            start = reader.line_num + 1
    except csv.Error as error:
        raise _not_a_table(path, start + skipped, reader.line_num + skipped, error) from error


def _said_delimiter(text: str) -> tuple[str, int, str]:
    """Return (the table, lines before it, its delimiter): Excel's `sep=;` line names it."""
    first, _, rest = text.partition("\n")
    first = first.strip().strip('"').strip()
    if first.casefold().startswith("sep=") and len(first) == 5:
        return rest, 1, first[-1]
    if first.casefold() == "sep=":  # a tab, which strip() takes
        return rest, 1, "\t"
    return text, 0, ""


def _delimiter(text: str, columns: Columns) -> str:
    """Return the character by which the first line names the most fields of a row; of equal ones
    that which makes the most columns."""

    text = text[_EMPTY_LINES.match(text).end() :]  # type: ignore[union-attr]  # matches anything

    def fields(delimiter: str) -> tuple[int, int]:
        try:
            names = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        except csv.Error:
            return 0, 0
        return sum(_is_field(_field(name, columns)) for name in names), len(names)

    return max(_DELIMITERS, key=fields)


def _header(names: list[str], columns: Columns) -> list[str]:
    """Return the fields of the columns. One that another was said to be keeps its name in full."""
    said = {field for name in names if (field := columns.field_of(name))}
    header = []
    for number, name in enumerate(names, start=1):
        field = _field(name, columns)
        taken = field in said and columns.field_of(name) is None
        header.append((f"{field} (file)" if taken else field) or f"column {number}")
    return header


def _field(name: str, columns: Columns) -> str:
    """Return the field that a column is, or its name."""
    name = name.strip().strip("\ufeff").strip()
    plain = plain_name(name)
    return columns.field_of(name) or (plain if _is_field(plain) else name)


def _is_field(name: str) -> bool:
    return name in KNOWN_FIELDS or name in READ_NAMES


def _check_header(path: Path, header: list[str], columns: Columns) -> None:
    """Raise InputError, one sentence for the file in place of one for each of its lines."""
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise InputError(
            f"{path} names the column {repeated[0]!r} twice.", hint="Name each column once."
        )
    for field, name in columns.pairs if header else ():
        if field not in header and name.split(".")[0] not in header:
            raise InputError(
                f"{path} has no column {name!r}; found {listed(header)}.",
                hint=f"Write --columns {field}=NAME with one of these names.",
            )
    asked = [name for name in header if name in (*QUESTIONS, *_LIST_CELLS, *_ROWS_ALONE)]
    exports = [name for name in header if name.endswith(".responses") or name == "annotation_id"]
    if header and not asked and not exports and "chosen" not in header:
        two = header if len(header) == 2 else ["QUESTION", "ANSWER"]
        raise InputError(
            f"{path}: no column is known as a question or a conversation; found {listed(header)}.",
            hint=(
                f"Say which they are: --columns prompt={two[0]},completion={two[1]} "
                "(or write the names of the fields into the first line, if it has none)"
            ),
        )


def _not_a_table(path: Path, start: int, line: int, error: csv.Error) -> InputError:
    if "unexpected end" in str(error):
        found = f"a quotation mark that opens a cell in line {start} or after is never closed"
    elif "field larger" in str(error):
        found = f"line {line} has a cell of more than {_LONGEST_CELL:,} characters"
    else:
        found = f"line {line} has a quotation mark or a line break inside a cell without quotes"
    return InputError(
        f"{path} is not a table: {found}.",
        hint='Put such cells into quotes, and write a quotation mark in them twice: "say ""yes""".',
    )


def _row(line: int, header: list[str], cells: list[str]) -> object:
    if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
        expected = f"at most {len(header)}, one for each column of the first line"
        return BadLine(line, f"{len(cells)} cells", expected)
    if not any(cell.strip() for cell in cells):
        return BLANK
    try:
        named = zip(header, cells, strict=False)
        return {name: _cell(name, cell) for name, cell in named if cell.strip()}
    except Wrong as wrong:
        return BadLine(line, wrong.found, wrong.expected)


def _cell(name: str, cell: str) -> Json:
    if name in _LIST_CELLS and cell.lstrip()[:1] in ("[", "{"):
        value = decoded(cell)
        if isinstance(value, str):
            raise Wrong(f"{shown(cell)} in {name!r}{_why(cell)}", "a list as JSON")
        return value
    if name in _JSON_CELLS:
        return decoded(cell)
    if name in _MESSAGES_CELLS and cell.lstrip()[:1] in ("[", "{"):
        value = _json_or_text(cell)
        listed_: Json = [value] if isinstance(value, dict) else value
        return value if is_messages(listed_) or _holds_messages(value) else cell
    if name in _NUMBER_CELLS:
        try:
            number = float(cell.replace(",", ".") if cell.count(",") == 1 else cell)
        except ValueError:
            return cell
        return int(number) if name == "rating" and number.is_integer() else number
    if name in _ID_CELLS and cell.strip().removesuffix(".0").isdigit():
        return cell.strip().removesuffix(".0")  # a table with an empty id writes 7 as 7.0
    return cell


def _json_or_text(cell: str) -> Json:
    try:
        return decoded(cell)
    except Wrong:  # a text that happens to be an object
        return cell


def _holds_messages(value: Json) -> bool:
    return isinstance(value, dict) and is_messages(decoded(value.get("messages")))


def _why(cell: str) -> str:
    try:
        json.loads(cell, object_pairs_hook=one_of_each)
    except json.JSONDecodeError as error:
        return f" ({error.msg.removesuffix(' at')} at column {error.colno})"
    except (RecursionError, ValueError):
        return " (nested too deep, or a number too long)"
    return ""


def read_parquet(path: Path) -> Numbered:
    """Yield (number, row) of a Parquet file. Raises InputError."""
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield number, plain(row)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{path} is not a Parquet file that can be read: {str(error).splitlines()[0]}",
            hint="Write it again, or save it as JSONL.",
        ) from error


def plain(value: object) -> object:
    """Return a table's value as JSON would have it.

    A table has every column in every row, and every field of an object in every object, so nulls
    are fields that are not there.
    """
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items() if not _is_null(item)}
    if isinstance(value, list):
        if value and all(_is_entry(item) for item in value):  # Arrow's maps
            return {name: plain(item) for name, item in value if not _is_null(item)}
        return [plain(item) for item in value]
    if isinstance(value, Decimal):  # how databases export numbers, ids beyond 2^53 among them
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.isoformat() if isinstance(value, datetime | date | time) else value


def _is_null(value: object) -> bool:
    """Tell whether a table has nothing there: null, or NaN in a column of numbers."""
    return value is None or (isinstance(value, float) and value != value)


def _is_entry(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str)


def _text(value: bytes) -> str | bytes:
    """Return the text that old writers leave unmarked; other bytes stay what no row may hold."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def require_file(path: Path) -> None:
    """Raise InputError when a path cannot be opened."""
    try:
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"{path} cannot be read: {why}.",
            hint="Name a file of training rows, such as one JSON object per line.",
        ) from error
