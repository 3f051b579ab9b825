"""Second opinions and gold items: who is asked about what, and what was said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Select, exists, insert, select
from sqlalchemy.exc import IntegrityError

from feedback import queue
from feedback.agreement import SECOND_PERCENT, Agreement, count_agreement, is_drawn
from whet.auditlog import record
from whet.database import insert_ignore, reading, writing
from whet.errors import ConflictError, InputError, NotFoundError
from whet.tables import (
    interactions,
    review_adjudications,
    review_gold,
    review_items,
    review_opinions,
    reviews,
)

_CANDIDATES = 2000  # newest decisions that are looked at: months of one reviewer's work
_JUDGED = ("approve", "edit", "reject")


@dataclass(frozen=True, slots=True)
class Disagreement:
    item_id: str
    alias: str
    first: str  # the reviewer whose decision stands
    decision: str
    second: str
    is_right: bool
    created_at: int


def next_for_second_opinion(
    connection: Connection,
    reviewer: str,
    *,
    alias: str = "",
    exclude: Sequence[str] = (),
    percent: int = SECOND_PERCENT,
) -> str | None:
    """Return an item that somebody else decided and the reviewer is asked about, or None.

    Gold items come first; of the others a share, each until one second opinion is there.
    """
    said = exists().where(review_opinions.c.item_id == reviews.c.item_id)
    gold = exists().where(review_gold.c.item_id == reviews.c.item_id)
    query = (
        select(reviews.c.item_id, gold.label("is_gold"), said.label("has_opinion"))
        .join(interactions, interactions.c.id == reviews.c.interaction_id)
        .join(review_items, review_items.c.id == reviews.c.item_id)
        .where(
            reviews.c.standing.is_not(None),
            reviews.c.decision.in_(_JUDGED),
            reviews.c.reviewer != reviewer,
            ~said.where(review_opinions.c.reviewer == reviewer),
        )
        .order_by(gold.desc(), reviews.c.created_at.desc())
        .limit(_CANDIDATES)
    )
    if alias:
        query = query.where(review_items.c.alias == alias)
    for row in connection.execute(query):
        is_asked = row.is_gold or (not row.has_opinion and is_drawn(row.item_id, percent))
        if is_asked and row.item_id not in exclude:
            return str(row.item_id)
    return None


def save_opinion(
    database: Engine, item_id: str, reviewer: str, *, is_right: bool, labels: Sequence[str], seconds: float | None, now: int
) -> None:  # fmt: skip
    """Record what a second reviewer says, once.

    Raises NotFoundError where nothing stands to give an opinion on, ConflictError for one's own
    decision or a second opinion by the same reviewer.
    """
    try:
        with writing(database) as connection:
            first = connection.execute(
                select(reviews.c.reviewer, review_items.c.alias)
                .join(review_items, review_items.c.id == reviews.c.item_id)
                .where(reviews.c.standing == item_id, reviews.c.decision.in_(_JUDGED))
            ).first()
            if first is None:
                raise NotFoundError(f"No decision stands on the item {item_id[:80]!r}.")
            if first.reviewer == reviewer:
                raise ConflictError("This decision is yours; a second opinion is somebody else's.")
            connection.execute(
                insert(review_opinions).values(
                    item_id=item_id, reviewer=reviewer, alias=first.alias, is_right=is_right,
                    labels=list(labels), seconds=seconds, created_at=now,
                )
            )  # fmt: skip
    except IntegrityError as error:
        raise ConflictError("You gave your opinion on this conversation already.") from error


def mark_gold(database: Engine, item_id: str, *, actor: str, now: int) -> None:
    """Measure reviewers by the decision that stands on an item. Raises NotFoundError without one."""
    with writing(database) as connection:
        standing = select(reviews.c.id).where(
            reviews.c.standing == item_id, reviews.c.decision.in_(_JUDGED)
        )
        if connection.execute(standing).first() is None:
            raise NotFoundError(
                f"No decision stands on the item {item_id[:80]!r}.",
                hint="Decide it first; reviewers are measured by that decision.",
            )
        connection.execute(
            insert_ignore(connection, review_gold).values(
                item_id=item_id, created_by=actor, created_at=now
            )
        )
        record(connection, actor=actor, action="review.gold", subject=item_id, detail={}, now=now)


def is_gold(connection: Connection, item_id: str) -> bool:
    query = select(review_gold.c.item_id).where(review_gold.c.item_id == item_id)
    return connection.execute(query).first() is not None


def load_agreement(connection: Connection) -> dict[str, Agreement]:
    """Alias → agreement of second opinions with the decisions that stand, gold items apart."""
    gold = exists().where(review_gold.c.item_id == review_opinions.c.item_id)
    pairs: dict[str, list[tuple[bool, bool]]] = {}
    for row in connection.execute(_paired().where(~gold)):
        pairs.setdefault(row.alias, []).append((row.decision == "approve", row.is_right))
    return {alias: count_agreement(found) for alias, found in sorted(pairs.items())}


def load_gold_accuracy(connection: Connection) -> dict[str, Agreement]:
    """Reviewer → agreement with the decisions that stand on gold items."""
    gold = exists().where(review_gold.c.item_id == review_opinions.c.item_id)
    pairs: dict[str, list[tuple[bool, bool]]] = {}
    for row in connection.execute(_paired().where(gold)):
        pairs.setdefault(row.second, []).append((row.decision == "approve", row.is_right))
    return {reviewer: count_agreement(found) for reviewer, found in sorted(pairs.items())}


def list_disagreements(connection: Connection, *, limit: int = 50) -> list[Disagreement]:
    """Return disagreements that nobody settled, newest first."""
    query = _disagreeing().order_by(review_opinions.c.created_at.desc()).limit(limit)
    return [Disagreement(**row._mapping) for row in connection.execute(query)]


def adjudicate(
    database: Engine,
    item_id: str,
    second: str,
    verdict: str,
    *,
    actor: str,
    claim_ms: int,
    now: int,
) -> bool:
    """Say who was right of a disagreement: `first` or `second`.

    Where the second was, the first decision is undone and the item waits for `actor`; returns
    whether it does. Raises InputError, NotFoundError where the two do not disagree, ConflictError
    for one's own opinion or decision.
    """
    if verdict not in ("first", "second"):
        raise InputError(f"{verdict!r} says not who was right; expected first or second.")
    with reading(database) as connection:
        query = _disagreeing().where(
            review_opinions.c.item_id == item_id, review_opinions.c.reviewer == second
        )
        row = connection.execute(query.add_columns(reviews.c.id.label("review_id"))).first()
    if row is None:
        raise NotFoundError(
            f"No disagreement with {second[:64]!r} waits on the item {item_id[:80]!r}."
        )
    if actor in (row.first, row.second):
        raise ConflictError(
            "You are one of the two; somebody else says who was right.",
            hint="Ask another operator, or take your decision back.",
        )
    if verdict == "second":
        queue.undo(database, row.review_id, actor, claim_ms=claim_ms, now=now, may_undo_others=True)
    with writing(database) as connection:
        connection.execute(
            insert_ignore(connection, review_adjudications).values(
                item_id=item_id, second=second, first=row.first, verdict=verdict,
                decided_by=actor, created_at=now,
            )
        )  # fmt: skip
        detail = {"right": row.first if verdict == "first" else second}
        record(
            connection, actor=actor, action="review.adjudicate", subject=item_id, detail=detail,
            now=now,
        )  # fmt: skip
    return verdict == "second"


def _disagreeing() -> Select[Any]:
    """Second opinions that differ from the decision that stands, and that nobody settled."""
    settled = exists().where(
        review_adjudications.c.item_id == review_opinions.c.item_id,
        review_adjudications.c.second == review_opinions.c.reviewer,
    )
    return _paired().where(
        (reviews.c.decision == "approve") != review_opinions.c.is_right, ~settled
    )


def _paired() -> Select[Any]:
    return select(
        review_opinions.c.item_id, review_opinions.c.alias, reviews.c.reviewer.label("first"),
        reviews.c.decision, review_opinions.c.reviewer.label("second"),
        review_opinions.c.is_right, review_opinions.c.created_at,
    ).join(reviews, reviews.c.standing == review_opinions.c.item_id)  # fmt: skip
