"""Queries of the full-text index as it is kept: what is missing, what has to go, inserts, merging.

`interaction_search` has a row of each interaction. Its FTS5 table on SQLite follows by triggers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Integer, delete, func, insert, literal_column, select

from serving.search_index.entries import NUMBERS_PER_MS, IndexEntry, make_entry
from whet.access import same_group
from whet.search_tables import FULL_TEXT_TABLE
from whet.tables import interaction_search, interactions, ratings

_IN_CLAUSE = 500
_CROWDED_MS = 200  # more interactions than numbers of a ms: they get those of the next
_HOUR_MS = 3_600_000
_COLUMNS = (
    "id", "created_at", "api_key_id", "end_user", "alias", "adapter", "version", "status", "error",
    "request", "response", "response_text", "completion_tokens", "ttft_ms", "duration_ms",
    "metadata",
)  # fmt: skip

indexed = interaction_search.c


def number_at(at: int) -> int:
    """Return the lowest number of an interaction that began at `at` (ms) or later."""
    return at * NUMBERS_PER_MS


def missing_between(connection: Connection, first: int, end: int, most: int) -> list[str]:
    """Return ids of interactions from `first` up to `end` (ms) that are not indexed, newest
    first."""
    known = select(indexed.interaction_id).where(indexed.interaction_id == interactions.c.id)
    query = (
        select(interactions.c.id)
        .where(interactions.c.created_at >= first, interactions.c.created_at < end)
        .where(~known.exists())
        .order_by(interactions.c.created_at.desc(), interactions.c.id.desc())
        .limit(most)
    )
    return list(connection.scalars(query))


def gone_between(connection: Connection, first: int, end: int, most: int) -> list[str]:
    """Return ids in the index, from `first` up to `end` (ms), of interactions that are no more."""
    there = select(interactions.c.id).where(interactions.c.id == indexed.interaction_id)
    query = (
        select(indexed.interaction_id)
        .where(indexed.number >= number_at(first), indexed.number < number_at(end))
        .where(~there.exists())
        .limit(most)
    )
    return list(connection.scalars(query))


def hours_that_differ(connection: Connection) -> dict[int, int]:
    """Return the hours (ms) whose interactions and index rows differ in number → by how many; more
    interactions than index rows are positive."""
    width = literal_column(str(_HOUR_MS), Integer)
    hour = (interactions.c.created_at // width).label("hour")
    found = {
        int(at) * _HOUR_MS: int(rows)
        for at, rows in connection.execute(select(hour, func.count()).group_by("hour"))
    }
    per_hour = literal_column(str(_HOUR_MS * NUMBERS_PER_MS), Integer)
    of_index = (indexed.number // per_hour).label("hour")
    for at, rows in connection.execute(select(of_index, func.count()).group_by("hour")):
        start = int(at) * _HOUR_MS
        found[start] = found.get(start, 0) - int(rows)
    return {start: rows for start, rows in found.items() if rows}


def rated_since(connection: Connection, since: int) -> dict[str, str]:
    """Return the ratings that were given at `since` (ms) or later: id → interaction's id."""
    query = select(ratings.c.id, ratings.c.interaction_id).where(ratings.c.created_at >= since)
    return {row.id: row.interaction_id for row in connection.execute(query)}


def load_entries(connection: Connection, ids: Sequence[str]) -> list[IndexEntry]:
    """Read interactions and make their index entries, oldest first."""
    votes: dict[str, list[int]] = {}
    entries: list[IndexEntry] = []
    for start in range(0, len(ids), _IN_CLAUSE):
        block = ids[start : start + _IN_CLAUSE]
        counted = (
            select(ratings.c.interaction_id, ratings.c.rating)
            .join(interactions, interactions.c.id == ratings.c.interaction_id)
            .where(
                ratings.c.interaction_id.in_(block),
                ratings.c.rating != 0,
                same_group(ratings.c.api_key_id, interactions.c.api_key_id),
            )
        )
        for interaction_id, rating in connection.execute(counted):
            votes.setdefault(interaction_id, []).append(rating)
        query = select(*(interactions.c[name] for name in _COLUMNS)).where(
            interactions.c.id.in_(block)
        )
        for row in connection.execute(query).mappings():
            entries.append(make_entry(dict(row), votes.get(row["id"], ())))
    return sorted(entries, key=lambda entry: (entry.created_at, entry.interaction_id))


def write_entries(connection: Connection, entries: Sequence[IndexEntry]) -> None:
    """Put entries into the index, in place of those that it has of the same interactions."""
    if not entries:
        return
    delete_entries(connection, [entry.interaction_id for entry in entries])
    still_there = _existing(connection, [entry.interaction_id for entry in entries])
    entries = [entry for entry in entries if entry.interaction_id in still_there]
    if not entries:
        return
    taken = _taken_numbers(connection, {number_at(entry.created_at) for entry in entries})
    rows: list[dict[str, Any]] = []
    for entry in entries:
        number = number_at(entry.created_at)
        while number in taken:
            number += 1
        taken.add(number)
        rows.append(entry.as_row(number, connection.dialect.name))
    connection.execute(insert(interaction_search), rows)


def _existing(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Return which of the interactions are still there: one may be erased while it is read."""
    found: set[str] = set()
    for start in range(0, len(ids), _IN_CLAUSE):
        of_block = interactions.c.id.in_(ids[start : start + _IN_CLAUSE])
        found.update(connection.scalars(select(interactions.c.id).where(of_block)))
    return found


def _taken_numbers(connection: Connection, wanted: set[int]) -> set[int]:
    """Return the numbers in use near those wanted."""
    taken: set[int] = set()
    ordered = sorted(wanted)
    for start in range(0, len(ordered), _IN_CLAUSE):
        block = ordered[start : start + _IN_CLAUSE]
        taken.update(connection.scalars(select(indexed.number).where(indexed.number.in_(block))))
    for number in sorted(taken):
        end = number + NUMBERS_PER_MS * _CROWDED_MS
        near = select(indexed.number).where(indexed.number > number, indexed.number < end)
        taken.update(connection.scalars(near))
    return taken


def delete_entries(connection: Connection, ids: Iterable[str]) -> int:
    """Take interactions out of the index; returns how many were in it."""
    listed, found = list(ids), 0
    for start in range(0, len(listed), _IN_CLAUSE):
        block = listed[start : start + _IN_CLAUSE]
        of_block = indexed.interaction_id.in_(block)
        found += connection.execute(delete(interaction_search).where(of_block)).rowcount
    return found


def count_entries(connection: Connection) -> tuple[int, int]:
    """Return how many interactions there are, and how many are in the index."""
    logged = connection.execute(select(func.count()).select_from(interactions)).scalar_one()
    known = connection.execute(select(func.count()).select_from(interaction_search)).scalar_one()
    return int(logged), int(known)


def merge_step(connection: Connection, pages: int, *, is_first: bool) -> bool:
    """Merge `pages` pages of SQLite's index into its one segment; False when nothing is left.

    FTS5 marks a deleted row and keeps its words until the segments that hold them are merged. A
    negative number of pages says that all segments are to become one.
    """
    before = connection.connection.driver_connection.total_changes  # type: ignore[union-attr]
    amount = -pages if is_first else pages
    connection.exec_driver_sql(
        f"INSERT INTO {FULL_TEXT_TABLE} ({FULL_TEXT_TABLE}, rank) VALUES ('merge', {amount})"
    )
    after = connection.connection.driver_connection.total_changes  # type: ignore[union-attr]
    return bool(after - before >= 2)  # the statement itself counts as one change
