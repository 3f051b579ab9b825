"""One decision on many items that ask nearly the same, undone in one go.

Each item is decided as by hand, so that nobody's claim or decision is overwritten and a refusal
(a cut answer, a control token) holds for its item alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Engine, select

from feedback import claims, queue
from feedback.queue import Decision
from whet.auditlog import record
from whet.control_tokens import ControlTokens
from whet.database import reading, writing
from whet.errors import ConflictError, InputError, NotFoundError, WhetError
from whet.ids import new_id
from whet.tables import reviews

BULK_DECISIONS = ("approve", "reject", "skip")  # an edit is one answer to one question
MOST_ITEMS = 200


@dataclass(frozen=True, slots=True)
class BulkOutcome:
    bulk_id: str
    decided: list[str]  # items
    refused: dict[str, str] = field(default_factory=dict)  # item → why

    @property
    def sentence(self) -> str:
        rest = next(iter(self.refused.values()), "")
        left = f" {len(self.refused)} left as they were: {rest}" if self.refused else ""
        return f"{len(self.decided)} decided.{left}"


def decide_in_bulk(
    database: Engine,
    item_ids: Sequence[str],
    reviewer: str,
    said: Decision,
    *,
    now: int,
    control: ControlTokens,
) -> BulkOutcome:
    """Say the same of many items; raises InputError for an edit, none, or too many of them."""
    ids = list(dict.fromkeys(item_ids))
    if said.decision not in BULK_DECISIONS:
        raise InputError(
            f"{said.decision!r} cannot be said of many; expected {', '.join(BULK_DECISIONS)}."
        )
    if not 0 < len(ids) <= MOST_ITEMS:
        raise InputError(f"{len(ids)} conversations are selected; expected 1 to {MOST_ITEMS}.")
    bulk_id, decided, refused = new_id("blk", at=now), [], {}
    for item_id in ids:
        try:
            shared = replace(said, bulk_id=bulk_id)
            queue.decide(database, item_id, reviewer, shared, now=now, control=control)
            decided.append(item_id)
        except WhetError as error:
            refused[item_id] = error.message
    if decided:
        with writing(database) as connection:
            detail = {"decision": said.decision, "items": len(decided), "left": len(refused)}
            record(
                connection, actor=reviewer, action="review.bulk", subject=bulk_id, detail=detail,
                now=now,
            )  # fmt: skip
    return BulkOutcome(bulk_id, decided, refused)


def undo_bulk(
    database: Engine,
    bulk_id: str,
    reviewer: str,
    *,
    now: int,
    may_undo_others: bool = False,
) -> int:
    """Take the decisions of one go back that still stand; returns how many. Nothing stays claimed.

    Raises NotFoundError, ConflictError for somebody else's.
    """
    with reading(database) as connection:
        query = select(reviews).where(reviews.c.bulk_id == bulk_id)
        rows = connection.execute(query.order_by(reviews.c.id)).all()
    if not rows:
        raise NotFoundError(f"There is no bulk decision {bulk_id[:80]!r}.")
    if rows[0].reviewer != reviewer and not may_undo_others:
        raise ConflictError(
            f"These decisions are {rows[0].reviewer}'s; only they or an operator can undo them."
        )
    undone: dict[str, int | None] = {}
    for row in rows:
        if row.undone_at is not None:
            continue
        try:
            queue.undo(
                database, row.id, reviewer, claim_ms=1, now=now, may_undo_others=may_undo_others
            )
            undone[row.item_id] = None
        except ConflictError:  # undone by hand meanwhile
            continue
    claims.release(database, undone, reviewer)
    return len(undone)
