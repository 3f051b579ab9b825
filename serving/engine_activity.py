"""Whether an engine that does not answer is computing: what tells a busy one from a hung one.

A long prompt or a large grammar keeps an engine from answering for seconds. The processor time of
its processes shows that it works. That can be seen for an engine on this machine alone; of another
nothing is known, and it counts as idle.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
BUSY_SHARE = 0.5  # of one processor; an engine that waits uses a few hundredths


@dataclass(frozen=True, slots=True)
class Activity:
    """Processor time of an engine's processes at one moment."""

    cpu_s: float
    at_s: float  # of any clock that only moves forward


def is_computing(before: Activity | None, after: Activity | None) -> bool:
    """True if the engine used a good part of a processor between two moments."""
    if before is None or after is None or after.at_s <= before.at_s:
        return False
    return (after.cpu_s - before.cpu_s) / (after.at_s - before.at_s) >= BUSY_SHARE


class EngineProcesses:
    """The processes behind the URLs of engines on this machine."""

    def __init__(self) -> None:
        self._processes: dict[str, psutil.Process] = {}

    def activity(self, url: str, now_s: float) -> Activity | None:
        """What the engine's processes have used so far; None where they cannot be seen."""
        process = self._processes.get(url)
        if process is None or not process.is_running():
            process = _find_listener(url)
            if process is None:
                return None
            self._processes[url] = process
        try:
            used = [process, *process.children(recursive=True)]
            return Activity(sum(map(_cpu_s, used)), now_s)
        except psutil.Error:
            return None


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _find_listener(url: str) -> psutil.Process | None:
    """The process that listens at `url`, if it is one of this machine and none of ours."""
    parts = urlsplit(url)
    if parts.hostname not in _LOOPBACK or parts.port is None:
        return None
    try:
        for connection in psutil.net_connections("tcp"):
            is_listener = connection.status == psutil.CONN_LISTEN
            if is_listener and connection.pid and connection.laddr.port == parts.port:
                return None if connection.pid == os.getpid() else psutil.Process(connection.pid)
    except psutil.Error:
        return None
    return None
