"""`whet alerts ack`, `resolve`, `expected`, `assign`, `snooze`, `note` and `undo`."""

from __future__ import annotations

from monitoring import incident_actions
from monitoring.alert_store import Alert, find_alert
from whet.cli import actor, emit, opened
from whet.clock import iso, now_ms
from whet.database import reading

_HOUR_MS = 3_600_000


def acknowledge(*, alert_id: str, reason: str, as_json: bool) -> None:
    """Say that somebody looks after it. It stays open."""
    _change(alert_id, "acknowledged", reason, as_json)


def resolve(*, alert_id: str, reason: str, as_json: bool) -> None:
    """Close it. If the change is still there, the next drift run opens a new one."""
    _change(alert_id, "resolved", reason, as_json)


def mark_expected(*, alert_id: str, reason: str, as_json: bool) -> None:
    """Close it as wanted: the traffic from now on is the new normal of the alias."""
    _change(alert_id, "expected", reason, as_json)


def assign(*, alert_id: str, owner: str, reason: str, as_json: bool) -> None:
    """Say who looks after it; an empty name: nobody."""
    with opened() as context:
        row = incident_actions.assign(
            context, alert_id, owner, actor=actor(), now=now_ms(), reason=reason
        )
    _emit(row, as_json)


def snooze(*, alert_id: str, hours: float, reason: str, as_json: bool) -> None:
    """Remind nobody of it for some hours; 0: from now on again."""
    with opened() as context:
        now = now_ms()
        until = now + round(hours * _HOUR_MS) if hours else None
        row = incident_actions.snooze(
            context, alert_id, until, actor=actor(), now=now, reason=reason
        )
    _emit(row, as_json)


def note(*, alert_id: str, text: str, as_json: bool) -> None:
    """Keep a note on it, open or closed."""
    with opened() as context:
        incident_actions.add_note(context, alert_id, text, actor=actor(), now=now_ms())
        with reading(context.database) as connection:
            row = find_alert(connection, alert_id)
    _emit(row, as_json)


def undo(*, alert_id: str, as_json: bool) -> None:
    """Take the newest action on it back."""
    with opened() as context:
        with reading(context.database) as connection:
            find_alert(connection, alert_id)
            done = incident_actions.list_actions(connection, alert_id)
        newest = incident_actions.newest_of(done)
        row = incident_actions.undo(context, newest.id, actor=actor(), now=now_ms())
    _emit(row, as_json)


def _change(alert_id: str, state: str, reason: str, as_json: bool) -> None:
    with opened() as context:
        row = incident_actions.change_state(
            context, alert_id, state, actor=actor(), now=now_ms(), reason=reason
        )
    _emit(row, as_json)


def _emit(row: Alert, as_json: bool) -> None:
    until = row.snoozed_until
    shown = {
        "id": row.id, "state": row.state, "owner": row.owner,
        "snoozed until": iso(until) if until else None, "title": row.title,
    }  # fmt: skip
    emit(row.as_json() if as_json else shown, as_json)
