"""The drift pages: the answer first, incidents before signals, deeds by role, nothing executable
from a conversation.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from sqlalchemy import update

from monitoring.notify import run_notify
from monitoring.run import run_drift
from tests.monitoring.build import HOUR, NOW, insert_records, promote, records
from tests.web import console_client
from tests.worlds import world
from whet.context import Context
from whet.database import reading, writing
from whet.tables import alerts

START = NOW - 100 * HOUR


def _drifted(context: Context, new_words: float = 0.5) -> str:
    promote(context, at=START - 1)
    insert_records(
        context,
        records(240, 1, start_at=START)
        + records(240, 2, start_at=NOW - 2 * HOUR, new_words=new_words),
    )
    run_drift(context, "support", NOW)
    with reading(context.database) as connection:
        return str(connection.execute(alerts.select()).mappings().one()["id"]) if new_words else ""


def _client(context: Context, role: str = "operator"):
    return console_client(context, role, clock=lambda: NOW, raise_errors=True)


def _h1(html: str) -> str:
    return re.sub(r"<[^>]+>", "", re.search(r"<h1[^>]*>(.*?)</h1>", html, re.S)[1])


def test_an_empty_installation_is_taught_the_first_step(sqlite_context: Context) -> None:
    page = _client(sqlite_context).get("/drift")
    assert page.status_code == 200
    assert _h1(page.text) == "No traffic has been compared yet"
    assert "whet drift run --alias support" in page.text


def test_quiet_traffic_says_that_nothing_needs_anybody_and_lists_every_signal(
    context: Context,
) -> None:
    _drifted(context, new_words=0)
    page = _client(context).get("/drift").text
    assert _h1(page) == "Nothing needs you"
    assert page.count("no significant change</span>") >= 10
    assert "Wording of questions" in page


def test_drift_is_the_headline_and_the_incident_leads_to_the_conversations(
    context: Context,
) -> None:
    alert_id = _drifted(context)
    client = _client(context)
    page = client.get("/drift").text
    assert _h1(page).startswith("support: questions changed since ")
    assert "aurora" in page
    assert page.index(f"/drift/incidents/{alert_id}") < page.index("Every signal of support")
    incident = client.get(f"/drift/incidents/{alert_id}").text
    assert "<mark>aurora</mark>" in incident
    assert incident.count('href="/traffic/int_2_') == 20
    assert 'action="/review/batch"' in incident
    assert f'name="alert" value="{alert_id}"' in incident
    batch = client.post("/review/batch", data={"alert": alert_id, "csrf": client.csrf})
    assert batch.status_code == 303, "the review pages take the incident as it is"
    assert "of this incident waiting" in client.get(f"/drift/incidents/{alert_id}").text
    assert client.get(f"/drift/incidents/{alert_id}?page=2").text.count('href="/traffic/int_2_') > 0
    report_id = re.search(r"/drift/reports/(drf_[0-9a-z]+)", incident)[1]
    assert "Every signal" not in (report := client.get(f"/drift/reports/{report_id}").text)
    assert "Questions changed" in _h1(report)


def test_an_operator_acknowledges_and_resolves_and_a_viewer_may_only_read(context: Context) -> None:
    alert_id = _drifted(context)
    viewer = _client(context, "viewer")
    assert "/acknowledge" not in viewer.get(f"/drift/incidents/{alert_id}").text
    assert viewer.post(f"/drift/incidents/{alert_id}/resolve").status_code == 403
    operator = _client(context)
    assert (
        operator.post(f"/drift/incidents/{alert_id}/acknowledge").headers["location"]
        == f"/drift/incidents/{alert_id}"
    )
    assert _h1(operator.get("/drift").text) == "Nothing new needs you"
    assert operator.post(f"/drift/incidents/{alert_id}/resolve").status_code == 303
    assert operator.post(f"/drift/incidents/{alert_id}/acknowledge").status_code == 409
    assert operator.post(f"/drift/incidents/{alert_id}/explode").status_code == 400
    assert operator.post("/drift/incidents/alr_0/resolve").status_code == 404
    assert "Closed incidents" in operator.get("/drift").text


def test_a_run_can_be_asked_for_on_the_page(context: Context) -> None:
    promote(context, at=START - 1)
    insert_records(context, records(240, 1, start_at=START))
    client = _client(context)
    assert client.post("/drift/run?alias=support").status_code == 303
    assert _h1(client.get("/drift").text) == "Nothing needs you"


def test_scripts_read_reports_and_alerts_as_json_and_decide_with_a_post(context: Context) -> None:
    alert_id = _drifted(context)
    client = _client(context)
    (alert,) = client.get("/api/alerts?open=true").json()
    assert alert["id"] == alert_id
    (report,) = client.get("/api/drift?alias=support").json()
    assert client.get(f"/api/drift/{report['id']}").json()["signals"]
    assert client.post(f"/api/alerts/{alert_id}/expected").json()["state"] == "expected"
    assert client.get("/api/alerts?open=true").json() == []
    assert client.get("/api/drift/drf_0").status_code == 404


def test_text_of_a_conversation_is_never_markup(context: Context) -> None:
    promote(context, at=START - 1)
    evil = records(240, 2, start_at=NOW - 2 * HOUR, new_words=1.0)
    for row in evil:
        row["request"]["messages"][-1]["content"] += (
            ' <script>alert(1)</script>"><img src=x onerror=alert(2)>'
        )
    insert_records(context, records(240, 1, start_at=START) + evil)
    run_drift(context, "support", NOW)
    client = _client(context)
    alert_id = client.get("/api/alerts").json()[0]["id"]
    for path in ("/drift", f"/drift/incidents/{alert_id}"):
        page = client.get(path).text
        assert "<script>alert" not in page
        assert "<img" not in page


@pytest.mark.parametrize("count", [7, 2000])
def test_alerts_and_reports_of_any_shape_are_shown(sqlite_context: Context, count: int) -> None:
    world(sqlite_context, count, NOW)
    client = _client(sqlite_context)
    page = client.get("/drift")
    assert page.status_code == 200
    alert_id = client.get("/api/alerts").json()[0]["id"]
    assert client.get(f"/drift/incidents/{alert_id}").status_code == 200
    assert (
        client.get(f"/drift/reports/{client.get('/api/drift').json()[0]['id']}").status_code == 200
    )


def test_evidentlys_page_comes_in_a_sandbox_of_its_own_and_is_said_to_be_missing_when_it_is(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    _drifted(context)
    client = _client(context)
    report_id = client.get("/api/drift").json()[0]["id"]
    missing = client.get(
        f"/drift/reports/{report_id}/evidently", headers={"accept": "application/json"}
    )
    assert missing.status_code == 404
    monkeypatch.setattr(
        "monitoring.rendering._rendered", lambda snapshot: b"<!doctype html><script>1</script>"
    )
    row = run_drift(context, "support", NOW + 1, reporter=lambda *_: {"snapshot": None})
    page = client.get(f"/drift/reports/{row.id}/evidently")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts;")
    assert "allow-same-origin" not in policy
    assert "connect-src 'none'" in policy
    assert (context.settings.home / "cache" / "drift" / f"{row.id}.html").is_file()


def test_an_incident_shows_whether_people_were_told(sqlite_context: Context) -> None:
    addresses = "json://chat/good json://chat/bad"
    settings = sqlite_context.settings.model_copy(update={"notify_urls": addresses})
    told = replace(sqlite_context, settings=settings)
    alert = _drifted(told)
    with writing(told.database) as connection:
        connection.execute(update(alerts).values(severity="bad"))

    def send(address: str, *_: str) -> bool:
        return address.endswith("good")

    for minute in range(3):
        run_notify(told, NOW + minute * 60_000, send=send)
    page = console_client(told, "viewer", clock=lambda: NOW).get(f"/drift/incidents/{alert}").text
    section = page.split('id="notifications"')[1].split("</section>")[0]
    assert section.count("delivered</span>") == 2 and "not delivered" in section
    assert "refused 3 times: The address did not accept the message." in section
    assert "chat" not in section, "the address may be a secret"
