"""Files of training rows in any of the formats that people have them in, read into one `Reading`.

JSONL, JSON, CSV and TSV, Parquet, folders of `datasets` and of the hub. What a row may look like is
`training/data/rows.py`'s, and what other tools write `training/data/native.py`'s; here a file becomes
numbered objects.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from training.data import encodings
from training.data.bad_lines import BadLine
from training.data.columns import NO_COLUMNS, Columns, parse_columns
from training.data.rows import KNOWN_FIELDS, Reading, parsed_lines, read_objects
from training.data.tables import read_csv, read_parquet, require_file
from training.data.text_files import is_plain_text, text_rows
from training.data.wrong import Wrong, kind_of, one_of_each
from training.optional import DATASET_FOLDERS
from whet.errors import InputError
from whet.json_types import Json, JsonObject
from whet.lazy import load

# Names under which a JSON document holds its rows.
_LISTS_UNDER = ("data", "rows", "records", "items", "examples", "traces", "observations", "tasks")
_PACKED = {
    b"\x1f\x8b": ("compressed (gzip)", "Unpack it first: gunzip {name}"),
    b"\x28\xb5\x2f\xfd": ("compressed (Zstandard)", "Unpack it first: unzstd {name}"),
    b"PK\x03\x04": ("compressed (ZIP)", "Unpack it first: unzip {name}"),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", "In Excel, save it as CSV UTF-8."),
}
_WORKBOOK = ("an Excel workbook", "In Excel, save it as CSV UTF-8.")
_SPACE = re.compile(r"\s*")
GUESSED = "{} is not UTF-8; it was read as {}. --encoding names another one."

Numbered = Iterator[tuple[int, object]]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read files that do not say it themselves."""

    columns: Columns = NO_COLUMNS
    encoding: str = ""  # "": UTF-8, UTF-16, or a code page where only one can be meant


DEFAULTS = ReadOptions()


def read_options(columns: str, encoding: str) -> ReadOptions:
    """Return the options of a command line. Raises InputError."""
    return ReadOptions(parse_columns(columns, KNOWN_FIELDS), encoding)


def read_file(path: Path, *, origin: str = "seed", options: ReadOptions = DEFAULTS) -> Reading:
    """Read a file of rows by its ending; anything unknown counts as JSONL.

    Of a folder with parts the one that is named (`FOLDER/PART`), or `train`. `origin` is that of
    rows which do not name their own. Raises InputError when the file cannot be read at all.
    """
    folder, part = (path, "") if os.path.exists(path) else _part_in(path)
    if not os.path.isdir(folder):
        return _read_one(path, origin, options)
    folders = load(DATASET_FOLDERS)
    parts = folders.parts_of(folder)
    name = folders.chosen_part(folder, part, parts)
    files = parts[name]
    if len(files) == 1 and not files[0].is_dir():
        reading = _read_one(files[0], origin, options)
    elif files[0].is_dir():
        reading = _reading(folders.saved_rows(files[0]), "row", path, origin, options)
    else:
        notices: list[str] = []
        rows = folders.chained(files, lambda one: _objects(one, options, notices)[1])
        reading = _noted(_reading(rows, "row", path, origin, options), notices)
    if not part and len(parts) > 1:
        others = ", ".join(other for other in sorted(parts) if other != name)
        return _noted(reading, [f"the part {name} is read (others: {others})"])
    return reading


def _part_in(path: Path) -> tuple[Path, str]:
    """Return (folder, part) for a path that names a part of a folder; else (path, "")."""
    folder, part = split_off_part(path)
    if not part or part.split("/")[0] not in {name.split("/")[0] for name in parts_in(folder)}:
        return path, ""
    return folder, part


def parts_in(path: Path) -> list[str]:
    """Return the names of a folder's parts; [] for a file, and for a folder without parts."""
    if not os.path.isdir(path):
        return []
    try:
        return [name for name in load(DATASET_FOLDERS).parts_of(path) if name]
    except InputError:  # which reading it says
        return []


def split_off_part(path: Path) -> tuple[Path, str]:
    """Return (an existing folder, what follows it) of a path that is no file's name."""
    part: list[str] = []
    here = path
    while not os.path.exists(here) and not here.suffix and len(part) < 2 and here != here.parent:
        part.insert(0, here.name)
        here = here.parent
    return (here, "/".join(part)) if part and os.path.isdir(here) else (path, "")


def part_path(file: Path, test: Path | None) -> Path | None:
    """Return the file of test rows: a path, or the part of that name of the folder `file`."""
    if test is None or os.path.exists(test) or test.name != str(test):
        return test
    return file / test if str(test) in parts_in(file) else test


def read_good(path: Path, *, skip_bad: bool, options: ReadOptions = DEFAULTS) -> Reading:
    """`read_file`, refusing a file with lines that are not rows unless they are to be skipped, and
    one without any row."""
    found = read_file(path, options=options)
    found.refuse_bad(str(path), skip_bad=skip_bad)
    return found


def _reading(rows: Numbered, unit: str, path: Path, origin: str, options: ReadOptions) -> Reading:
    return read_objects(
        rows, unit=unit, origin=origin, asked=True, columns=options.columns, source=str(path)
    )


def _read_one(path: Path, origin: str, options: ReadOptions) -> Reading:
    notices: list[str] = []
    unit, rows = _objects(path, options, notices)
    return _noted(_reading(rows, unit, path, origin, options), notices)


def _noted(reading: Reading, notices: list[str]) -> Reading:
    return replace(reading, notices=dict.fromkeys(notices, 0) | reading.notices)


def _objects(path: Path, options: ReadOptions, notices: list[str]) -> tuple[str, Numbered]:
    """Return (what is counted, numbered objects) of one file."""
    suffix = path.suffix.lower()
    require_file(path)
    if suffix == ".parquet":
        return "row", read_parquet(path)
    content = _bytes(path)
    if suffix in (".csv", ".tsv"):
        return "line", read_csv(path, _text(path, content, options, notices), options.columns)
    content = _as_utf8(path, content, options, notices)
    if suffix == ".json" and (found := _json(path, content)) is not None:
        return "row", enumerate(found, start=1)
    if suffix == ".txt" and is_plain_text(text := encodings.decode(path, content).text):
        return "line", text_rows(text)
    if b"\n" not in content:  # JSON has no carriage return inside a text
        content = content.replace(b"\r", b"\n")
    if (document := _document(path, content)) is not None:
        return "row", enumerate(document, start=1)
    return "line", parsed_lines(content.removesuffix(b"\n").split(b"\n"))


def _bytes(path: Path) -> bytes:
    content = path.read_bytes()
    packed = next((said for mark, said in _PACKED.items() if content.startswith(mark)), None)
    if packed is None:
        return content
    if b"xl/workbook" in content or path.suffix.lower() in (".xlsx", ".xlsm"):
        packed = _WORKBOOK
    what, do = packed
    raise InputError(f"{path} is {what}.", hint=do.format(name=path.name))


def _text(path: Path, content: bytes, options: ReadOptions, notices: list[str]) -> str:
    decoded = encodings.decode(path, content, options.encoding)
    if decoded.guessed:
        notices.append(GUESSED.format(path.name, decoded.guessed))
    return decoded.text


def _as_utf8(path: Path, content: bytes, options: ReadOptions, notices: list[str]) -> bytes:
    """Return the content as UTF-8. Lines with faults in a file of UTF-8 stay, to be named."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        if not options.encoding:
            content.decode("utf-8")
            if b"\0" not in content[:1000]:
                return content
    except UnicodeDecodeError:
        if encodings.is_mostly_utf8(content) and path.suffix.lower() != ".json":
            return content
    return _text(path, content, options, notices).encode("utf-8")


def _json(path: Path, content: bytes) -> list[Json] | None:
    """Return the rows of one JSON document; None when the file holds one object per line."""
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=one_of_each)
    except Wrong as wrong:
        raise InputError(
            f"{path} has {wrong.found}; expected {wrong.expected}.",
            hint="Take one of the two out, or save it as JSONL, where the line is named.",
        ) from wrong
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return None
        raise InputError(
            f"{path} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}.",
            hint="Correct it, or save it as JSONL.",
        ) from error
    except (RecursionError, ValueError) as error:
        raise InputError(
            f"{path} is JSON that cannot be read (nested too deep, or a number too long)."
        ) from error
    if isinstance(value, dict):
        return _listed(path, value)
    if isinstance(value, list):
        return value
    raise InputError(
        f"{path} holds {kind_of(value)}; expected a list of rows.",
        hint='Write [{"messages": […]}, …], or {"data": [ … ]}.',
    )


def _listed(path: Path, value: JsonObject) -> list[Json]:
    """Return the rows in a JSON object: those under a usual name, or the object as one row."""
    listed = [name for name in _LISTS_UNDER if isinstance(value.get(name), list)]
    if not listed or value.keys() & {"messages", "conversations", "prompt", "input", "fields"}:
        return [value]
    if len(listed) > 1:
        raise InputError(
            f"{path} has lists under {' and '.join(map(repr, listed))}.",
            hint="Keep the one that holds the rows.",
        )
    rows = value[listed[0]]
    return list(rows) if isinstance(rows, list) else [value]


def _document(path: Path, content: bytes) -> list[Json] | None:
    """Return the rows of a file without an ending for it that is one JSON list, or objects over
    several lines; None for JSONL."""
    first = content.lstrip()
    if first[:1] != b"[" and first.partition(b"\n")[0].strip() != b"{":
        return None
    decoder, values = json.JSONDecoder(object_pairs_hook=one_of_each), []
    try:
        text = first.decode("utf-8").rstrip()
        at = 0
        while at < len(text):
            value, at = decoder.raw_decode(text, at)
            values.append(value)
            at = _SPACE.match(text, at).end()  # type: ignore[union-attr]  # matches anything
    except (ValueError, RecursionError):
        return None  # its lines say what is wrong
    except Wrong:
        return None
    if first[:1] == b"[":
        return values[0] if len(values) == 1 and isinstance(values[0], list) else None
    return values


__all__ = ["BadLine", "ReadOptions", "read_file", "read_good", "read_options"]
