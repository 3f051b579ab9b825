"""Decides when training is asked for. Pure: the state of an alias in, a decision out.

| asked for when               | why                                                                     |
|------------------------------|-------------------------------------------------------------------------|
| no training is under way     | two runs on nearly the same rows leave two candidates                   |
| enough new examples          | what the next version holds beyond what the last training learned from; |
|                              | an alarm alone teaches nothing                                          |
| enough of them teach         | an answer that lacked a document, or a passage in its prompt, is        |
|                              | repaired there (`whet replay --matrix`), today and for less             |
| the rows were not trained on | the same rows give the same version again                               |
| no trial is under way        | a second candidate would take the traffic of the first one's verdict    |
| the last training succeeded, | a cancelled run is what a person wanted, and a failed one may fail      |
| or its pause is over         | again; each further one doubles the pause, and the third on the same    |
|                              | rows is the last                                                        |
| the cooldown is over         | a burst of reviews becomes one run, not five                            |
| `retrain_auto`               | an operator may keep the last word                                      |
| nobody reviews now           | a version of half a review lacks the other half; the wait has a bound   |

Drift never asks for training by itself: it fills the review queue, and what people then correct
counts here. The random audit may: when people's own judgements say that more answers are wrong
than in the weeks before, a quarter of the examples is enough, and nobody waits for the cooldown.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass

from whet.settings import Settings

# Fewer would teach one week's accidents; more would wait while users get wrong answers.
_URGENT_PART = 4
# Long enough for an operator to put right what made a run fail, or to do what it was cancelled for.
RETRY_PAUSE_MS = 3_600_000
MAX_RETRY_PAUSE_MS = 24 * 3_600_000  # a day: after that only a person can know more
MAX_TRIES = 3  # trainings on exactly the same rows that may end without a version


@dataclass(frozen=True, slots=True)
class Policy:
    """From the settings; durations in ms."""

    min_examples: int
    cooldown_ms: int
    auto: bool
    quiet_ms: int = 600_000  # without a decision for this long, a review is over
    review_wait_ms: int = 7_200_000  # the longest wait for the end of a review
    recipe: str = "continue"


@dataclass(frozen=True, slots=True)
class EndedTraining:
    """The newest training of the alias, where it ended without a version."""

    run: str
    state: str  # failed | cancelled
    reason: str  # who cancelled it, or its error
    ended_at: int
    in_a_row: int  # trainings of the alias that ended so, one after the other; this one is the last
    same_rows: int  # trainings on exactly the rows of the next version that ended so


@dataclass(frozen=True, slots=True)
class Review:
    """What people are doing with the review queue of the alias. Instants in ms."""

    waiting: int = 0  # conversations in the queue
    last_decision_at: int | None = None  # or when the newest one was undone
    began_at: int | None = None  # the first of the decisions that follow each other within quiet_ms


@dataclass(frozen=True, slots=True)
class Repairs:
    """How many of the new examples correct what training is not needed for, by their verdicts."""

    document: int = 0  # no document stated it
    search: int = 0  # a passage did, and was not in the prompt, or was lost among others

    @property
    def total(self) -> int:
        return self.document + self.search


@dataclass(frozen=True, slots=True)
class State:
    """What is known of one alias. Instants in ms."""

    alias: str
    new_examples: int  # in the next dataset version, and not in what the last training learned from
    last_request_at: int | None = None
    unfinished_request: str | None = None  # id of a request or run that is not over
    run_started: bool = False  # a worker has taken that request up
    canary: str | None = None  # label of the version that is tried, or that passed and is undecided
    canary_has_traffic: bool = True  # false: it passed its gate, and its trial has not begun
    open_alerts: int = 0
    more_errors: bool = False  # the random audit finds more wrong answers than in the weeks before
    dataset: str | None = None  # label of the version with exactly the next one's rows, if built
    trained_by: str | None = None  # run that made a version of exactly these rows
    ended: EndedTraining | None = None
    review: Review = Review()
    clear_since: int | None = None  # enough examples stand and no run or trial is in the way since
    obstacle: str = ""  # why the next version cannot be built
    repairs: Repairs = Repairs()
    training_ms: int | None = None  # what the last training took; None: there was none


@dataclass(frozen=True, slots=True)
class Decision:
    ask: bool
    reason: str  # a sentence
    code: str  # what changed when this changes; the sentence's numbers change more often


def policy_of(settings: Settings) -> Policy:
    """Return the policy that the settings describe."""
    return Policy(
        min_examples=settings.retrain_min_examples,
        cooldown_ms=int(settings.retrain_cooldown_s * 1000),
        auto=settings.retrain_auto,
        quiet_ms=int(settings.retrain_quiet_s * 1000),
        review_wait_ms=int(settings.retrain_review_wait_s * 1000),
        recipe=settings.retrain_recipe,
    )


def needed_examples(policy: Policy, *, more_errors: bool) -> int:
    """Return how many new examples are enough."""
    return max(1, policy.min_examples // _URGENT_PART) if more_errors else policy.min_examples


def retry_pause_ms(in_a_row: int) -> int:
    """Return the pause after so many trainings in a row that ended without a version."""
    doublings = max(0, min(in_a_row - 1, 10))
    return min(RETRY_PAUSE_MS << doublings, MAX_RETRY_PAUSE_MS)


def training_command(state: State, policy: Policy) -> str:
    """Return the command line with which a person trains on the next version's rows now."""
    alias, recipe = shlex.quote(state.alias), shlex.quote(policy.recipe)
    train = f"--alias {alias} --recipe {recipe}"
    if state.dataset is not None:
        return f"whet train run --dataset {shlex.quote(state.dataset)} {train}"
    return f"whet datasets build --alias {alias} && whet train run --dataset {alias} {train}"


def decide(state: State, policy: Policy, now: int) -> Decision:
    """Return the first thing that stands against training, or the reason for it."""
    if state.unfinished_request:
        return _under_way(state, state.unfinished_request)
    if state.obstacle:
        return Decision(False, state.obstacle, "blocked")
    needed = needed_examples(policy, more_errors=state.more_errors)
    have = _examples(state.new_examples)
    if state.new_examples < needed:
        return Decision(False, f"{have} of the {needed} needed.{_alarm(state)}", "too_few")
    if state.new_examples - state.repairs.total < needed:
        return Decision(False, f"{have}. {_repair_elsewhere(state, needed)}", "documents")
    if state.trained_by:
        sentence = (
            f"{have}, but training on exactly these rows ({state.dataset}) was done already "
            f"({state.trained_by}). Reviews that change the rows count."
        )
        return Decision(False, sentence, "nothing_new")
    if state.canary:
        return Decision(False, f"{have} wait; {_trial(state)}", "canary")
    waits = _waits_after_unsuccessful(state, policy, now) or _waits_for_cooldown(state, policy, now)
    if waits:
        return waits
    if not policy.auto:
        sentence = (
            f"{have} are enough to train, but retrain_auto is off: an operator has to ask, with "
            f"`{training_command(state, policy)}`."
        )
        return Decision(False, sentence, "manual")
    if waits := _waits_for_review(state, policy, now):
        return waits
    why = " while the random audit finds more wrong answers" if state.more_errors else ""
    sentence = f"{have} since the last training; {needed} are enough{why}."
    if state.repairs.total:
        sentence = f"{sentence} {_repairs(state)}"
    return Decision(True, sentence, "ask")


def _under_way(state: State, unfinished: str) -> Decision:
    if state.run_started:
        sentence = f"Training for {state.alias} is under way ({unfinished})."
        return Decision(False, sentence, "running")
    sentence = f"Training for {state.alias} is asked for and waits for a worker ({unfinished})."
    return Decision(False, sentence, "waiting")


def _trial(state: State) -> str:
    if state.canary_has_traffic:
        return f"{state.canary} is being tried on live traffic, and its verdict comes first."
    alias, version = shlex.quote(state.alias), shlex.quote(state.canary or "")
    return (
        f"{state.canary} passed its gate and its rollout is not decided, which comes first. Its "
        "trial begins by itself when every engine has proved it; where rollouts wait for a person, "
        f"`whet rollout promote {alias} {version}` or `whet adapters remove {version}` decides."
    )


def _waits_after_unsuccessful(state: State, policy: Policy, now: int) -> Decision | None:
    ended = state.ended
    if ended is None:
        return None
    how = "was cancelled" if ended.state == "cancelled" else "failed"
    last = f"{how} ({ended.run}: {ended.reason.rstrip('.')})"
    command = f"To train now: `{training_command(state, policy)}`."
    if ended.same_rows >= MAX_TRIES:
        sentence = (
            f"{_examples(state.new_examples)} wait; {ended.same_rows} trainings on exactly these "
            f"rows ended without a version, and the last training {last}. Training is asked for "
            f"again when a review changes the rows. {command}"
        )
        return Decision(False, sentence, "gave_up")
    left_ms = ended.ended_at + retry_pause_ms(ended.in_a_row) - now
    if left_ms <= 0:
        return None
    sentence = (
        f"{_examples(state.new_examples)} wait; the last training {last}, and the next is asked "
        f"for in {_duration(left_ms)}. {command}"
    )
    return Decision(False, sentence, ended.state)


def _waits_for_cooldown(state: State, policy: Policy, now: int) -> Decision | None:
    if state.last_request_at is None or state.more_errors:
        return None
    left_ms = state.last_request_at + policy.cooldown_ms - now
    if left_ms <= 0:
        return None
    sentence = (
        f"{_examples(state.new_examples)} wait; the pause after the last request lasts another "
        f"{_duration(left_ms)}."
    )
    return Decision(False, sentence, "cooldown")


def _waits_for_review(state: State, policy: Policy, now: int) -> Decision | None:
    review = state.review
    if not review.waiting or review.last_decision_at is None:
        return None
    quiet_at = review.last_decision_at + policy.quiet_ms
    latest = _could_ask_since(state, policy) + policy.review_wait_ms
    if now >= min(quiet_at, latest):
        return None
    verb = "waits" if review.waiting == 1 else "wait"
    sentence = (
        f"{_examples(state.new_examples)} are enough, and people are reviewing: "
        f"{review.waiting} more {verb} in the queue, and training is asked for when it is empty, "
        f"after {_duration(policy.quiet_ms)} without a decision, or in {_duration(latest - now)}."
    )
    return Decision(False, sentence, "reviewing")


def _could_ask_since(state: State, policy: Policy) -> int:
    """Return since when only the review stands against training; the bound counts from here."""
    since = [state.clear_since, state.review.began_at]
    if state.ended is not None:
        since.append(state.ended.ended_at + retry_pause_ms(state.ended.in_a_row))
    if state.last_request_at is not None and not state.more_errors:
        since.append(state.last_request_at + policy.cooldown_ms)
    return max((instant for instant in since if instant is not None), default=0)


def _repair_elsewhere(state: State, needed: int) -> str:
    left = state.new_examples - state.repairs.total
    sentence = f"{_repairs(state)} {left} of the {needed} needed ask for training."
    if state.training_ms is None:
        return sentence
    return f"{sentence} The last training took {_duration(state.training_ms)}."


def _repairs(state: State) -> str:
    """Propose what repairs the answers that training is not needed for."""
    document, search = state.repairs.document, state.repairs.search
    of_all = f"of {state.new_examples} wrong answers"
    found = []
    if document:
        verb = "lacks" if document == 1 else "lack"
        found.append(
            f"{document} {of_all} {verb} a document: add documents (`whet documents add`)."
        )
    if search:
        verb = "has" if search == 1 else "have"
        found.append(
            f"{search} {of_all} {verb} one that did not reach the answer: change the search "
            "(`whet documents attach`)."
        )
    return " ".join(found)


def _examples(count: int) -> str:
    return f"{count} new reviewed example{'' if count == 1 else 's'}"


def _alarm(state: State) -> str:
    if not state.open_alerts:
        return ""
    alerts = f"{state.open_alerts} alert{' is' if state.open_alerts == 1 else 's are'} open"
    return f" {alerts}: review what they name, since an alarm alone teaches nothing."


def _duration(ms: int) -> str:
    seconds = ms / 1000
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{math.ceil(seconds / length)} {unit}"
    return f"{math.ceil(seconds)} s"
