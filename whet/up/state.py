"""`home/run/`: the lock that makes a home folder's supervisor the only one, and what it says about
its processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NotRequired, TypedDict

from whet.errors import ConflictError

# In every child's environment, so that leftovers of a killed supervisor can be told
HOME_MARK = "WHET_SUPERVISED_HOME"
NAME_MARK = "WHET_SUPERVISED_NAME"  # the same for one process, whose own children inherit it


def run_folder(home: Path) -> Path:
    return home / "run"


@contextmanager
def supervisor_lock(home: Path) -> Iterator[None]:
    """Hold the home folder while the block runs.

    Raises ConflictError naming the process that holds it already.
    """
    run_folder(home).mkdir(parents=True, exist_ok=True)
    path = run_folder(home) / "up.lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            raise ConflictError(
                f"`whet up` already runs for {home} (pid {holder}).",
                hint="Stop that one with Ctrl-C or `kill`, or set WHET_HOME to another folder.",
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


class ProcessStatus(TypedDict):
    """One supervised process. Instants are ms since 1970."""

    name: str
    phase: str
    pid: int | None
    since_at: int
    down_since: int | None
    restarts: int
    failures: int
    last_exit: int | None
    reason: str
    next_start_at: int | None
    ready_url: str
    log: str


class SupervisorStatus(TypedDict):
    """What the supervisor says of itself. `running`: whether it lives, added by readers."""

    pid: int
    version: str
    started_at: int
    written_at: int
    processes: list[ProcessStatus]
    running: NotRequired[bool]


def is_running(home: Path) -> bool:
    """True while a supervisor holds the home folder's lock."""
    try:
        handle = os.open(run_folder(home) / "up.lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def write_status(home: Path, status: SupervisorStatus) -> None:
    """Replace `run/status.json` in one step; a reader never sees half of it."""
    scratch = run_folder(home) / "status.json.tmp"
    scratch.write_text(json.dumps(status))
    os.replace(scratch, run_folder(home) / "status.json")


def read_status(home: Path) -> SupervisorStatus | None:
    """What the supervisor last said, with `running` telling whether it still lives.

    None: it never ran here.
    """
    try:
        status: SupervisorStatus = json.loads((run_folder(home) / "status.json").read_text())
    except (OSError, ValueError):
        return None
    return {**status, "running": is_running(home)}


def leftovers(home: Path, name: str = "") -> list[int]:
    """Return the pids of processes that a supervisor of this home started and that still run.

    `name`: only of this process and its children, in whatever group or session they are now.
    Linux; elsewhere none are found. A zombie has no environment left and is not found.
    """
    marks = {f"{HOME_MARK}={home}".encode()} | ({f"{NAME_MARK}={name}".encode()} if name else set())
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(folder.name) != os.getpid() and marks <= set(
                (folder / "environ").read_bytes().split(b"\0")
            ):
                found.append(int(folder.name))
    return found


def end_leftovers(home: Path, *, within_s: float = 10.0) -> int:
    """Kill them; call only while holding the lock. Returns how many there were."""
    found = leftovers(home)
    deadline = time.monotonic() + within_s
    while (alive := leftovers(home)) and time.monotonic() < deadline:
        for pid in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return len(found)
