"""Reads what this machine alone knows: its supervised processes, the disk, the log's backlog."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from whet.health.records import Machine, SupervisedProcess
from whet.up import state

# A gateway keeps one file of its own open and begins the next at 8 MiB; what is left is a backlog
_OPEN_FILE_BYTES = 8 << 20


def read_free_bytes(folder: Path) -> int | None:
    """Return what is free on the folder's disk, or None where that cannot be read."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def read_machine(
    home: Path, *, free_bytes: Callable[[Path], int | None] = read_free_bytes
) -> Machine:
    """Read everything; nothing raises, since a page has to be shown of a broken machine above all."""
    status = state.read_status(home)
    is_supervised = status is not None and status.get("running", False)
    rows = status.get("processes", ()) if status is not None and is_supervised else ()
    processes = tuple(_process(row) for row in rows)
    size, since = _read_backlog(home / "spool")
    return Machine(processes, is_supervised, free_bytes(home), size, since)


def _process(row: state.ProcessStatus) -> SupervisedProcess:
    pid = row["pid"]
    return SupervisedProcess(
        name=row["name"],
        phase=row["phase"],
        pid=pid,
        since=row["since_at"],
        down_since=row.get("down_since"),
        restarts=row["restarts"],
        last_exit=row["last_exit"],
        reason=row.get("reason") or "",
        log=row["log"],
        is_stopped=pid is not None and _is_stopped(pid),
    )


def _is_stopped(pid: int) -> bool:
    """Whether a signal has stopped the process. Linux; elsewhere nobody is found stopped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] in ("T", "t")


def _read_backlog(folder: Path) -> tuple[int, int | None]:
    """Return (bytes, ms of the oldest) of records that the database may not have yet."""
    sizes: dict[str, int] = {}
    oldest: float | None = None
    for path in folder.glob("*.jsonl"):
        try:
            found = path.stat()
        except OSError:  # drained and removed meanwhile
            continue
        if found.st_size:
            process = path.name.rpartition("-")[0]
            sizes[process] = sizes.get(process, 0) + found.st_size
            oldest = min(found.st_mtime, oldest) if oldest is not None else found.st_mtime
    size = sum(max(0, total - _OPEN_FILE_BYTES) for total in sizes.values())
    return size, int(oldest * 1000) if size and oldest is not None else None
