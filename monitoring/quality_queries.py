"""How many answers of a span of time were judged, rated or corrected, and how many of them badly."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, case, func, or_, select

from whet.access import same_group
from whet.tables import interactions, ratings, review_items, reviews

DAY_MS = 86_400_000
_JUDGED = ("approve", "edit", "reject")  # decisions that say whether an answer was right


def _within(alias: str, span: tuple[int, int]) -> list[Any]:
    own = or_(
        interactions.c.alias == alias,
        interactions.c.alias.is_(None) & (interactions.c.adapter == alias),
    )
    first, last = span
    return [
        own,
        interactions.c.status == "complete",
        interactions.c.created_at >= first,
        interactions.c.created_at < last,
    ]


def _row_within(alias: str, span: tuple[int, int]) -> list[Any]:
    """The same for a row that a rating or an item leads to: by no index, or both databases would
    read every interaction of the time to find the few that were rated."""
    first, last = span
    began = interactions.c.created_at + 0
    return [
        func.coalesce(interactions.c.alias, interactions.c.adapter) == alias,
        interactions.c.status == "complete",
        began >= first,
        began < last,
    ]


def count_judged(connection: Connection, alias: str, span: tuple[int, int]) -> tuple[int, int]:
    """Answers of the random sample that a person judged: (wrong, all)."""
    wrong = func.coalesce(func.sum(case((reviews.c.decision != "approve", 1), else_=0)), 0)
    query = (
        select(wrong, func.count())
        .join_from(review_items, interactions, interactions.c.id == review_items.c.interaction_id)
        .join(reviews, reviews.c.standing == review_items.c.id)
        .where(
            review_items.c.alias == alias,
            review_items.c.reason == "audit",
            reviews.c.decision.in_(_JUDGED),
            *_row_within(alias, span),
        )
    )
    return _counted(connection, query)


def count_thumbs(connection: Connection, alias: str, span: tuple[int, int]) -> tuple[int, int]:
    """Rated answers: (down, all). Whoever rated one down counts, whatever others said."""
    lowest = func.min(ratings.c.rating).label("lowest")
    rated = (
        select(ratings.c.interaction_id, lowest)
        .join_from(ratings, interactions, interactions.c.id == ratings.c.interaction_id)
        .where(
            ratings.c.rating != 0,
            ratings.c.created_at >= span[0],  # an answer is rated after it was asked for
            same_group(ratings.c.api_key_id, interactions.c.api_key_id),
            *_row_within(alias, span),
        )
        .group_by(ratings.c.interaction_id)
        .subquery()
    )
    down = func.coalesce(func.sum(case((rated.c.lowest < 0, 1), else_=0)), 0)
    return _counted(connection, select(down, func.count()).select_from(rated))


def count_corrected(connection: Connection, alias: str, span: tuple[int, int]) -> tuple[int, int]:
    """Complete answers: (corrected by a user, all)."""
    corrected = (
        select(func.count(func.distinct(ratings.c.interaction_id)))
        .join_from(ratings, interactions, interactions.c.id == ratings.c.interaction_id)
        .where(
            ratings.c.correction.is_not(None),
            ratings.c.created_at >= span[0],
            same_group(ratings.c.api_key_id, interactions.c.api_key_id),
            *_row_within(alias, span),
        )
    )
    every = select(func.count()).select_from(interactions).where(*_within(alias, span))
    return int(connection.scalar(corrected) or 0), int(connection.scalar(every) or 0)


def _counted(connection: Connection, query: Select[Any]) -> tuple[int, int]:
    bad, n = connection.execute(query).one()
    return int(bad), int(n)
