"""Traffic over time, read from the buckets that serving keeps: never from the log itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from whet.tables import scheduled_jobs, traffic_buckets
from whet.ttft_histogram import add_histograms, percentile

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
NARROW_MS, WIDE_MS = 5 * MINUTE_MS, HOUR_MS  # the widths that are kept
BUCKETS_JOB = "traffic-buckets"
DEFAULT_PERIOD = "24h"
_STALE_MS = 3 * MINUTE_MS


@dataclass(frozen=True, slots=True)
class Period:
    """What may be chosen: its name, its words, its length, and the width of what is drawn (ms)."""

    name: str
    words: str
    lasts_ms: int
    step_ms: int


PERIODS = {
    "1h": Period("1 hour", "the last hour", HOUR_MS, NARROW_MS),
    "24h": Period("24 hours", "the last 24 hours", DAY_MS, 30 * MINUTE_MS),
    "7d": Period("7 days", "the last 7 days", 7 * DAY_MS, 3 * HOUR_MS),
    "30d": Period("30 days", "the last 30 days", 30 * DAY_MS, 12 * HOUR_MS),
}


@dataclass(frozen=True, slots=True)
class TimeRange:
    """The part of time that is shown: whole steps, from the one that holds the period's beginning
    to the one that is not over yet."""

    name: str
    words: str
    start_at: int
    end_at: int
    step_ms: int

    @property
    def starts(self) -> range:
        """When each step begins (ms)."""
        return range(self.start_at, self.end_at, self.step_ms)


def choose_range(name: str, now: int) -> TimeRange:
    """Return the range of that name; an unknown one counts as not given."""
    name = name if name in PERIODS else DEFAULT_PERIOD
    period = PERIODS[name]
    start_at = (now - period.lasts_ms) // period.step_ms * period.step_ms
    end_at = now // period.step_ms * period.step_ms + period.step_ms
    return TimeRange(name, period.words, start_at, end_at, period.step_ms)


@dataclass(frozen=True, slots=True)
class TrafficCounts:
    """What was counted in a time. `rated` and `thumbs_up` count answers, not ratings."""

    requests: int = 0
    failed: int = 0
    rated: int = 0
    thumbs_up: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ttft: dict[str, int] = field(default_factory=dict)

    @property
    def failed_share(self) -> float | None:
        return self.failed / self.requests if self.requests else None

    @property
    def thumbs_up_share(self) -> float | None:
        return self.thumbs_up / self.rated if self.rated else None

    def ttft_ms(self, share: float) -> float | None:
        """Return a percentile of the time to the first token, at most 4.5 % off."""
        return percentile(self.ttft, share)


@dataclass(frozen=True, slots=True)
class Series:
    """The counts of one version, or of all traffic: start of a step (ms) → counts."""

    label: str
    points: dict[int, TrafficCounts]
    total: TrafficCounts


@dataclass(frozen=True, slots=True)
class TrafficFilter:
    """Which traffic is read. `alias`: "" for any, "(none)" for requests that name no alias."""

    alias: str = ""
    version: int | None = None  # 0: the base


def add_counts(counts: Iterable[TrafficCounts]) -> TrafficCounts:
    """Return the sum."""
    every = list(counts)
    return TrafficCounts(
        requests=sum(one.requests for one in every),
        failed=sum(one.failed for one in every),
        rated=sum(one.rated for one in every),
        thumbs_up=sum(one.thumbs_up for one in every),
        prompt_tokens=sum(one.prompt_tokens for one in every),
        completion_tokens=sum(one.completion_tokens for one in every),
        ttft=add_histograms(one.ttft for one in every),
    )


def load_series(
    connection: Connection, shown: TimeRange, only: TrafficFilter, *, by_version: bool
) -> list[Series]:
    """Read the buckets of a range: one series of everything, or one for each version, the one
    with most requests first."""
    kept = traffic_buckets.c
    width = WIDE_MS if shown.step_ms % WIDE_MS == 0 else NARROW_MS
    query = select(traffic_buckets).where(
        kept.width_ms == width, kept.start_at >= shown.start_at, kept.start_at < shown.end_at
    )
    if only.alias:
        query = query.where(kept.alias == ("" if only.alias == "(none)" else only.alias))
    if only.version is not None:
        query = query.where(kept.version == only.version)
    found: dict[str, dict[int, list[TrafficCounts]]] = {}
    for row in connection.execute(query):
        label = ""
        if by_version:
            label = f"{row.adapter}@v{row.version}" if row.adapter else "base"
        start = shown.start_at + (row.start_at - shown.start_at) // shown.step_ms * shown.step_ms
        counts = TrafficCounts(
            row.requests, row.failed, row.rated, row.thumbs_up,
            row.prompt_tokens, row.completion_tokens, row.ttft,
        )  # fmt: skip
        found.setdefault(label, {}).setdefault(start, []).append(counts)
    series = []
    for label, parts in found.items():
        points = {start: add_counts(counts) for start, counts in sorted(parts.items())}
        series.append(Series(label, points, add_counts(points.values())))
    return sorted(series, key=lambda one: (-one.total.requests, one.label))


def stale_since(connection: Connection, now: int) -> int | None:
    """Return until when traffic is counted (ms), where that is not now; 0: never counted."""
    query = select(scheduled_jobs.c.finished_at, scheduled_jobs.c.failing_since).where(
        scheduled_jobs.c.name == BUCKETS_JOB
    )
    row = connection.execute(query).first()
    if row is None:
        return 0
    if row.failing_since is not None:
        return int(row.failing_since)
    return int(row.finished_at) if now - row.finished_at > _STALE_MS else None
