"""What change detection remembers of hours. The only writer of `drift_hours`.

Statistics are kept as long as they are history; of older hours that were judged, that they were and
what they showed, since the detector's state follows from it; of others nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from sqlalchemy import Connection, delete, null, select, update

from monitoring.detector.hours import HOURS, RememberedHour
from whet.context import Context
from whet.database import insert_ignore, writing
from whet.records.monitoring import HOUR_OUTCOME, HOUR_STATISTICS
from whet.tables import drift_days, drift_hours

# A history of nine weeks, and the four by which an excursion or an open incident may hold it back
_KEPT_HOURS = (63 + 28) * HOURS


class KeptHour(NamedTuple):
    """An hour, and when it was taken in (ms)."""

    hour: RememberedHour
    created_at: int


def stored_hours(connection: Connection, alias: str) -> deque[KeptHour]:
    """Every hour that was kept, oldest first."""
    query = select(drift_hours).where(drift_hours.c.alias == alias).order_by(drift_hours.c.hour)
    return deque(
        KeptHour(
            RememberedHour.from_record(
                row.hour,
                row.rows,
                row.judged,
                HOUR_STATISTICS.decode(row.statistics),
                HOUR_OUTCOME.decode(row.outcome),
            ),
            row.created_at,
        )
        for row in connection.execute(query)
    )


def last_hour(connection: Connection, alias: str) -> int | None:
    """The newest hour that was taken in."""
    found: int | None = connection.scalar(
        select(drift_hours.c.hour)
        .where(drift_hours.c.alias == alias)
        .order_by(drift_hours.c.hour.desc())
        .limit(1)
    )
    return found


def store_hour(
    context: Context, alias: str, hour: RememberedHour, now: int, also: Callable[[Connection], None]
) -> bool:
    """Keep an hour; `also` runs in the same transaction.

    False where nothing of it counts: another process took it in meanwhile, or its day was judged
    meanwhile, which an hour may not follow; the hour is then history only.
    """
    of_alias, oldest = drift_hours.c.alias == alias, hour.hour - _KEPT_HOURS
    with writing(context.database) as connection:
        late = (
            connection.scalar(
                select(drift_days.c.day)
                .where(drift_days.c.alias == alias, drift_days.c.day >= hour.hour // HOURS)
                .limit(1)
            )
            is not None
        )
        kept = (
            replace(hour, judged=False, noise=None, sums={}, evidence=())
            if late and hour.judged
            else hour
        )
        values = {
            "alias": alias,
            "hour": kept.hour,
            "rows": kept.rows,
            "judged": kept.judged,
            "statistics": HOUR_STATISTICS.encode(kept.statistics.record())
            if kept.statistics is not None
            else null(),
            "outcome": HOUR_OUTCOME.encode(kept.outcome()),
            "created_at": now,
        }
        if (
            connection.execute(insert_ignore(connection, drift_hours).values(**values)).rowcount
            == 0
        ):
            return False
        connection.execute(
            delete(drift_hours).where(of_alias, drift_hours.c.hour <= oldest, ~drift_hours.c.judged)
        )
        connection.execute(
            update(drift_hours)
            .where(of_alias, drift_hours.c.hour <= oldest, drift_hours.c.statistics.is_not(None))
            .values(statistics=null())
        )
        if kept is hour:
            also(connection)
    return kept is hour
