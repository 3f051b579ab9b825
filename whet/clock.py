"""Time.

Instants are integers: milliseconds since 1970 in UTC, in columns and fields that end in `_at`.

Integers compare, sort and store the same on SQLite and PostgreSQL. Durations end in their unit
(`_ms`, `_s`).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now_ms() -> int:
    """The wall clock. Only process edges call this; everything else takes `now` as an argument."""
    return time.time_ns() // 1_000_000


def to_datetime(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1000, tz=UTC)


def iso(at: int | None) -> str:
    """`2026-01-31T09:30:00Z`, or an empty string for no time."""
    return to_datetime(at).strftime("%Y-%m-%dT%H:%M:%SZ") if at is not None else ""
