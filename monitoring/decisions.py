"""What people decide about alerts and gaps. Imports nothing that computes: pages call it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update

from monitoring.gap_queries import find_gap
from monitoring.queries import find_alert
from whet.auditlog import record
from whet.context import Context
from whet.database import writing
from whet.errors import ConflictError, InputError
from whet.tables import alerts, retrieval_gaps

OPEN_STATES = ("open", "acknowledged")
CLOSING_STATES = ("resolved", "expected")
_GAP_STATES = ("open", "dismissed")


def change_alert(
    context: Context, alert_id: str, state: str, *, actor: str, now: int
) -> dict[str, Any]:
    """A person's decision: `acknowledged`, `resolved` or `expected`.

    Returns the alert as it is now.

    `expected` makes the traffic from now on the new normal of the alias. Doing the same twice
    changes nothing. Raises NotFoundError, InputError for another state, ConflictError when the
    alert is closed already.
    """
    if state not in ("acknowledged", *CLOSING_STATES):
        raise InputError(
            f"{state!r} is not something an alert can be set to; expected acknowledged, resolved or"
            " expected."
        )
    with writing(context.database) as connection:
        alert = find_alert(connection, alert_id)
        if alert["state"] == state:
            return alert
        if alert["state"] not in OPEN_STATES:
            raise ConflictError(
                f"Alert {alert_id} is {alert['state']} already.",
                hint="If the change is still there, the next drift run opens a new one.",
            )
        if state == "expected" and alert["kind"] == "errors":
            raise ConflictError(
                "That more answers are wrong cannot be marked as expected: nothing would become"
                " right by it.",
                hint="Resolve it instead.",
            )
        values: dict[str, Any] = {"state": state, "changed_at": now, "changed_by": actor}
        if state in CLOSING_STATES:
            values["open_marker"] = None
        connection.execute(update(alerts).where(alerts.c.id == alert["id"]).values(**values))
        record(
            connection,
            actor=actor,
            action=f"alert.{state}",
            subject=alert["id"],
            detail={"alias": alert["alias"], "kind": alert["kind"]},
            now=now,
        )
        return find_alert(connection, alert_id)


def change_gap(
    context: Context, gap_id: str, state: str, *, actor: str, now: int
) -> dict[str, Any]:
    """Dismiss a gap, or open it again; the same twice changes nothing.

    Raises NotFoundError, InputError for another state.
    """
    if state not in _GAP_STATES:
        raise InputError(f"{state!r} is no state of a gap; expected {' or '.join(_GAP_STATES)}.")
    with writing(context.database) as connection:
        gap = find_gap(connection, gap_id)
        if gap["state"] == state:
            return gap
        values = {"state": state, "changed_by": actor, "changed_at": now}
        where = retrieval_gaps.c.id == gap_id
        connection.execute(update(retrieval_gaps).where(where).values(**values))
        detail = {"alias": gap["alias"], "words": gap["words"]}
        record(
            connection, actor=actor, action=f"gap.{state}", subject=gap_id, detail=detail, now=now
        )
        return find_gap(connection, gap_id)
