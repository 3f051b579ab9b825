"""Keeps the full-text index like the interaction log: new rows, ratings, late rows, deletions.

Not by who inserts log records: that process must keep up with the gateway, and takes the
database's lock for it. The scheduler indexes within seconds, in batches short enough for every
other writer. Hours in which log and index differ are made equal, newest first: rows that came late,
deleted ones, the log of an installation that had no index.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Engine

from serving.search_index import index_store as store
from whet.context import Context
from whet.database import reading, truncate_wal, writing
from whet.retention import Pace

INDEX_JOB = "traffic-index"
INDEX_EVERY_S = 2.0
INDEX_LATE_JOB = "traffic-index-late"
INDEX_LATE_EVERY_S = 60.0

_MINUTE_MS = 60_000
_HOUR_MS = 3_600_000
RECENT_MS = 2 * _MINUTE_MS  # an answer that takes longer is found with those that are late
_MOST_AT_ONCE = 1_000  # rows that are read and split before they are written
_LATE_RUN_S = 50.0  # a run ends before the next is due
_POSTGRESQL_ROWS = 200  # of a batch; who writes other rows does not wait for it
_MERGE_PAGES = 64  # at least so many of a step of SQLite's merging: 256 KB
_one_at_a_time = threading.Lock()  # two jobs could otherwise choose the same number


@dataclass(slots=True)
class Indexer:
    """Indexes the log of one database."""

    database: Engine
    pace: Pace = field(default_factory=Pace)
    clock: Callable[[], float] = time.monotonic
    _seen_ratings: dict[str, str] = field(default_factory=dict)

    def index_recent(self, now: int) -> int:
        """Index what was logged or rated in the last minutes; returns how many rows."""
        first = now - RECENT_MS
        with _one_at_a_time:
            with reading(self.database) as connection:
                ids = store.missing_between(connection, first, now + _MINUTE_MS, _MOST_AT_ONCE)
                rated = store.rated_since(connection, first)
            new = {one for rating, one in rated.items() if rating not in self._seen_ratings}
            ids = list(dict.fromkeys([*ids, *sorted(new)]))
            self._write(ids)
            self._seen_ratings = rated
        return len(ids)

    def index_late(self, *, within_s: float = _LATE_RUN_S) -> tuple[int, int]:
        """Make index and log equal where they differ; returns (indexed, taken out)."""
        until = self.clock() + within_s
        indexed = removed = 0
        with reading(self.database) as connection:
            hours = store.hours_that_differ(connection)
        for hour in sorted(hours, reverse=True):
            if self.clock() >= until:
                break
            with _one_at_a_time:
                removed += self._remove_gone(hour)
            while self.clock() < until:
                with _one_at_a_time:
                    with reading(self.database) as connection:
                        ids = store.missing_between(
                            connection, hour, hour + _HOUR_MS, _MOST_AT_ONCE
                        )
                    self._write(ids)
                indexed += len(ids)
                if len(ids) < _MOST_AT_ONCE:
                    break
        if removed:
            self.compact()
            truncate_wal(self.database)
        return indexed, removed

    def compact(self) -> None:
        """Merge SQLite's index into one segment, without the words of what was deleted."""
        if self.database.dialect.name != "sqlite":
            return
        is_first, is_left = True, True
        while is_left:
            with writing(self.database) as connection:
                began = time.thread_time()
                is_left = store.merge_step(connection, _MERGE_PAGES, is_first=is_first)
            is_first = False
            self.pace.rest(time.thread_time() - began)

    def _remove_gone(self, hour: int) -> int:
        with reading(self.database) as connection:
            ids = store.gone_between(connection, hour, hour + _HOUR_MS, _MOST_AT_ONCE)
        for block in self._blocks(ids):
            with writing(self.database) as connection:
                began = time.thread_time()
                store.delete_entries(connection, block)
            self.pace.rest(time.thread_time() - began)
        return len(ids)

    def _write(self, ids: Sequence[str]) -> None:
        """Read rows, split their texts without a lock, then write in short batches."""
        if not ids:
            return
        with reading(self.database) as connection:
            entries = store.load_entries(connection, ids)
        start = 0
        while start < len(entries):
            block = entries[start : start + self._batch_rows]
            start += len(block)
            with writing(self.database) as connection:
                began = time.thread_time()
                store.write_entries(connection, block)
            self.pace.rest(time.thread_time() - began)

    @property
    def _batch_rows(self) -> int:
        is_sqlite = self.database.dialect.name == "sqlite"
        return self.pace.rows if is_sqlite else _POSTGRESQL_ROWS

    def _blocks(self, ids: Sequence[str]) -> list[Sequence[str]]:
        size = self._batch_rows
        return [ids[start : start + size] for start in range(0, len(ids), size)]


def index_all(context: Context, *, sleep: Callable[[float], None] = time.sleep) -> int:
    """Index all that is logged; returns how many rows. For commands and tests."""
    indexer = Indexer(context.database, Pace(sleep=sleep))
    indexed, _ = indexer.index_late(within_s=float("inf"))
    return indexed
