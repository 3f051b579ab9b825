"""Charts of traffic on the pages: from buckets, in the address, with marks and a table."""

from __future__ import annotations

import re

import pytest

from serving.log.bucketing import count_late
from tests import builders, worlds
from tests.builders import HOUR, MINUTE
from tests.web import NOW, console_client
from whet.context import Context
from whet.database import writing
from whet.traffic_marks import Mark
from whet.traffic_series import Series, TrafficCounts, choose_range
from whet.web.charts import dots_path, draw_traffic, line_path


@pytest.fixture
def counted(sqlite_context: Context) -> Context:
    with writing(sqlite_context.database) as connection:
        worlds.traffic(connection, 300, NOW, days=2)
        for version in (1, 2):
            builders.add_adapter(connection, NOW - (5 - version) * HOUR, version=version)
        one, two = builders.digest("support", 1), builders.digest("support", 2)
        builders.add_rollout(connection, NOW - 4 * HOUR, generation=1, stable=one)
        builders.add_rollout(connection, NOW - 3 * HOUR, generation=2, stable=two)
        builders.add_rollout(connection, NOW - HOUR, generation=3, stable=one, state="rolled_back")
        builders.add_dataset(connection, NOW - 2 * HOUR)
        builders.add_alert(connection, NOW - 90 * MINUTE)
    count_late(sqlite_context, NOW)
    return sqlite_context


def test_pages_draw_charts_with_marks_and_keep_the_range(counted: Context) -> None:
    client = console_client(counted, "viewer", clock=lambda: NOW)
    for path in ("/", "/adapters/support", "/traffic?alias=support"):
        page = client.get(path).text
        for title in ("Requests", "Failed", "Time to first token", "Tokens", "Thumbs up"):
            assert f"<figcaption>{title}" in page, (path, title)
        assert page.count('class="chart-band') == 5 * 49
        assert "support@v2 promoted for support" in page
        assert "support rolled back to support@v1" in page
        assert 'href="/datasets/support@1"' in page and 'href="/drift/incidents/' in page
        assert "The charts as a table" in page
    assert "The charts as a table" in client.get("/overview/charts?since=7d").text
    week = client.get("/?since=7d").text
    assert 'href="/?since=7d#time" aria-current="true"' in week
    assert week.count('class="chart-band') == 5 * 57 and "/traffic?since=7d&amp;start=" in week


def test_a_step_of_a_chart_filters_traffic_to_its_time(counted: Context) -> None:
    client = console_client(counted, "viewer", clock=lambda: NOW)
    page = client.get("/traffic?alias=support&rating=up").text
    assert "not the other filters" in page
    links = re.findall(r'href="(/traffic\?[^"]*start=(\d+)&amp;end=(\d+))" tabindex', page)
    address, start, end = links[-2]
    assert "alias=support&amp;rating=up" in address
    narrowed = client.get(f"/traffic?since=24h&start={start}&end={end}").text
    times = [
        int(at) for at in re.findall(r'<td class="fit muted"><time[^>]*data-at="(\d+)"', narrowed)
    ]
    assert times and all(int(start) <= at < int(end) for at in times)
    assert narrowed.count("chart-band chosen") == 5 and f'name="start" value="{start}"' in narrowed
    assert client.get("/traffic?start=x&end=1").status_code == 200


def test_lines_leave_gaps_where_nothing_is_known() -> None:
    points = [(0, 1), (1, 2), None, (3, 4)]
    assert (line_path(points), dots_path(points)) == ("M0 1L1 2", "M3 4h0")
    shown = choose_range("1h", NOW)
    first, *_, last = shown.starts
    counts = TrafficCounts(requests=4, failed=1, rated=0, ttft={"40": 4})
    series = Series("v1", {first: counts, last: counts}, counts)
    marks = [Mark(first - 1, "incident", "before", "/"), Mark(last, "incident", "within", "/")]
    drawn = draw_traffic(shown, [series], marks, by_version=True, link=lambda a, b: f"/traffic?{a}")
    requests, failed, ttft, _, thumbs = drawn.charts
    assert requests.lines[0].path.count("L") == 11, "no requests are none, until the last step"
    assert failed.lines[0].dots.count("M") == 2 and len(ttft.lines) == 2
    assert thumbs.lines[0].path == "" and [mark.text for mark in drawn.marks] == ["within"]
    assert [row.at for row in drawn.rows] == [last, first]
    assert failed.summary == "25.0 % of 4"


def test_pages_say_when_counting_stands_still(sqlite_context: Context) -> None:
    with writing(sqlite_context.database) as connection:
        builders.add_interaction(connection, NOW - MINUTE)
    page = console_client(sqlite_context, "viewer", clock=lambda: NOW).get("/traffic").text
    assert "Traffic is not counted yet" in page and "No requests were counted" in page
