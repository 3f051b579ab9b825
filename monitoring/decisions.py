"""What people decide about gaps. Imports nothing that computes: pages call it."""

from __future__ import annotations

from sqlalchemy import update

from monitoring.gap_queries import StoredGap, find_gap
from whet.auditlog import record
from whet.context import Context
from whet.database import writing
from whet.errors import InputError
from whet.tables import retrieval_gaps

_GAP_STATES = ("open", "dismissed")


def change_gap(context: Context, gap_id: str, state: str, *, actor: str, now: int) -> StoredGap:
    """Dismiss a gap, or open it again; the same twice changes nothing.

    Raises NotFoundError, InputError for another state.
    """
    if state not in _GAP_STATES:
        raise InputError(f"{state!r} is no state of a gap; expected {' or '.join(_GAP_STATES)}.")
    with writing(context.database) as connection:
        gap = find_gap(connection, gap_id)
        if gap.state == state:
            return gap
        values = {"state": state, "changed_by": actor, "changed_at": now}
        where = retrieval_gaps.c.id == gap_id
        connection.execute(update(retrieval_gaps).where(where).values(**values))
        detail = {"alias": gap.alias, "words": [*gap.words]}
        record(
            connection, actor=actor, action=f"gap.{state}", subject=gap_id, detail=detail, now=now
        )
        return find_gap(connection, gap_id)
