"""The overview: what needs a person first, what is live, and no alarm for a single failure."""

from __future__ import annotations

import time

from sqlalchemy import insert

from tests import builders, worlds
from tests.web import NOW, console_client
from whet.context import Context
from whet.database import writing
from whet.health.action_items import find_action_items, headline
from whet.health.reading import load_reading
from whet.health.records import ActionItem
from whet.health.version_summary import VersionSummary
from whet.tables import interactions


def found_items(context: Context) -> list[ActionItem]:
    return find_action_items(load_reading(context, NOW))


def found_headline(context: Context) -> str:
    reading = load_reading(context, NOW)
    return headline(reading, find_action_items(reading))


def add_processes(context: Context) -> None:
    """The leases of a gateway and a scheduler that work."""
    with writing(context.database) as connection:
        builders.add_lease(connection, "reconciler", "gateway:1", NOW + 4000)
        builders.add_lease(connection, "scheduler", "scheduler:2", NOW + 12_000)


def test_what_needs_a_person_is_ordered_by_what_waiting_costs(context: Context) -> None:
    worlds.world(context, 120, NOW)
    with writing(context.database) as connection:
        builders.add_replica(connection, NOW, url="http://127.0.0.1:8002", state="hung")
    found = found_items(context)
    assert [item.cost for item in found] == sorted((item.cost for item in found), reverse=True)
    assert "Engine replica http://127.0.0.1:8002 of 2 does not answer" in found[0].sentence
    assert "wait for review" in found[-1].sentence


def test_no_engine_at_all_comes_before_everything_else(sqlite_context: Context) -> None:
    add_processes(sqlite_context)
    with writing(sqlite_context.database) as connection:
        builders.add_interaction(connection, NOW - 1000)
        builders.add_alert(connection, NOW, severity="bad")
        builders.add_replica(connection, NOW, state="gone")
    assert found_items(sqlite_context)[0].sentence.startswith("No engine replica can answer")
    assert found_headline(sqlite_context).startswith("No engine replica can answer")


def test_one_failure_in_a_quiet_hour_is_no_alarm_and_many_are(sqlite_context: Context) -> None:
    add_processes(sqlite_context)
    with writing(sqlite_context.database) as connection:
        for index in range(9):
            builders.add_interaction(
                connection, NOW - 60_000 - index, status="error" if index == 0 else "complete"
            )
    assert found_headline(sqlite_context) == "Nothing needs you"
    with writing(sqlite_context.database) as connection:
        for index in range(3):
            builders.add_interaction(connection, NOW - 30_000 - index, status="cut")
    (item,) = found_items(sqlite_context)
    assert item.sentence == "4 of 12 answers failed in the last hour."
    assert item.since == NOW - 60_000, "the first that failed"


def test_a_version_that_passed_while_its_alias_is_pinned_asks_for_a_person(
    sqlite_context: Context,
) -> None:
    add_processes(sqlite_context)
    with writing(sqlite_context.database) as connection:
        first = builders.add_adapter(connection, NOW - 2000)
        builders.add_adapter(connection, NOW - 1000, version=2)
        builders.add_rollout(connection, NOW - 1500, stable=first, pinned=True)
    assert [item.sentence for item in found_items(sqlite_context)] == [
        "support@v2 passed its gate, but support is pinned."
    ]


def test_the_aliases_say_how_the_live_version_does_against_the_one_before(context: Context) -> None:
    with writing(context.database) as connection:
        one, two = (
            builders.add_adapter(connection, NOW - 9000),
            builders.add_adapter(connection, NOW - 5000, version=2),
        )
        builders.add_rollout(connection, NOW - 8000, stable=one)
        builders.add_rollout(connection, NOW - 4000, generation=2, stable=two, previous_digest=one)
        builders.add_rollout(
            connection, NOW - 2000, generation=3, stable=two, previous_digest=one, pinned=True
        )
        ids = [
            builders.add_interaction(
                connection, NOW - 3000 - index, version=2, ttft_ms=40.0 + index
            )
            for index in range(4)
        ]
        builders.add_interaction(connection, NOW - 7000, version=1, status="error")
        builders.add_rating(connection, ids[0], NOW, rating=1)
        builders.add_rating(connection, ids[1], NOW, rating=-1)
        builders.add_rating(connection, ids[2], NOW, rating=0)
    (state,) = load_reading(context, NOW).aliases
    assert (state.live, state.live_since) == ("v2", NOW - 4000)
    assert state.versions[0] == VersionSummary("v2", 4, 0, 2, 1, 41.0, 43.0)
    assert (state.versions[1].label, state.versions[1].n, state.versions[1].failed) == ("v1", 1, 1)


def test_overview_with_a_hundred_thousand_answers_takes_less_than_two_seconds(
    sqlite_context: Context,
) -> None:
    row = builders.interaction_row(NOW)
    with writing(sqlite_context.database) as connection:
        digest = builders.add_adapter(connection, NOW)
        builders.add_rollout(connection, NOW - 10, stable=digest)
        for start in range(0, 100_000, 10_000):
            connection.execute(
                insert(interactions),
                [
                    row | {"id": f"int_{number:08d}", "created_at": NOW - number * 40}
                    for number in range(start, start + 10_000)
                ],
            )
    client = console_client(sqlite_context, "viewer", clock=lambda: NOW)
    for path in (
        "/",
        "/traffic",
        "/traffic?q=zebra",
        "/traffic?alias=support&status=complete",
        "/adapters/support",
    ):
        began = time.process_time()
        assert client.get(path).status_code == 200
        assert time.process_time() - began < 2, path
