"""What a step over rows writes: the rows in one step, and beside them a record of what was done."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict, cast

from whet.errors import InputError
from whet.json_types import JsonObject
from whet.store import digest_file


class Source(TypedDict):
    """A file that rows came from."""

    file: str
    sha256: str | None  # None for a folder


class WrittenRows(TypedDict):
    """The file of rows that a step wrote."""

    file: str
    sha256: str
    rows: int


class Record(TypedDict):
    """What a step did; beside these fields, its own facts."""

    step: str
    at: str
    sources: list[Source]
    result: WrittenRows
    libraries: dict[str, str]


def refuse_existing(into: Path) -> Path:
    """The path, when nothing stands there yet. Raises InputError."""
    # Unlike Path.exists, no error for a name that no file can have: writing says what is wrong with
    # it
    if os.path.exists(into):
        raise InputError(f"{into} exists already.", hint="Name another file, or remove it.")
    return into


def jsonl(rows: Iterable[JsonObject]) -> str:
    """Lines that `read_lines` reads again.

    A number that JSON does not have is a fault of ours, and raises ValueError.
    """
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def write(
    into: Path,
    rows: list[JsonObject],
    *,
    step: str,
    sources: list[Path],
    libraries: tuple[str, ...] = (),
    now_ms: int,
    facts: Mapping[str, object],
) -> Record:
    """Write `rows` to `into` and the record to `<into>.record.json`; returns the record.

    A killed process leaves neither half written.

    Raises InputError when the folder cannot be written to.
    """
    record_file = into.with_name(into.name + ".record.json")
    scratch = into.with_name(f".{into.name}.{os.getpid()}.tmp")
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(jsonl(rows), encoding="utf-8")
        record = {
            "step": step,
            "at": datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(),
            "sources": [
                {"file": str(path), "sha256": digest_file(path) if path.is_file() else None}
                for path in sources
            ],
            "result": {"file": str(into), "sha256": digest_file(scratch), "rows": len(rows)},
            "libraries": {name: version(name) for name in libraries},
            **facts,
        }
        record_file.write_text(json.dumps(record, ensure_ascii=False, indent=1), encoding="utf-8")
        os.replace(scratch, into)  # last: where the rows are, their record is
    except OSError as error:
        raise InputError(
            f"{into} cannot be written: {error.strerror}.",
            hint="Free disk space, or name a folder that you may write to.",
        ) from error
    finally:
        with suppress(OSError):
            scratch.unlink()
    return cast(Record, record)
