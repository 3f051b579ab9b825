"""Removes records from the spool folder that are past their retention.

The drain moves records to the database within a second, so that only those are left that no
database took: the lines it put aside, and files of processes that ended while no gateway was run
again.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

from serving.log.spool import is_named, orphans

REJECTED = "rejected.lines"


class _Dated(msgspec.Struct):
    """What every record has."""

    created_at: int


_dated = msgspec.json.Decoder(_Dated)


def prune_spool(folder: Path, before: int) -> dict[str, int]:
    """Remove what is older than `before` (ms) from the folder; returns what was removed."""
    found = {
        "lines of rejected.lines": _prune_rejected(folder / REJECTED, before),
        "spool files": _prune_orphans(folder, before) if folder.is_dir() else 0,
    }
    return {what: count for what, count in found.items() if count}


def append_rejected(folder: Path, line: bytes) -> Path:
    """Put a line aside that the database does not take; returns the file."""
    path = folder / REJECTED
    while True:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # against pruning, which replaces the file
            if is_named(path, file.fileno()):
                file.write(line + b"\n")
                return path


def _prune_rejected(path: Path, before: int) -> int:
    """Remove old lines. One without a readable date, which nothing can be made of, goes with the
    one before it that has one; without any, with the file."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return 0
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not is_named(path, file.fileno()):
            return 0
        lines = [line for line in file.read().split(b"\n") if line]
        at = round(os.fstat(file.fileno()).st_mtime * 1000)
        kept: list[bytes] = []
        for line in lines:
            at = _date_of(line) or at
            if at >= before:
                kept.append(line)
        if len(kept) == len(lines):
            return 0
        if kept:
            scratch = path.with_suffix(".tmp")
            scratch.write_bytes(b"\n".join(kept) + b"\n")
            scratch.chmod(0o600)
            os.replace(scratch, path)
        else:
            path.unlink()
    return len(lines) - len(kept)


def _date_of(line: bytes) -> int | None:
    try:
        return _dated.decode(line).created_at
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _prune_orphans(folder: Path, before: int) -> int:
    """Remove files that no process owns and that were last written before `before`."""
    removed = 0
    for files in orphans(folder):
        for file in files:
            if os.fstat(file.handle).st_mtime * 1000 < before:
                file.discard()
                removed += 1
            else:
                os.close(file.handle)
    return removed
