"""Several conversations at once, chosen in Traffic: into the review queue, with one undo."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, delete, func, select

from feedback import left_out
from feedback.selection import REQUEST_PRIORITY
from whet.auditlog import record
from whet.database import insert_ignore, writing
from whet.errors import InputError, NotFoundError
from whet.ids import new_id
from whet.tables import (
    audit,
    interactions,
    review_comments,
    review_gold,
    review_items,
    review_opinions,
    reviews,
)
from whet.web.filters import plural

MOST_AT_ONCE = 200
ADDED, UNDONE = "review.request_batch", "review.undo_batch"  # actions of the audit log
_REASONS = {
    "known": "in the queue before",
    "status": "without a whole answer",
    "base": "answered by the base model",
    "gone": "no longer in the log",
}


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What became of conversations that somebody wants judged."""

    batch: str  # its id, for the undo; "" when nothing was added
    added: int
    left_out: dict[str, int]  # a key of _REASONS → conversations

    @property
    def sentence(self) -> str:
        """What is said to who asked."""
        parts = [f"{count} {_REASONS[why]}" for why, count in self.left_out.items()]
        others = f" Left out: {', '.join(parts)}." if parts else ""
        return f"{plural(self.added, 'conversation').capitalize()} put into review.{others}"


def request_reviews(
    database: Engine, interaction_ids: Sequence[str], *, actor: str, now: int
) -> BatchRequest:
    """Put conversations into the review queue; those that cannot be judged are left out.

    Raises InputError for none, or for more than MOST_AT_ONCE.
    """
    chosen = require_chosen(interaction_ids)
    added: list[str] = []
    skipped: Counter[str] = Counter()
    with writing(database) as connection:
        row_of = interactions.c
        query = select(row_of.id, row_of.status, row_of.alias, row_of.adapter)
        rows = {row.id: row for row in connection.execute(query.where(row_of.id.in_(chosen)))}
        for interaction_id in chosen:
            row = rows.get(interaction_id)
            if row is None:
                skipped["gone"] += 1
            elif row.status != "complete":
                skipped["status"] += 1
            elif not (row.alias or row.adapter):
                skipped["base"] += 1
            else:
                item_id = new_id("itm", at=now)
                new = connection.execute(
                    insert_ignore(connection, review_items)
                    .values(
                        id=item_id, interaction_id=row.id, alias=row.alias or row.adapter,
                        reason="request", why=f"{actor} asked for a review.",
                        priority=REQUEST_PRIORITY, state="waiting", created_at=now,
                    )
                    .returning(review_items.c.id)
                ).first()  # fmt: skip
                if new is None:
                    skipped["known"] += 1
                else:
                    added.append(item_id)
        left_out.forget(connection, chosen)
        batch = new_id("bat", at=now) if added else ""
        if added:
            detail = {"items": added}
            record(connection, actor=actor, action=ADDED, subject=batch, detail=detail, now=now)
    return BatchRequest(batch, len(added), dict(skipped))


def undo_request(database: Engine, batch: str, *, actor: str, now: int) -> str:
    """Take the conversations of a batch out of the queue again; says what stayed and why.

    What somebody judges or has judged stays. Raises NotFoundError where there is no such batch of
    one's own.
    """
    with writing(database) as connection:
        entry = connection.execute(
            select(audit.c.detail).where(
                audit.c.action == ADDED, audit.c.subject == batch, audit.c.actor == actor
            )
        ).first()
        if entry is None:
            raise NotFoundError("There is nothing of yours to undo here.")
        wanted = list(entry.detail["items"])
        removed = _remove_untouched(connection, wanted, now)
        still_there = select(func.count()).where(review_items.c.id.in_(wanted))
        kept = int(connection.execute(still_there).scalar_one())
        detail = {"items": removed}
        record(connection, actor=actor, action=UNDONE, subject=batch, detail=detail, now=now)
    stayed = (
        f" {plural(kept, 'conversation').capitalize()} stayed: somebody is at it." if kept else ""
    )
    return f"{plural(len(removed), 'conversation').capitalize()} taken out of review again.{stayed}"


def _remove_untouched(connection: Connection, items: Sequence[str], now: int) -> list[str]:
    item = review_items.c
    touched = [
        select(table.c.item_id).where(table.c.item_id.in_(items))
        for table in (reviews, review_opinions, review_gold, review_comments)
    ]
    untouched = select(item.id).where(
        item.id.in_(items),
        item.state == "waiting",
        item.claimed_by.is_(None) | (item.claimed_until <= now),
        *(item.id.not_in(query) for query in touched),
    )
    found = list(connection.scalars(untouched))
    connection.execute(delete(review_items).where(item.id.in_(found)))
    return found


def require_chosen(interaction_ids: Sequence[str]) -> list[str]:
    """Return the chosen ids once each. Raises InputError for none, or for too many."""
    chosen = list(dict.fromkeys(one for one in interaction_ids if one))
    if not chosen or len(chosen) > MOST_AT_ONCE:
        found = f"{len(chosen)} are chosen" if chosen else "nothing is chosen"
        raise InputError(
            f"Expected 1 to {MOST_AT_ONCE} conversations; {found}.",
            hint="Tick the conversations in Traffic first.",
        )
    return chosen
