"""Days judged against an alias's own history, on the database: taken in once, in order, with the
same outcome after a restart; one incident for one change; people's decisions; what is kept holds no
text.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, insert, select, update

from monitoring import dayjob
from monitoring.alert_store import list_alerts
from monitoring.alerting import plan_incident
from monitoring.day_views import COLD_DAYS, days_view
from monitoring.dayjob import run_alias, run_days, standing
from monitoring.days import DAY_MS, read_day, rows_of_day, table_of
from monitoring.daystore import open_watch, sample_json, sample_table
from monitoring.detector.columns import Table
from monitoring.detector.explain import carries
from monitoring.detector.settings import DetectorSettings
from monitoring.history_store import newest_days
from monitoring.incident_actions import change_state
from monitoring.run import run_drift
from tests.monitoring.build import insert_records, make_alert, records
from tests.web import console_client
from whet.context import Context, open_context
from whet.database import reading, writing
from whet.errors import NotFoundError, StoreError
from whet.records.monitoring import IncidentRecord
from whet.settings import load_settings
from whet.tables import alerts, drift_days, interactions

FIRST = 20_000  # day number, some time in 2024
SHIFT = FIRST + 50
ROWS = 150


def fill(context: Context, days: range, **changes: Any) -> None:
    """A day's conversations for each day: 150 of 120 users, spread over 10 hours."""
    for day in days:
        made = records(
            ROWS,
            day,
            start_at=day * DAY_MS + 8 * 3_600_000,
            step_ms=240_000,
            users=120,
            prefix="int",
            **changes,
        )
        insert_records(context, made)


def at(day: int, hours: float = 2) -> int:
    """Some hours into the day after `day`: when `day` can be judged."""
    return int((day + 1) * DAY_MS + hours * 3_600_000)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with 50 quiet days, taken in, and 12 on which refusals are seven times as many, not
    taken in yet.
    """
    home = Path(tmp_path_factory.mktemp("days")) / "home"
    context = open_context(load_settings(home=home))
    fill(context, range(FIRST, SHIFT))
    fill(context, range(SHIFT, SHIFT + 12), refusals=0.2)
    assert run_days(context, at(SHIFT - 1)) == "support: 50 days"
    assert open_alerts(context) == [], "quiet days opened an incident"
    context.close()
    return home


@pytest.fixture
def shifted(prepared: Path, tmp_path: Path) -> Iterator[Context]:
    """A copy of it."""
    shutil.copytree(prepared, tmp_path / "home")
    context = open_context(load_settings(home=tmp_path / "home"))
    yield context
    context.close()


def open_alerts(context: Context) -> list[dict[str, Any]]:
    with reading(context.database) as connection:
        return [a.as_json() for a in list_alerts(connection, "support", only_open=True)]


def forget(context: Context) -> None:
    """As if no day had been taken in."""
    with writing(context.database) as connection:
        connection.execute(delete(drift_days))
        connection.execute(delete(alerts))
    context.store.remove_folder("reports/days/support")


def test_a_change_opens_one_incident_that_says_what_since_when_and_where(shifted: Context) -> None:
    said = run_days(shifted, at(SHIFT + 11))
    assert said is not None and said.startswith("support: 12 days, ") and "incidents" in said
    (alert,) = open_alerts(shifted)
    found = alert["detail"]["incident"]
    assert (alert["kind"], alert["severity"], found["signal"]) == (
        "answers",
        "attention",
        "refusal",
    )
    began = (date.fromisoformat(found["first_day"]) - date(1970, 1, 1)).days
    assert abs(began - SHIFT) <= 3, f"the change began on day {SHIFT}, and {began} was found"
    assert (
        "Refusal rate (adapter support@v1) 2" in alert["title"]
        and ", since 2024-11-2" in alert["title"]
    )
    with reading(shifted.database) as connection:
        said = list(
            connection.scalars(
                select(interactions.c.response_text).where(
                    interactions.c.id.in_(alert["detail"]["interaction_ids"])
                )
            )
        )
    assert said and all(text.startswith("I'm sorry") for text in said)
    series = alert["detail"]["signals"][0]["series"]
    assert len(series) > 40 and series[-1][1] > 0.1


def test_the_same_day_is_taken_in_once_and_only_when_it_is_over(context: Context) -> None:
    fill(context, range(FIRST, FIRST + 3))
    # Half an hour after midnight: rows may still be on their way
    assert run_alias(context, "support", at(FIRST + 1, 0.5)) == (1, 0)
    assert run_alias(context, "support", at(FIRST + 1)) == (1, 0)
    assert run_alias(context, "support", at(FIRST + 1)) == (0, 0)
    assert run_alias(context, "support", at(FIRST + 9)) == (1, 0)
    with reading(context.database) as connection:
        stored = newest_days(connection, "support", 10)
    assert [row.day for row in stored] == [FIRST, FIRST + 1, FIRST + 2]
    assert [row.rows for row in stored] == [ROWS] * 3
    assert {row.judged for row in stored} == {False}


def test_stopped_after_each_day_it_says_the_same_as_in_one_go(shifted: Context) -> None:
    forget(shifted)
    for day in (
        FIRST,
        FIRST + 5,
        FIRST + 13,
        FIRST + 20,
        SHIFT - 1,
        SHIFT + 1,
        SHIFT + 3,
        SHIFT + 11,
    ):
        run_alias(shifted, "support", at(day))
    in_parts = standing(shifted, "support").as_json()
    forget(shifted)
    run_alias(shifted, "support", at(SHIFT + 11))
    in_one_go = standing(shifted, "support").as_json()
    assert in_parts["judged_days"] == in_one_go["judged_days"] == 20

    def what(found: dict[str, Any]) -> list[tuple[Any, ...]]:
        return [
            (one["signal"], one["first_day"], one["detected_on"], one["evidence"][0]["now"])
            for one in found["incidents"]
        ]

    assert what(in_parts) == what(in_one_go) != []


def test_a_day_whose_store_cannot_be_written_is_judged_again(
    shifted: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str, value: Any) -> str:
        raise StoreError("Writing failed: no space left on device.")

    with monkeypatch.context() as broken:
        broken.setattr(shifted.store, "put_json", full)
        assert run_days(shifted, at(SHIFT + 11)) == "support: failed"
    assert open_alerts(shifted) == []
    with reading(shifted.database) as connection:
        assert newest_days(connection, "support", 1)[0].day == SHIFT - 1
    run_days(shifted, at(SHIFT + 11))
    assert len(open_alerts(shifted)) == 1


def test_expected_closes_the_incident_makes_the_level_normal_and_survives_a_restart(
    shifted: Context,
) -> None:
    fill(shifted, range(SHIFT + 12, SHIFT + 40), refusals=0.2)
    run_days(shifted, at(SHIFT + 11))
    (alert,) = open_alerts(shifted)
    change_state(shifted, alert["id"], "expected", actor="ada", now=at(SHIFT + 11, 5))
    run_days(shifted, at(SHIFT + 39))
    assert open_alerts(shifted) == [], "the new normal was called a change again"
    found = standing(shifted, "support").as_json()
    assert [one["state"] for one in found["incidents"]] == ["expected"]
    assert any("is expected" in str(one["reason"]) for one in found["declared"])


def test_what_goes_back_to_normal_is_resolved_and_what_a_person_closed_stays_closed(
    shifted: Context,
) -> None:
    fill(shifted, range(SHIFT + 12, SHIFT + 30))
    run_days(shifted, at(SHIFT + 8))
    (alert,) = open_alerts(shifted)
    run_days(shifted, at(SHIFT + 11))
    (later,) = open_alerts(shifted)
    assert (
        len(later["detail"]["signals"][0]["series"])
        == len(alert["detail"]["signals"][0]["series"]) + 3
    ), "an open incident's chart stood still"
    run_days(shifted, at(SHIFT + 29))
    with reading(shifted.database) as connection:
        (closed,) = list_alerts(connection, "support")
    assert (closed.id, closed.state, closed.changed_by) == (alert["id"], "resolved", "monitoring")
    assert "Back to normal" in closed.detail.resolution
    incident = closed.detail.incident
    assert incident and incident.examples == alert["detail"]["incident"]["examples"] != [], (
        "what explained the incident went with the restart"
    )


def test_a_person_s_resolution_is_not_overruled_by_the_next_day(shifted: Context) -> None:
    run_days(shifted, at(SHIFT + 8))
    (alert,) = open_alerts(shifted)
    change_state(shifted, alert["id"], "resolved", actor="ada", now=at(SHIFT + 8, 4))
    run_days(shifted, at(SHIFT + 11))
    assert open_alerts(shifted) == []


def test_windows_are_information_until_days_raise_them_and_never_close_what_the_days_hold_open(
    shifted: Context,
) -> None:
    report = run_drift(shifted, "support", at(SHIFT + 11))
    assert report.verdict == "drift"
    (early,) = open_alerts(shifted)
    assert (early["kind"], early["severity"]) == ("answers", "information")
    run_days(shifted, at(SHIFT + 11))
    (alert,) = open_alerts(shifted)
    assert (alert["id"], alert["severity"]) == (
        early["id"],
        "attention",
    ), "the days did not raise the alert that was there"
    fill(shifted, range(SHIFT + 12, SHIFT + 20))
    for hours in range(3):
        run_drift(shifted, "support", at(SHIFT + 19) + hours)
    assert [one["id"] for one in open_alerts(shifted)] == [alert["id"]], (
        "two windows that look alike closed what the days hold open"
    )


def test_what_is_kept_of_a_day_holds_no_text_and_no_name(context: Context) -> None:
    fill(context, range(FIRST, FIRST + 2))
    run_alias(context, "support", at(FIRST + 1))
    with reading(context.database) as connection:
        stored = newest_days(connection, "support", 2)
    for row in stored:
        kept = context.store.read_bytes(row.sample_path).decode() + json.dumps(
            row.statistics.as_json()
        )
        assert "Thank you for your message" not in kept and "kettle" not in kept
        assert f"u{row.day}-" not in kept, "an end user's own name was kept"


def test_samples_older_than_the_history_are_removed_and_their_days_stay(
    sqlite_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "monitoring.daystore.detector_settings",
        lambda context: DetectorSettings(history_days=5, cold_days=21),
    )
    fill(sqlite_context, range(FIRST, FIRST + 8))
    run_alias(sqlite_context, "support", at(FIRST + 7))
    with reading(sqlite_context.database) as connection:
        stored = newest_days(connection, "support", 20)
    kept = [row.day - FIRST for row in stored if row.sample_path]
    assert kept == [3, 4, 5, 6, 7] and len(stored) == 8
    assert not sqlite_context.store.exists(f"reports/days/support/{FIRST}.json")
    assert open_watch(sqlite_context, "support").stream.memory.days == list(range(FIRST, FIRST + 8))


def test_a_busy_day_is_read_as_a_sample_of_a_few_rows_of_each_user(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = records(3000, 5, start_at=FIRST * DAY_MS, step_ms=1000, users=900)
    rng = np.random.default_rng(1)
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    for row in made:  # ids as the product makes them: as long, with a random end
        row["id"] = "int_" + "".join(alphabet[int(n)] for n in rng.integers(0, 32, 22))
    insert_records(context, made)
    monkeypatch.setattr("monitoring.days._MOST_KEYS", 600)
    with reading(context.database) as connection:
        rows = rows_of_day(connection, "support", FIRST)
        table = read_day(connection, "support", FIRST, rows, DetectorSettings(), b"secret")
        again = read_day(connection, "support", FIRST, rows, DetectorSettings(), b"secret")
    assert rows == 3000
    assert 420 <= len(table) <= 780, "about a fifth of the day was to be read"
    users, counts = np.unique([str(user) for user in table.columns["user"]], return_counts=True)
    assert counts.max() <= 3 and len(users) > 250
    assert table.columns["id"].tolist() == again.columns["id"].tolist()


def test_a_sample_comes_back_as_it_was_written() -> None:
    table = Table({
        "day": np.array([7, 7], dtype=np.int64),
        "id": np.array(["a", "b"], dtype=object),
        "user": np.array([None, None], dtype=object),
        "prompt": np.array(["secret", "words"], dtype=object),
        "ttft_ms": np.array([np.nan, 3.5]),
        "embedding": np.array([[0.5, np.nan], [1.0, -0.25]], dtype=np.float32),
    })  # fmt: skip
    back = sample_table(json.loads(json.dumps(sample_json(table))))
    assert set(back.columns) == {"day", "id", "user", "ttft_ms", "embedding"}
    for name in back.columns:
        assert back.columns[name].dtype == table.columns[name].dtype, name
        assert str(back.columns[name].tolist()) == str(table.columns[name].tolist()), name
    assert len(table_of([], 7, b"x")) == 0


def test_a_second_change_of_the_same_kind_has_an_alert_of_its_own() -> None:
    def incident(name: str, state: str = "open") -> IncidentRecord:
        return IncidentRecord(
            id=name, state=state, summary="x", first_day="2024-11-20", closed_on="2024-12-01"
        )

    first = make_alert({"incident": incident("one").as_json()}, kind="answers")
    change = plan_incident("support", "answers", incident("two"), {}, [first])
    assert change is not None and (change.deed, change.key) == ("open", "drift:support:answers:two")
    grown = plan_incident("support", "answers", incident("one"), {}, [first])
    assert grown is not None and (grown.deed, grown.alert_id) == ("extend", "alr_1")
    over = plan_incident("support", "answers", incident("one", "resolved"), {}, [first])
    assert over is not None and over.deed == "resolve"
    assert plan_incident("support", "answers", incident("three", "resolved"), {}, [first]) is None


def test_the_pages_show_the_days_and_the_incident(shifted: Context) -> None:
    run_drift(shifted, "support", at(SHIFT - 1))
    run_days(shifted, at(SHIFT + 11))
    client = console_client(shifted, "operator", clock=lambda: at(SHIFT + 11), raise_errors=True)
    page = client.get("/drift").text
    assert "Day by day" in page and "Refusal rate" in page and "1 open incident" in page
    (alert,) = open_alerts(shifted)
    page = client.get(f"/drift/incidents/{alert['id']}").text
    assert "by comparing days with the history" in page and "Everywhere: no topic" in page
    with reading(shifted.database) as connection:
        stored = newest_days(connection, "support", 91)
    view = days_view(stored, [IncidentRecord.model_validate(alert["detail"]["incident"])])
    assert (
        view is not None
        and "Refusal rate" in [chart.label for chart in view.charts if chart.moved]
        and view.charts[0].moved
    )
    assert days_view(stored[:20], []).sentence.startswith("20 days so far. In 23 days")  # type: ignore[union-attr]


def test_a_fault_that_comes_with_a_version_is_told_when_its_first_day_is_over(
    shifted: Context,
) -> None:
    with writing(shifted.database) as connection:
        late = interactions.c.created_at >= SHIFT * DAY_MS
        connection.execute(update(interactions).where(late).values(version=2))
    run_drift(shifted, "support", at(SHIFT - 1))
    run_alias(shifted, "support", at(SHIFT))
    (change,) = standing(shifted, "support").as_json()["changes"]
    assert (change["kind"], change["name"], change["other"]) == (
        "adapter",
        "support@v2",
        "support@v1",
    )
    assert change["sentences"][1].startswith("Compared with support@v1 in the 14 days before: Refu")
    with console_client(shifted) as client:
        page = client.get("/drift?alias=support").text
    assert "Version support@v2 is new since" in page and "95 % interval +" in page


def test_only_what_carries_more_of_a_change_than_its_share_is_named() -> None:
    assert not carries(share_of_change=0.3, share_now=0.3), "it moved like everything else"
    assert not carries(share_of_change=0.2, share_now=0.02), "most of the change is elsewhere"
    assert carries(share_of_change=0.6, share_now=0.1)


def test_the_page_s_cold_days_are_the_detector_s() -> None:
    assert DetectorSettings().cold_days == COLD_DAYS
    assert DetectorSettings().history_days == dayjob._SERIES_DAYS


def test_a_day_without_answers_is_no_day(sqlite_context: Context) -> None:
    fill(sqlite_context, range(FIRST, FIRST + 1))
    fill(sqlite_context, range(FIRST + 400, FIRST + 401))
    with writing(sqlite_context.database) as connection:
        failed = records(5, 1, start_at=(FIRST + 2) * DAY_MS)
        endings = [{"status": "error", "http_status": 500}, {"status": "cut", "http_status": 503}]
        rows = [{**row, "id": f"int_failed{n}", **endings[n % 2]} for n, row in enumerate(failed)]
        connection.execute(insert(interactions), rows)
        connection.execute(
            update(interactions).where(interactions.c.id.like("int_failed%")).values(end_user=None)
        )
    assert run_alias(sqlite_context, "support", at(FIRST + 400)) == (2, 0)


def test_a_day_that_another_process_took_in_meanwhile_is_not_taken_in_twice(
    shifted: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = dayjob.store_day

    def beaten(context: Context, watch: Any, day: Any, now: int, also: Any) -> None:
        monkeypatch.setattr(dayjob, "store_day", real)
        run_alias(context, "support", now)  # the other process, which finishes all days first
        real(context, watch, day, now, also)

    monkeypatch.setattr(dayjob, "store_day", beaten)
    run_alias(shifted, "support", at(SHIFT + 11))
    assert len(open_alerts(shifted)) == 1
    with reading(shifted.database) as connection:
        assert [row.day for row in newest_days(connection, "support", 12)] == list(
            range(SHIFT, SHIFT + 12)
        )


def test_an_unknown_alias_is_said_to_be_unknown(sqlite_context: Context) -> None:
    with pytest.raises(NotFoundError, match="no alias 'nobody'"):
        standing(sqlite_context, "nobody").as_json()
