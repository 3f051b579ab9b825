"""Hours judged against the same hour of earlier days: two hours of a gross change are an incident,
a whole odd day is none; the target is shared with the days; one change has one incident, whoever
finds it first; on the database as in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from sqlalchemy import insert, select

from monitoring import hourjob
from monitoring.alert_store import list_alerts
from monitoring.alerting import plan_incident
from monitoring.day_views import HOUR_ROWS, days_view
from monitoring.dayjob import run_alias as run_days_of
from monitoring.dayjob import standing
from monitoring.days import DAY_MS, HOUR_MS, read_hour, rows_of_hour, table_of
from monitoring.daystore import open_watch, sample_json
from monitoring.detector.columns import Table
from monitoring.detector.daily import Chart, DayStatistics, Point, share_point
from monitoring.detector.hours import HOURS, Hours, RememberedHour, summarise_hour
from monitoring.detector.replay import replay
from monitoring.detector.settings import DetectorSettings
from monitoring.detector.signals import SIGNALS
from monitoring.detector.stream import Stream
from monitoring.detector.table import table_from_columns
from monitoring.detector.watch import Remembered, Watch
from monitoring.history_store import StoredDay, StoredHour, newest_hours
from monitoring.hourjob import run_alias, run_hours
from monitoring.hourstore import store_hour
from monitoring.incident_actions import change_state
from monitoring.rows import row_from_record
from tests.monitoring.build import insert_records, records
from tests.web import console_client
from whet.context import Context
from whet.database import reading, writing
from whet.records.monitoring import HOUR_OUTCOME, HOUR_STATISTICS, DayRecord
from whet.tables import drift_days, drift_hours

MONDAY = 20_001  # day number
SETTINGS = DetectorSettings()
DAYS = 56  # of history: more than the six weeks before anything is judged
NOON = 12
HOURS_SEEN = range(9, 17)  # of each day; so few, since a test has no time for 24
MEAN = 0.055  # share of refusals of a usual day
REFUSAL, LENGTH = Chart("refusal", "", "support@v1"), Chart("prompt_tokens")
Level = Callable[[int, int], float]  # (day, hour of the day) → share of refusals


def _usual(day: int, hour: int) -> float:
    """Refusals have a rhythm: four times as many in the last of the hours as in the first."""
    return 0.02 + 0.01 * (hour - HOURS_SEEN[0])


def _hour(
    day: int, hour: int, level: Level, rng: np.random.Generator, n: int = 800
) -> DayStatistics:
    points = {
        REFUSAL: share_point(int(rng.binomial(n, level(day, hour))), n),
        LENGTH: _length(rng, n),
    }
    return DayStatistics(MONDAY + day, n, n, points)


def _length(rng: np.random.Generator, n: int) -> Point:
    """The logarithm of a length around 20 tokens."""
    value = float(3 + rng.normal(0, 1 / np.sqrt(n)))
    return Point(value, float(1 / np.sqrt(n)), float(np.exp(value)), n)


def _day(day: int, share: float, rng: np.random.Generator, n: int = 1500) -> DayStatistics:
    return DayStatistics(
        MONDAY + day,
        20_000,
        n,
        {REFUSAL: share_point(int(rng.binomial(n, share)), n), LENGTH: _length(rng, n)},
    )


def _watched(
    days: int, level: Level, seed: int = 0, settings: DetectorSettings = SETTINGS
) -> tuple[Watch, list[RememberedHour]]:
    """A watch after some days of these hours; each day has their mean."""
    watch, rng, made = Watch("support", settings), np.random.default_rng(seed), []
    for day in range(days):
        for hour in HOURS_SEEN:
            made.append(
                watch.hours.step((MONDAY + day) * HOURS + hour, 800, _hour(day, hour, level, rng))
            )
            watch.stream.take(list(made[-1].evidence), MONDAY + day)
        _end(watch, _day(day, float(np.mean([level(day, hour) for hour in HOURS_SEEN])), rng))
    return watch, made


def _end(watch: Watch, statistics: DayStatistics) -> None:
    watch.resume(Remembered(statistics, frozenset(statistics.points), Table({})))


def _gross(day: int, hour: int) -> float:
    """Four times the refusals from noon of day DAYS on."""
    return _usual(day, hour) * (4 if (day, hour) >= (DAYS, NOON) else 1)


# --- one hour, two hours, a day -------------------------------------------------------------------------------------


def test_a_gross_change_is_an_incident_after_its_second_hour_and_says_since_which() -> None:
    watch, _ = _watched(DAYS + 1, _gross)
    (incident,) = watch.stream.incidents
    found = incident.as_json()
    assert found["first_hour"].endswith("T12:00Z"), found["first_hour"]
    assert found["detected_at"].endswith("T14:00Z"), "two hours are over at 14:00"
    assert found["signal"] == "refusal" and "since 2024-11-30 12:00 UTC" in found["summary"]
    assert found["evidence"][0]["now"] > 2 * found["evidence"][0]["before"]


def test_one_odd_hour_alone_is_no_incident() -> None:
    watch, made = _watched(
        DAYS + 1, lambda day, hour: 0.9 if (day, hour) == (DAYS, NOON) else _usual(day, hour)
    )
    assert watch.stream.incidents == []
    assert made[-len(HOURS_SEEN) + NOON - HOURS_SEEN[0]].sums, (
        "the hour itself was far beyond the slack"
    )


def _odd_day(day: int, hour: int) -> float:
    """Half as many again, in every hour of one day: more than hours of independent rows ever are,
    and not gross.
    """
    return _usual(day, hour) * (1.5 if day == DAYS else 1)


def test_a_day_whose_hours_all_lean_to_one_side_is_not_many_pieces_of_evidence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _watched(DAYS + 1, _odd_day)[0].stream.incidents == []
    # With the days' slack and floors the same hours would be an incident: the rule is what keeps
    # them from it.
    monkeypatch.setattr(Hours, "slack", lambda self, signals, sides: SETTINGS.slack)
    monkeypatch.setattr("monitoring.detector.hours._GROSS", 1.0)
    assert _watched(DAYS + 1, _odd_day)[0].stream.incidents != []


def test_the_rhythm_of_the_day_is_usual_and_an_hour_at_the_wrong_time_is_not() -> None:
    assert _watched(DAYS + 5, _usual)[0].stream.incidents == []
    wrong, _ = _watched(
        DAYS + 1,
        lambda day, hour: (
            _usual(day, HOURS_SEEN[-1]) if day == DAYS and hour < 11 else _usual(day, hour)
        ),
    )
    assert len(wrong.stream.incidents) == 1, "what is usual at 16:00 is found at 9:00 and 10:00"


def test_an_hour_alone_exceeds_the_slack_as_often_as_the_share_of_the_target_allows() -> None:
    hours = Hours(SETTINGS, Stream("support", SETTINGS))
    for signals, sides in ((1, 1), (12, 2), (12, 48)):
        per_100_days = 100 * HOURS * signals * sides * norm.sf(hours.slack(signals, sides))
        assert per_100_days == pytest.approx(SETTINGS.hour_share * SETTINGS.target)


def test_a_service_whose_hours_swing_more_than_its_history_says_is_judged_less_sharply() -> None:
    quiet, _ = _watched(DAYS, _usual)
    restless = Hours(SETTINGS, Stream("support", SETTINGS))
    for hour in range(100):
        restless.resume(RememberedHour(hour, 800, judged=True, noise=1.4))
    assert 1 <= quiet.hours.spread < 1.1
    assert restless.slack(10, 2) == pytest.approx(
        1.4 * Hours(SETTINGS, Stream("support", SETTINGS)).slack(10, 2)
    )


# --- what carries an hour -------------------------------------------------------------------------------------------


def _rows(n: int, users: int) -> Table:
    rng = np.random.default_rng(n)
    return Table({
        "user": np.array([f"u{i % users}" for i in range(n)], dtype=object), "id": np.array([f"r{i}" for i in range(n)], dtype=object),
        "refusal": (rng.random(n) < 0.03).astype(float), "ttft_ms": rng.normal(300, 9, n), "day": np.full(n, MONDAY),
    })  # fmt: skip


def test_an_hour_needs_enough_rows_of_enough_users() -> None:
    hour = MONDAY * HOURS + NOON
    assert summarise_hour(_rows(199, 199), hour, SETTINGS, None) is None
    assert summarise_hour(_rows(5000, 60), hour, SETTINGS, None) is None, (
        "what sixty people do in an hour is not the service"
    )
    found = summarise_hour(_rows(5000, 400), hour, SETTINGS, None)
    assert found is not None and len(found[1]) == 1200, "three rows of each"
    assert {chart.signal for chart in found[0].points} == {"refusal"}, (
        "times to answer are watched by rules on service objectives"
    )
    assert (found[0].day, found[0].rows) == (MONDAY, 5000)


def test_below_that_an_hour_is_not_judged_and_the_page_says_so() -> None:
    watch = Watch("support", SETTINGS)
    _, made = watch.step_hour(MONDAY * HOURS, _rows(150, 150))
    assert (made.statistics, made.judged, made.rows) == (None, False, 150)
    nothing = DayRecord(day=0, rows=0, sampled=0, points=[], counts=[], templates={})
    days = [StoredDay("support", day, 0, nothing, [], True, None, 0) for day in range(3)]
    said = [
        days_view(days, [], [StoredHour(0, rows, judged)] * 3)
        for rows, judged in ((150, False), (900, True), (900, False))
    ]
    assert [one.sentence.partition(" as usual. ")[2] for one in said if one] == [
        "Hours are not judged: the busiest of the last 24 had 150 answers, and 200 are needed.",
        "Of the last 24 hours 3 were judged as well.",
        (
            "None of the last 24 hours was judged: too few of their answers were of different"
            " users, or their history is too short."
        ),
    ]
    assert SETTINGS.hour_rows == HOUR_ROWS


def test_before_six_weeks_no_hour_is_judged() -> None:
    watch, made = _watched(SETTINGS.cold_days, _usual)
    assert watch.hours.judged_hours == 0 and not any(one.judged for one in made)


# --- one target, one incident ---------------------------------------------------------------------------------------


def test_days_have_what_hours_leave_of_the_target_and_all_of_it_without_them() -> None:
    watch, _ = _watched(DAYS, _usual)
    assert watch.stream.share == pytest.approx(1 - SETTINGS.hour_share)
    _end(watch, _day(DAYS, MEAN, np.random.default_rng(5)))
    assert watch.stream.share == 1.0, "a day without a judged hour"


def test_the_day_joins_what_an_hour_opened_and_the_name_stays() -> None:
    watch, _ = _watched(DAYS + 1, _gross)
    name = watch.stream.incidents[0].name
    rng = np.random.default_rng(9)
    for day in range(DAYS + 1, DAYS + 20):  # by days, and another signal with it
        made = _day(day, 4 * MEAN, rng)
        _end(
            watch,
            replace(
                made,
                points={
                    **made.points,
                    LENGTH: replace(made.points[LENGTH], value=3.3, level=float(np.exp(3.3))),
                },
            ),
        )
    (incident,) = watch.stream.incidents
    assert incident.name == name and incident.signals == ["refusal", "prompt_tokens"]
    assert incident.state == "open", (
        "a lasting change does not become normal by lasting: its history is frozen"
    )


def test_what_is_over_is_resolved_and_expected_makes_the_new_level_usual() -> None:
    watch, _ = _watched(
        DAYS + 20, lambda day, hour: _gross(day, hour) if day < DAYS + 2 else _usual(day, hour)
    )
    assert [one.state for one in watch.stream.incidents] == ["resolved"]

    lasting, _ = _watched(DAYS + 1, _gross)
    rng = np.random.default_rng(4)
    lasting.stream.expected(lasting.stream.incidents[0], MONDAY + DAYS)
    for day in range(DAYS + 1, DAYS + 15):
        for hour in HOURS_SEEN:
            made = lasting.hours.step(
                (MONDAY + day) * HOURS + hour, 800, _hour(day, hour, _gross, rng)
            )
            lasting.stream.take(list(made.evidence), MONDAY + day)
        _end(lasting, _day(day, 4 * MEAN, rng))
    assert [one.state for one in lasting.stream.incidents] == ["expected"], (
        "the new level is not reported again"
    )


def _stored(one: RememberedHour) -> RememberedHour:
    """Return the hour as it is read after it was stored."""
    statistics = one.statistics and one.statistics.record().as_json()
    stored = json.loads(json.dumps([statistics, one.outcome().as_json()]))
    return RememberedHour.from_record(
        one.hour, one.rows, one.judged, HOUR_STATISTICS.decode(stored[0]),
        HOUR_OUTCOME.decode(stored[1]),
    )  # fmt: skip


def test_the_stored_hours_give_the_same_state_again() -> None:
    watch, made = _watched(
        DAYS + 1,
        lambda day, hour: 0.9 if (day, hour) == (DAYS, HOURS_SEEN[-1]) else _usual(day, hour),
    )
    again = Hours(SETTINGS, Stream("support", SETTINGS))
    for one in made:
        read = _stored(one)
        assert read == one
        again.resume(read)
    assert again.sums == watch.hours.sums != {}
    assert (again.spread, again.judged_hours, again.judged_days) == (
        watch.hours.spread,
        watch.hours.judged_hours,
        watch.hours.judged_days,
    )
    _, crossed = _watched(DAYS + 1, _gross)
    evidence = next(one for one in crossed if one.evidence)
    assert evidence.statistics and _stored(evidence) == evidence


# --- tables ---------------------------------------------------------------------------------------------------------


def _table(stamps: list[str]) -> Table:
    n = len(stamps)
    return table_from_columns(
        {"timestamp": stamps, "refusal": [0, 1] * (n // 2), "user": [f"u{i}" for i in range(n)]}
    )


def test_a_table_has_hours_where_its_moments_have_them() -> None:
    assert list(_table(["2026-03-01T05:59:59Z", "2026-03-01T23:00:00+02:00"]).columns["hour"]) == [
        5,
        21,
    ]
    assert "hour" not in _table(["2026-03-01", "2026-03-02"]), "dates alone are all at midnight"
    assert "hour" not in table_from_columns({"day": [3, 4], "refusal": [0, 1]})


def test_where_no_hour_is_carried_a_replay_says_what_it_said_without_hours() -> None:
    rng = np.random.default_rng(3)
    days = np.repeat(np.arange(MONDAY, MONDAY + 60), 100)
    columns = {
        "refusal": rng.random(len(days)) < np.where(days >= MONDAY + 50, 0.3, 0.03),
        "user": [f"u{i % 90}" for i in range(len(days))],
    }
    with_hours = replay(
        table_from_columns(
            {"timestamp": days * 86_400 + np.tile(np.arange(100) * 800, 60), **columns}
        )
    )
    without = replay(table_from_columns({"day": days, **columns}))
    assert with_hours.as_json() == without.as_json()
    assert len(without.incidents) == 1


# --- the database ---------------------------------------------------------------------------------------------------


def _prepared(context: Context) -> None:
    """Eight weeks of stored days and hours 12 to 14, of the kind that `records` makes; nothing of
    them is in the log, and one sample stands for all days.
    """
    rng = np.random.default_rng(8)
    hours = [
        {
            "alias": "support",
            "hour": one.hour,
            "rows": one.rows,
            "judged": one.judged,
            "statistics": one.statistics.as_json(),
            "outcome": one.outcome().as_json(),
        }
        for day in range(DAYS)
        for hour in range(NOON, NOON + 3)
        for one in [
            RememberedHour(
                (MONDAY + day) * HOURS + hour, 300, _hour(day, hour, lambda *_: 0.03, rng, 300)
            )
        ]
        if one.statistics
    ]
    days = [
        {
            "alias": "support",
            "day": one.day,
            "rows": 900,
            "statistics": one.as_json(),
            "confirmed": [],
            "judged": False,
        }
        for one in (_day(day, 0.03, rng, 900) for day in range(DAYS))
    ]
    sample = table_of([row_from_record(one) for one in records(200, 1)], MONDAY, b"s" * 32)
    path = context.store.put_json("reports/days/support/all.json", sample_json(sample))
    with writing(context.database) as connection:
        connection.execute(
            insert(drift_days), [one | {"created_at": 0, "sample_path": path} for one in days]
        )
        connection.execute(insert(drift_hours), [one | {"created_at": 0} for one in hours])


def _log(context: Context, hour: int, n: int = 300, refusals: float = 0.3, day: int = DAYS) -> None:
    start = ((MONDAY + day) * HOURS + hour) * HOUR_MS
    insert_records(
        context,
        records(
            n,
            day * HOURS + hour,
            start_at=start,
            step_ms=HOUR_MS // n,
            prefix="int",
            refusals=refusals,
        ),
    )


def _at(hour: float, day: int = DAYS) -> int:
    return int((MONDAY + day) * DAY_MS + hour * HOUR_MS)


def _alerts(context: Context) -> list[dict[str, Any]]:
    with reading(context.database) as connection:
        return [one.as_json() for one in list_alerts(connection, "support", only_open=True)]


def test_the_job_opens_an_alert_after_two_hours_once_and_the_day_joins_it(context: Context) -> None:
    _prepared(context)
    for hour in range(NOON, NOON + 3):
        _log(context, hour)
    assert run_alias(context, "support", _at(13.2)) == (
        0,
        0,
    ), "rows of the first hour may still be on their way"
    assert run_alias(context, "support", _at(13.3)) == (1, 0)
    assert _alerts(context) == [], "one hour is not enough"
    assert run_hours(context, _at(14.3)) == "support: 1 change of incidents"
    assert run_hours(context, _at(14.4)) is None, "each hour once"
    (alert,) = _alerts(context)
    found = alert["detail"]["incident"]
    assert (alert["kind"], alert["severity"], found["signal"]) == (
        "answers",
        "attention",
        "refusal",
    )
    assert (found["first_hour"][11:], found["detected_at"][11:]) == ("12:00Z", "14:00Z")
    assert alert["detail"]["since_at"] == _at(NOON)
    assert found["examples"], "conversations to read"
    page = console_client(context).get(f"/drift/incidents/{alert['id']}")
    assert "by comparing hours with the history" in page.text

    run_alias(context, "support", _at(15.3))
    run_days_of(context, "support", _at(2, DAYS + 1))
    assert len(_alerts(context)) == 1, "the day says the same and opens nothing"
    watch = open_watch(context, "support")
    assert [one.name for one in watch.stream.incidents] == [found["id"]], (
        "a restart finds the incident under its name"
    )
    assert standing(context, "support").facts["judged_hours"] == 3

    change_state(context, str(alert["id"]), "expected", actor="olga", now=_at(3, DAYS + 1))
    _log(context, NOON, day=DAYS + 1)
    _log(context, NOON + 1, day=DAYS + 1)
    assert run_alias(context, "support", _at(14.3, DAYS + 1)) == (2, 0)
    assert (
        _alerts(context) == []
        and open_watch(context, "support").stream.incidents[0].state == "expected"
    )


def test_an_hour_whose_day_was_judged_is_history_only(sqlite_context: Context) -> None:
    context = sqlite_context
    _prepared(context)
    for hour in (NOON, NOON + 1):
        _log(context, hour)
    assert run_alias(context, "support", _at(3, DAYS + 1)) == (
        2,
        0,
    ), "the scheduler was away; the day came first"
    with reading(context.database) as connection:
        stored = newest_hours(connection, "support", (MONDAY + DAYS) * HOURS)
    assert [(row.rows, row.judged) for row in stored] == [(300, False)] * 2


def test_an_hour_that_another_process_follows_with_its_day_does_not_count(
    sqlite_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = sqlite_context
    _prepared(context)
    _log(context, NOON)
    _log(context, NOON + 1)
    assert run_alias(context, "support", _at(13.3)) == (1, 0)

    def late(*args: object) -> bool:
        run_days_of(context, "support", _at(2, DAYS + 1))
        return store_hour(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(hourjob, "store_hour", late)
    assert run_alias(context, "support", _at(14.3)) == (1, 0)
    assert _alerts(context) == []
    assert open_watch(context, "support").hours.judged_hours == 1


def test_a_service_of_little_traffic_costs_a_count_an_hour(
    sqlite_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        hourjob,
        "open_watch",
        lambda *_: pytest.fail("the detector was built for an hour that nobody judges"),
    )
    _log(sqlite_context, NOON, 40)
    _log(sqlite_context, NOON + 1, 40)
    assert run_alias(sqlite_context, "support", _at(18)) == (2, 0)
    with reading(sqlite_context.database) as connection:
        assert list(connection.scalars(select(drift_hours.c.judged))) == [False, False]


def test_old_hours_that_showed_nothing_are_removed_and_judged_ones_keep_what_follows_from_them(
    sqlite_context: Context,
) -> None:
    context, rng = sqlite_context, np.random.default_rng(0)
    old = MONDAY * HOURS
    for hour, judged in ((old, False), (old + 1, True), (old + 100 * HOURS, False)):
        store_hour(
            context,
            "support",
            RememberedHour(hour, 300, _hour(0, NOON, _usual, rng), judged),
            0,
            lambda _: None,
        )
    with reading(context.database) as connection:
        stored = {row.hour: row.statistics for row in connection.execute(select(drift_hours))}
    assert stored[old + 1] is None and old not in stored and stored[old + 100 * HOURS] is not None


def test_an_hour_is_read_with_at_most_three_rows_of_a_user(sqlite_context: Context) -> None:
    start = _at(NOON)
    insert_records(sqlite_context, records(120, 1, start_at=start, step_ms=1000, users=10))
    hour = (MONDAY + DAYS) * HOURS + NOON
    with reading(sqlite_context.database) as connection:
        assert rows_of_hour(connection, "support", hour) == 120
        assert rows_of_hour(connection, "support", hour + 1) == 0
        table = read_hour(connection, "support", hour, 120, SETTINGS, b"s" * 32)
    assert max(np.unique(table.columns["user"].astype(str), return_counts=True)[1]) <= 3


def test_an_hour_s_incident_is_an_alert_of_the_days_kind() -> None:
    watch, _ = _watched(DAYS + 1, _gross)
    found = watch.stream.incidents[0].record()
    change = plan_incident("support", "answers", found, {}, [])
    assert change is not None and (change.deed, change.severity) == ("open", "attention")
    assert {signal.side for signal in SIGNALS} >= {change.kind}
