"""Counts interactions by time and version, so that no page has to read the log for its charts.

Buckets of five minutes are counted from the log, those of an hour are their sums. A bucket is
always counted anew as a whole, so that a run may be repeated at any time: the newest ones because
rows are still coming, those whose answers were rated since the last run, and every hour in which
the log holds another number of rows than was counted (rows that came late, conversations that were
erased, an installation that was updated).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Integer, and_, delete, func, insert, literal_column, select

from whet.access import same_group
from whet.context import Context
from whet.database import reading, writing
from whet.outcomes import lowest_ratings, service_failed
from whet.tables import interactions, ratings, scheduled_jobs, traffic_buckets
from whet.traffic_series import BUCKETS_JOB, DAY_MS, MINUTE_MS, NARROW_MS, WIDE_MS
from whet.ttft_histogram import add_histograms, bucket_index

_CHECKED_MS = 31 * DAY_MS  # the longest range of the console's charts
_OVERLAP_MS = 2 * MINUTE_MS  # ratings reach the database within this time
# Hours that one run counts anew, the newest first: of 30,000 requests a day about four seconds
_HOURS_PER_RUN = 100
_PAGE = 500  # rows read at a time, and ids per query
_one_at_a_time = threading.Lock()  # two jobs could otherwise overwrite the newer count

_KEY = ("start_at", "alias", "adapter", "version")
_COUNTS = (
    "requests", "failed", "rated", "thumbs_up", "prompt_tokens", "completion_tokens",
)  # fmt: skip


@dataclass(slots=True)
class Bucket:
    """What is counted of one version in one time."""

    counts: Counter[str] = field(default_factory=Counter)
    ttft: Counter[str] = field(default_factory=Counter)


def count_recent(context: Context, now: int) -> str | None:
    """Count the newest buckets, and those whose answers were rated since the last run."""
    with _one_at_a_time:
        with reading(context.database) as connection:
            starts = {floor(now, NARROW_MS), floor(now, NARROW_MS) - NARROW_MS}
            starts |= _rated_since(connection, _last_run(connection, now) - _OVERLAP_MS)
        for first, end in spans_by_hour(starts):
            count_span(context, first, end)
    return None


def count_late(context: Context, now: int) -> str | None:
    """Count the hours anew for which log and buckets differ."""
    with _one_at_a_time:
        with reading(context.database) as connection:
            hours = hours_that_differ(connection, floor(now - _CHECKED_MS, WIDE_MS))
        chosen = sorted(hours, reverse=True)[:_HOURS_PER_RUN]
        for hour in chosen:
            count_span(context, hour, hour + WIDE_MS)
    return f"counted {len(chosen)} hours of traffic" if len(chosen) > 1 else None


def delete_buckets(connection: Connection, before: int) -> int:
    """Delete the buckets that end before `before` (ms); returns how many."""
    old = traffic_buckets.c.start_at + traffic_buckets.c.width_ms <= before
    return connection.execute(delete(traffic_buckets).where(old)).rowcount


def floor(at: int, width_ms: int) -> int:
    """Return the start of the bucket that holds `at`."""
    return at // width_ms * width_ms


def spans_by_hour(starts: Iterable[int]) -> list[tuple[int, int]]:
    """Return (first, end) of the buckets of each hour, the newest hour first."""
    hours: dict[int, list[int]] = {}
    for start in starts:
        hours.setdefault(floor(start, WIDE_MS), []).append(start)
    return [
        (min(found), max(found) + NARROW_MS) for _, found in sorted(hours.items(), reverse=True)
    ]


def _last_run(connection: Connection, now: int) -> int:
    query = select(scheduled_jobs.c.finished_at).where(scheduled_jobs.c.name == BUCKETS_JOB)
    return min(now, connection.execute(query).scalar() or now)


def _rated_since(connection: Connection, since: int) -> set[int]:
    """Return the buckets of the answers that were rated at `since` (ms) or later."""
    query = (
        select(interactions.c.created_at)
        .join(ratings, ratings.c.interaction_id == interactions.c.id)
        .where(
            ratings.c.created_at >= since,
            same_group(ratings.c.api_key_id, interactions.c.api_key_id),
        )
    )
    return {floor(at, NARROW_MS) for at in connection.scalars(query)}


def hours_that_differ(connection: Connection, since: int) -> set[int]:
    """Return the hours from `since` (ms) on in which the log has other rows than were counted."""
    width = literal_column(str(WIDE_MS), Integer)
    hour = (interactions.c.created_at // width).label("hour")
    logged_query = (
        select(hour, func.count()).where(interactions.c.created_at >= since).group_by("hour")
    )
    logged = {int(row[0]) * WIDE_MS: int(row[1]) for row in connection.execute(logged_query)}
    kept = traffic_buckets.c
    counted_query = (
        select(kept.start_at, func.sum(kept.requests))
        .where(kept.width_ms == WIDE_MS, kept.start_at >= since)
        .group_by(kept.start_at)
    )
    counted = {int(start): int(count) for start, count in connection.execute(counted_query)}
    return {at for at in logged.keys() | counted.keys() if logged.get(at, 0) != counted.get(at, 0)}


def count_span(context: Context, first: int, end: int) -> None:
    """Count the buckets from `first` up to `end` (ms, within one hour), then their hour."""
    with reading(context.database) as connection:
        found = _count_log(connection, first, end)
    hour = floor(first, WIDE_MS)
    kept = traffic_buckets.c
    with writing(context.database) as connection:
        _replace(connection, NARROW_MS, and_(kept.start_at >= first, kept.start_at < end), found)
        query = select(traffic_buckets).where(
            kept.width_ms == NARROW_MS, kept.start_at >= hour, kept.start_at < hour + WIDE_MS
        )
        rows = [dict(row._mapping) for row in connection.execute(query)]
        _replace(connection, WIDE_MS, kept.start_at == hour, _sum_rows(rows, hour))


def _count_log(connection: Connection, first: int, end: int) -> dict[tuple[Any, ...], Bucket]:
    logged = interactions.c
    within = and_(logged.created_at >= first, logged.created_at < end)
    query = select(
        logged.id,
        logged.created_at,
        logged.alias,
        logged.adapter,
        logged.version,
        service_failed().label("failed"),
        logged.prompt_tokens,
        logged.completion_tokens,
        logged.ttft_ms,
    ).where(within)
    found: dict[tuple[Any, ...], Bucket] = {}
    result = connection.execute(query.execution_options(yield_per=_PAGE))
    for page in result.partitions():
        lowest = _load_lowest_ratings(connection, [row.id for row in page])
        for row in page:
            key = (
                floor(row.created_at, NARROW_MS),
                row.alias or "",
                row.adapter or "",
                row.version or 0,
            )
            _count_row(found.setdefault(key, Bucket()), row, lowest.get(row.id))
    return found


def _load_lowest_ratings(connection: Connection, ids: list[str]) -> dict[str, int]:
    """Return id → lowest rating. By ids, because SQLite reads every rating there is when it is
    asked for those of a time."""
    answers = select(interactions.c.id, interactions.c.api_key_id).where(interactions.c.id.in_(ids))
    query = lowest_ratings(answers.subquery())
    return {row.id: row.lowest for row in connection.execute(query)}


def _count_row(bucket: Bucket, row: Any, rating: int | None) -> None:
    bucket.counts.update(
        requests=1,
        failed=int(bool(row.failed)),
        rated=int(rating is not None),
        thumbs_up=int(rating is not None and rating > 0),
        prompt_tokens=row.prompt_tokens or 0,
        completion_tokens=row.completion_tokens or 0,
    )
    if row.ttft_ms is not None:
        bucket.ttft[str(bucket_index(row.ttft_ms))] += 1


def _sum_rows(rows: list[dict[str, Any]], hour: int) -> dict[tuple[Any, ...], Bucket]:
    found: dict[tuple[Any, ...], Bucket] = {}
    for row in rows:
        bucket = found.setdefault((hour, row["alias"], row["adapter"], row["version"]), Bucket())
        bucket.counts.update({name: row[name] for name in _COUNTS})
        bucket.ttft = Counter(add_histograms((bucket.ttft, row["ttft"])))
    return found


def _replace(
    connection: Connection,
    width_ms: int,
    within: Any,
    found: Mapping[tuple[Any, ...], Bucket],
) -> None:
    connection.execute(
        delete(traffic_buckets).where(traffic_buckets.c.width_ms == width_ms, within)
    )
    rows = [
        {
            "width_ms": width_ms,
            **dict(zip(_KEY, key, strict=True)),
            **{name: bucket.counts[name] for name in _COUNTS},
            "ttft": dict(bucket.ttft),
        }
        for key, bucket in found.items()
    ]
    if rows:
        connection.execute(insert(traffic_buckets), rows)
