"""Process groups of supervised processes: what is left of one that ended, and the reaper's handle."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from whet.up import state

_HERE = Path(__file__).parent


def running_in_group(group: int) -> set[int]:
    """Return the members of a process group that are no zombies (Linux), or the group's own id."""
    if not sys.platform.startswith("linux"):
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return set()
        return {-group}  # as `kill` takes a group
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # pid (comm) state ppid pgrp …; the name may hold spaces and brackets
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if fields[0] not in "ZX" and int(fields[2]) == group:
                found.add(int(folder.name))
    return found


def kill_left(group: int, home: Path, name: str) -> set[int]:
    """Kill what the process `name` of this home left, in its group or outside; return the pids."""
    found = running_in_group(group) | set(state.leftovers(home, name))
    for pid in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return found


class Reaper:
    """Runs `reaper.py`, which kills the groups it was given when this process is gone."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def add(self, group: int) -> None:
        """Have the group killed if this process dies."""
        self._groups.add(group)
        self._write(f"+{group}")

    def forget(self, group: int) -> None:
        """Leave the group alone: nothing of it runs any more."""
        self._groups.discard(group)
        self._write(f"-{group}")

    def ensure_running(self) -> None:
        """Start it, or start another if it was killed, and tell that one about every group."""
        if self._process is not None and self._process.poll() is None:
            return
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_HERE / "reaper.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for group in self._groups:
            self._write(f"+{group}")

    def close(self) -> None:
        """End it; no group is left to be killed."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.wait()
            self._process = None

    def _write(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # `ensure_running` starts another
                self._process.stdin.write(f"{line}\n".encode())
                self._process.stdin.flush()
