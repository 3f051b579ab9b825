"""Asks the full-text index: the newest hits, how many there are, and hits in another order.

Hits are numbers of `interaction_search`, which order interactions by time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, func, literal, select, text
from sqlalchemy.dialects.postgresql import TSQUERY
from sqlalchemy.sql.elements import ColumnElement

from serving.search_index.tokens import EVERY_ROW, split_tokens
from whet.search_tables import FULL_TEXT_TABLE
from whet.tables import interaction_search

_MOST_QUERY_TOKENS = 40
# PostgreSQL's index knows no order: the newest rows are read one by one, and where they have too
# few hits, the index is asked for longer and longer times before them
_WALK_ROWS = 2_000
_WIDER = 8

indexed = interaction_search.c


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that follow each other. `is_prefix`: the last one may go on."""

    tokens: tuple[str, ...]
    is_prefix: bool = False

    def as_fts5(self) -> str:
        """Return the phrase in the language of FTS5."""
        return f'"{" ".join(self.tokens)}"' + (" *" if self.is_prefix else "")

    def as_tsquery(self) -> str:
        """Return the phrase in the language of tsquery."""
        *first, last = (f"'{token}'" for token in self.tokens)
        return f"({' <-> '.join([*first, last + (':*' if self.is_prefix else '')])})"


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What a hit has, and what it must not have. Empty: every row is a hit."""

    wanted: tuple[Phrase, ...] = ()
    unwanted: tuple[Phrase, ...] = ()

    def as_fts5(self) -> str:
        """Return the query in the language of FTS5, which cannot ask for what is not there."""
        wanted = self.wanted or (Phrase((EVERY_ROW,)),)
        positive = " AND ".join(phrase.as_fts5() for phrase in wanted)
        if not self.unwanted:
            return positive
        return f"({positive}) NOT ({' OR '.join(phrase.as_fts5() for phrase in self.unwanted)})"

    def as_tsquery(self) -> str:
        """Return the query in the language of tsquery."""
        parts = [phrase.as_tsquery() for phrase in self.wanted]
        return " & ".join([*parts, *(f"!{phrase.as_tsquery()}" for phrase in self.unwanted)])

    @property
    def is_empty(self) -> bool:
        return not (self.wanted or self.unwanted)


@dataclass(frozen=True, slots=True)
class NumberRange:
    """Numbers from `first` up to `end`."""

    first: int
    end: int


def read_phrase(words: str) -> Phrase | None:
    """Read a word or a phrase as somebody typed it: `refund*` finds what begins so.

    None where nothing in it is a letter or a digit.
    """
    tokens = tuple(split_tokens(words, _MOST_QUERY_TOKENS))
    return Phrase(tokens, words.endswith("*")) if tokens else None


def newest_hits(
    connection: Connection, query: SearchQuery, within: NumberRange, limit: int
) -> list[int]:
    """Return the numbers of the newest hits, newest first."""
    if query.is_empty:
        in_range = indexed.number >= within.first, indexed.number < within.end
        numbers = select(indexed.number).where(*in_range).order_by(indexed.number.desc())
        return list(connection.scalars(numbers.limit(limit)))
    if connection.dialect.name == "sqlite":
        return list(connection.scalars(text(_NEWEST_SQLITE), _values(query, within, limit)))
    return _newest_postgresql(connection, query, within, limit)


def count_hits(connection: Connection, query: SearchQuery, within: NumberRange, most: int) -> int:
    """Return how many hits there are, `most` where there are more."""
    if connection.dialect.name == "sqlite" and not query.is_empty:
        return int(
            connection.execute(text(_COUNT_SQLITE), _values(query, within, most)).scalar_one()
        )
    conditions = [indexed.number >= within.first, indexed.number < within.end]
    if not query.is_empty:
        conditions.append(_matches(query))
    limited = select(indexed.number).where(*conditions).limit(most).subquery()
    return int(connection.execute(select(func.count()).select_from(limited)).scalar_one())


def order_hits(
    connection: Connection, numbers: Sequence[int], column: str, *, descending: bool, limit: int,
    offset: int,
) -> list[int]:  # fmt: skip
    """Return the part of hits from `offset` on, ordered by a column; rows without a value last."""
    value = indexed[column]
    order = value.desc() if descending else value.asc()
    listed = (
        func.json_each(bindparam("numbers")).table_valued("value").c.value
        if connection.dialect.name == "sqlite"
        else func.unnest(bindparam("numbers")).column_valued("value")
    )
    query = (
        select(indexed.number)
        .where(indexed.number.in_(select(listed)))
        .order_by(order.nulls_last(), indexed.number.desc())
        .limit(limit)
        .offset(offset)
    )
    is_sqlite = connection.dialect.name == "sqlite"
    given = str(list(numbers)) if is_sqlite else list(numbers)
    return list(connection.scalars(query, {"numbers": given}))


def has_hits(connection: Connection, phrase: Phrase) -> bool:
    """Return whether any row has the phrase."""
    everywhere = NumberRange(0, 2**62)
    return count_hits(connection, SearchQuery((phrase,)), everywhere, 1) > 0


_NEWEST_SQLITE = (
    f"SELECT rowid FROM {FULL_TEXT_TABLE} WHERE {FULL_TEXT_TABLE} MATCH :query"
    " AND rowid >= :first AND rowid < :end ORDER BY rowid DESC LIMIT :limit"
)
_COUNT_SQLITE = (
    f"SELECT count(*) FROM (SELECT rowid FROM {FULL_TEXT_TABLE}"
    f" WHERE {FULL_TEXT_TABLE} MATCH :query AND rowid >= :first AND rowid < :end LIMIT :limit)"
)


def _values(query: SearchQuery, within: NumberRange, limit: int) -> dict[str, str | int]:
    return {
        "query": query.as_fts5(),
        "first": within.first,
        "end": within.end,
        "limit": limit,
    }


def _matches(query: SearchQuery) -> ColumnElement[bool]:
    return indexed.words.op("@@")(literal(query.as_tsquery()).cast(TSQUERY))


def _newest_postgresql(
    connection: Connection, query: SearchQuery, within: NumberRange, limit: int
) -> list[int]:
    end = within.end
    newest = (
        select(indexed.number, indexed.words)
        .where(indexed.number >= within.first, indexed.number < end)
        .order_by(indexed.number.desc())
        .limit(_WALK_ROWS)
        .subquery()
    )
    matches = newest.c.words.op("@@")(literal(query.as_tsquery()).cast(TSQUERY))
    rows = list(connection.execute(select(newest.c.number, matches.label("is_hit"))))
    rows.sort(key=lambda row: -row.number)
    hits = [row.number for row in rows if row.is_hit][:limit]
    if len(hits) == limit or len(rows) < _WALK_ROWS:
        return hits
    top, end = rows[0].number, rows[-1].number
    span = max(1, top - end)
    while len(hits) < limit and end > within.first:
        span *= _WIDER
        first = max(within.first, end - span)
        found = (
            select(indexed.number)
            .where(indexed.number >= first, indexed.number < end, _matches(query))
            .cte("found")
            .prefix_with("MATERIALIZED", dialect="postgresql")
        )
        ordered = select(found.c.number).order_by(found.c.number.desc())
        hits += connection.scalars(ordered.limit(limit - len(hits)))
        end = first
    return hits
