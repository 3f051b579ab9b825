"""Files of training rows in any of the formats that people have them in, read into one `Reading`.

JSONL, JSON (a list, or an object with the list under "data" or "rows"), CSV and TSV, Parquet, a folder that `datasets` saved.
What a row may look like is `training/rows.py`'s; here a file becomes numbered objects.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from training.data.wrong import Wrong, one_of_each, shown
from training.rows import BLANK, KNOWN_FIELDS, BadLine, Reading, read_lines, read_objects
from whet.errors import InputError

_LISTS_UNDER = ("data", "rows")
_DELIMITERS = ",;\t"  # a spreadsheet writes the one that its country uses
_JSON_CELLS = ("messages", "conversations", "context", "checks", "scrubbed")  # may hold JSON in a table's cell
_MESSAGES_CELLS = ("prompt", "completion", "chosen", "rejected")  # texts, which may be JSON themselves (an answer to "write JSON"), or lists of messages
_LIST_CELLS = ("messages", "conversations", "checks", "scrubbed")  # that must hold JSON: `context` may be a text that begins with a bracket
_NUMBER_CELLS = ("weight", "rating")
_LONGEST_CELL = 16 << 20  # characters; the csv module's own limit of 131,072 is less than one long conversation
_BATCH = 1024  # rows of a Parquet file in memory at a time
_BEGINNINGS = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "ZIP", b"\x28\xb5\x2f\xfd": "Zstandard"}  # of compressed files
_UTF16 = (b"\xff\xfe", b"\xfe\xff")  # marks of byte order
_LOOK_AT = 1000  # bytes, for zeros: UTF-16 writes one beside each plain letter, and UTF-8 none at all

Numbered = Iterator[tuple[int, Any]]


def read_file(path: Path, *, origin: str = "seed") -> Reading:
    """Read a file of rows by its ending; anything unknown counts as JSONL.

    `origin` is that of rows which do not name their own. Raises InputError when the file cannot be read at all.
    """
    if os.path.isdir(path):  # unlike Path.is_dir, no error for a name that no file can have
        return read_objects(_datasets_folder(path), unit="row", origin=origin, asked=True)
    readers: dict[str, Callable[[Path], Numbered]] = {".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
    suffix = path.suffix.lower()
    if suffix in readers:
        return read_objects(readers[suffix](path), unit="line" if readers[suffix] is _csv else "row", origin=origin, asked=True)
    content = _bytes(path).removeprefix(b"\xef\xbb\xbf")
    if suffix == ".json" and (found := _json(path, content)) is not None:
        return read_objects(enumerate(found, start=1), unit="row", origin=origin, asked=True)
    _refuse_what_has_no_lines(path, content)
    return read_lines(content.removesuffix(b"\n").split(b"\n"), origin=origin, asked=True)


def read_good(path: Path, *, skip_bad: bool) -> Reading:
    """`read_file`, refusing a file with lines that are not rows unless they are to be skipped, and one without any row."""
    found = read_file(path)
    found.refuse_bad(str(path), skip_bad=skip_bad)
    return found


def _bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path} cannot be read: {why}.", hint="Name a file of training rows, such as one JSON object per line.") from error
    if packed := next((name for beginning, name in _BEGINNINGS.items() if content.startswith(beginning)), None):
        raise InputError(f"{path} is compressed ({packed}).", hint="Unpack it first, and name what was in it.")
    if content[:2] in _UTF16 or _every_second_is_zero(content[:_LOOK_AT]):
        raise InputError(f"{path} is UTF-16, not UTF-8.", hint=f"Save it as UTF-8, for example with `iconv -f UTF-16 -t UTF-8 {path.name}`.")
    return content


def _every_second_is_zero(head: bytes) -> bool:
    """Of a good part of its bytes, and hardly of the others between them."""
    few, many = sorted(head[start::2].count(0) for start in (0, 1))
    return many > len(head) // 8 and few <= many // 10


def _json(path: Path, content: bytes) -> list[Any] | None:
    """The rows of one JSON document; None when the file holds one object per line after all."""
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=one_of_each)
    except Wrong as wrong:
        raise InputError(
            f"{path} has {wrong.found}; expected {wrong.expected}.", hint="Take one of the two out, or save it as JSONL, where the line is named."
        ) from wrong
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return None
        raise InputError(f"{path} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}.", hint="Correct it, or save it as JSONL.") from error
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    except (RecursionError, ValueError) as error:
        raise InputError(f"{path} is JSON that cannot be read (nested too deep, or a number too long).") from error
    if isinstance(value, dict):
        listed = [name for name in _LISTS_UNDER if isinstance(value.get(name), list)]
        if len(listed) > 1:
            raise InputError(f"{path} has lists under {' and '.join(map(repr, listed))}.", hint="Keep the one that holds the rows.")
        return list(value[listed[0]]) if listed else [value]
    if isinstance(value, list):
        return value
    raise InputError(f"{path} holds {type(value).__name__}; expected a list of rows.", hint='Write [{"messages": […]}, …], or {"data": [ … ]}.')


def _refuse_what_has_no_lines(path: Path, content: bytes) -> None:
    """One sentence for a file that is another format or has other line breaks, in place of one for each of its lines."""
    if b"\n" not in content and content.strip(b"\r").count(b"\r"):
        raise InputError(f"{path} ends its lines with carriage returns alone.", hint=f"Write line feeds, for example with `tr '\\r' '\\n' < {path.name}`.")
    first = content.lstrip()
    if first[:1] != b"[" and first.partition(b"\n")[0].strip() != b"{":
        return
    try:
        text = first.decode("utf-8")
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return  # its lines say what is wrong
    if isinstance(value, list) and not text[end:].strip():
        raise InputError(f"{path} is one JSON list; expected one object per line.", hint="Name it .json: such a file may hold a list of rows.")
    if "\n" in text[:end]:
        raise InputError(f"{path} writes one object over several lines; expected one object per line.", hint="Write each object on one line.")


def _not_utf8(path: Path, error: UnicodeDecodeError) -> InputError:
    return InputError(f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start + 1}.", hint="Save it as UTF-8.")


def _csv(path: Path) -> Numbered:
    """(line on which the row starts, row): empty cells are absent fields, cells of JSON fields are read as JSON, rows of empty cells are blank."""
    try:
        text = _bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(path, text), strict=True)
    try:
        header = [name.strip() or f"column {number}" for number, name in enumerate(next(reader, []), start=1)]
        if header and not set(header) & KNOWN_FIELDS:
            raise _not_a_header(path, header)
        if repeated := sorted({name for name in header if header.count(name) > 1}):
            raise InputError(f"{path} names the column {repeated[0]!r} twice.", hint="Name each column once.")
        start = reader.line_num + 1
        for cells in reader:
            if len(cells) > len(header):
                yield start, BadLine(start, f"{len(cells)} cells", f"at most {len(header)}, one for each column of the first line")
            elif not any(cell.strip() for cell in cells):
                yield start, BLANK
            else:
                yield start, _row_of(start, header, cells)
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path} is not a table: line {reader.line_num}: {error}.", hint="Put cells with line breaks or quotes into quotes.") from error


def _delimiter(path: Path, text: str) -> str:
    """What separates the cells of a table: of a .csv the character by which its first line names the most fields of a row."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    first = text.partition("\n")[0]
    return max(_DELIMITERS, key=lambda delimiter: len({name.strip(' "\r') for name in first.split(delimiter)} & KNOWN_FIELDS))


def _not_a_header(path: Path, header: list[str]) -> InputError:
    """One sentence for the file, in place of one for each of its lines."""
    return InputError(
        f"{path}: the first line names no field of a row; found {', '.join(map(shown, header[:6]))}{', …' if len(header) > 6 else ''}; expected names such as prompt,completion.",
        hint="Write the names of the fields, in small letters, into the first line.",
    )


def _row_of(line: int, header: list[str], cells: list[str]) -> dict[str, Any] | BadLine:
    try:
        return {name: _cell(name, cell) for name, cell in zip(header, cells, strict=False) if cell.strip()}
    except Wrong as wrong:
        return BadLine(line, wrong.found, wrong.expected)


def _cell(name: str, cell: str) -> Any:
    if name in (*_JSON_CELLS, *_MESSAGES_CELLS) and cell.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(cell, object_pairs_hook=one_of_each if name in _JSON_CELLS else None)
        except (ValueError, RecursionError) as error:
            if name not in _LIST_CELLS:
                return cell  # a text that begins with a bracket
            why = (
                f"{error.msg.removesuffix(' at')} at column {error.colno}"
                if isinstance(error, json.JSONDecodeError)
                else "nested too deep, or a number too long"
            )
            raise Wrong(f"{shown(cell)} in {name!r} ({why})", "a list as JSON, with double quotes") from error
        return value if name in _JSON_CELLS or _is_messages(value) else cell
    if name in _NUMBER_CELLS:
        try:
            number = float(cell)
        except ValueError:
            return cell
        return int(number) if name == "rating" and number.is_integer() else number
    return cell


def _is_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) and "role" in item for item in value)


def _parquet(path: Path) -> Numbered:
    import pyarrow.parquet
    from pyarrow import ArrowException

    _bytes_exist(path)
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield number, _plain(row)
    except (ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path} is not a Parquet file that can be read: {str(error).splitlines()[0]}", hint="Write it again, or save it as JSONL.") from error


def _bytes_exist(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error.strerror if isinstance(error, OSError) else error}.", hint="Name a file of training rows.") from error


def _datasets_folder(path: Path) -> Numbered:
    names = sorted(child.name for child in path.iterdir() if (child / "state.json").is_file())
    if names:
        raise InputError(f"{path} holds {len(names)} parts: {', '.join(names)}.", hint=f"Name one of them, such as {path / names[0]}.")
    if not (path / "state.json").is_file():
        raise InputError(f"{path} is a folder; expected a file of rows, or a folder that `datasets` saved.", hint="Name a file, such as train.jsonl in it.")
    import datasets

    try:
        table = datasets.load_from_disk(str(path))
        yield from ((number, _plain(row)) for number, row in enumerate(table, start=1))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read as a saved dataset: {error}", hint="Save it again with save_to_disk, or as Parquet.") from error


def _plain(value: Any) -> Any:
    """A table's value as JSON would have it: a table has every column in every row, so nulls are fields that are not there."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Decimal):  # how databases export numbers
        return float(value)
    return value.isoformat() if isinstance(value, datetime | date) else value
