"""Files of training rows in any of the formats that people have them in, read into one `Reading`.

JSONL, JSON (a list, or an object with the list under "data" or "rows"), CSV and TSV, Parquet, a folder that `datasets` saved.
What a row may look like is `training/rows.py`'s; here a file becomes numbered objects.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

from training.rows import BadLine, Reading, read_lines, read_objects
from whet.errors import InputError

_LISTS_UNDER = ("data", "rows")
_JSON_CELLS = ("messages", "conversations", "context", "checks", "chosen", "rejected", "prompt", "completion", "scrubbed")  # may hold JSON in a table's cell
_NUMBER_CELLS = ("weight",)
_LONGEST_CELL = 16 << 20  # characters; the csv module's own limit of 131,072 is less than one long conversation
_BATCH = 1024  # rows of a Parquet file in memory at a time

Numbered = Iterator[tuple[int, Any]]


def read_file(path: Path, *, origin: str = "seed") -> Reading:
    """Read a file of rows by its ending; anything unknown counts as JSONL.

    `origin` is that of rows which do not name their own. Raises InputError when the file cannot be read at all.
    """
    if path.is_dir():
        return read_objects(_datasets_folder(path), unit="row", origin=origin)
    readers: dict[str, Callable[[Path], Numbered]] = {".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
    suffix = path.suffix.lower()
    if suffix in readers:
        return read_objects(readers[suffix](path), unit="line" if readers[suffix] is _csv else "row", origin=origin)
    content = _bytes(path).removeprefix(b"\xef\xbb\xbf")
    if suffix == ".json" and (found := _json(path, content)) is not None:
        return read_objects(enumerate(found, start=1), unit="row", origin=origin)
    return read_lines(content.removesuffix(b"\n").split(b"\n"), origin=origin)


def read_good(path: Path, *, skip_bad: bool) -> Reading:
    """`read_file`, refusing a file with lines that are not rows unless they are to be skipped, and one without any row."""
    found = read_file(path)
    found.refuse_bad(str(path), skip_bad=skip_bad)
    return found


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", hint="Name a file of training rows, such as one JSON object per line.") from error


def _json(path: Path, content: bytes) -> list[Any] | None:
    """The rows of one JSON document; None when the file holds one object per line after all."""
    try:
        value = json.loads(content.decode("utf-8"))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return None
        raise InputError(f"{path} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}.", hint="Correct it, or save it as JSONL.") from error
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    except (RecursionError, ValueError) as error:
        raise InputError(f"{path} is JSON that cannot be read (nested too deep, or a number too long).") from error
    if isinstance(value, dict):
        listed = next((value[name] for name in _LISTS_UNDER if isinstance(value.get(name), list)), None)
        return listed if listed is not None else [value]
    if isinstance(value, list):
        return value
    raise InputError(f"{path} holds {type(value).__name__}; expected a list of rows.", hint='Write [{"messages": […]}, …], or {"data": [ … ]}.')


def _not_utf8(path: Path, error: UnicodeDecodeError) -> InputError:
    return InputError(f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start + 1}.", hint="Save it as UTF-8.")


def _csv(path: Path) -> Numbered:
    """(line on which the row starts, row): empty cells are absent fields, cells of JSON fields are read as JSON."""
    try:
        text = _bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if repeated := sorted({name for name in header if header.count(name) > 1}):
            raise InputError(f"{path} names the column {repeated[0]!r} twice.", hint="Name each column once.")
        start = reader.line_num + 1
        for cells in reader:
            if len(cells) > len(header):
                yield start, BadLine(start, f"{len(cells)} cells", f"at most {len(header)}, one for each column of the first line")
            elif cells:
                yield start, {name: _cell(name, cell) for name, cell in zip(header, cells, strict=False) if cell.strip()}
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path} is not a table: line {reader.line_num}: {error}.", hint="Put cells with line breaks or quotes into quotes.") from error


def _cell(name: str, cell: str) -> Any:
    if name in _JSON_CELLS and cell.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(cell)
        except ValueError:
            return cell  # a text that begins with a bracket; where a list is needed the check of the row says so
    if name in _NUMBER_CELLS:
        try:
            return float(cell)
        except ValueError:
            return cell
    return cell


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
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", hint="Name a file of training rows.") from error


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
    return value.isoformat() if isinstance(value, datetime | date) else value
