"""wrk on its core."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.gateway.figures import Cell, Load, parse_wrk

_SCRIPT = Path(__file__).parent / "load.lua"
_TIMEOUT_S = 60  # per request: a slow peer's answer is a slow answer, not an error


def find_wrk() -> str:
    """Raises BenchmarkError when it is not installed."""
    for tool in ("wrk", "taskset"):
        if shutil.which(tool) is None:
            raise BenchmarkError(
                f"{tool} is not installed.",
                hint="On Debian and Ubuntu: apt-get install wrk util-linux.",
            )
    return "wrk"


def run_wrk(
    url: str, cell: Cell, *, model: str, key: str, seconds: float, core: int
) -> tuple[Load, float]:
    """One closed-loop run on one thread; returns what it saw and the CPU seconds that wrk itself
    used.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [
            "taskset",
            "-c",
            str(core),
            find_wrk(),
            "-t1",
            f"-c{cell.connections}",
            f"-d{seconds:g}s",
            f"--timeout={_TIMEOUT_S}s",
            "-s",
            str(_SCRIPT),
            f"{url}/v1/chat/completions",
        ],
        env={**os.environ, "MODEL": model, "KEY": key, "STREAM": "1" if cell.stream else "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 2 * _TIMEOUT_S,
    )
    if done.returncode:
        raise BenchmarkError(
            f"wrk ended with code {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}"
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return parse_wrk(
        done.stdout
    ), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
