"""`whet doctor` about retention: when it last ran, what is older, and why it is still there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlalchemy import Connection, Engine, func, select

from whet.clock import iso
from whet.database import reading
from whet.doctor_base import Check
from whet.ids import lowest_id
from whet.retention import (
    CONVERSATION_ROWS,
    DAY_MS,
    NIGHT_HOUR_UTC,
    Needed,
    kept_sentence,
    last_runs,
    load_needed,
    retention_before,
)
from whet.settings import Settings

# Rows grow old all day and are deleted at night; two days later nobody has looked after them.
_OVERDUE_DAYS = 2
_IN_CLAUSE = 500
_NEVER = f"has not run yet: the scheduler runs it nightly after {NIGHT_HOUR_UTC:02}:00 UTC"


def check_retention(settings: Settings, database: Engine, now: int) -> Iterator[Check]:
    """One line: the newest run of the package that is furthest behind, and what is overdue."""
    overdue_before = retention_before(settings.retention_days + _OVERDUE_DAYS, now)
    with reading(database) as connection:
        runs = last_runs(connection)
        needed = load_needed(connection, overdue_before)
        overdue = count_overdue(connection, overdue_before, needed)
    ran = min((at for at, _ in runs.values()), default=None)
    last = f"last ran at {iso(ran)}" if ran is not None else _NEVER
    kept = kept_sentence(len(needed.for_examples), len(needed.for_incidents))
    days = f"{settings.retention_days} days (retention_days)"
    if overdue:
        what = ", ".join(f"{count:,} {table}" for table, count in overdue.items())
        found = f"Of conversations older than {days} there are still {what}; it {last}.{kept}"
        todo = "Start `whet up`, or see logs/scheduler.log in the home folder for why it fails."
        yield Check("retention", "fail", found, todo)
        return
    is_late = ran is not None and now - ran > _OVERDUE_DAYS * DAY_MS
    found = f"Nothing is older than {days} and {_OVERDUE_DAYS} nights; it {last}.{kept}"
    yield Check(
        "retention", "note" if is_late else "ok", found, "Start `whet up`." if is_late else ""
    )


def count_overdue(connection: Connection, before: int, needed: Needed) -> dict[str, int]:
    """Table → rows of conversations from before `before` (ms) that nobody needs."""
    floor = lowest_id("int", before)
    found = {}
    for key, interaction_id in CONVERSATION_ROWS:
        rows = select(func.count()).select_from(key.table)
        count = connection.scalar(rows.where(interaction_id < floor)) or 0
        if count:
            for block in _blocks(needed.for_examples | needed.for_incidents):
                count -= connection.scalar(rows.where(interaction_id.in_(block))) or 0
        if count:
            found[str(key.table.name)] = count
    return found


def _blocks(ids: Iterable[str]) -> Iterator[list[str]]:
    listed = sorted(ids)
    return (listed[at : at + _IN_CLAUSE] for at in range(0, len(listed), _IN_CLAUSE))
