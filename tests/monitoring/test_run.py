"""A drift run on a real database: what it reads, what it stores, what becomes of alerts."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select, update

from monitoring.alert_store import list_alerts
from monitoring.driftjob import run_all
from monitoring.incident_actions import change_state
from monitoring.queries import open_counts
from monitoring.report_store import find_report, latest_report, list_reports
from monitoring.run import has_news, run_drift
from tests.monitoring.build import HOUR, NOW, insert_ratings, insert_records, promote, records
from whet.auditlog import broken_at
from whet.context import Context
from whet.database import reading, writing
from whet.errors import ConflictError, InputError, NotFoundError
from whet.tables import alerts, audit, drift_reports, interactions

START = NOW - 100 * HOUR


def _alerts(context: Context) -> list[dict]:
    with reading(context.database) as connection:
        return [alert.as_json() for alert in list_alerts(connection)]


def _quiet_history(context: Context, n: int = 240) -> None:
    promote(context, at=START - 1)
    insert_records(context, records(n, 1, start_at=START))


def _drifting(context: Context, seed: int = 2, n: int = 240, at: int = NOW - 50 * HOUR) -> None:
    insert_records(context, records(n, seed, start_at=at, new_words=0.5))


def test_quiet_traffic_gives_a_stored_report_and_no_alert(context: Context) -> None:
    _quiet_history(context)
    report = run_drift(context, "support", NOW)
    assert report.verdict == "no_drift"
    assert report.n_reference == report.n_window == 120
    assert report.reference_to < report.window_from
    assert "as before" in report.summary
    with reading(context.database) as connection:
        stored = find_report(connection, report.id)
        assert latest_report(connection, "support") == stored
    assert stored == report
    assert _alerts(context) == []


def test_new_words_open_one_alert_that_names_them_and_the_conversations(context: Context) -> None:
    _quiet_history(context)
    _drifting(context)
    report = run_drift(context, "support", NOW)
    assert report.verdict == "drift"
    assert "aurora" in report.summary
    (alert,) = _alerts(context)
    assert (alert["kind"], alert["state"], alert["severity"], alert["open_marker"]) == (
        "questions",
        "open",
        "information",
        "drift:support:questions",
    )
    assert "aurora" in alert["title"]
    detail = alert["detail"]
    assert {"aurora"} <= {word["word"] for word in detail["words"]}
    assert detail["drift_report_id"] == report.id
    with reading(context.database) as connection:
        asked = dict(connection.execute(select(interactions.c.id, interactions.c.request)).all())
    shown = detail["interaction_ids"][:50]
    assert len(shown) >= 40
    assert (
        sum("aurora" in asked[one]["messages"][-1]["content"] for one in shown) / len(shown) > 0.95
    )


def test_a_second_run_extends_the_alert_instead_of_opening_another(context: Context) -> None:
    _quiet_history(context)
    _drifting(context)
    first = run_drift(context, "support", NOW)
    before = _alerts(context)[0]["detail"]["interaction_ids"]
    _drifting(context, seed=3, at=NOW - 40 * HOUR)
    second = run_drift(context, "support", NOW + HOUR)
    (alert,) = _alerts(context)
    assert alert["detail"]["reports"] == [first.id, second.id]
    assert any(one.startswith("int_3") for one in alert["detail"]["interaction_ids"][:20]), (
        "the newest evidence stands first"
    )
    assert len(alert["detail"]["interaction_ids"]) <= 200
    assert (
        set(before[:10]) & set(alert["detail"]["interaction_ids"])
        or len(alert["detail"]["interaction_ids"]) == 200
    )


def test_while_an_alert_is_open_its_reference_stays_so_that_a_lasting_change_is_not_called_normal(
    context: Context,
) -> None:
    _quiet_history(context)
    _drifting(context)
    first = run_drift(context, "support", NOW)
    for step in range(1, 5):
        insert_records(
            context, records(400, 10 + step, start_at=NOW - (40 - step) * HOUR, new_words=0.5)
        )
        later = run_drift(context, "support", NOW + step * HOUR)
        assert later.verdict == "drift"
        assert (later.reference_from, later.reference_to) == (
            first.reference_from,
            first.reference_to,
        )
    assert len(_alerts(context)) == 1


def test_an_alert_resolves_itself_after_two_quiet_runs_and_not_after_one(context: Context) -> None:
    _quiet_history(context)
    _drifting(context)
    run_drift(context, "support", NOW)
    for step, expected in ((1, "open"), (2, "resolved")):
        insert_records(context, records(2500, 20 + step, start_at=NOW + step * HOUR))
        assert run_drift(context, "support", NOW + (step + 1) * HOUR).verdict == "no_drift"
        (alert,) = _alerts(context)
        assert alert["state"] == expected
    assert alert["open_marker"] is None
    assert alert["changed_by"] == "monitoring"
    assert "2 runs" in alert["detail"]["resolution"]


def test_a_new_version_whose_own_traffic_is_steady_resolves_the_alert_at_once(
    context: Context,
) -> None:
    _quiet_history(context)
    _drifting(context)
    run_drift(context, "support", NOW)
    promote(context, at=NOW, digest="e" * 64, generation=2)
    too_early = run_drift(context, "support", NOW + 1)
    assert too_early.verdict == "not_enough_data"
    assert _alerts(context)[0]["state"] == "open", "silence is not health"
    insert_records(context, records(300, 30, start_at=NOW + HOUR, digest="e" * 64, new_words=0.5))
    assert run_drift(context, "support", NOW + 2 * HOUR).verdict == "no_drift"
    (alert,) = _alerts(context)
    assert alert["state"] == "resolved"
    assert "version" in alert["detail"]["resolution"]


def test_falling_ratings_open_a_quality_alert_although_the_questions_stayed_the_same(
    context: Context,
) -> None:
    promote(context, at=START - 1)
    insert_records(
        context, records(400, 1, start_at=START) + records(400, 2, start_at=NOW - 50 * HOUR)
    )
    insert_ratings(context, {f"int_1_{i:06d}": -1 if i % 10 == 0 else 1 for i in range(0, 400, 4)})
    insert_ratings(context, {f"int_2_{i:06d}": -1 if i % 8 else 1 for i in range(0, 400, 4)})
    insert_ratings(context, {f"int_2_{i:06d}": -1 for i in range(1, 400, 8)})
    report = run_drift(context, "support", NOW)
    (alert,) = _alerts(context)
    assert (alert["kind"], alert["severity"]) == ("quality", "information")
    assert "Thumbs-down rate" in report.summary
    assert all(one.startswith("int_2") for one in alert["detail"]["interaction_ids"])


def test_the_last_rating_of_a_conversation_counts(context: Context) -> None:
    promote(context, at=START - 1)
    insert_records(context, records(240, 1, start_at=START))
    ids = [f"int_1_{i:06d}" for i in range(240)]
    insert_ratings(context, dict.fromkeys(ids, -1), at=NOW - HOUR)
    insert_ratings(context, dict.fromkeys(ids, 1), at=NOW)
    report = run_drift(context, "support", NOW)
    (thumbs,) = [signal for signal in report.signals if signal.name == "thumbs_down"]
    assert (thumbs.reference, thumbs.window) == (0, 0)


def test_too_little_traffic_is_said_and_opens_nothing(context: Context) -> None:
    promote(context, at=START - 1)
    insert_records(context, records(60, 1, start_at=START))
    report = run_drift(context, "support", NOW)
    assert report.verdict == "not_enough_data"
    assert "50 of each are needed" in report.summary
    assert report.signals == ()


def test_an_unknown_alias_is_refused(context: Context) -> None:
    with pytest.raises(NotFoundError, match="no alias 'nobody'"):
        run_drift(context, "nobody", NOW)


def test_cancelled_failed_candidate_and_foreign_answers_are_left_out(context: Context) -> None:
    promote(context, at=START - 1)
    good = records(200, 1, start_at=START)
    bad = records(200, 2, start_at=START, new_words=1.0)
    changes = [
        {"status": "cancelled"},
        {"status": "error", "http_status": 502},
        {"status": "cut", "http_status": 503},  # the gateway itself ended
        {"arm": "candidate", "adapter_digest": "c" * 64},
        {"adapter_digest": "f" * 64},
        {"alias": "other"},
    ]
    for i, record in enumerate(bad):
        record.update(changes[i % len(changes)])
    insert_records(context, good + bad)
    report = run_drift(context, "support", NOW)
    assert report.n_reference + report.n_window == 200
    assert report.verdict == "no_drift"


def test_a_person_marks_a_change_as_expected_and_the_traffic_from_then_on_is_the_new_normal(
    context: Context,
) -> None:
    _quiet_history(context)
    _drifting(context)
    run_drift(context, "support", NOW)
    alert_id = _alerts(context)[0]["id"]
    changed = change_state(context, alert_id, "expected", actor="ada", now=NOW)
    assert (changed.state, changed.open_marker, changed.changed_by) == (
        "expected",
        None,
        "ada",
    )
    assert run_drift(context, "support", NOW + 1).verdict == "not_enough_data"
    insert_records(context, records(300, 40, start_at=NOW + HOUR, new_words=0.5))
    report = run_drift(context, "support", NOW + 2 * HOUR)
    assert report.verdict == "no_drift"
    assert report.reference_from >= NOW
    assert len(_alerts(context)) == 1
    with reading(context.database) as connection:
        assert (
            connection.scalar(
                select(func.count()).select_from(audit).where(audit.c.action == "alert.expected")
            )
            == 1
        )
        assert broken_at(connection) is None


def test_acknowledged_alerts_stay_open_and_closed_ones_cannot_be_changed(context: Context) -> None:
    _quiet_history(context)
    _drifting(context)
    run_drift(context, "support", NOW)
    alert_id = _alerts(context)[0]["id"]
    assert change_state(context, alert_id, "acknowledged", actor="ada", now=NOW).is_open
    assert (
        change_state(context, alert_id, "acknowledged", actor="bob", now=NOW + 1).changed_by
        == "ada"
    ), "twice changes nothing"
    run_drift(context, "support", NOW + HOUR)
    assert [alert["state"] for alert in _alerts(context)] == ["acknowledged"]
    change_state(context, alert_id, "resolved", actor="ada", now=NOW + HOUR)
    with pytest.raises(ConflictError, match="resolved already"):
        change_state(context, alert_id, "acknowledged", actor="ada", now=NOW + HOUR)
    with pytest.raises(InputError):
        change_state(context, alert_id, "open", actor="ada", now=NOW)
    with pytest.raises(NotFoundError):
        change_state(context, "alr_nothing", "resolved", actor="ada", now=NOW)


def test_an_alert_that_a_person_closes_during_a_run_stays_closed(context: Context) -> None:
    _quiet_history(context)
    _drifting(context)
    run_drift(context, "support", NOW)
    with writing(context.database) as connection:
        connection.execute(update(alerts).values(state="resolved", open_marker=None))
    run_drift(context, "support", NOW + HOUR)
    states = sorted(alert["state"] for alert in _alerts(context))
    assert states == ["open", "resolved"], "the change is still there, so a new alert says so"


def test_the_job_runs_only_where_something_happened_and_survives_an_alias_that_fails(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitoring.driftjob.load", lambda _: lambda *_: {"snapshot": None})
    _quiet_history(context)
    promote(context, at=START - 1, alias="billing")
    insert_records(context, records(200, 5, start_at=START, alias="billing"))
    assert run_all(context, NOW) == "billing: no_drift, support: no_drift"
    assert run_all(context, NOW + 1) is None
    insert_records(context, records(10, 6, start_at=NOW + 2))
    assert has_news(context, "support", NOW + HOUR)
    assert not has_news(context, "billing", NOW + HOUR)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("disk on fire")

    monkeypatch.setattr("monitoring.run.judge", broken)
    assert run_all(context, NOW + HOUR) == "support: failed"


def test_reports_and_alerts_are_listed_newest_first_and_bounded(context: Context) -> None:
    _quiet_history(context)
    for step in range(5):
        run_drift(context, "support", NOW + step)
    with reading(context.database) as connection:
        assert [row.created_at for row in list_reports(connection, limit=3)] == [
            NOW + 4,
            NOW + 3,
            NOW + 2,
        ]
        assert list_reports(connection)[0].signals is None
        assert open_counts(connection) == {}
        assert connection.scalar(select(func.count()).select_from(drift_reports)) == 5
