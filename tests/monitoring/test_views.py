"""Sentences and small pictures: worked out of stored data alone, whatever its shape."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from monitoring import day_views
from monitoring.alert_store import Alert
from monitoring.day_views import days_view
from monitoring.detector.signals import BY_NAME
from monitoring.history_store import StoredDay
from monitoring.report_store import DriftReport
from monitoring.views import (
    Reading,
    chart,
    headline,
    incident,
    marked,
    signal_views,
    since,
    spark,
    value_text,
)
from tests.monitoring.build import make_alert
from whet.records.monitoring import AlertSignal, DayRecord, ReportSignal

NOW = int(datetime(2026, 3, 12, 15, 0, tzinfo=UTC).timestamp() * 1000)  # a Thursday
_HOUR = 3_600_000


def _alert(**over: Any) -> Alert:
    return make_alert(
        **{
            "detail": {"signals": [], "interaction_ids": [], "since_at": NOW - 50 * _HOUR},
            "opened_at": NOW - _HOUR,
            "title": (
                "support: questions changed. Questions contain words never seen before: 'aurora' in"
                " 31 % of 400 requests."
            ),
            **over,
        }
    )


def _report(verdict: str, summary: str, signals: Sequence[ReportSignal] = ()) -> DriftReport:
    return DriftReport(
        "drf_1", "support", None, None, None, None, 0, 0, verdict, summary, NOW, None,
        tuple(signals),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("hours", "said"),
    [(2, "since 13:00 UTC"), (50, "since Tuesday"), (24 * 12, "since 28 February")],
)
def test_when_it_began_is_said_as_people_say_it(hours: int, said: str) -> None:
    assert since(NOW - hours * _HOUR, NOW) == said


def test_the_headline_is_the_incident_that_waits_and_else_that_nothing_does() -> None:
    one = incident(_alert(), NOW)
    said, below = headline([one], {"support": None})
    assert said == "support: questions changed since Tuesday"
    assert below.startswith("Questions contain words never seen before")
    quiet = _report("no_drift", "Nothing changed.")
    assert headline([], {"support": quiet}) == ("Nothing needs you", "Nothing changed.")
    assert (
        headline([incident(_alert(state="acknowledged"), NOW)], {"support": quiet})[0]
        == "Nothing new needs you"
    )
    assert (
        headline([], {"support": _report("not_enough_data", "3 of 50.")})[0]
        == "Not enough traffic yet for a verdict"
    )
    assert headline([], {})[0] == "No traffic has been compared yet"


def test_an_alert_of_another_hand_is_readable() -> None:
    one = incident(_alert(kind="drift", title="support answers otherwise", detail={}), NOW)
    assert one.headline == "support answers otherwise"
    assert one.since_at == one.opened_at
    assert one.is_open


def test_sparklines_stay_in_their_box_and_do_not_make_storms_of_trembling() -> None:
    history = [Reading(0.5 + 0.001 * (i % 2), 0.5, i == 9) for i in range(10)]
    drawn = spark(history, "x", "rate")
    heights = [float(part.split(" ")[1]) for part in drawn.path.replace("M", "L").split("L")[1:]]
    assert max(heights) - min(heights) < 2
    assert len(drawn.marks) == 1
    assert drawn.band is not None
    assert spark([Reading(None, None, False)], "x") is None
    single = spark([Reading(0.0, 0.0, False)], "x")
    assert single.last is not None


def test_signals_with_least_data_are_listed_and_drifted_ones_stand_first() -> None:
    least = ReportSignal(
        name="b",
        test="t",
        p_value=0.5,
        effect=0.0,
        reference=1.0,
        window=1.0,
        sentence="As before.",
    )
    drifted = least.model_copy(update={"name": "a", "drifted": True})
    views = signal_views([_report("drift", "", [least, drifted])])
    assert [(view.name, view.state) for view in views] == [("a", "drift"), ("b", "no_drift")]
    assert signal_views([_report("no_drift", "")]) == []


def test_an_incidents_chart_shows_where_the_window_and_the_change_begin() -> None:
    series = [[i * 10, 0.1] for i in range(10)] + [
        [1000 + i * 10, 0.1 if i < 5 else 0.4] for i in range(10)
    ]
    drawn = chart(
        AlertSignal(name="refusal", label="refusals", shape="rate", series=series), 1000, 1050
    )
    assert drawn.split == pytest.approx(720 * 9.5 / 19, abs=0.1)
    assert drawn.onset == pytest.approx(720 * 15 / 19, abs=0.1)
    assert (drawn.top, drawn.bottom) == ("40 %", "0 %")
    assert chart(AlertSignal(series=[[1, 2]]), None, None) is None


def test_words_are_marked_whole_and_the_text_around_the_first_is_shown() -> None:
    assert marked("my Aurora, not auroral", ["aurora"]) == [
        ("my ", False),
        ("Aurora", True),
        (", not auroral", False),
    ]
    parts = marked("x " * 400 + "aurora end", ["aurora"])
    assert ("aurora", True) in parts
    assert sum(len(text) for text, _ in parts) < 240
    assert marked("", ["a"]) == []


@pytest.mark.parametrize(
    ("value", "shape", "unit", "text"),
    [
        (0.314, "rate", "", "31 %"),
        (0.028, "rate", "", "2.8 %"),
        (0, "rate", "", "0 %"),
        (0.642, "words", "", "0.64"),
        (142.4, "latency", "ms", "142 ms"),
        (None, "rate", "", "–"),
    ],
)
def test_values_are_written_with_their_unit(
    value: float | None, shape: str, unit: str, text: str
) -> None:
    assert value_text(value, shape, unit) == text


def test_a_signal_has_one_name_on_pages_and_in_incidents() -> None:
    wrong = {
        name: (label, BY_NAME[name].label)
        for name, (label, *_) in day_views._LABELS.items()
        if name in BY_NAME and label != BY_NAME[name].label
    }
    assert not wrong
    charted = DayRecord(
        day=20_000,
        rows=90,
        sampled=90,
        points=[
            ("completion_tokens", "", "", 0, 0, 52.0, 90),
            ("ttft_ms", "p95", "", 0, 0, 300.0, 90),
        ],
        counts=[("finish_reason", "", "", {"stop": 90})],
        templates={},
    )
    stored = [
        StoredDay("support", 20_000 + day, 90, charted, [], True, None, 0) for day in range(4)
    ]
    view = days_view(stored, [])
    assert view is not None
    assert [chart.label for chart in view.charts] == [
        "Output length (geometric mean)",
        "finish_reason: stop",
        "TTFT p95",
    ]
