"""The worker's side of a child process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping

from training.imports import quiet_environment


class Child:
    """A `training.child` that waits to be told what to run, or runs it."""

    def __init__(self) -> None:
        quiet_environment()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "training.child", str(os.getpid())], stdin=subprocess.PIPE
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def tell(self, what: Mapping[str, object]) -> None:
        """Send the order; the pipe stays open, and its end tells the child that we are gone."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it died meanwhile; `wait` says so

    def wait(self, seconds: float) -> int | None:
        """The exit status, or None while it runs."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End it now and wait for it: after this it writes nothing."""
        self._process.kill()
        self._process.wait()

    def how_it_ended(self) -> str:
        status = self._process.returncode
        if status is not None and status < 0:
            name = signal.Signals(-status).name
            return (
                f"{name} (the system was out of memory, or somebody killed it)"
                if name == "SIGKILL"
                else name
            )
        return f"exit status {status}"
