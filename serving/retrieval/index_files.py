"""Generations of a collection's index: folders that are written aside and swapped whole.

`WHET_HOME/retrieval/<collection>/` holds one folder per generation and the file `current`, which
names the one that answers. A generation is complete before it gets its name, and `current` is
replaced by a rename: whatever is killed when, readers see a whole index, the old or the new. A
reader keeps a shared lock on its generation; what nobody reads and `current` does not name is
removed by the next writer.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from whet.errors import WhetError

_CURRENT = "current"
_LOCK = "lock"
_BUILDING = ".building-"
_TRIES = 5  # a generation may be swapped and removed between two looks; not five times in a row


class IndexFilesError(WhetError):
    """The files of an index are not what they should be."""

    code = "index"


@dataclass
class Generation:
    """A generation that is open for reading. It is not removed before `close`."""

    folder: Path
    _lock: IO[bytes]

    def close(self) -> None:
        self._lock.close()


def collection_folder(home: Path, collection: str) -> Path:
    return home / "retrieval" / collection


def current_generation(folder: Path) -> str:
    """Return the name of the generation that answers; empty when there is none."""
    try:
        return (folder / _CURRENT).read_text().strip()
    except FileNotFoundError:
        return ""


def open_generation(folder: Path) -> Generation | None:
    """Open the generation that answers; None when there is none."""
    for _ in range(_TRIES):
        name = current_generation(folder)
        if not name:
            return None
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            path = folder / name / _LOCK
            lock = path.open("rb")
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.stat(path)  # gone: it was removed between the two lines above
            return Generation(folder / name, lock)
    raise IndexFilesError(
        f"The index in {folder} names the generation {name}, which is not there.",
        hint="`whet documents reindex` builds it anew.",
    )


@contextmanager
def build_lock(folder: Path) -> Iterator[None]:
    """Let one process at a time build a collection's index; others wait."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "build.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_generation(folder: Path, name: str, write: Callable[[Path], None]) -> None:
    """Write a generation with `write`, then let it answer. The caller holds `build_lock`."""
    for leftover in folder.glob(f"{_BUILDING}*"):  # of a writer that was killed
        shutil.rmtree(leftover)
    building = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=folder))
    try:
        write(building)
        (building / _LOCK).touch()
        for path in building.rglob("*"):
            _flush(path)
        _flush(building)
        building.rename(folder / name)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    pointer = folder / f".{_CURRENT}"
    pointer.write_text(name)
    _flush(pointer)
    pointer.replace(folder / _CURRENT)
    _flush(folder)
    remove_unread(folder)


def remove_unread(folder: Path) -> list[str]:
    """Remove the generations that neither answer nor are read; return their names."""
    current, removed = current_generation(folder), []
    for path in sorted(folder.iterdir()):
        is_candidate = path.is_dir() and path.name != current and not path.name.startswith(".")
        if is_candidate and _remove_if_unread(path):
            removed.append(path.name)
    return removed


def _remove_if_unread(generation: Path) -> bool:
    lock = generation / _LOCK
    lock.touch()  # without one, an earlier removal was cut short
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        lock.unlink()  # who opened it just now finds it gone and looks again
        shutil.rmtree(generation)
    return True


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
