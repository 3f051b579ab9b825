"""How fast answers come.

Neighbouring requests share the machine's load, so stretches are compared, not single requests.
"""

from __future__ import annotations

from monitoring.rows import Row
from monitoring.signals.base import Signal


def _ttft(row: Row) -> float | None:
    """Only of streams: without one, the first byte comes with the last."""
    return row.ttft_ms if row.stream else None


def _per_token(row: Row) -> float | None:
    if row.duration_ms is None or not row.completion_tokens:
        return None
    return row.duration_ms / row.completion_tokens


SERVICE = (
    Signal("ttft", "service", "latency", "TTFT", _ttft, "ms", worse="up"),
    Signal(
        "time_per_token",
        "service",
        "latency",
        "time per output token",
        _per_token,
        "ms",
        worse="up",
    ),
)
