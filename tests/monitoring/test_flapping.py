"""A change that comes and goes is one incident, told less often the longer it does so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from monitoring.flapping import FLAP_MS, came_back, quiet_runs_needed
from monitoring.incident_actions import change_state
from monitoring.notify import Event, events_of
from monitoring.run import run_drift
from tests.monitoring.build import HOUR, NOW, insert_records, make_alert, promote, records
from whet.context import Context
from whet.database import reading
from whet.records.monitoring import AlertDetail
from whet.tables import alerts

START = NOW - 100 * HOUR


WINDOW = 240  # conversations: each run sees what came since the one before, and nothing else


@pytest.fixture
def flapping(sqlite_context: Context) -> Context:
    narrow = sqlite_context.settings.model_copy(update={"drift_window": WINDOW})
    return replace(sqlite_context, settings=narrow)


def _traffic(context: Context, step: int, new_words: float, at: int) -> None:
    insert_records(context, records(WINDOW, 40 + step, start_at=at, new_words=new_words))


def _alerts(context: Context) -> list[dict[str, Any]]:
    with reading(context.database) as connection:
        return [dict(row) for row in connection.execute(select(alerts)).mappings()]


def _flap(context: Context, rounds: int) -> list[str]:
    """Drift, then two quiet runs, so many times; returns the state after each run."""
    promote(context, at=START - 1)
    insert_records(context, records(WINDOW, 1, start_at=START))
    states, step = [], 0
    for _ in range(rounds):
        for new_words in (0.5, 0.0, 0.0):
            at = NOW + step * 2 * HOUR
            _traffic(context, step, new_words, at - HOUR)
            run_drift(context, "support", at)
            states.append(_alerts(context)[-1]["state"])
            step += 1
    return states


def test_a_change_that_comes_and_goes_is_one_incident(flapping: Context) -> None:
    states = _flap(flapping, 3)
    (alert,) = _alerts(flapping)
    assert alert["detail"]["reopened"] == 1, "the second quiet spell was too short to close it"
    assert states[:4] == ["open", "open", "resolved", "open"]
    assert states[4:] == ["open"] * 5, "it takes twice the quiet runs after it came back"
    assert "once and came back; it does again after 4 runs" in came_back(
        AlertDetail.model_validate(alert["detail"])
    )


def test_what_a_person_closed_opens_anew_and_so_does_what_was_quiet_for_a_day(
    flapping: Context,
) -> None:
    _flap(flapping, 1)
    later = NOW + FLAP_MS + 20 * HOUR
    _traffic(flapping, 20, 0.5, later - HOUR)
    run_drift(flapping, "support", later)
    first, second = _alerts(flapping)
    assert (first["state"], second["state"]) == ("resolved", "open")
    change_state(flapping, second["id"], "resolved", actor="oli", now=later + 1)
    _traffic(flapping, 21, 0.5, later + HOUR)
    run_drift(flapping, "support", later + 2 * HOUR)
    assert [alert["state"] for alert in _alerts(flapping)] == ["resolved", "resolved", "open"]


def test_the_quiet_runs_that_are_needed_double_up_to_a_bound() -> None:
    assert [quiet_runs_needed(AlertDetail(reopened=times)) for times in range(6)] == [
        2,
        4,
        8,
        16,
        16,
        16,
    ]


def test_each_return_is_told_once_and_its_end_once() -> None:
    alert = make_alert({"reopened": 1})
    told = {"alr_1": {"open", "closed"}}
    assert events_of([alert], told) == [Event("alr_1", "reopened 1")]
    told["alr_1"].add("reopened 1")
    assert events_of([alert], told) == []
    over = replace(alert, open_marker=None)
    assert events_of([over], told) == [Event("alr_1", "closed 1")]
    told["alr_1"].add("closed 1")
    assert events_of([over], told) == []
