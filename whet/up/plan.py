"""What to do with one supervised process, decided from its state, what happened, and the time.

No I/O.

    stopped ──start──► starting ──ready──► ready
                          │                  │
                        exit ◄───────────────┘
                          ▼
                       waiting ──(pause over)──► starting

`ending` is between SIGTERM and the exit; `given_up` is the end of a process that never became ready
at the first start, or whose start failed twice for one lasting reason.
Times are seconds on a clock that only rises.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

from whet.up.failures import UNKNOWN, Failure

BACKOFF_BASE_S = 1.0  # a crash that a moment cures (a port still in use) costs no more than this
BACKOFF_CAP_S = 30.0  # a person who repairs the cause never waits longer than this for the next try
RESET_AFTER_S = 60.0  # up for this long: the next crash is a new story, not the same one again
# A process that never was ready and died this often will not be cured by more tries
FIRST_START_TRIES = 3

Phase = Literal["stopped", "starting", "ready", "waiting", "ending", "given_up"]


class Act(Enum):
    """What the supervisor carries out, in this order."""

    START = "start"
    TERMINATE = "terminate"  # SIGTERM to the whole group
    KILL = "kill"  # SIGKILL to the whole group
    SAY = "say"
    GIVE_UP = "give_up"


@dataclass(frozen=True, slots=True)
class Limits:
    """How patient to be with one process (from its ProcessSpec), in seconds."""

    ready_within_s: float
    stop_within_s: float


@dataclass(frozen=True, slots=True)
class State:
    phase: Phase = "stopped"
    since: float = 0.0  # when the phase began
    started_at: float = 0.0
    was_ready: bool = False  # ever, since `whet up` began
    failures: int = 0  # in a row, without RESET_AFTER_S of running between them
    restarts: int = 0
    deadline: float = 0.0  # waiting: when to start; ending: when to kill
    again: bool = False  # ending, and to be started again afterwards (it hung)
    last_exit: int | None = None
    failure: Failure = UNKNOWN  # why the last start ended before it was ready
    down_since: float | None = None  # when it stopped being ready; None: it is, or never was


@dataclass(frozen=True, slots=True)
class Event:
    kind: Literal["start", "ready", "exit", "tick", "stop"]
    code: int = 0  # exit code; negative: the signal's number
    failure: Failure = UNKNOWN  # exit: what its log says


@dataclass(frozen=True, slots=True)
class Step:
    state: State
    acts: tuple[Act, ...] = ()
    text: str = ""


def backoff_s(failures: int) -> float:
    """Seconds to wait before the next start after `failures` failures in a row (1, 2, …): 1, 2, 4,
    … at most 30.
    """
    return min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0 ** min(failures - 1, 10))


def describe_exit(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def plan(state: State, event: Event, now: float, limits: Limits) -> Step:
    """The next state of one process and what to carry out."""
    return _HANDLERS[event.kind](state, event, now, limits)


def _on_start(state: State, event: Event, now: float, limits: Limits) -> Step:
    if state.phase not in ("stopped", "waiting"):
        return Step(state)
    return Step(replace(state, phase="starting", since=now, started_at=now), (Act.START,))


def _on_ready(state: State, event: Event, now: float, limits: Limits) -> Step:
    if state.phase != "starting":
        return Step(state)
    text = f"ready after {now - state.started_at:.0f} s" + (
        " (started again)" if state.restarts else ""
    )
    ready = replace(
        state, phase="ready", since=now, was_ready=True, failure=UNKNOWN, down_since=None
    )
    return Step(ready, (Act.SAY,), text)


def _on_exit(state: State, event: Event, now: float, limits: Limits) -> Step:
    down_since = now if state.phase == "ready" else state.down_since
    state = replace(state, last_exit=event.code, since=now, down_since=down_since)
    # Whatever the process left in its group (an engine's workers, say) goes with it: it holds
    # memory and ports.
    if state.phase == "ending" and not state.again:
        return Step(replace(state, phase="stopped"), (Act.KILL,))
    if state.phase not in ("starting", "ready", "ending"):
        return Step(state, (Act.KILL,))
    failures = (
        1
        if now - state.started_at >= RESET_AFTER_S and state.phase == "ready"
        else state.failures + 1
    )
    what = (
        "did not become ready in time and was stopped" if state.again else describe_exit(event.code)
    )
    if state.phase == "starting" and event.code > 0:  # killed by a signal: nobody's configuration
        before, state = state.failure, replace(state, failure=event.failure)
        if _is_hopeless(event.failure, was_ready=state.was_ready) and event.failure.is_same(before):
            text = f"{what} twice for the same reason, so it is not started again"
            given_up = replace(state, phase="given_up", failures=failures, again=False)
            return Step(given_up, (Act.KILL, Act.GIVE_UP), text)
    if not state.was_ready and failures >= FIRST_START_TRIES:
        text = f"{what}, {failures} times in a row, before it was ever ready"
        return Step(
            replace(state, phase="given_up", failures=failures, again=False),
            (Act.KILL, Act.GIVE_UP),
            text,
        )
    pause = backoff_s(failures)
    text = f"{what}; starting it again in {pause:.0f} s"
    waiting = replace(
        state,
        phase="waiting",
        failures=failures,
        restarts=state.restarts + 1,
        deadline=now + pause,
        again=False,
    )
    return Step(waiting, (Act.KILL, Act.SAY), text)


def _is_hopeless(failure: Failure, *, was_ready: bool) -> bool:
    """Return whether a start that fails so twice would fail a third time.

    What ran here before had a configuration that works, so only errors of values and files count
    for it; of a first start, any that is not known to pass.
    """
    return failure.lasting or (not was_ready and not failure.transient)


def _on_tick(state: State, event: Event, now: float, limits: Limits) -> Step:
    if state.phase == "waiting" and now >= state.deadline:
        return _on_start(state, event, now, limits)
    if state.phase == "ending" and now >= state.deadline:
        return Step(replace(state, deadline=now + limits.stop_within_s), (Act.KILL,))
    if state.phase == "starting" and now - state.started_at >= limits.ready_within_s:
        text = f"is not ready after {limits.ready_within_s:.0f} s"
        if not state.was_ready:
            return Step(replace(state, phase="given_up", since=now), (Act.KILL, Act.GIVE_UP), text)
        ending = replace(
            state, phase="ending", since=now, deadline=now + limits.stop_within_s, again=True
        )
        return Step(ending, (Act.TERMINATE, Act.SAY), text + "; stopping it to start it again")
    if state.phase == "ready" and state.failures and now - state.started_at >= RESET_AFTER_S:
        return Step(replace(state, failures=0))
    return Step(state)


def _on_stop(state: State, event: Event, now: float, limits: Limits) -> Step:
    if state.phase in ("starting", "ready"):
        return Step(
            replace(
                state, phase="ending", since=now, deadline=now + limits.stop_within_s, again=False
            ),
            (Act.TERMINATE,),
        )
    if state.phase == "ending":
        return Step(replace(state, again=False))
    return Step(replace(state, phase="stopped", since=now) if state.phase == "waiting" else state)


_HANDLERS = {
    "start": _on_start,
    "ready": _on_ready,
    "exit": _on_exit,
    "tick": _on_tick,
    "stop": _on_stop,
}
