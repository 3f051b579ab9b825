"""What people do about an incident: owner, note, snooze, state, each with a reason and with undo.

The only writer of `incident_actions`. Imports nothing that computes: pages call it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from monitoring.alert_store import Alert, find_alert
from whet.auditlog import record
from whet.context import Context
from whet.database import writing
from whet.errors import ConflictError, InputError, NotFoundError
from whet.ids import new_id
from whet.tables import alerts, drift_hours, drift_reports, incident_actions, users

OPEN_STATES = ("open", "acknowledged")
CLOSING_STATES = ("resolved", "expected")
MOST_TEXT = 4000
_LONGEST_SNOOZE_MS = 30 * 86_400_000
# What `expected` teaches, by the table that says when: a run after it has taken the new traffic in
_LEARNS = (drift_reports, drift_hours)


@dataclass(frozen=True, slots=True)
class IncidentAction:
    """One thing that somebody did about an alert."""

    id: str
    alert_id: str
    actor: str
    action: str
    text: str
    owner: str | None
    until: int | None
    created_at: int
    undone_at: int | None
    undone_by: str | None

    @property
    def sentence(self) -> str:
        """What was done, without who did it and without the reason."""
        if self.action == "assigned":
            return f"assigned it to {self.owner}" if self.owner else "took the owner off it"
        if self.action == "snoozed":
            return "snoozed it" if self.until else "ended the snooze"
        return {
            "note": "noted", "acknowledged": "acknowledged it", "resolved": "resolved it",
            "expected": "marked it as expected",
        }.get(self.action, self.action)  # fmt: skip


def change_state(
    context: Context, alert_id: str, state: str, *, actor: str, now: int, reason: str = ""
) -> Alert:
    """Acknowledge or close an alert: `acknowledged`, `resolved` or `expected`.

    Returns the alert as it is now. `expected` makes the traffic from now on the new normal of the
    alias. Doing the same twice changes nothing. Raises NotFoundError, InputError for another state,
    ConflictError when the alert is closed already.
    """
    if state not in ("acknowledged", *CLOSING_STATES):
        raise InputError(
            f"{state!r} is not something an alert can be set to; expected acknowledged, resolved or"
            " expected."
        )
    with writing(context.database) as connection:
        alert = find_alert(connection, alert_id)
        if alert.state == state:
            return alert
        _require_open(alert)
        if state == "expected" and alert.kind == "errors":
            raise ConflictError(
                "That more answers are wrong cannot be marked as expected: nothing would become"
                " right by it.",
                hint="Resolve it instead.",
            )
        values: dict[str, Any] = {"state": state, "changed_at": now, "changed_by": actor}
        if state in CLOSING_STATES:
            values |= {"open_marker": None, "snoozed_until": None}
        elif alert.owner is None:
            values["owner"] = actor  # who acknowledges looks after it
        _act(connection, alert, state, actor=actor, now=now, text=reason, values=values)
        return find_alert(connection, alert_id)


def assign(
    context: Context, alert_id: str, owner: str, *, actor: str, now: int, reason: str = ""
) -> Alert:
    """Say who looks after an alert; an empty name: nobody. Raises NotFoundError, ConflictError."""
    with writing(context.database) as connection:
        alert = find_alert(connection, alert_id)
        _require_open(alert)
        name = owner.strip() or None
        if name is not None and name not in list_people(connection):
            raise NotFoundError(
                f"There is no console user {name[:64]!r}.", hint="People are listed under Settings."
            )
        if alert.owner != name:
            _act(
                connection, alert, "assigned", actor=actor, now=now, text=reason,
                values={"owner": name}, owner=name,
            )  # fmt: skip
        return find_alert(connection, alert_id)


def snooze(
    context: Context,
    alert_id: str,
    until: int | None,
    *,
    actor: str,
    now: int,
    reason: str = "",
) -> Alert:
    """Remind nobody of an alert before `until` (ms); None ends that.

    Raises InputError for a time that is over or more than 30 days away.
    """
    if until is not None and not now < until <= now + _LONGEST_SNOOZE_MS:
        raise InputError(
            "An incident is snoozed until a time to come, at most 30 days from now.",
            hint="Give such a time, or resolve the incident.",
        )
    with writing(context.database) as connection:
        alert = find_alert(connection, alert_id)
        _require_open(alert)
        if alert.snoozed_until != until:
            _act(
                connection, alert, "snoozed", actor=actor, now=now, text=reason,
                values={"snoozed_until": until}, until=until,
            )  # fmt: skip
        return find_alert(connection, alert_id)


def add_note(context: Context, alert_id: str, text: str, *, actor: str, now: int) -> None:
    """Keep a note on an alert, open or closed. Raises InputError for an empty one."""
    if not text.strip():
        raise InputError("The note is empty.", hint="Write what the others should know.")
    with writing(context.database) as connection:
        alert = find_alert(connection, alert_id)
        _act(connection, alert, "note", actor=actor, now=now, text=text, values={})


def undo(context: Context, action_id: str, *, actor: str, now: int) -> Alert:
    """Take the newest action on an alert back; returns the alert as it is then.

    Raises NotFoundError, ConflictError where something came after it: a newer action, monitoring
    itself, a new alert of the same kind, or a run that has learned from it.
    """
    with writing(context.database) as connection:
        query = select(incident_actions).where(incident_actions.c.id == action_id)
        found = connection.execute(query.with_for_update()).mappings().first()
        if found is None:
            raise NotFoundError(f"There is no action {action_id[:80]!r} on an incident.")
        row = dict(found)
        alert = find_alert(connection, row["alert_id"])
        _require_undoable(connection, row, alert)
        if row["action"] != "note":
            _restore(connection, row, alert)
        connection.execute(
            update(incident_actions)
            .where(incident_actions.c.id == action_id)
            .values(undone_at=now, undone_by=actor)
        )
        record(
            connection, actor=actor, action="alert.undo", subject=alert.id,
            detail={"action": row["action"], "by": row["actor"]}, now=now,
        )  # fmt: skip
        return find_alert(connection, alert.id)


def list_actions(connection: Connection, alert_id: str) -> list[IncidentAction]:
    """Return what was done about an alert, the newest first."""
    names = IncidentAction.__slots__
    query = select(*(incident_actions.c[name] for name in names))
    query = query.where(incident_actions.c.alert_id == alert_id)
    order = incident_actions.c.created_at.desc(), incident_actions.c.id.desc()
    return [IncidentAction(**row._mapping) for row in connection.execute(query.order_by(*order))]


def newest_of(actions: Sequence[IncidentAction]) -> IncidentAction:
    """Return the newest action that stands and is no note. Raises ConflictError without one."""
    for one in actions:
        if one.undone_at is None and one.action != "note":
            return one
    raise ConflictError("Nothing was done about this alert that could be undone.")


def list_people(connection: Connection) -> list[str]:
    """Return who may look after an incident: reviewers, operators and admins of the console."""
    query = select(users.c.name).where(users.c.removed_at.is_(None), users.c.role != "viewer")
    return [str(name) for name in connection.scalars(query.order_by(users.c.name))]


def _require_open(alert: Alert) -> None:
    if alert.state not in OPEN_STATES:
        raise ConflictError(
            f"Alert {alert.id} is {alert.state} already.",
            hint="If the change is still there, the next drift run opens a new one.",
        )


def _act(
    connection: Connection,
    alert: Alert,
    action: str,
    *,
    actor: str,
    now: int,
    text: str,
    values: Mapping[str, Any],
    owner: str | None = None,
    until: int | None = None,
) -> None:
    """Change the alert, keep what it was, and write the audit log, in one transaction."""
    said = text.strip()
    if len(said) > MOST_TEXT:
        raise InputError(f"The text has {len(said)} characters; expected at most {MOST_TEXT}.")
    if values:
        connection.execute(update(alerts).where(alerts.c.id == alert.id).values(**values))
    connection.execute(
        insert(incident_actions).values(
            id=new_id("act", at=now), alert_id=alert.id, actor=actor, action=action, text=said,
            owner=owner, until=until, state_before=alert.state, owner_before=alert.owner,
            snoozed_until_before=alert.snoozed_until, changed_at_before=alert.changed_at,
            changed_by_before=alert.changed_by, created_at=now,
        )
    )  # fmt: skip
    told = {"owner": owner, "until": until, "reason": said or None}
    detail: dict[str, object] = {"alias": alert.alias, "kind": alert.kind}
    detail |= {name: value for name, value in told.items() if value is not None}
    record(
        connection, actor=actor, action=f"alert.{action}", subject=alert.id, detail=detail,
        now=now,
    )  # fmt: skip


def _require_undoable(connection: Connection, row: Mapping[str, Any], alert: Alert) -> None:
    if row["undone_at"] is not None:
        raise ConflictError("This was undone already.")
    if row["action"] == "note":
        return
    newest = newest_of(list_actions(connection, alert.id))
    if newest.id != row["id"]:
        raise ConflictError(
            f"{newest.actor} {newest.sentence} after it.", hint="Undo that first, if it was wrong."
        )
    changes_state = row["action"] in ("acknowledged", *CLOSING_STATES)
    if changes_state and (alert.state, alert.changed_at) != (
        row["action"],
        row["created_at"],
    ):
        raise ConflictError(f"Monitoring has set the incident to {alert.state} since.")
    if row["action"] == "expected" and (at := _learned_at(connection, alert.alias, row)):
        raise ConflictError(
            "A drift run has taken the traffic since then as normal, which cannot be undone.",
            hint=f"It ran {(at - row['created_at']) // 1000} s after the decision.",
        )


def _learned_at(connection: Connection, alias: str, row: Mapping[str, Any]) -> int | None:
    """When monitoring first looked at the alias after the action; None: not yet."""
    found = [
        connection.scalar(
            select(func.min(table.c.created_at)).where(
                table.c.alias == alias, table.c.created_at > row["created_at"]
            )
        )
        for table in _LEARNS
    ]
    return min((at for at in found if at is not None), default=None)


def _restore(connection: Connection, row: Mapping[str, Any], alert: Alert) -> None:
    values: dict[str, Any] = {
        "state": row["state_before"], "owner": row["owner_before"],
        "snoozed_until": row["snoozed_until_before"], "changed_at": row["changed_at_before"],
        "changed_by": row["changed_by_before"],
    }  # fmt: skip
    if alert.open_marker is None:
        key = alert.dedup_key
        other = connection.scalar(select(alerts.c.id).where(alerts.c.open_marker == key))
        if other is not None:
            raise ConflictError(
                "The change is open as another incident since then.",
                hint=f"Open /drift/incidents/{other}.",
            )
        values["open_marker"] = key
    connection.execute(update(alerts).where(alerts.c.id == alert.id).values(**values))
