"""Prometheus metrics of several workers, one of which was killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_KILLED = """
import os, signal
from serving.gateway.metrics import Metrics
metrics = Metrics()
metrics.in_flight.inc(3)
metrics.pending.set(500)
metrics.unavailable.set(1)
metrics.rows.inc(2)
os.kill(os.getpid(), signal.SIGKILL)
"""
_ALIVE = """
from serving.gateway.metrics import Metrics
metrics = Metrics()
metrics.in_flight.inc(1)
metrics.rows.inc(5)
print(metrics.exposition().decode())
"""


@pytest.mark.seconds
def test_gauges_of_a_killed_worker_are_gone_and_its_counters_stay(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    killed = subprocess.run([sys.executable, "-c", _KILLED], env=environment, timeout=60)
    assert killed.returncode == -9
    alive = subprocess.run(
        [sys.executable, "-c", _ALIVE], env=environment, timeout=60, capture_output=True, text=True
    )
    lines = [line for line in alive.stdout.splitlines() if line.startswith("whet_")]
    samples = dict(line.rsplit(" ", 1) for line in lines)
    found = {
        name: float(samples[name])
        for name in (
            "whet_gateway_in_flight",
            "whet_log_pending_bytes",
            "whet_log_unavailable",
            "whet_log_rows_total",
        )
    }
    assert list(found.values()) == [1, 0, 0, 7], found
