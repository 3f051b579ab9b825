"""Traffic by time: counted from the log as a whole, late rows and later ratings included."""

from __future__ import annotations

import random

import pytest
from sqlalchemy import delete, func, select

from serving.jobs import jobs
from serving.log.bucketing import (
    count_late,
    count_recent,
    delete_buckets,
    hours_that_differ,
    spans_by_hour,
)
from tests import builders, worlds
from tests.builders import DAY, HOUR, MINUTE
from whet.context import Context
from whet.database import reading, writing
from whet.health.version_summary import summarise_versions
from whet.tables import interactions, traffic_buckets
from whet.traffic_series import (
    NARROW_MS,
    PERIODS,
    WIDE_MS,
    Series,
    TrafficFilter,
    choose_range,
    load_series,
)
from whet.ttft_histogram import RELATIVE_ERROR, bucket_index, percentile

NOW = 1_900_000_000_000
HOUR_START = NOW // HOUR * HOUR


def series(context: Context, period: str = "24h", now: int = NOW, **only: object) -> list[Series]:
    with reading(context.database) as connection:
        shown = choose_range(period, now)
        by_version = bool(only.pop("by_version", False))
        return load_series(connection, shown, TrafficFilter(**only), by_version=by_version)  # type: ignore[arg-type]


def test_recent_rows_ratings_and_gaps_are_counted(context: Context) -> None:
    with writing(context.database) as connection:
        first = builders.add_interaction(connection, NOW - MINUTE, ttft_ms=100.0)
        builders.add_interaction(connection, NOW - 5 * MINUTE, status="error", http_status=500)
    count_recent(context, NOW)
    [one] = series(context, "1h")
    assert one.total.requests == 2 and one.total.failed == 1 and one.total.rated == 0
    assert len(choose_range("1h", NOW).starts) == 13
    assert len(one.points) == 2  # times without requests have no point

    later = NOW + 3 * HOUR
    with writing(context.database) as connection:
        builders.add_rating(connection, first, later - MINUTE, rating=1)
        builders.add_rating(connection, first, later - MINUTE)
    count_recent(context, later)
    [one] = series(context, "24h", later)
    assert (one.total.rated, one.total.thumbs_up) == (1, 0), "rated down by anybody is down"
    assert one.total.requests == 2


def test_late_rows_and_erased_ones_are_counted_by_hours_that_differ(context: Context) -> None:
    with writing(context.database) as connection:
        late = builders.add_interaction(connection, NOW - 2 * DAY)
        builders.add_interaction(connection, NOW - 5 * HOUR)
    count_recent(context, NOW)
    assert series(context, "7d") == []
    count_late(context, NOW)
    assert series(context, "7d")[0].total.requests == 2
    with writing(context.database) as connection:
        connection.execute(delete(interactions).where(interactions.c.id == late))
    with reading(context.database) as connection:
        assert hours_that_differ(connection, 0) == {(NOW - 2 * DAY) // HOUR * HOUR}
    count_late(context, NOW)
    assert series(context, "7d")[0].total.requests == 1
    with reading(context.database) as connection:
        assert hours_that_differ(connection, 0) == set()


def test_figures_are_those_of_the_health_reading(context: Context) -> None:
    with writing(context.database) as connection:
        worlds.traffic(connection, 600, NOW, days=2)
    count_late(context, NOW)
    with reading(context.database) as connection:
        summaries = summarise_versions(connection, "support", {}, NOW)
    for version in (1, 2, 3):
        [one] = series(context, "7d", alias="support", version=version, by_version=True)
        summary = summaries[builders.digest("support", version)]
        total = one.total
        assert one.label == f"support@v{version}"
        assert (total.requests, total.failed) == (summary.n, summary.failed)
        assert (total.rated, total.thumbs_up) == (summary.rated, summary.thumbs_up)
        for share, exact in ((0.5, summary.ttft_p50_ms), (0.95, summary.ttft_p95_ms)):
            assert total.ttft_ms(share) == pytest.approx(exact, rel=RELATIVE_ERROR + 1e-9)
    both = [sum(one.total.requests for one in series(context, name)) for name in ("7d", "30d")]
    assert both == [600, 600], "narrow and wide buckets have the same sums"


def test_percentiles_are_within_the_error_of_the_histogram() -> None:
    noise = random.Random(7)
    values = [noise.lognormvariate(5, 1.5) + 1 for _ in range(4000)]
    histogram: dict[str, int] = {}
    for value in values:
        histogram[str(bucket_index(value))] = histogram.get(str(bucket_index(value)), 0) + 1
    for share in (0.5, 0.95, 0.99):
        exact = sorted(values)[int(share * len(values)) - 1]
        assert percentile(histogram, share) == pytest.approx(exact, rel=RELATIVE_ERROR + 1e-9)
    assert RELATIVE_ERROR < 0.045 and percentile({}, 0.5) is None
    assert bucket_index(0) == 0 and bucket_index(1e12) == bucket_index(1e9)


def test_spans_and_ranges_lie_on_whole_buckets() -> None:
    starts = {HOUR_START - NARROW_MS, HOUR_START, HOUR_START + 2 * NARROW_MS}
    assert spans_by_hour(starts) == [
        (HOUR_START, HOUR_START + 3 * NARROW_MS),
        (HOUR_START - NARROW_MS, HOUR_START),
    ]
    for name, period in PERIODS.items():
        shown = choose_range(name, NOW)
        assert shown.end_at - shown.start_at == period.lasts_ms + period.step_ms
        assert shown.start_at <= NOW - period.lasts_ms and shown.start_at % NARROW_MS == 0
        assert NOW in range(shown.end_at - shown.step_ms, shown.end_at)
    assert choose_range("no such", NOW).name == "24h"


def test_buckets_go_with_the_retention(context: Context) -> None:
    with writing(context.database) as connection:
        builders.add_interaction(connection, NOW - 2 * DAY)
        builders.add_interaction(connection, NOW - HOUR)
    count_late(context, NOW)
    with writing(context.database) as connection:
        assert delete_buckets(connection, NOW - DAY) == 2  # a narrow one and its hour
        kept = select(func.count()).where(traffic_buckets.c.width_ms == WIDE_MS)
        assert connection.execute(kept).scalar_one() == 1
    assert {"traffic-buckets", "traffic-buckets-late"} <= {job.name for job in jobs(context)}
