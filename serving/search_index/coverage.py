"""Says which part of the log the full-text index does not know yet."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from serving.search_index.entries import NUMBERS_PER_MS
from serving.search_index.index_store import count_entries
from whet.tables import interaction_search, interactions

LATE_MS = 60_000  # the scheduler indexes within seconds


@dataclass(frozen=True, slots=True)
class Coverage:
    """How far the index goes. `stopped_at` (ms): it does not know what was logged later."""

    logged: int
    indexed: int
    back_to: int | None = None  # ms; None: nothing is indexed
    stopped_at: int | None = None


def read_coverage(connection: Connection, now: int) -> Coverage | None:
    """Return what is missing; None where the index has the oldest interaction and those of a minute
    ago."""
    at = interactions.c.created_at
    oldest = select(interactions.c.id).order_by(at).limit(1)
    recent = select(interactions.c.id).where(at < now - LATE_MS).order_by(at.desc()).limit(1)
    ends = [_is_indexed(connection, connection.execute(end).scalar()) for end in (oldest, recent)]
    if all(ends):
        return None
    logged, indexed = count_entries(connection)
    bounds = select(func.min(interaction_search.c.number), func.max(interaction_search.c.number))
    first, last = connection.execute(bounds).one()
    return Coverage(
        logged,
        indexed,
        None if first is None else first // NUMBERS_PER_MS,
        None if ends[1] or last is None else last // NUMBERS_PER_MS,
    )


def _is_indexed(connection: Connection, interaction_id: str | None) -> bool:
    if interaction_id is None:
        return True
    known = select(interaction_search.c.number).where(
        interaction_search.c.interaction_id == interaction_id
    )
    return connection.execute(known).first() is not None
