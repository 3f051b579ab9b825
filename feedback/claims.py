"""Who is offered which item of the review queue, and who holds it. Races settle in the database.

A claim keeps an item from other reviewers until it runs out, is given back, or the item is decided.
An item that a reviewer skipped is not offered to them again; it waits for the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import ColumnElement, Connection, Engine, exists, func, select, update

from whet.database import writing
from whet.tables import review_items, reviews

# What the Review page can be asked for, beside alias and reason.
ORDERS = ("priority", "oldest", "newest")
_MOST_RELEASED = 500  # claims in one call: more than a page ever holds
# `skipped`: what this reviewer left to the others; `assigned`: what they are asked to decide
OFFERS = ("waiting", "skipped", "assigned")


@dataclass(frozen=True, slots=True)
class QueueFilter:
    """Which items a reviewer wants to see, and in which order. Empty strings filter nothing."""

    alias: str = ""
    reason: str = ""
    state: str = "waiting"  # one of OFFERS; anything else counts as the first
    order: str = "priority"  # one of ORDERS; anything else counts as the first
    batch: str = ""

    @property
    def fields(self) -> dict[str, str]:
        """The choices that differ from the default, as fields of an address."""
        chosen = {"alias": self.alias, "reason": self.reason, "batch": self.batch}
        if self.state in OFFERS[1:]:
            chosen["state"] = self.state
        if self.order in ORDERS[1:]:
            chosen["order"] = self.order
        return {name: value for name, value in chosen.items() if value}

    @property
    def query(self) -> str:
        return urlencode(self.fields)


def next_item(
    database: Engine,
    reviewer: str,
    *,
    claim_ms: int,
    now: int,
    wanted: QueueFilter = QueueFilter(),
    exclude: Sequence[str] = (),
) -> str | None:
    """Claim the next waiting item for the reviewer; returns its id, or None when nothing is left.

    What the reviewer holds already comes first, then what is assigned to them; what is assigned to
    somebody else is left to that person. `exclude` names items to pass over: those on the
    reviewer's screen.
    """
    query = (
        select(review_items.c.id)
        .where(*_matching(wanted, reviewer, now))
        .order_by(
            (review_items.c.claimed_by == reviewer).is_not(True),
            (review_items.c.assignee == reviewer).is_not(True),
            *_order(wanted.order),
        )
        .limit(1)
        # PostgreSQL: two reviewers who ask at once look past each other; SQLite has one writer
        .with_for_update(skip_locked=True)
    )
    if exclude:
        query = query.where(review_items.c.id.not_in(list(exclude)[:100]))
    with writing(database) as connection:
        item_id = connection.execute(query).scalar()
        if item_id is not None:
            connection.execute(
                update(review_items)
                .where(review_items.c.id == item_id)
                .values(claimed_by=reviewer, claimed_until=now + claim_ms)
            )
    return item_id


def claim(database: Engine, item_id: str, reviewer: str, *, claim_ms: int, now: int) -> int | None:
    """Take or renew the claim on one item; returns until when it holds.

    None when somebody else holds the item, or it is decided.
    """
    with writing(database) as connection:
        return claim_in(connection, item_id, reviewer, claim_ms=claim_ms, now=now)


def claim_in(
    connection: Connection, item_id: str, reviewer: str, *, claim_ms: int, now: int
) -> int | None:
    """`claim`, inside a transaction."""
    changed = connection.execute(
        update(review_items)
        .where(
            review_items.c.id == item_id,
            review_items.c.state == "waiting",
            _free_for(reviewer, now),
        )
        .values(claimed_by=reviewer, claimed_until=now + claim_ms)
    )
    return now + claim_ms if changed.rowcount == 1 else None


def release(database: Engine, claims: Mapping[str, int | None], reviewer: str) -> int:
    """Give claims back, so that others need not wait for them to run out; returns how many.

    `claims`: item id → until when the claim holds that is given back, or None for any. A page that
    closes while the next one opens on the same item gives back its own claim, not the new one.
    """
    given_back = 0
    with writing(database) as connection:
        for item_id, until in list(claims.items())[:_MOST_RELEASED]:
            query = update(review_items).where(
                review_items.c.id == item_id,
                review_items.c.claimed_by == reviewer,
                review_items.c.state == "waiting",
            )
            if until is not None:
                query = query.where(review_items.c.claimed_until == until)
            done = connection.execute(query.values(claimed_by=None, claimed_until=None))
            given_back += done.rowcount
    return given_back


def count_for(connection: Connection, reviewer: str, now: int, wanted: QueueFilter) -> int:
    """Count the items that `next_item` would offer the reviewer one after the other."""
    query = select(func.count()).select_from(review_items)
    return connection.execute(query.where(*_matching(wanted, reviewer, now))).scalar_one()


def count_held(connection: Connection, now: int, alias: str | None = None) -> dict[str, int]:
    """Reviewer → how many waiting items they hold."""
    query = (
        select(review_items.c.claimed_by, func.count())
        .where(review_items.c.state == "waiting", review_items.c.claimed_until > now)
        .group_by(review_items.c.claimed_by)
    )
    if alias:
        query = query.where(review_items.c.alias == alias)
    return {name: count for name, count in connection.execute(query) if name is not None}


def was_skipped(reviewer: str | None = None) -> ColumnElement[bool]:
    """Whether an item was skipped, by the reviewer or by anybody, and that was not undone."""
    found = exists().where(
        reviews.c.item_id == review_items.c.id,
        reviews.c.decision == "skip",
        reviews.c.undone_at.is_(None),
    )
    return found if reviewer is None else found.where(reviews.c.reviewer == reviewer)


def _matching(wanted: QueueFilter, reviewer: str, now: int) -> list[ColumnElement[bool]]:
    skipped = was_skipped(reviewer)
    found: list[ColumnElement[bool]] = [
        review_items.c.state == "waiting",
        _free_for(reviewer, now),
        skipped if wanted.state == "skipped" else ~skipped,
    ]
    is_mine = review_items.c.assignee == reviewer
    found.append(
        is_mine if wanted.state == "assigned" else is_mine | review_items.c.assignee.is_(None)
    )
    if wanted.batch:
        found.append(review_items.c.batch_id == wanted.batch)
    if wanted.alias:
        found.append(review_items.c.alias == wanted.alias)
    if wanted.reason:
        found.append(review_items.c.reason == wanted.reason)
    return found


def _order(order: str) -> tuple[Any, ...]:
    created, item_id = review_items.c.created_at, review_items.c.id
    if order == "oldest":
        return created, item_id
    if order == "newest":
        return created.desc(), item_id.desc()
    return review_items.c.priority.desc(), created, item_id


def _free_for(reviewer: str, now: int) -> ColumnElement[bool]:
    return (
        review_items.c.claimed_by.is_(None)
        | (review_items.c.claimed_until <= now)
        | (review_items.c.claimed_by == reviewer)
    )
