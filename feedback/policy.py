"""When to ask for training. Pure: the state of one alias in, a decision and its sentence out.

| asked for              | why                                                                                     |
|------------------------|-----------------------------------------------------------------------------------------|
| enough new examples    | reviewed examples are the only thing that teaches; an alarm alone teaches nothing         |
| no request under way   | two runs on nearly the same rows waste a machine and leave two candidates                 |
| no canary              | a second candidate would take the traffic that the first one's verdict needs              |
| the cooldown is over   | a burst of reviews becomes one run, not five                                              |
| `retrain_auto`         | an operator may keep the last word; the policy then only says what it would do            |

Drift never asks for training by itself: it fills the review queue, and what people then correct counts here. The random audit may: when people's
own judgements say that more answers are wrong than in the weeks before, a quarter of the examples is enough, and nobody waits for the cooldown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from whet.settings import Settings

_URGENT_PART = 4  # fewer would teach one week's accidents, more would wait while users get wrong answers


@dataclass(frozen=True, slots=True)
class Policy:
    min_examples: int
    cooldown_ms: int
    auto: bool


@dataclass(frozen=True, slots=True)
class State:
    """What is known of one alias. Instants in ms."""

    alias: str
    new_examples: int  # standing, and not in the dataset of the last request
    last_request_at: int | None = None
    unfinished_request: str | None = None  # id of a request whose run is not over
    run_started: bool = False  # a worker has taken that request up
    canary: str | None = None  # label of the candidate that gets a share of the traffic
    open_alerts: int = 0
    more_errors: bool = False  # the random audit says that more answers are wrong than in the weeks before


@dataclass(frozen=True, slots=True)
class Decision:
    ask: bool
    reason: str  # a sentence
    code: str  # what changed when this changes; the sentence's numbers change more often


def policy_of(settings: Settings) -> Policy:
    return Policy(settings.retrain_min_examples, int(settings.retrain_cooldown_s * 1000), settings.retrain_auto)


def decide(state: State, policy: Policy, now: int) -> Decision:
    """The first thing that stands against training, or the reason for it."""
    if state.unfinished_request:
        if state.run_started:
            return Decision(False, f"Training for {state.alias} is under way ({state.unfinished_request}).", "running")
        return Decision(False, f"Training for {state.alias} is asked for and waits for a worker ({state.unfinished_request}).", "waiting")
    needed = max(1, policy.min_examples // _URGENT_PART) if state.more_errors else policy.min_examples
    if state.new_examples < needed:
        return Decision(False, f"{_examples(state.new_examples)} of the {needed} needed.{_alarm(state)}", "too_few")
    if state.canary:
        return Decision(False, f"{_examples(state.new_examples)} wait; {state.canary} is being tried on live traffic, and its verdict comes first.", "canary")
    if state.last_request_at is not None and not state.more_errors and now < state.last_request_at + policy.cooldown_ms:
        left_s = (state.last_request_at + policy.cooldown_ms - now) / 1000
        return Decision(False, f"{_examples(state.new_examples)} wait; the pause after the last request lasts another {_duration(left_s)}.", "cooldown")
    if not policy.auto:
        return Decision(False, f"{_examples(state.new_examples)} are enough to train, but retrain_auto is off: an operator has to ask.", "manual")
    why = " while the random audit finds more wrong answers" if state.more_errors else ""
    return Decision(True, f"{_examples(state.new_examples)} since the last training request; {needed} are enough{why}.", "ask")


def _examples(count: int) -> str:
    return f"{count} new reviewed example{'' if count == 1 else 's'}"


def _alarm(state: State) -> str:
    if not state.open_alerts:
        return ""
    return f" {state.open_alerts} alert{' is' if state.open_alerts == 1 else 's are'} open: review what they name, since an alarm alone teaches nothing."


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{math.ceil(seconds / length)} {unit}"
    return f"{math.ceil(seconds)} s"
