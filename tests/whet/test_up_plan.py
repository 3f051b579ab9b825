"""The supervisor's decisions, by table: no process is started here."""

from __future__ import annotations

import pytest

from whet.up.failures import UNKNOWN, Failure
from whet.up.plan import (
    BACKOFF_CAP_S,
    FIRST_START_TRIES,
    RESET_AFTER_S,
    Act,
    Event,
    Limits,
    State,
    backoff_s,
    plan,
)

LIMITS = Limits(ready_within_s=60, stop_within_s=15)


def run(*events: tuple[float, Event], state: State | None = None) -> State:
    state = state or State()
    for now, event in events:
        state = plan(state, event, now, LIMITS).state
    return state


def up_since(started_at: float, **changes: object) -> State:
    return State(phase="ready", started_at=started_at, since=started_at, was_ready=True, **changes)


def test_the_pause_doubles_from_one_second_to_thirty() -> None:
    assert [backoff_s(n) for n in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    assert backoff_s(10_000) == BACKOFF_CAP_S


def test_a_process_that_dies_is_started_again_after_its_pause_and_not_before() -> None:
    died = plan(up_since(0), Event("exit", -9), 100, LIMITS)
    assert died.state.phase == "waiting"
    assert died.acts == (Act.KILL, Act.SAY)
    assert "killed by signal 9" in died.text and "in 1 s" in died.text
    assert plan(died.state, Event("tick"), 100.9, LIMITS).acts == ()
    again = plan(died.state, Event("tick"), 101, LIMITS)
    assert again.acts == (Act.START,) and again.state.phase == "starting"


@pytest.mark.parametrize(("up_for", "expected"), [(RESET_AFTER_S - 1, 4), (RESET_AFTER_S, 1)])
def test_failures_are_forgotten_after_a_minute_up(up_for: float, expected: int) -> None:
    assert (
        plan(up_since(0, failures=3), Event("exit", 1), up_for, LIMITS).state.failures == expected
    )


def test_a_process_that_never_was_ready_is_given_up_after_its_tries() -> None:
    state, now = State(), 0.0
    for attempt in range(FIRST_START_TRIES):
        state = run((now, Event("start")), (now, Event("tick")), state=state)
        step = plan(state, Event("exit", 1), now + 0.5, LIMITS)
        state, now = step.state, step.state.deadline
        assert (Act.GIVE_UP in step.acts) == (attempt == FIRST_START_TRIES - 1)
    assert state.phase == "given_up"
    assert plan(state, Event("tick"), 1e9, LIMITS).acts == ()


def test_a_process_that_was_ready_is_never_given_up() -> None:
    state = up_since(0)
    for round_ in range(50):
        now = round_ * 100.0
        step = plan(state, Event("exit", 1), now, LIMITS)
        assert Act.GIVE_UP not in step.acts
        state = plan(step.state, Event("tick"), step.state.deadline, LIMITS).state
        assert state.phase == "starting"


def test_a_first_start_that_takes_too_long_ends_it() -> None:
    starting = run((0, Event("start")))
    assert plan(starting, Event("tick"), 59, LIMITS).acts == ()
    late = plan(starting, Event("tick"), 60, LIMITS)
    assert late.acts == (Act.KILL, Act.GIVE_UP) and "60 s" in late.text


def test_a_restart_that_hangs_is_stopped_and_started_again() -> None:
    starting = State(phase="starting", started_at=0, was_ready=True, failures=1)
    hung = plan(starting, Event("tick"), 60, LIMITS)
    assert hung.acts == (Act.TERMINATE, Act.SAY) and hung.state.phase == "ending"
    assert plan(hung.state, Event("tick"), 75, LIMITS).acts == (Act.KILL,)
    gone = plan(hung.state, Event("exit", -9), 76, LIMITS)
    assert gone.state.phase == "waiting" and gone.state.failures == 2


def test_stopping_asks_first_and_kills_after_the_time_it_may_take() -> None:
    asked = plan(up_since(0), Event("stop"), 100, LIMITS)
    assert asked.acts == (Act.TERMINATE,)
    assert plan(asked.state, Event("tick"), 114, LIMITS).acts == ()
    assert plan(asked.state, Event("tick"), 115, LIMITS).acts == (Act.KILL,)
    assert plan(asked.state, Event("exit", 0), 110, LIMITS).state.phase == "stopped"


def test_nothing_is_started_again_once_asked_to_stop() -> None:
    waiting = plan(up_since(0), Event("exit", 1), 100, LIMITS).state
    hung = plan(State(phase="starting", was_ready=True), Event("tick"), 60, LIMITS).state
    for state in (waiting, hung):
        stopped = run((101, Event("stop")), (102, Event("exit", 0)), state=state)
        assert stopped.phase == "stopped"
        assert plan(stopped, Event("tick"), 1e9, LIMITS).acts == ()


def test_whatever_a_dead_process_left_in_its_group_goes_with_it() -> None:
    for state in (
        up_since(0),
        State(phase="ending"),
        State(phase="starting"),
        State(phase="given_up"),
    ):
        assert Act.KILL in plan(state, Event("exit", 0), 10, LIMITS).acts


def start_and_die(state: State, failure: Failure, code: int = 1) -> State:
    started = plan(state, Event("start"), state.deadline, LIMITS).state
    return plan(started, Event("exit", code, failure), state.deadline + 1, LIMITS).state


@pytest.mark.parametrize(
    ("failure", "code", "starts"),
    [
        (Failure("ValueError: no", lasting=True), 1, 2),
        (Failure("RuntimeError: odd"), 1, 2),  # unknown, and it never ran here
        (Failure("OSError: Address already in use", transient=True), 1, FIRST_START_TRIES),
        (UNKNOWN, 1, FIRST_START_TRIES),
        # killed: the log is no cause
        (Failure("ValueError: no", lasting=True), -9, FIRST_START_TRIES),
    ],
)
def test_a_first_start_that_fails_twice_for_one_reason_is_given_up(
    failure: Failure, code: int, starts: int
) -> None:
    state, count = State(), 0
    while state.phase != "given_up":
        state, count = start_and_die(state, failure, code), count + 1
    assert count == starts


@pytest.mark.parametrize(
    ("failure", "given_up"),
    [
        (Failure("ValueError: no", lasting=True), True),
        (Failure("RuntimeError: odd"), False),
        (Failure("MemoryError", transient=True), False),
        (UNKNOWN, False),
    ],
)
def test_what_ran_here_before_is_given_up_for_lasting_reasons_alone(
    failure: Failure, given_up: bool
) -> None:
    state = plan(up_since(0), Event("exit", -9), 100, LIMITS).state
    for _ in range(20):
        if state.phase == "given_up":
            break
        state = start_and_die(state, failure)
    assert (state.phase == "given_up") is given_up


def test_two_different_reasons_are_no_repetition() -> None:
    state = start_and_die(State(), Failure("ValueError: one", lasting=True))
    assert start_and_die(state, Failure("ValueError: two", lasting=True)).phase == "waiting"


def test_a_start_that_succeeded_between_them_clears_the_reason() -> None:
    failed = start_and_die(
        plan(up_since(0), Event("exit", -9), 100, LIMITS).state,
        Failure("ValueError: no", lasting=True),
    )
    up = plan(
        plan(failed, Event("start"), failed.deadline, LIMITS).state,
        Event("ready"),
        failed.deadline + 1,
        LIMITS,
    ).state
    died = plan(
        up, Event("exit", 1, Failure("ValueError: no", lasting=True)), failed.deadline + 2, LIMITS
    ).state
    assert died.phase == "waiting"
