"""The nightly list of gaps: questions of the last four weeks that found nothing, in clusters.

It reads what is kept of the days, and the texts of the questions from the log. The only writer of
`retrieval_gaps`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from sqlalchemy import Connection, delete, insert, update

from monitoring.daystore import (
    detector_settings,
    read_codebook,
    read_questions,
    read_sample,
)
from monitoring.detector.codebook import Codebook
from monitoring.detector.columns import Table, concatenated
from monitoring.detector.gaps import find_gaps
from monitoring.detector.retrieval import MISS, low_scores_of, with_misses
from monitoring.gap_queries import list_gaps
from monitoring.gaps import FoundGap, plan_gaps
from monitoring.history_store import newest_days
from whet.context import Context
from whet.database import reading, writing
from whet.ids import new_id
from whet.tables import retrieval_gaps

WINDOW_DAYS = 28
RECENT_DAYS = 7
_MOST_ROWS = 4_000  # of each kind that are clustered, as for the topics of an incident
_WEIGHT = "weight"  # column: requests that a row of the sample stands for


def refresh_gaps(context: Context, alias: str, now: int) -> int:
    """Cluster the newest days of an alias again; returns how many gaps are open."""
    days, low_scores = _read_days(context, alias)
    found: list[FoundGap] = []
    if days:
        codebook = read_codebook(context, alias)
        table = concatenated(list(days.values()))
        # Without enough scores to tell a low one, only what found no passage at all is a miss.
        none = {str(name): -math.inf for name in table.columns["collection"]}
        table = with_misses(table, none | low_scores_of(days.values(), low_scores, 1))
        for collection, rows in _by_collection(table):
            found += _gaps_of(context, collection, rows, codebook, max(days))
    with writing(context.database) as connection:
        return _store(connection, alias, found, now)


def _read_days(context: Context, alias: str) -> tuple[dict[int, Table], dict[str, float]]:
    """Kept conversations that searched, by day, and the collections' low scores."""
    with reading(context.database) as connection:
        rows = newest_days(connection, alias, WINDOW_DAYS)[::-1]
    days: dict[int, Table] = {}
    low_scores: dict[str, float] = {}
    for row in rows:
        low_scores = {**row.statistics.low_scores, **low_scores}
        if row.day <= rows[0].day - WINDOW_DAYS or not row.statistics.documents:
            continue
        table = read_sample(context, row.sample_path)
        if not len(table) or "collection" not in table:
            continue
        table = table.take(~np.equal(table.columns["collection"], np.array(None)))
        weight = np.full(len(table), row.rows / max(1, row.statistics.sampled))
        days[row.day] = Table({**table.columns, _WEIGHT: weight})
    return days, low_scores


def _by_collection(table: Table) -> Iterator[tuple[str, Table]]:
    if MISS not in table:
        return
    names = table.columns["collection"]
    known = np.isfinite(table.columns[MISS])
    for name in sorted({str(name) for name in names}):
        yield name, table.take(known & np.equal(names, name))


def _gaps_of(
    context: Context, collection: str, rows: Table, codebook: Codebook | None, newest: int
) -> Iterator[FoundGap]:
    is_missed = rows.columns[MISS] == 1
    missed, answered = _with_texts(context, rows.take(is_missed)), rows.take(~is_missed)
    answered = _with_texts(context, answered)
    searches = float(rows.columns[_WEIGHT].sum())
    seed = detector_settings(context).seed
    for gap in find_gaps(missed, answered, codebook, seed):
        own = missed.take(np.array(gap.rows))
        weight, days = own.columns[_WEIGHT], own.columns["day"]
        yield FoundGap(
            collection=collection,
            words=gap.words,
            members=[str(name) for name in own.columns["id"]],
            questions=round(float(weight.sum())),
            share=float(weight.sum()) / searches,
            recent=round(float(weight[days > newest - RECENT_DAYS].sum())),
            first_day=int(days.min()),
            last_day=int(days.max()),
        )


def _with_texts(context: Context, table: Table) -> Table:
    """The newest rows, with their questions; those that were erased stay out."""
    table = table.take(np.arange(len(table))[-_MOST_ROWS:])
    ids = [str(name) for name in table.columns["id"]]
    texts: Mapping[str, str] = read_questions(context, ids)
    prompts = np.array([*(texts.get(name) for name in ids), None], dtype=object)[:-1]
    known = np.array([bool(text) for text in prompts], dtype=bool)
    return Table({**table.columns, "prompt": prompts}).take(known)


def _store(connection: Connection, alias: str, found: list[FoundGap], now: int) -> int:
    known = list_gaps(connection, alias)
    plan = plan_gaps(known, [gap for gap in found if gap.recent > 0])
    for gap in plan.new:
        values = {"id": new_id("gap", at=now), "alias": alias, "state": "open", "updated_at": now}
        connection.execute(insert(retrieval_gaps).values(**values, **gap.values()))
    for gap_id, gap in plan.updated:
        where = retrieval_gaps.c.id == gap_id
        connection.execute(
            update(retrieval_gaps).where(where).values(**gap.values(), updated_at=now)
        )
    if plan.gone:
        connection.execute(delete(retrieval_gaps).where(retrieval_gaps.c.id.in_(plan.gone)))
    dismissed = {gap.id for gap in known if gap.state == "dismissed"}
    return len(plan.new) + sum(gap_id not in dismissed for gap_id, _ in plan.updated)
