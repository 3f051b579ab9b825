"""Queries behind Traffic: by the full-text index, keyset-paged, never the whole table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select

from serving.pages.search_filters import RATINGS, STATUSES, Filters
from serving.pages.search_words import parse_search
from serving.search_index.entries import BASE, NO_ALIAS
from serving.search_index.index_store import number_at
from serving.search_index.query import (
    NumberRange,
    Phrase,
    SearchQuery,
    count_hits,
    has_hits,
    newest_hits,
    order_hits,
    read_phrase,
)
from serving.search_index.tokens import FIELD_MARK, field_token
from whet import traffic_series
from whet.access import same_group
from whet.tables import interaction_search, interactions, ratings, review_items, reviews

PAGE_ROWS = 50  # two screens; the next page is one key away
SORT_ROWS = 10_000  # the newest hits are sorted, so that no search reads the whole log
COUNT_ROWS = 10_000  # "more than 10,000" is all that anybody needs to know beyond it
_DAY_MS = 86_400_000
_END_OF_TIME = 2**53
_LEAST_PREFIX = 3  # letters of a word that is looked for as a beginning, unasked


@dataclass(frozen=True)
class Found:
    """One page of rows, how to go on, and how many there are."""

    rows: list[dict[str, Any]]
    next: str  # cursor, or ""
    total: int  # COUNT_ROWS + 1: there are more
    phrases: tuple[Phrase, ...] = ()  # what is marked
    broadened: tuple[str, ...] = ()  # words that nobody wrote; others begin with them


def needs_index(filters: Filters) -> bool:
    """Whether the search asks for more than time and alias, which the log itself has in order."""
    return bool(
        parse_search(filters.q).text
        or filters.version
        or filters.status in STATUSES
        or filters.rating in RATINGS
        or filters.user
        or filters.sort_column
    )


def time_range(filters: Filters, now: int) -> tuple[int, int]:
    """Return the time (ms) that is searched, from the first up to the second."""
    if filters.span is not None:
        return filters.span
    if filters.since == "all":
        return 0, _END_OF_TIME
    # the same steps as in the charts, so that their figures agree
    return traffic_series.choose_range(filters.since, now).start_at, _END_OF_TIME


def build_query(filters: Filters) -> SearchQuery:
    """Return what the index is asked for."""
    words = parse_search(filters.q)
    tokens = [field_token(name, value.lower() if name == "tag" else value)
              for name, value in words.fields]  # fmt: skip
    for name, value in (
        ("alias", filters.alias),
        ("version", filters.version.lstrip("v") if filters.version != BASE else BASE),
        ("status", filters.status if filters.status in STATUSES else ""),
        ("rating", filters.rating if filters.rating in RATINGS else ""),
        ("user", filters.user),
    ):
        if value and (name != "version" or value == BASE or value.isdecimal()):
            tokens.append(field_token(name, value))
    phrases = [*map(read_phrase, words.wanted), *(Phrase((token,)) for token in tokens)]
    unwanted = map(read_phrase, words.unwanted)
    return SearchQuery(
        tuple(phrase for phrase in phrases if phrase),
        tuple(phrase for phrase in unwanted if phrase),
    )


def search(
    connection: Connection, filters: Filters, now: int, *, page_rows: int = PAGE_ROWS,
    with_total: bool = True,
) -> Found:  # fmt: skip
    """The rows of one page: the newest that match, or those that come first in another order.

    Without a total it is 0.
    """
    if not needs_index(filters):
        return _search_log(connection, filters, now, page_rows, with_total)
    query = build_query(filters)
    found = _search_index(connection, query, filters, now, page_rows, with_total)
    if found.rows or filters.before:
        return found
    missing = tuple(
        phrase for phrase in query.wanted if _may_go_on(phrase) and not has_hits(connection, phrase)
    )
    if not missing:
        return found
    wanted = tuple(
        replace(phrase, is_prefix=True) if phrase in missing else phrase for phrase in query.wanted
    )
    found = _search_index(
        connection, replace(query, wanted=wanted), filters, now, page_rows, with_total
    )
    broadened = tuple(" ".join(phrase.tokens) for phrase in missing) if found.rows else ()
    return replace(found, broadened=broadened)


def _may_go_on(phrase: Phrase) -> bool:
    last = phrase.tokens[-1]
    return not phrase.is_prefix and len(last) >= _LEAST_PREFIX and not last.startswith(FIELD_MARK)


def _search_index(
    connection: Connection, query: SearchQuery, filters: Filters, now: int, page_rows: int,
    with_total: bool,
) -> Found:  # fmt: skip
    first, end = time_range(filters, now)
    within = NumberRange(number_at(first), number_at(end))
    total = count_hits(connection, query, within, COUNT_ROWS + 1) if with_total else 0
    column = filters.sort_column
    cursor = filters.before
    if column:
        offset = int(cursor[1:]) if cursor[:1] == "o" and cursor[1:].isdecimal() else 0
        hits = newest_hits(connection, query, within, SORT_ROWS)
        numbers = order_hits(
            connection, hits, column, descending=not filters.sort.startswith("-"),
            limit=page_rows, offset=min(offset, SORT_ROWS),
        )  # fmt: skip
        following = f"o{offset + page_rows}" if offset + page_rows < len(hits) else ""
    else:
        if cursor.isdecimal():
            within = replace(within, end=min(within.end, int(cursor)))
        numbers = newest_hits(connection, query, within, page_rows + 1)
        following = str(numbers[page_rows - 1]) if len(numbers) > page_rows else ""
        numbers = numbers[:page_rows]
    marked = tuple(p for p in query.wanted if not p.tokens[0].startswith(FIELD_MARK))
    return Found(load_hits(connection, numbers), following, total, marked)


def load_hits(connection: Connection, numbers: list[int]) -> list[dict[str, Any]]:
    """Read the interactions of hits, in the same order."""
    index = interaction_search.c
    query = (
        select(index.number, interactions)
        .join(interactions, interactions.c.id == index.interaction_id)
        .where(index.number.in_(numbers))
    )
    rows = {row["number"]: dict(row) for row in connection.execute(query).mappings()}
    return [rows[number] for number in numbers if number in rows]


def _search_log(
    connection: Connection, filters: Filters, now: int, page_rows: int, with_total: bool
) -> Found:
    bounds = _log_bounds(filters, now)
    query = (
        select(interactions)
        .where(*bounds, *_after(filters.before))
        .order_by(interactions.c.created_at.desc(), interactions.c.id.desc())
        .limit(page_rows + 1)
    )
    rows = [dict(row) for row in connection.execute(query).mappings()]
    following = _cursor(rows[page_rows - 1]) if len(rows) > page_rows else ""
    if not with_total:
        return Found(rows[:page_rows], following, 0)
    limited = select(interactions.c.id).where(*bounds).limit(COUNT_ROWS + 1).subquery()
    total = connection.execute(select(func.count()).select_from(limited)).scalar_one()
    return Found(rows[:page_rows], following, int(total))


def _log_bounds(filters: Filters, now: int) -> list[ColumnElement[bool]]:
    first, end = time_range(filters, now)
    conditions = [interactions.c.created_at >= first]
    if end != _END_OF_TIME:
        conditions.append(interactions.c.created_at < end)
    if filters.alias:
        conditions.append(
            interactions.c.alias.is_(None)
            if filters.alias == NO_ALIAS
            else interactions.c.alias == filters.alias
        )
    return conditions


def _after(cursor: str) -> list[ColumnElement[bool]]:
    at, _, key = cursor.partition(",")
    if not (at.isdecimal() and key):
        return []
    moment = min(int(at), 2**62)
    return [
        or_(
            interactions.c.created_at < moment,
            and_(interactions.c.created_at == moment, interactions.c.id < key),
        )
    ]


def _cursor(row: dict[str, Any]) -> str:
    return f"{row['created_at']},{row['id']}"


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
