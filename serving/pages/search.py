"""Queries behind Traffic: filtered, keyset-paged, never the whole table."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import ColumnElement, Connection, Select, Text, and_, cast, func, not_, or_, select

from serving.pages.search_words import parse_search
from whet import traffic_series
from whet.access import same_group
from whet.tables import interactions, ratings, review_items, reviews

PAGE_ROWS = 50  # two screens; the next page is one key away
# A text search reads rows one by one, so it looks at this many and offers to go on
TEXT_SCAN_ROWS = 20_000
COUNT_ROWS = 10_000  # "more than 10,000" is all that anybody needs to know beyond it
_DAY_MS = 86_400_000
PERIODS = (*traffic_series.PERIODS, "all")
STATUSES = ("complete", "cancelled", "error", "cut")
RATINGS = ("up", "down", "any")


@dataclass(frozen=True)
class Filters:
    """What the address of a search says.

    Unknown values count as not given, so an old link never fails.
    """

    q: str = ""
    alias: str = ""
    version: str = ""
    status: str = ""
    rating: str = ""
    user: str = ""
    since: str = traffic_series.DEFAULT_PERIOD
    start: str = ""  # ms; with `end` in place of `since`: one step of the charts
    end: str = ""
    before: str = ""  # cursor: "created_at,id" of the last row seen

    @property
    def narrowed(self) -> bool:
        given = (self.q, self.alias, self.version, self.status, self.rating, self.user)
        return any(given) or self.span is not None

    @property
    def span(self) -> tuple[int, int] | None:
        """The chosen time (ms) from `start` up to `end`."""
        if not (self.start.isdecimal() and self.end.isdecimal()):
            return None
        return min(int(self.start), 2**62), min(int(self.end), 2**62)

    def read_words(self) -> Filters:
        """This search with the filters that its words name, such as user:ada, as filters."""
        words = parse_search(self.q)
        return replace(self, q=words.text, **words.filters) if words.filters else self

    def address(self, **changes: str) -> str:
        """This search with some of it changed, as a shareable address."""
        values = (
            {item.name: getattr(self, item.name) for item in fields(self)}
            | {"before": ""}
            | changes
        )
        given = {
            name: value
            for name, value in values.items()
            if value and not (name == "since" and value == traffic_series.DEFAULT_PERIOD)
        }
        return "/traffic" + (f"?{urlencode(given)}" if given else "")


@dataclass(frozen=True)
class Found:
    """One page of rows, how to go on, and what was looked at."""

    rows: list[dict[str, Any]]
    next: str  # cursor, or ""
    scanned_to: int | None  # a text search that stopped early looked back to this time (ms)


def _bounds(filters: Filters, now: int) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if filters.span is not None:
        first, end = filters.span
        conditions += [interactions.c.created_at >= first, interactions.c.created_at < end]
    elif filters.since != "all":  # the same steps as in the charts, so that their figures agree
        shown = traffic_series.choose_range(filters.since, now)
        conditions.append(interactions.c.created_at >= shown.start_at)
    if filters.alias:
        conditions.append(
            interactions.c.alias.is_(None)
            if filters.alias == "(none)"
            else interactions.c.alias == filters.alias
        )
    if filters.version == "base":
        conditions.append(interactions.c.adapter.is_(None))
    elif filters.version.lstrip("v").isdigit():
        conditions.append(
            interactions.c.version == min(int(filters.version.lstrip("v")), 2**31 - 1)
        )
    if filters.status in STATUSES:
        conditions.append(interactions.c.status == filters.status)
    if filters.user:
        conditions.append(interactions.c.end_user == filters.user)
    if filters.rating in RATINGS:
        vote = {"up": ratings.c.rating > 0, "down": ratings.c.rating < 0}.get(
            filters.rating, ratings.c.rating != 0
        )
        counted = (
            ratings.c.interaction_id == interactions.c.id,
            same_group(ratings.c.api_key_id, interactions.c.api_key_id),
        )
        conditions.append(select(ratings.c.id).where(*counted, vote).exists())
    return conditions


def _after(cursor: str) -> list[ColumnElement[bool]]:
    at, _, key = cursor.partition(",")
    if not at.isdigit():
        return []
    moment = min(int(at), 2**62)
    return [
        or_(
            interactions.c.created_at < moment,
            and_(interactions.c.created_at == moment, interactions.c.id < key),
        )
    ]


def _contains(text: str) -> ColumnElement[bool]:
    """In the answer, or in the request as it is stored: JSON, where other letters than ASCII are
    escaped.
    """
    stored = json.dumps(text)[1:-1]
    return or_(
        func.coalesce(interactions.c.response_text, "").icontains(text, autoescape=True),
        cast(interactions.c.request, Text).icontains(stored, autoescape=True),
    )


def _ordered(conditions: list[ColumnElement[bool]], limit: int) -> Select[Any]:
    return (
        select(interactions)
        .where(*conditions)
        .order_by(interactions.c.created_at.desc(), interactions.c.id.desc())
        .limit(limit)
    )


def search(connection: Connection, filters: Filters, now: int) -> Found:
    """The newest rows that match, after the cursor."""
    conditions = _bounds(filters, now) + _after(filters.before)
    words = parse_search(filters.q)
    if not (words.wanted or words.unwanted):
        rows = [
            dict(row._mapping) for row in connection.execute(_ordered(conditions, PAGE_ROWS + 1))
        ]
        return Found(
            rows[:PAGE_ROWS], _cursor(rows[PAGE_ROWS - 1]) if len(rows) > PAGE_ROWS else "", None
        )
    scope = (
        _ordered(conditions, TEXT_SCAN_ROWS)
        .with_only_columns(interactions.c.id, interactions.c.created_at)
        .subquery()
    )
    matching = (
        select(interactions)
        .where(
            interactions.c.id.in_(select(scope.c.id)),
            *map(_contains, words.wanted),
            *(not_(_contains(word)) for word in words.unwanted),
        )
        .order_by(interactions.c.created_at.desc(), interactions.c.id.desc())
        .limit(PAGE_ROWS + 1)
    )
    rows = [dict(row._mapping) for row in connection.execute(matching)]
    if len(rows) > PAGE_ROWS:
        return Found(rows[:PAGE_ROWS], _cursor(rows[PAGE_ROWS - 1]), None)
    scanned = connection.execute(select(func.count()).select_from(scope)).scalar_one()
    if scanned < TEXT_SCAN_ROWS:
        return Found(rows, "", None)
    last = connection.execute(
        select(scope.c.created_at, scope.c.id).order_by(scope.c.created_at, scope.c.id).limit(1)
    ).one()
    return Found(rows, f"{last.created_at},{last.id}", last.created_at)


def _cursor(row: dict[str, Any]) -> str:
    return f"{row['created_at']},{row['id']}"


def count(connection: Connection, filters: Filters, now: int) -> int:
    """How many match without the text, up to COUNT_ROWS + 1."""
    limited = (
        select(interactions.c.id).where(*_bounds(filters, now)).limit(COUNT_ROWS + 1).subquery()
    )
    return int(connection.execute(select(func.count()).select_from(limited)).scalar_one())


def newest_at(connection: Connection) -> int | None:
    """When the last answer was logged (ms)."""
    return connection.execute(
        select(interactions.c.created_at).order_by(interactions.c.created_at.desc()).limit(1)
    ).scalar()


def flags(connection: Connection, ids: list[str]) -> dict[str, dict[str, Any]]:
    """For the rows of one page: the ratings that were given and what review did with them."""
    found: dict[str, dict[str, Any]] = {key: {"up": 0, "down": 0, "review": ""} for key in ids}
    rated = (
        select(ratings.c.interaction_id, ratings.c.rating)
        .join(interactions, interactions.c.id == ratings.c.interaction_id)
        .where(
            ratings.c.interaction_id.in_(ids),
            ratings.c.rating != 0,
            same_group(ratings.c.api_key_id, interactions.c.api_key_id),
        )
    )
    for row in connection.execute(rated):
        found[row.interaction_id]["up" if row.rating > 0 else "down"] += 1
    for row in connection.execute(
        select(review_items.c.interaction_id, review_items.c.state).where(
            review_items.c.interaction_id.in_(ids)
        )
    ):
        found[row.interaction_id]["review"] = row.state
    for row in connection.execute(
        select(reviews.c.interaction_id, reviews.c.decision).where(
            reviews.c.interaction_id.in_(ids), reviews.c.standing.is_not(None)
        )
    ):
        found[row.interaction_id]["review"] = row.decision
    return found


def usual(
    connection: Connection, alias: str | None, now: int
) -> dict[str, tuple[float, float, int]]:
    """Signal → (5th, 95th percentile, n) over the alias's newest 500 complete answers; only with at
    least 40 of them.
    """
    names = ("ttft_ms", "duration_ms", "prompt_tokens", "completion_tokens")
    same = interactions.c.alias == alias if alias is not None else interactions.c.alias.is_(None)
    query = (
        select(*(interactions.c[name] for name in names))
        .where(
            same,
            interactions.c.status == "complete",
            interactions.c.created_at > now - 30 * _DAY_MS,
        )
        .order_by(interactions.c.created_at.desc())
        .limit(500)
    )
    rows = connection.execute(query).all()
    ranges = {}
    for index, name in enumerate(names):
        values = sorted(row[index] for row in rows if row[index] is not None)
        if len(values) >= 40:  # below this the ends of the range are single conversations
            ranges[name] = (
                float(values[len(values) // 20]),
                float(values[len(values) - 1 - len(values) // 20]),
                len(values),
            )
    return ranges
