"""`whet alerts ack`, `resolve` and `expected`."""

from __future__ import annotations

from monitoring.decisions import change_alert
from whet.cli import actor, emit, opened
from whet.clock import now_ms


def acknowledge(*, alert_id: str, as_json: bool) -> None:
    """Say that somebody looks after it. It stays open."""
    _change(alert_id, "acknowledged", as_json)


def resolve(*, alert_id: str, as_json: bool) -> None:
    """Close it. If the change is still there, the next drift run opens a new one."""
    _change(alert_id, "resolved", as_json)


def mark_expected(*, alert_id: str, as_json: bool) -> None:
    """Close it as wanted: the traffic from now on is the new normal of the alias."""
    _change(alert_id, "expected", as_json)


def _change(alert_id: str, state: str, as_json: bool) -> None:
    with opened() as context:
        row = change_alert(context, alert_id, state, actor=actor(), now=now_ms())
    emit(
        row if as_json else {"id": row["id"], "state": row["state"], "title": row["title"]}, as_json
    )
