"""An incident as people work on it: owner, note, snooze, reasons, undo, and what it concerns."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from sqlalchemy import func, select, update

from monitoring import incident_actions
from monitoring.alert_store import find_alert, list_alerts
from monitoring.incident_actions import change_state, list_actions
from monitoring.incident_scope import count_affected, group_similar, load_changes
from monitoring.notify import tell_alertmanager
from tests import builders
from tests.monitoring.build import HOUR, NOW
from tests.web import console_client
from whet.auditlog import broken_at
from whet.context import Context
from whet.database import reading, writing
from whet.errors import ConflictError, InputError, NotFoundError
from whet.health.action_items import find_action_items, headline
from whet.health.reading import load_reading
from whet.settings_log import record_settings
from whet.tables import alerts, audit, drift_reports


def _open(
    context: Context, *, at: int = NOW - 2 * HOUR, key: str = "k", signal: str = "", **over: Any
) -> str:
    with writing(context.database) as connection:
        alert_id = builders.add_alert(connection, at, key=key, **over)
        if signal:
            named = update(alerts).where(alerts.c.id == alert_id)
            connection.execute(named.values(detail={"signals": [{"name": signal}]}))
        return alert_id


def _alert(context: Context, alert_id: str) -> dict[str, Any]:
    with reading(context.database) as connection:
        query = select(alerts).where(alerts.c.id == alert_id)
        return dict(connection.execute(query).mappings().one())


def _actions(context: Context, alert_id: str) -> list[incident_actions.IncidentAction]:
    with reading(context.database) as connection:
        return list_actions(connection, alert_id)


def test_each_action_keeps_its_reason_on_the_incident_and_in_the_audit_log(
    context: Context,
) -> None:
    console_client(context, "operator")
    alert_id = _open(context)
    steps: list[Callable[[int], object]] = [
        lambda at: incident_actions.assign(
            context, alert_id, "operator", actor="ada", now=at, reason="on call"
        ),
        lambda at: incident_actions.snooze(
            context, alert_id, at + HOUR, actor="ada", now=at, reason="a deploy"
        ),
        lambda at: incident_actions.add_note(context, alert_id, "looked", actor="ada", now=at),
        lambda at: change_state(
            context, alert_id, "resolved", actor="ada", now=at, reason="a typo"
        ),
    ]
    for number, step in enumerate(steps):
        step(NOW + number)
    assert [(one.action, one.text) for one in reversed(_actions(context, alert_id))] == [
        ("assigned", "on call"), ("snoozed", "a deploy"), ("note", "looked"),
        ("resolved", "a typo"),
    ]  # fmt: skip
    with reading(context.database) as connection:
        rows = connection.execute(select(audit).where(audit.c.subject == alert_id)).all()
        assert [row.detail.get("reason") for row in rows] == [
            "on call", "a deploy", "looked", "a typo",
        ]  # fmt: skip
        assert broken_at(connection) is None


def test_undo_goes_back_step_by_step_and_opens_what_was_closed(context: Context) -> None:
    alert_id = _open(context)
    before = _alert(context, alert_id)
    change_state(context, alert_id, "acknowledged", actor="ada", now=NOW)
    incident_actions.snooze(context, alert_id, NOW + HOUR, actor="ada", now=NOW + 1)
    change_state(context, alert_id, "resolved", actor="bob", now=NOW + 2)
    done = _actions(context, alert_id)
    assert [one.action for one in done] == ["resolved", "snoozed", "acknowledged"]
    with pytest.raises(ConflictError, match="bob resolved it after it"):
        incident_actions.undo(context, done[1].id, actor="ada", now=NOW + 3)
    for one in done:
        incident_actions.undo(context, one.id, actor="ada", now=NOW + 4)
    assert _alert(context, alert_id) == before, "something of it was not undone"
    with pytest.raises(ConflictError, match="undone already"):
        incident_actions.undo(context, done[0].id, actor="ada", now=NOW + 5)


def test_undo_never_opens_a_second_incident_of_one_change(context: Context) -> None:
    alert_id = _open(context)
    change_state(context, alert_id, "resolved", actor="ada", now=NOW)
    newer = _open(context, at=NOW + 1)
    (action,) = _actions(context, alert_id)
    with pytest.raises(ConflictError, match="another incident") as refused:
        incident_actions.undo(context, action.id, actor="ada", now=NOW + 2)
    assert newer in refused.value.hint
    assert _alert(context, alert_id)["state"] == "resolved"


def test_expected_is_undone_until_a_run_has_learned_from_it(context: Context) -> None:
    alert_id = _open(context)
    change_state(context, alert_id, "expected", actor="ada", now=NOW)
    (action,) = _actions(context, alert_id)
    incident_actions.undo(context, action.id, actor="ada", now=NOW + 1)
    assert _alert(context, alert_id)["state"] == "open"
    change_state(context, alert_id, "expected", actor="ada", now=NOW + 2)
    with writing(context.database) as connection:
        builders.add_drift_report(connection, NOW + 10)
        assert connection.scalar(select(func.count()).select_from(drift_reports)) == 1
    newest = _actions(context, alert_id)[0]
    with pytest.raises(ConflictError, match="taken the traffic since then as normal"):
        incident_actions.undo(context, newest.id, actor="ada", now=NOW + 11)


def test_what_cannot_be_is_refused_with_a_sentence(sqlite_context: Context) -> None:
    alert_id = _open(sqlite_context)
    refused: list[tuple[type[Exception], Callable[[], object]]] = [
        (InputError, lambda: incident_actions.snooze(
            sqlite_context, alert_id, NOW - 1, actor="ada", now=NOW)),
        (InputError, lambda: incident_actions.snooze(
            sqlite_context, alert_id, NOW + 999 * 24 * HOUR, actor="ada", now=NOW)),
        (InputError, lambda: incident_actions.add_note(
            sqlite_context, alert_id, "  ", actor="ada", now=NOW)),
        (InputError, lambda: incident_actions.add_note(
            sqlite_context, alert_id, "x" * 4001, actor="ada", now=NOW)),
        (NotFoundError, lambda: incident_actions.assign(
            sqlite_context, alert_id, "nobody-here", actor="ada", now=NOW)),
        (NotFoundError, lambda: incident_actions.undo(
            sqlite_context, "act_none", actor="ada", now=NOW)),
    ]  # fmt: skip
    for kind, attempt in refused:
        with pytest.raises(kind):
            attempt()
    assert _actions(sqlite_context, alert_id) == []


def test_a_snoozed_incident_is_in_no_headline_and_comes_back_by_itself(
    sqlite_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    alert_id = _open(sqlite_context, severity="bad", title="support: answers are worse.")
    incident_actions.snooze(sqlite_context, alert_id, NOW + HOUR, actor="ada", now=NOW)

    def said(now: int) -> str:
        found = load_reading(sqlite_context, now)
        return headline(found, [i for i in find_action_items(found) if i.code == "alert"])

    assert "answers are worse" not in said(NOW + 1)
    assert "answers are worse" in said(NOW + HOUR)
    client = console_client(sqlite_context, "operator", clock=lambda: NOW + 1)
    assert "answers are worse" not in client.get("/drift").text.split("</h1>")[0]
    posted: list[Any] = []
    monkeypatch.setattr("monitoring.notify.httpx.post", lambda *_, json, **__: posted.extend(json))
    tell_alertmanager(sqlite_context, NOW + 1)
    assert posted == [], "an Alertmanager reminds people of it"


def test_users_and_requests_since_it_began_are_counted(context: Context) -> None:
    with writing(context.database) as connection:
        ids = [
            builders.add_interaction(connection, NOW - 60_000 * n, end_user=f"user {n % 4}")
            for n in range(1, 11)
        ]
        builders.add_interaction(connection, NOW - 30 * HOUR, end_user="long before")
        builders.add_interaction(connection, NOW - 60_000, alias="other", end_user="elsewhere")
    alert_id = _open(context, interaction_ids=ids[:2])
    with reading(context.database) as connection:
        found = count_affected(connection, find_alert(connection, alert_id), NOW - HOUR, NOW)
    assert (found.requests, found.users, found.shown, found.shown_users) == (10, 4, 2, 2)
    assert not found.is_at_least


def test_what_changed_in_the_day_before_is_listed_and_nothing_else(context: Context) -> None:
    with writing(context.database) as connection:
        adapter = builders.add_adapter(connection, NOW - 3 * HOUR)
        builders.add_rollout(connection, NOW - 3 * HOUR, stable=adapter)
    before = context.settings.model_copy(update={"review_budget": 7})
    record_settings(
        Context(before, context.database, context.store), actor="s", now=NOW - 90 * HOUR
    )
    record_settings(context, actor="scheduler", now=NOW - 2 * HOUR)
    assert record_settings(context, actor="scheduler", now=NOW) == [], "the same values again"
    with reading(context.database) as connection:
        found = load_changes(connection, "support", NOW - HOUR)
        entry = connection.execute(
            select(audit.c.detail).where(audit.c.action == "settings.change")
            .order_by(audit.c.sequence.desc()).limit(1)
        ).scalar_one()  # fmt: skip
    assert [mark.kind for mark in found] == ["audit", "promotion"]
    assert "review_budget" in found[0].text
    assert entry["review_budget"] == str(context.settings.review_budget)


def test_incidents_of_one_signal_are_one_group(sqlite_context: Context) -> None:
    for number in range(3):
        _open(sqlite_context, key=f"k{number}", signal="refusal")
    _open(sqlite_context, key="other", signal="language")
    with reading(sqlite_context.database) as connection:
        found = list_alerts(connection)
    assert sorted(len(group) for group in group_similar(found)) == [1, 3]
    page = console_client(sqlite_context, "viewer", clock=lambda: NOW).get("/drift").text
    assert page.count('class="card drift-incident ') == 2 and "2 more like it" in page


def test_the_page_has_everything_and_its_forms_work(sqlite_context: Context) -> None:
    with writing(sqlite_context.database) as connection:
        first = builders.add_adapter(connection, NOW - 9 * HOUR, version=1)
        second = builders.add_adapter(connection, NOW - 4 * HOUR, version=2)
        builders.add_rollout(connection, NOW - 9 * HOUR, stable=first)
        builders.add_rollout(
            connection, NOW - 3 * HOUR, stable=second, previous_digest=first, generation=2
        )
        builders.add_interaction(connection, NOW - HOUR, end_user="ada")
    alert_id = _open(sqlite_context)
    seconds = count()
    client = console_client(sqlite_context, "operator", clock=lambda: NOW + 1000 * next(seconds))
    page = client.get(f"/drift/incidents/{alert_id}").text
    assert "Roll back to v1" in page and 'action="/adapters/support/rollback"' in page
    assert "<strong>1 request</strong>" in page and "support@v2 promoted" in page
    href = f"/drift/incidents/{alert_id}"
    for path, fields in (
        ("acknowledge", {}),
        ("snooze", {"hours": "4", "reason": "deploy"}),
        ("assign", {"owner": "operator"}),
        ("note", {"text": "<b>seen</b>"}),
    ):
        answer = client.post(f"{href}/{path}", data={"csrf": client.csrf, **fields})
        assert answer.status_code == 303, f"{path} was refused: {answer.text[:200]}"
    page = client.get(href).text
    assert "&lt;b&gt;seen&lt;/b&gt;" in page and "snoozed it until" in page
    assert "operator looks after it" in client.get("/").text
    while newest := [one for one in _actions(sqlite_context, alert_id) if not one.undone_at]:
        answer = client.post(f"/drift/actions/{newest[0].id}/undo", data={"csrf": client.csrf})
        assert answer.status_code == 303, answer.text[:300]
    assert _alert(sqlite_context, alert_id)["state"] == "open"
    assert (
        client.post(f"{href}/snooze", data={"csrf": client.csrf, "hours": "5"}).status_code == 400
    )
