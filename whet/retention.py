"""Retention: deletes what belongs to old conversations, in small batches while others write.

Every package has a nightly job that deletes the rows of its own tables. A row is as old as the
conversation that it belongs to, whose id holds its time; so a rating goes with its answer. What a
standing example or an open incident needs stays.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, Connection, Engine, delete, select

from whet.auditlog import record
from whet.context import Context
from whet.database import reading, truncate_wal, writing
from whet.ids import lowest_id
from whet.json_types import JsonObject
from whet.tables import (
    WRITERS,
    alerts,
    answer_scores,
    audit,
    blame_verdicts,
    examples,
    interaction_search,
    interactions,
    ratings,
    review_items,
    review_left_out,
    reviews,
)

DAY_MS = 86_400_000
NIGHT_HOUR_UTC = 2  # days are judged from 01:00 UTC on, while their conversations are there
CHECK_EVERY_S = 600.0  # the scheduler was perhaps down at that hour
ACTION = "retention.run"  # of the audit log's entry, whose subject is the package
ACTOR = "scheduler"

# Keys of what belongs to a conversation, each with the column that holds the conversation's id.
CONVERSATION_ROWS: tuple[tuple[Column[Any], Column[Any]], ...] = (
    (interactions.c.id, interactions.c.id),
    (interaction_search.c.interaction_id, interaction_search.c.interaction_id),
    (ratings.c.id, ratings.c.interaction_id),
    (answer_scores.c.interaction_id, answer_scores.c.interaction_id),
    (blame_verdicts.c.interaction_id, blame_verdicts.c.interaction_id),
    (review_left_out.c.interaction_id, review_left_out.c.interaction_id),
    (reviews.c.id, reviews.c.interaction_id),
    (review_items.c.id, review_items.c.interaction_id),
)

_PAGE = 2_000  # keys read at a time: 100 KB
_IN_CLAUSE = 500  # ids per query: both databases take more, but plans stay simple
# A writer waits for one batch at most. SQLite's waiting writers look again after up to 100 ms, so
# the pauses between batches have to be longer than the batches, or one could miss several.
_BATCH_S = 0.015
_REST = 4.0  # times what the batch took
_LEAST_REST_S, _MOST_REST_S = 0.01, 0.1
_FIRST_ROWS, _LEAST_ROWS, _MOST_ROWS = 20, 5, 2_000
_POSTGRESQL_ROWS = 500  # there, who writes other rows does not wait for these
_one_at_a_time = threading.Lock()  # packages' jobs run in threads; together they would rest less


@dataclass(frozen=True, slots=True)
class Needed:
    """Ids of old conversations that stay."""

    for_examples: frozenset[str] = frozenset()
    for_incidents: frozenset[str] = frozenset()

    def __contains__(self, interaction_id: object) -> bool:
        return interaction_id in self.for_examples or interaction_id in self.for_incidents


@dataclass(slots=True)
class Pace:
    """Rows of the next batch, so that one takes about `_BATCH_S`, and the pause after each.

    Counted in processor time: on a busy machine a batch waits, however few rows it has.
    """

    rows: int = _FIRST_ROWS
    sleep: Callable[[float], None] = time.sleep

    def rest(self, took_s: float) -> None:
        """Adapt to a batch that kept the database's lock busy for `took_s`, then pause."""
        factor = min(2.0, _BATCH_S / max(took_s, 1e-6))
        self.rows = max(_LEAST_ROWS, min(_MOST_ROWS, int(self.rows * factor)))
        self.sleep(min(_MOST_REST_S, max(_LEAST_REST_S, took_s * _REST)))


@dataclass(slots=True)
class Cleaning:
    """One night's work of one package. `before` (ms): what is older is deleted."""

    database: Engine
    before: int
    needed: Needed
    pace: Pace = field(default_factory=Pace)
    deleted: dict[str, int] = field(default_factory=dict)  # table, or what else it was → count

    def delete_rows(self, package: str) -> None:
        """Delete the old rows of the package's tables of `CONVERSATION_ROWS`."""
        for key, interaction_id in CONVERSATION_ROWS:
            if WRITERS[key.table.name] == package:
                self.delete_of_conversations(key, interaction_id)

    def delete_of_conversations(
        self, key: Column[Any], interaction_id: Column[Any], *conditions: Any
    ) -> None:
        """Delete the rows of old conversations that nobody needs, under `conditions`."""
        old = interaction_id < lowest_id("int", self.before)
        last = ""
        while True:
            query = select(key, interaction_id).where(old, key > last, *conditions)
            with reading(self.database) as connection:
                page = connection.execute(query.order_by(key).limit(_PAGE)).all()
            if not page:
                return
            last = page[-1][0]
            self.delete_keys(key, [row[0] for row in page if row[1] not in self.needed])

    def delete_keys(self, key: Column[Any], keys: list[str]) -> None:
        """Delete the rows with these keys."""
        start, is_sqlite = 0, self.database.dialect.name == "sqlite"
        while start < len(keys):
            rows = min(self.pace.rows, _IN_CLAUSE) if is_sqlite else _POSTGRESQL_ROWS
            block = keys[start : start + rows]
            start += len(block)
            with writing(self.database) as connection:
                began = time.thread_time()
                found = connection.execute(delete(key.table).where(key.in_(block))).rowcount
            self.count(str(key.table.name), found)
            self.pace.rest(time.thread_time() - began)

    def count(self, what: str, deleted: int) -> None:
        if deleted:
            self.deleted[what] = self.deleted.get(what, 0) + deleted


def retention_before(retention_days: int, now: int) -> int:
    """Return the instant (ms) before which conversations are past their retention."""
    return now - retention_days * DAY_MS


def is_due(now: int, last_at: int | None) -> bool:
    """Whether no run (ms) began since the newest night's hour: once a night, later if it was
    missed."""
    shift = NIGHT_HOUR_UTC * 3_600_000
    return last_at is None or last_at < (now - shift) // DAY_MS * DAY_MS + shift


def load_needed(connection: Connection, before: int) -> Needed:
    """Read which conversations older than `before` stay."""
    floor = lowest_id("int", before)
    of_examples = select(examples.c.interaction_id).where(
        examples.c.withdrawn_at.is_(None), examples.c.interaction_id < floor
    )
    of_incidents = select(alerts.c.detail).where(alerts.c.open_marker.is_not(None))
    named = [
        one
        for detail in connection.scalars(of_incidents)
        for one in (detail or {}).get("interaction_ids", ())
        if one < floor
    ]
    return Needed(frozenset(connection.scalars(of_examples)), frozenset(named))


def last_runs(connection: Connection) -> dict[str, tuple[int, dict[str, Any]]]:
    """Package → when its newest run began (ms), and what it said."""
    found: dict[str, tuple[int, dict[str, Any]]] = {}
    query = select(audit.c.subject, audit.c.created_at, audit.c.detail)
    for row in connection.execute(query.where(audit.c.action == ACTION).order_by(audit.c.sequence)):
        found[row.subject] = (row.created_at, row.detail)
    return found


def run_nightly(
    context: Context,
    package: str,
    clean: Callable[[Cleaning], None],
    now: int,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> str | None:
    """Let `clean` delete what is old, if it is due. Returns what was done, None when it is not."""
    with reading(context.database) as connection:
        last = last_runs(connection).get(package)
    if not is_due(now, last[0] if last else None):
        return None
    with _one_at_a_time:
        before = retention_before(context.settings.retention_days, now)
        with reading(context.database) as connection:
            needed = load_needed(connection, before)
        cleaning = Cleaning(context.database, before, needed, Pace(sleep=sleep))
        clean(cleaning)
        is_truncated = truncate_wal(context.database, sleep=sleep) if cleaning.deleted else True
        detail: JsonObject = {
            "before": before,
            "deleted": {**cleaning.deleted},
            "kept_for_examples": len(needed.for_examples),
            "kept_for_incidents": len(needed.for_incidents),
            "wal_truncated": is_truncated,
        }
        with writing(context.database) as connection:
            record(connection, actor=ACTOR, action=ACTION, subject=package, detail=detail, now=now)
    return describe_run(detail)


def describe_run(detail: Mapping[str, Any]) -> str:
    """What a run deleted and kept, as one sentence."""
    deleted = ", ".join(f"{count:,} {what}" for what, count in sorted(detail["deleted"].items()))
    kept = kept_sentence(detail["kept_for_examples"], detail["kept_for_incidents"])
    wal = (
        ""
        if detail.get("wal_truncated", True)
        else " The write-ahead log was in use and keeps copies until the next night."
    )
    return f"Deleted {deleted or 'nothing'}.{kept}{wal}"


def kept_sentence(for_examples: int, for_incidents: int) -> str:
    """Why old conversations are still there; empty when none are."""
    if not for_examples and not for_incidents:
        return ""
    return (
        f" Old conversations that stay: {for_examples:,} for standing examples, "
        f"{for_incidents:,} for open incidents."
    )
