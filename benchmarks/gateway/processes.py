"""Processes on their core: starting, stopping, and what they used, from /proc."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.errors import BenchmarkError

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_POLL_S = 0.1


class Process:
    """A command and its children, all bound to one core."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        core: int,
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                ["taskset", "-c", str(core), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if environment is None else dict(environment),
                cwd=folder,
                start_new_session=True,
            )

    def wait_for(self, url: str, within_s: float) -> None:
        """Until `url` answers 200.

        Raises BenchmarkError with the end of the log when it does not, or the process ends.
        """
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if self._popen.poll() is not None:
                raise BenchmarkError(
                    f"{self.name} ended with code {self._popen.returncode} at its start. Its log"
                    f" ends with: {self._log_end()}"
                )
            try:
                with urllib.request.urlopen(url, timeout=2) as response:
                    if response.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(_POLL_S)
        raise BenchmarkError(
            f"{self.name} did not answer {url} within {within_s:g} s. Its log ends with:"
            f" {self._log_end()}"
        )

    def _log_end(self) -> str:
        return self.log.read_text(errors="replace").strip()[-600:]

    def pids(self) -> list[int]:
        """The process and all that came from it: they share its session."""
        return [pid for pid, fields in _processes() if int(fields[3]) == self._popen.pid]

    def cpu_s(self) -> float:
        """User and system time used so far, with children that ended, in seconds.

        Resolution: one tick (10 ms).
        """
        mine = [fields for _, fields in _processes() if int(fields[3]) == self._popen.pid]
        own = sum(int(fields[11]) + int(fields[12]) for fields in mine)
        ended = sum(int(fields[13]) + int(fields[14]) for fields in mine)
        return (own + ended) / _TICKS_PER_S

    def peak_memory_mib(self) -> float:
        """Sum of the highest resident sizes."""
        total = 0
        for pid in self.pids():
            for line in _read(Path(f"/proc/{pid}/status")).splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1])
        return total / 1024

    def settle(self, within_s: float = 60.0, busy: float = 0.1) -> None:
        """Until it uses less than `busy` of a core: requests that the load generator left behind
        are finished or dropped.
        """
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            before, at = self.cpu_s(), time.monotonic()
            time.sleep(0.5)
            if self.cpu_s() - before < busy * (time.monotonic() - at):
                return

    def stop(self, within_s: float = 15.0) -> None:
        """SIGTERM, then SIGKILL, to the whole session that we started."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._popen.pid, sign)
            except ProcessLookupError:
                break
            try:
                self._popen.wait(within_s)
            except subprocess.TimeoutExpired:
                continue
            if not self.pids():
                break
        self._popen.wait()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _processes() -> list[tuple[int, list[str]]]:
    """(pid, fields of /proc/PID/stat after the name): [3] session, [11] utime, [12] stime, [13] and
    [14] those of ended children.
    """
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (text := _read(Path(f"/proc/{entry}/stat"))):
            found.append((int(entry), text.rpartition(")")[2].split()))
    return found


def machine_busy_s() -> float:
    """CPU time that anything used since the start of the machine, over all cores, in seconds."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = (
        int(part) for part in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / _TICKS_PER_S
