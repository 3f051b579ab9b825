"""Keeps why answers with feedback are not in the review queue: the one writer of `review_left_out`.

The gateway tells the application that posted the feedback. A row is written when the reason
changes, goes when the answer is queued, and is pruned when its feedback is too old to be queued.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, delete, func, select, update

from feedback.selection import LeftOut
from whet.database import insert_ignore, reading, writing
from whet.tables import review_left_out

_IN_CLAUSE = 500  # ids per query: SQLite and PostgreSQL both take far more, but plans stay simple


@dataclass(frozen=True, slots=True)
class NotQueued:
    """An answer that the job looked at and did not queue."""

    alias: str
    left_out: LeftOut


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """How many answers one reason keeps out of the queue."""

    reason: str
    answers: int
    sentence: str  # of one of them
    example: str  # an interaction


def store(database: Engine, found: Mapping[str, NotQueued], *, now: int) -> int:
    """Write the reasons that are new or changed, by interaction id; return how many were."""
    with reading(database) as connection:
        known = _known(connection, list(found))
    changed = {key: item for key, item in found.items() if known.get(key) != item.left_out}
    if not changed:
        return 0
    with writing(database) as connection:
        for key, item in changed.items():
            values = {
                "alias": item.alias,
                "reason": item.left_out.code,
                "sentence": item.left_out.sentence,
                "changed_at": now,
            }
            if key in known:
                same = review_left_out.c.interaction_id == key
                connection.execute(update(review_left_out).where(same).values(**values))
            else:
                new = insert_ignore(connection, review_left_out)
                connection.execute(new.values(interaction_id=key, created_at=now, **values))
    return len(changed)


def forget(connection: Connection, interaction_ids: Iterable[str]) -> None:
    """Remove the rows of answers that are in the queue now, or were erased."""
    for block in _blocks(list(interaction_ids)):
        connection.execute(
            delete(review_left_out).where(review_left_out.c.interaction_id.in_(block))
        )


def prune(connection: Connection, *, before: int) -> int:
    """Remove rows that have not changed since `before` (ms); return how many."""
    return connection.execute(
        delete(review_left_out).where(review_left_out.c.changed_at < before)
    ).rowcount


def count_recent(connection: Connection, *, since: int, alias: str | None) -> list[ReasonCount]:
    """Count the answers whose reason is not older than `since` (ms), by reason, most first."""
    found = (
        select(
            review_left_out.c.reason,
            func.count().label("answers"),
            func.max(review_left_out.c.sentence).label("sentence"),
            func.max(review_left_out.c.interaction_id).label("example"),
        )
        .where(review_left_out.c.changed_at >= since)
        .group_by(review_left_out.c.reason)
        .order_by(func.count().desc())
    )
    if alias:
        found = found.where(review_left_out.c.alias == alias)
    return [
        ReasonCount(row.reason, row.answers, row.sentence, row.example)
        for row in connection.execute(found)
    ]


def _known(connection: Connection, interaction_ids: Sequence[str]) -> dict[str, LeftOut]:
    found: dict[str, LeftOut] = {}
    for block in _blocks(interaction_ids):
        query = select(review_left_out).where(review_left_out.c.interaction_id.in_(block))
        for row in connection.execute(query):
            found[row.interaction_id] = LeftOut(row.reason, row.sentence)
    return found


def _blocks(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + _IN_CLAUSE] for start in range(0, len(ids), _IN_CLAUSE))
