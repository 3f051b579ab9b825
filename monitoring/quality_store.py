"""Judged samples, thumbs and corrections of an alias, counted for incidents; keeps them in alerts."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Select, case, func, or_, select, update

from monitoring.quality import BASELINE_DAYS, Counted, Quality, Source, quality_of
from whet.access import same_group
from whet.context import Context
from whet.database import reading, writing
from whet.tables import alerts, interactions, ratings, review_items, reviews

_DAY_MS = 86_400_000
_JUDGED = ("approve", "edit", "reject")  # decisions that say whether an answer was right


def refresh_quality(context: Context, now: int, only: Collection[str] = ()) -> str | None:
    """Write into each open alert what quality did since it began. `only`: these alerts."""
    with reading(context.database) as connection:
        query = select(alerts).where(alerts.c.open_marker.is_not(None))
        found = [dict(row) for row in connection.execute(query).mappings()]
        wanted = [alert for alert in found if not only or alert["id"] in only]
        fresh = {
            alert["id"]: read_quality(connection, alert["alias"], _since(alert), now).as_json()
            for alert in wanted
        }
    changed = [one for one in wanted if (one["detail"] or {}).get("quality") != fresh[one["id"]]]
    for alert in changed:
        _store(context, alert["id"], fresh[alert["id"]])
    return f"{len(changed)} incidents" if changed else None


def _store(context: Context, alert_id: str, quality: dict[str, Any]) -> None:
    """Read and write in one transaction: the days may extend the same alert meanwhile."""
    with writing(context.database) as connection:
        query = select(alerts.c.detail).where(alerts.c.id == alert_id).with_for_update()
        detail = {**(connection.scalar(query) or {}), "quality": quality}
        connection.execute(update(alerts).where(alerts.c.id == alert_id).values(detail=detail))


def _since(alert: dict[str, Any]) -> int:
    return int((alert["detail"] or {}).get("since_at") or alert["opened_at"])


def read_quality(connection: Connection, alias: str, since: int, until: int) -> Quality:
    """Compare the answers given since an instant (ms) with those of the four weeks before it."""
    spans = ((since - BASELINE_DAYS * _DAY_MS, since), (since, until))
    counts: dict[Source, list[Counted]] = {
        "reviews": [_judged(connection, alias, span) for span in spans],
        "thumbs": [_thumbs(connection, alias, span) for span in spans],
        "corrections": [_corrected(connection, alias, span) for span in spans],
    }
    # Nobody corrected anything: silence, and no sign that all was right.
    if not any(one.bad for one in counts["corrections"]):
        del counts["corrections"]
    return quality_of(counts)


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


def _judged(connection: Connection, alias: str, span: tuple[int, int]) -> Counted:
    wrong = func.coalesce(func.sum(case((reviews.c.decision != "approve", 1), else_=0)), 0)
    query = (
        select(wrong, func.count())
        .join_from(review_items, interactions, interactions.c.id == review_items.c.interaction_id)
        .join(reviews, reviews.c.standing == review_items.c.id)
        .where(
            review_items.c.alias == alias,
            review_items.c.reason == "audit",
            reviews.c.decision.in_(_JUDGED),
            *_within(alias, span),
        )
    )
    return _counted(connection, query)


def _thumbs(connection: Connection, alias: str, span: tuple[int, int]) -> Counted:
    """Rated answers; whoever rated one down counts, whatever others said."""
    lowest = func.min(ratings.c.rating).label("lowest")
    rated = (
        select(ratings.c.interaction_id, lowest)
        .join_from(ratings, interactions, interactions.c.id == ratings.c.interaction_id)
        .where(
            ratings.c.rating != 0,
            same_group(ratings.c.api_key_id, interactions.c.api_key_id),
            *_within(alias, span),
        )
        .group_by(ratings.c.interaction_id)
        .subquery()
    )
    down = func.coalesce(func.sum(case((rated.c.lowest < 0, 1), else_=0)), 0)
    return _counted(connection, select(down, func.count()).select_from(rated))


def _corrected(connection: Connection, alias: str, span: tuple[int, int]) -> Counted:
    corrected = (
        select(func.count(func.distinct(ratings.c.interaction_id)))
        .join_from(ratings, interactions, interactions.c.id == ratings.c.interaction_id)
        .where(
            ratings.c.correction.is_not(None),
            same_group(ratings.c.api_key_id, interactions.c.api_key_id),
            *_within(alias, span),
        )
    )
    every = select(func.count()).select_from(interactions).where(*_within(alias, span))
    return Counted(int(connection.scalar(corrected) or 0), int(connection.scalar(every) or 0))


def _counted(connection: Connection, query: Select[Any]) -> Counted:
    bad, n = connection.execute(query).one()
    return Counted(int(bad), int(n))
