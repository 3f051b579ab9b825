"""Whether a disk has room, and what it refused, in one sentence."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from whet.errors import TrainingError

_FULL = {
    errno.ENOSPC: "is full",
    errno.EDQUOT: "has no quota left",
    errno.EFBIG: "takes no larger files",
}


@contextmanager
def translate_disk_full(folder: Path, what: str) -> Iterator[None]:
    """Raise TrainingError in place of the system's error when something cannot be written."""
    try:
        yield
    except OSError as error:
        state = _FULL.get(error.errno or 0, f"refused: {error.strerror or error}")
        raise TrainingError(
            f"{what} could not be written: the disk of {folder} {state}.",
            hint=(
                "Free space there, then go on with `whet train resume RUN`; what was kept before is"
                " whole."
            ),
        ) from error


def require_disk_space(folder: Path, needed: int, setting: str = "WHET_HOME") -> None:
    """Raise TrainingError when the disk cannot take the `needed` bytes that a run will write.

    `setting` is what names another folder.
    """
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise TrainingError(
            f"The run will write about {_megabytes(needed)}, but the disk of {existing} has"
            f" {_megabytes(free)} left.",
            hint=f"Free space there, or set {setting} to a folder on another disk.",
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
