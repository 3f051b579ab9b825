"""One log file per process in `home/logs/`, kept to a bounded size.

Processes append to their file themselves, so nothing is lost or blocked when the supervisor is busy
or gone.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from whet.lines import split_lines

# A day of a busy engine's log; with the one before it, 32 MiB per process at most
LARGEST_BYTES = 16 << 20
_TAIL_BYTES = 16 << 10
_START_BYTES = 256 << 10  # a failed start of an engine with eight workers, each with its traceback


def log_path(home: Path, name: str) -> Path:
    return home / "logs" / f"{name}.log"


def open_log(path: Path) -> int:
    """A descriptor for appending; the folder is made, a file that grew too large is set aside
    first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    keep_small(path)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def keep_small(path: Path) -> None:
    """Copy a large log to `NAME.log.1` and empty it in place: its writer appends, so it goes on at
    the start.

    Lines written between the copy and the emptying are lost; that is the price of not standing
    between a process and its log.
    """
    try:
        if path.stat().st_size <= LARGEST_BYTES:
            return
        shutil.copyfile(path, path.with_name(path.name + ".1"))
        os.truncate(path, 0)
    except OSError:
        return  # no such file yet, or no room for the copy: a long log harms nobody at this moment


def size(path: Path) -> int:
    """Return the bytes of a log; 0 when there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def tail(path: Path, lines: int = 15) -> list[str]:
    """Return the last lines, at most the last 16 KiB."""
    return _read_end(path, _TAIL_BYTES)[-lines:]


def lines_since(path: Path, start: int) -> list[str]:
    """Return the lines written after byte `start`, at most the last 256 KiB.

    A log that is shorter than that was emptied meanwhile (`keep_small`) and is read whole.
    """
    written = size(path) - start
    return _read_end(path, min(written if written >= 0 else _START_BYTES, _START_BYTES))


def _read_end(path: Path, count: int) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - count))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rstrip() for line in split_lines(text.replace("\r", "\n")) if line.strip()]
