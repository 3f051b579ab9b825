"""The health reading: what is dead, refuses or is wrong stands on top, with its own time and link."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import insert, update

from tests import builders, worlds
from tests.web import NOW, console_client, headline
from whet import leases
from whet.context import Context
from whet.database import writing
from whet.doctor import examine
from whet.health.action_items import find_action_items, headline_since
from whet.health.action_items import headline as find_headline
from whet.health.processes import list_processes
from whet.health.reading import load_reading
from whet.health.records import (
    HealthReading,
    Machine,
    SampleRate,
    ScheduledJob,
    SupervisedProcess,
    UndeliveredNotification,
)
from whet.health.version_summary import AliasState, VersionSummary, percentile
from whet.overview import overview as product_overview
from whet.registry import Rollout
from whet.scheduler import note_job
from whet.tables import audit_weeks, notifications, replicas, scheduled_jobs
from whet.urls import notification_target

SECOND, MINUTE = 1000, 60_000
_WELL = {
    "reconciler": {"name": "reconciler", "owner": "gateway:1", "expires_at": NOW + 4 * SECOND},
    "scheduler": {"name": "scheduler", "owner": "host:2", "expires_at": NOW + 12 * SECOND},
}
_READY = {
    "url": "http://127.0.0.1:8001", "state": "ready", "detail": None, "ready": {}, "refused": {},
    "seen_at": NOW, "since": NOW - 60 * MINUTE,
}  # fmt: skip
WELL = HealthReading(now=NOW, last_answer_at=NOW, answers=9, leases=_WELL, replicas=[_READY])


def held_until(name: str, expires_at: int, owner: str = "host:2") -> dict[str, Any]:
    lease = {"name": name, "owner": owner, "expires_at": expires_at}
    return {"leases": _WELL | {name: lease}}


def process(name: str, **over: Any) -> SupervisedProcess:
    usual = SupervisedProcess(
        name, "ready", 4711, NOW - 60 * MINUTE, None, 0, None, "", f"logs/{name}.log", False
    )
    return replace(usual, **over)


def supervised(*processes: SupervisedProcess) -> dict[str, Any]:
    return {"machine": Machine(processes, True, 100 << 30)}


_KILLED = {"phase": "waiting", "down_since": NOW - 3 * SECOND, "restarts": 1, "last_exit": -9}
_REQUEST = {"id": "req", "alias": "support", "created_at": NOW - 2 * MINUTE}
_REFUSED = UndeliveredNotification(
    "alr_1", "Half is wrong", "bad", "open", "slack://…", 14, "HTTP 403", NOW - 30 * MINUTE, NOW
)
# What happened; what the headline says; since when; where it leads.
DEAD: list[tuple[str, dict[str, Any], str, int | None, str]] = [
    (
        "engine watcher killed",
        held_until("reconciler", NOW - 14 * MINUTE + 5 * SECOND),
        "Nobody has watched the engines for 14 min: traffic, drift and training may stand still",
        NOW - 14 * MINUTE,
        "/health#engine_watcher_stalled",
    ),
    (
        "engine watcher stopped",
        held_until("reconciler", NOW - 8 * SECOND, owner=""),
        "Nobody has watched the engines for 8 s",
        NOW - 8 * SECOND,
        "/health#engine_watcher_stalled",
    ),
    (
        "scheduler killed",
        held_until("scheduler", NOW - 12 * SECOND + 15 * SECOND),
        "The scheduler has not run for 12 s: no drift check",
        NOW - 12 * SECOND,
        "/health#scheduler_stalled",
    ),
    (
        "engine hung",
        {"replicas": [_READY | {"state": "hung", "since": NOW - 6 * MINUTE}]},
        "No engine replica can answer: every request fails",
        NOW - 6 * MINUTE,
        "/health#engine_down",
    ),
    (
        "engine killed",
        supervised(process("engine", **_KILLED)),
        "No engine replica can answer: every request fails. The engine process: signal 9 ended it",
        NOW - 3 * SECOND,
        "/health#engine_down",
    ),
    (
        "gateway killed",
        supervised(process("gateway", **_KILLED)),
        "The gateway does not run: no request is answered; signal 9 ended it",
        NOW - 3 * SECOND,
        "/health#gateway_stopped",
    ),
    (
        "worker stopped by a signal",
        supervised(process("worker", is_stopped=True)),
        "The worker does not run: nothing is trained; a signal has stopped it",
        None,
        "/health#worker_stopped",
    ),
    (
        "no worker anywhere",
        {"requests": [_REQUEST]},
        "No training worker takes up 1 request",
        NOW - 2 * MINUTE,
        "/health#worker_absent",
    ),
    (
        "disk full",
        {"machine": Machine(free_bytes=100 << 20)},
        "The disk of the home folder has 100 MiB left: the gateway refuses requests",
        None,
        "/health#disk_full",
    ),
    (
        "database behind",
        {"machine": Machine(backlog_bytes=300 << 20, backlog_since=NOW - 9 * MINUTE)},
        "300 MiB of answers wait to be written to the database",
        NOW - 9 * MINUTE,
        "/health#log_backlog",
    ),
    (
        "job fails",
        {"jobs": [ScheduledJob("notify", 20, NOW, NOW - 5 * MINUTE, "refused")]},
        "The scheduled job notify fails: refused",
        NOW - 5 * MINUTE,
        "/health#job-notify",
    ),
    (
        "job hangs",
        {"jobs": [ScheduledJob("drift", 60, NOW - 40 * MINUTE, None, None)]},
        "The scheduled job drift has not finished for 40 min",
        NOW - 40 * MINUTE,
        "/health#job-drift",
    ),
    (
        "notification refused",
        {"undelivered": [_REFUSED]},
        "slack://… has refused 1 notification, after 14 attempts: HTTP 403",
        NOW - 30 * MINUTE,
        "/drift/incidents/alr_1",
    ),
    (
        "answers are wrong",
        {"samples": [SampleRate("support", 80, 0.563, 0.447, 0.673, NOW - 70 * MINUTE)]},
        "56 % of the answers of support are wrong (45 % to 67 %, 80 judged of the random sample)",
        NOW - 70 * MINUTE,
        "/drift?alias=support#error-rate",
    ),
]


@pytest.mark.parametrize(
    ("over", "says", "since", "href"), [row[1:] for row in DEAD], ids=[row[0] for row in DEAD]
)
def test_headline_says_what_is_dead_since_when_and_where(
    over: dict[str, Any], says: str, since: int | None, href: str
) -> None:
    reading = replace(WELL, waiting=177, **over)
    items = find_action_items(reading)
    assert find_headline(reading, items).startswith(says)
    assert (headline_since(items), items[0].href) == (since, href)
    if href.startswith("/health#"):
        assert items[0].todo, "the page behind the link says what to do"


def test_a_well_product_needs_nobody() -> None:
    machine = Machine(tuple(map(process, ("engine", "gateway", "worker"))), True, 100 << 30)
    reading = replace(WELL, machine=machine)
    assert find_action_items(reading) == []
    assert all(one.works for one in list_processes(reading))


@pytest.mark.parametrize("late", [0, 4 * SECOND, 5 * SECOND])
def test_a_late_renewal_is_no_death(late: int) -> None:
    reading = replace(WELL, **held_until("reconciler", NOW + 5 * SECOND - late))
    assert find_action_items(reading) == []


def test_mostly_thumbs_down_is_told_only_beyond_chance() -> None:
    rollout = Rollout("rol", "support", 1, "d", None, 0.0, None, False, "live", "", "", NOW)

    def items(rated: int, up: int) -> list[str]:
        version = VersionSummary("v1", 900, 0, rated, up, 60.0, 90.0)
        state = AliasState("support", rollout, NOW - MINUTE, "v1", "", [version])
        return [item.sentence for item in find_action_items(replace(WELL, aliases=[state]))]

    said = "389 of 428 rated answers of support v1 have a thumb down (last 7 days)."
    assert items(428, 39) == [said]
    assert items(20, 2) == items(40, 18) == []


def test_acknowledged_alerts_stay_listed_below_everything_else() -> None:
    alert = {
        "id": "alr_1", "alias": "support", "kind": "drift", "severity": "bad", "title": "Drift",
        "state": "acknowledged", "changed_by": "oli", "opened_at": NOW - MINUTE,
        "owner": None, "snoozed_until": None,
    }  # fmt: skip
    reading = replace(WELL, alerts=[alert])
    (item,) = find_action_items(reading)
    assert (item.sentence, item.href) == ("Drift. Acknowledged by oli.", "/drift/incidents/alr_1")
    assert find_headline(reading, [item]) == "Nothing needs you"


def test_percentiles_are_values_that_occurred() -> None:
    assert [percentile([1.0, 2.0, 3.0, 4.0], share) for share in (0.5, 0.95)] == [2.0, 4.0]
    assert percentile([], 0.5) is None


# --- the loader, on both databases ---------------------------------------------------------------


def test_the_loader_finds_leases_jobs_notifications_and_samples(context: Context) -> None:
    settings = context.settings.model_copy(update={"notify_urls": "json://chat/hook"})
    context = replace(context, settings=settings)
    leases.acquire(context.database, "scheduler", "host:2", now=NOW - 30_000, for_ms=15_000)
    leases.release(context.database, "scheduler", "host:2", now=NOW - 20_000)
    with writing(context.database) as connection:
        builders.add_interaction(connection, NOW - 1000)
        alert = builders.add_alert(connection, NOW - MINUTE, severity="bad")
        for target in ("json://chat/hook", "json://removed/hook"):
            row = {
                "alert_id": alert, "event": "open", "target": notification_target(target),
                "attempts": 3, "error": "refused", "next_at": NOW, "created_at": NOW - MINUTE,
            }  # fmt: skip
            connection.execute(insert(notifications).values(**row))
        for week in (0, 7, 14):
            connection.execute(insert(audit_weeks).values(**_week(NOW // 86_400_000 - week)))
        for minute, error in ((3, None), (2, "first"), (1, "second")):
            note_job(connection, "drift", 60, error, now=NOW - minute * MINUTE)
    reading = load_reading(context, NOW)
    assert [(one.service, one.attempts) for one in reading.undelivered] == [("json://…", 3)]
    assert [(one.error, one.failing_since) for one in reading.jobs] == [
        ("second", NOW - 2 * MINUTE)
    ]
    (sample,) = reading.samples
    assert sample.since == (NOW // 86_400_000 - 7) * 86_400_000, "the week before was good"
    stopped = next(one for one in list_processes(reading) if one.name == "scheduler")
    assert (stopped.state, stopped.since) == ("stopped", NOW - 20_000)


def _week(day: int) -> dict[str, Any]:
    is_good = day == NOW // 86_400_000 - 14
    rate = (
        {"rate": 0.02, "low": 0.0, "high": 0.1}
        if is_good
        else {"rate": 0.5, "low": 0.4, "high": 0.6}
    )
    return {
        "alias": "support", "week": day, "population": {}, "drawn": 80, "judged": 80,
        "wrong": 40, **rate, "effective": 80.0, "usual": None, "verdict": "unknown",
        "sentence": "", "changed_at": NOW,
    }  # fmt: skip


# --- where it is shown ---------------------------------------------------------------------------


def test_every_surface_tells_the_same(sqlite_context: Context) -> None:
    with writing(sqlite_context.database) as connection:
        builders.add_interaction(connection, NOW - 1000)
        builders.add_replica(connection, NOW, state="hung")
        connection.execute(update(replicas).values(since=NOW - 36 * MINUTE))
        builders.add_lease(connection, "reconciler", "gateway:1", NOW + 4000)
        builders.add_lease(connection, "scheduler", "host:2", NOW + 12_000)
        connection.execute(insert(scheduled_jobs).values(name="drift", every_s=60, finished_at=NOW))
    client = console_client(sqlite_context, "viewer", clock=lambda: NOW)
    page = client.get("/")
    assert headline(page.text).startswith("No engine replica can answer: every request fails since")
    assert "(36 min)" in headline(page.text)
    assert '<a class="grow" href="/health#engine_down">' in page.text
    health = client.get("/health")
    assert 'id="engine_down"' in health.text and "kill -9" in health.text
    (item,) = client.get("/api/health").json()["items"]
    assert (item["code"], item["since"]) == ("engine_down", NOW - 36 * MINUTE)
    ready = console_client(sqlite_context, "", clock=lambda: NOW).get("/readyz")
    assert ready.json() == {"status": "ok", "problems": ["engine_down"]}


def test_a_figure_is_the_same_on_every_page(sqlite_context: Context) -> None:
    """What waits, what is open and how a version does: Overview, its own page, and scripts."""
    worlds.world(sqlite_context, 300, NOW)
    client = console_client(sqlite_context, "reviewer", clock=lambda: NOW)

    def words(path: str) -> str:
        text = re.sub(r"<[^>]+>", " ", client.get(path).text)
        return " ".join(text.replace("–", "-").split())

    overview, alias = words("/"), words("/adapters/support?a=v2&b=v1")
    told = product_overview(sqlite_context, now=NOW)
    waiting = told["review"]["waiting"]
    assert f"{waiting} in the queue" in overview
    assert f"{waiting} conversations wait" in words("/review/list")
    assert f"{len(told['alerts'])} open alert" in overview
    assert words("/drift").count("Quality:") == len(told["alerts"])
    assert f"{told['traffic']['last_hour']} answers in the last hour" in overview
    live = next(
        one for one in load_reading(sqlite_context, NOW).aliases[0].versions if one.label == "v2"
    )
    share = f"{100 * live.thumbs_up / live.rated:.0f} %"
    assert f"{share} of {live.rated}" in overview and f"{share} n {live.rated}" in alias
    failed = f"{100 * live.failed / live.n:.1f} %"
    assert f"{live.failed} {failed}" in overview and f"{failed} n {live.n}" in alias


def test_doctor_names_a_dead_engine_and_a_refused_notification(sqlite_context: Context) -> None:
    settings = sqlite_context.settings.model_copy(
        update={"notify_urls": "json://chat/hook", "engine_urls": "http://127.0.0.1:9"}
    )
    with writing(sqlite_context.database) as connection:
        builders.add_interaction(connection, NOW - 1000)
        builders.add_lease(connection, "reconciler", "gateway:1", NOW + 4000)
        builders.add_lease(connection, "scheduler", "host:2", NOW + 12_000)
        builders.add_replica(connection, NOW, state="gone")
        alert = builders.add_alert(connection, NOW - MINUTE, severity="bad")
        row = {
            "alert_id": alert, "event": "open", "target": notification_target("json://chat/hook"),
            "attempts": 14, "error": "HTTP 403", "next_at": NOW, "created_at": NOW - MINUTE,
        }  # fmt: skip
        connection.execute(insert(notifications).values(**row))
    found = {check.name: check for check in examine(settings, deep=False, now=NOW)}
    assert found["engine down"].verdict == found["notification undelivered"].verdict == "fail"
    assert "after 14 attempts: HTTP 403" in found["notification undelivered"].found
    assert "whet alerts test" in found["notification undelivered"].todo


def test_readiness_says_when_the_database_is_away(sqlite_context: Context) -> None:
    client = console_client(sqlite_context, "", clock=lambda: NOW)
    sqlite_context.database.dispose()
    for path in sqlite_context.settings.home.glob("whet.db*"):
        path.unlink()
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["problems"]) == (503, ["database"])
