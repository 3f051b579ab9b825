"""Alerts that come and go: opened again instead of anew, and slower to resolve themselves each time.

Pure, and imports nothing that computes.
"""

from __future__ import annotations

from whet.records.monitoring import AlertDetail

QUIET_RUNS = 2  # runs without drift before an alert resolves itself: one may be luck
# An alert that resolved itself so shortly ago is opened again instead of a new one
FLAP_MS = 24 * 3_600_000
_MOST_QUIET_RUNS = 16  # what the runs needed double to, with each time that it came back


def times_reopened(detail: AlertDetail) -> int:
    """How often an alert resolved itself and was opened again."""
    return detail.reopened


def quiet_runs_needed(detail: AlertDetail) -> int:
    """Runs without drift before an alert resolves itself."""
    return min(_MOST_QUIET_RUNS, QUIET_RUNS << min(times_reopened(detail), 10))


def came_back(detail: AlertDetail) -> str:
    """Say that an alert resolved itself before, and when it does again; empty where it did not."""
    times = times_reopened(detail)
    if not times:
        return ""
    often = "once" if times == 1 else f"{times} times"
    return (
        f"It resolved itself {often} and came back; it does again after"
        f" {quiet_runs_needed(detail)} runs without it."
    )
