"""A version on trial beside the live one over the same hours: harm is named, a change of the world
that meets both is not.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, select

from monitoring.control import rules_of, run_control, worse
from monitoring.incident_actions import change_state
from tests import builders
from tests.monitoring.build import HOUR, NOW, insert_records, records, rows
from whet.context import Context
from whet.database import reading, writing
from whet.settings import load_settings
from whet.tables import alerts, rollouts

STABLE, TRIAL = "d" * 64, "e" * 64


def trial(context: Context, *, stable: dict[str, Any], candidate: dict[str, Any]) -> None:
    """Five hours of a trial with 600 answers of each version."""
    with writing(context.database) as connection:
        builders.add_adapter(connection, NOW - 9 * HOUR, digest=STABLE)
        builders.add_adapter(connection, NOW - 8 * HOUR, version=2, digest=TRIAL)
        builders.add_rollout(connection, NOW - 6 * HOUR, stable=STABLE, candidate=TRIAL, share=0.5)
    insert_records(
        context, records(600, 1, start_at=NOW - 5 * HOUR, step_ms=25_000, digest=STABLE, **stable)
    )
    insert_records(
        context, records(600, 2, start_at=NOW - 5 * HOUR, step_ms=25_000, digest=TRIAL, **candidate)
    )


def alerts_of(context: Context) -> list[Any]:
    with reading(context.database) as connection:
        return list(connection.execute(select(alerts).order_by(alerts.c.opened_at)))


def test_a_version_on_trial_that_refuses_more_is_named_once(context: Context) -> None:
    trial(context, stable={}, candidate={"refusals": 0.2})
    for minutes in (0, 1):
        assert run_control(context, NOW + minutes) == "support: the version on trial does worse"
    (alert,) = alerts_of(context)
    assert (alert.kind, alert.severity, alert.state) == ("candidate", "attention", "open")
    assert "support@v2, on trial, does worse" in alert.title and "Refusal rate" in alert.title
    assert alert.detail["interaction_ids"]
    change_state(context, alert.id, "resolved", actor="ada", now=NOW + 1)
    run_control(context, NOW + 2)
    assert [one.state for one in alerts_of(context)] == ["resolved"], (
        "what a person closed came back within the same trial"
    )


def test_the_end_of_a_trial_closes_its_alert(context: Context) -> None:
    trial(context, stable={}, candidate={"refusals": 0.2})
    run_control(context, NOW)
    with writing(context.database) as connection:
        row = {
            "id": "rol_back",
            "alias": "support",
            "generation": 2,
            "stable_digest": STABLE,
            "candidate_share": 0.0,
            "pinned": False,
            "state": "rolled_back",
        }
        connection.execute(
            insert(rollouts).values(**row, reason="worse", actor="ada", created_at=NOW)
        )
    assert run_control(context, NOW + 2) is None
    assert alerts_of(context)[0].state == "resolved"


@pytest.mark.parametrize(
    ("stable", "candidate"),
    [
        ({}, {}),
        ({"refusals": 0.2}, {"refusals": 0.2}),
        ({"slower": 2.0}, {"slower": 2.0}),
        ({"refusals": 0.2}, {}),
        ({}, {"new_words": 0.5}),
    ],
    ids=["the same", "both refuse more", "both slower", "fewer refusals", "asked other things"],
)
def test_what_meets_both_or_harms_nobody_is_no_alarm(
    sqlite_context: Context, stable: dict[str, Any], candidate: dict[str, Any]
) -> None:
    trial(sqlite_context, stable=stable, candidate=candidate)
    assert run_control(sqlite_context, NOW) is None and alerts_of(sqlite_context) == []


def test_without_a_trial_and_with_few_answers_nothing_is_said(sqlite_context: Context) -> None:
    rules = rules_of(load_settings(home=sqlite_context.settings.home))
    assert worse(rows(40, 1), rows(40, 2, refusals=0.9), rules) == []
    insert_records(sqlite_context, records(200, 1, start_at=NOW - HOUR))
    assert run_control(sqlite_context, NOW) is None


def test_all_looks_of_a_trial_share_one_chance_to_err(sqlite_context: Context) -> None:
    settings = load_settings(home=sqlite_context.settings.home)
    assert rules_of(
        settings
    ).alpha * settings.rollout_max_hours * 3600 / settings.drift_interval_s == pytest.approx(
        settings.drift_alpha
    )
