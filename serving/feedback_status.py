"""What became of an application's feedback: read from every package's tables, said in a sentence.

Pure: `serving.feedback_store` reads the facts. Reviewers' names and texts are not among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import msgspec

from whet.feedback_rules import DAILY_LIMITS, RATING_LOOKBACK_DAYS

State = Literal[
    "received", "waiting", "not_queued", "approved", "edited", "rejected", "skipped",
    "in_dataset", "live",
]  # fmt: skip

_DAY_MS = 86_400_000
_LATE_INTERVALS = 3  # flagging runs that may be missed before the sentence says that something is
_STATE_OF: Mapping[str, State] = {
    "approve": "approved", "edit": "edited", "reject": "rejected", "skip": "skipped",
}  # fmt: skip


# --- the answer -----------------------------------------------------------------------------------


class RatingSummary(msgspec.Struct, frozen=True):
    """One rating as it was posted. Instants of the answer are Unix seconds, as in OpenAI's API."""

    id: str
    rating: int
    comment: str | None
    correction: str | None
    labels: list[str]
    created_at: int


class ReviewSummary(msgspec.Struct, frozen=True):
    """The decision that stands."""

    decision: str  # approve | edit | reject | skip
    decided_at: int


class DatasetUse(msgspec.Struct, frozen=True):
    """A dataset version that holds the reviewed answer."""

    dataset: str  # support@3
    since: int


class VersionUse(msgspec.Struct, frozen=True):
    """A version that was trained on such a dataset, or on one built on it, and went live."""

    version: str  # support@v7
    live_since: int
    live: bool  # at this moment


class FeedbackOutcome(msgspec.Struct, frozen=True):
    """The body of GET /v1/feedback/{interaction_id}."""

    interaction_id: str
    state: State
    sentence: str
    ratings: list[RatingSummary]
    review: ReviewSummary | None
    datasets: list[DatasetUse]
    versions: list[VersionUse]
    object: str = "feedback"


# --- what is known --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rating:
    """A rating in the database, or one that this process has received. `created_at` in ms."""

    id: str
    rating: int
    comment: str | None
    correction: str | None
    labels: Sequence[str]
    created_at: int

    @property
    def asks_for_review(self) -> bool:
        return self.rating < 0 or self.correction is not None


@dataclass(frozen=True, slots=True)
class Interaction:
    """The answer that was rated."""

    status: str
    is_of_adapter: bool  # false: the base was asked by its own name


@dataclass(frozen=True, slots=True)
class Review:
    """The standing decision; `example_stands` is false once its example was withdrawn."""

    decision: str
    decided_at: int
    example_stands: bool


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Why the flagging job did not queue it when it last looked."""

    code: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset version; `parents` are digests."""

    digest: str
    label: str
    created_at: int
    parents: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Version:
    """An adapter, the dataset it was trained on, and since when it is or was stable last."""

    label: str
    dataset: Dataset
    live_since: int | None = None
    is_live: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of one answer and its feedback. Instants in ms."""

    interaction_id: str
    ratings: Sequence[Rating]
    interaction: Interaction | None = None  # None: its row has not arrived
    queued_at: int | None = None
    is_taken_out: bool = False  # of the queue, without a decision
    was_undone: bool = False  # a decision was taken back
    review: Review | None = None
    left_out: LeftOut | None = None
    holding: Sequence[Dataset] = ()  # dataset versions with the example, oldest first
    newest_without: Dataset | None = None  # built after the example, and does not hold it
    versions: Sequence[Version] = ()  # trained on these or their descendants


# --- decisions ------------------------------------------------------------------------------------


def descendants(roots: Sequence[Dataset], known: Sequence[Dataset]) -> list[Dataset]:
    """The roots and all of `known` that were built on them, directly or through others."""
    reached = {dataset.digest: dataset for dataset in roots}
    while fresh := [
        dataset
        for dataset in known
        if dataset.digest not in reached and not reached.keys().isdisjoint(dataset.parents)
    ]:
        reached.update({dataset.digest: dataset for dataset in fresh})
    return list(reached.values())


def live_times(
    history: Sequence[tuple[str, str | None, int]],
) -> dict[str, tuple[int, bool]]:
    """Map each digest to when it went live last (ms), and whether it is live now under any alias.

    `history`: (alias, stable digest, since) of every generation, in order within its alias.
    """
    periods: dict[str, list[tuple[int, bool]]] = {}
    for position, (alias, digest, since) in enumerate(history):
        before = history[position - 1] if position else None
        after = history[position + 1] if position + 1 < len(history) else None
        if digest is None:
            continue
        if before is None or before[:2] != (alias, digest):
            periods.setdefault(digest, []).append((since, False))
        if after is None or after[0] != alias:
            periods[digest][-1] = (periods[digest][-1][0], True)
    return {
        digest: max(found, key=lambda period: (period[1], period[0]))
        for digest, found in periods.items()
    }


def assemble(facts: Facts, *, flag_interval_s: float, now: int) -> FeedbackOutcome:
    """The state, its sentence and the lists. `now` in ms."""
    state, sentence = _state(facts, flag_interval_s, now)
    review = facts.review
    return FeedbackOutcome(
        interaction_id=facts.interaction_id,
        state=state,
        sentence=sentence,
        ratings=[
            RatingSummary(
                each.id, each.rating, each.comment, each.correction, list(each.labels),
                each.created_at // 1000,
            )
            for each in facts.ratings
        ],
        review=ReviewSummary(review.decision, review.decided_at // 1000) if review else None,
        datasets=[DatasetUse(each.label, each.created_at // 1000) for each in facts.holding],
        versions=[
            VersionUse(each.label, each.live_since // 1000, each.is_live)
            for each in facts.versions
            if each.live_since is not None
        ],
    )  # fmt: skip


def _state(facts: Facts, flag_interval_s: float, now: int) -> tuple[State, str]:
    if facts.interaction is None:
        return "received", (
            "The feedback is kept. The answer that it names is not in the log yet: the row of a "
            "fresh answer can take a second to arrive. Nothing comes of feedback on an answer "
            "that never was."
        )
    if facts.review is not None:
        return _decided(facts, facts.review)
    if facts.is_taken_out:
        return "skipped", (
            "It left the queue without a decision, because what its end user said was erased."
        )
    if facts.queued_at is not None:
        undone = " An earlier decision was taken back." if facts.was_undone else ""
        return "waiting", f"It waits for a reviewer since {_time(facts.queued_at)}.{undone}"
    return _not_queued(facts, facts.interaction, flag_interval_s, now)


def _decided(facts: Facts, review: Review) -> tuple[State, str]:
    state = _STATE_OF[review.decision]
    if state == "rejected":
        return state, "A reviewer rejected the conversation: nothing is learned from it."
    if state == "skipped":
        return state, "A reviewer passed over the conversation: nothing is learned from it."
    what = (
        "A reviewer found the answer right as it was."
        if state == "approved"
        else "A reviewer wrote what the answer should have been."
    )
    if not review.example_stands:
        return state, f"{what} The example that was made of it has been withdrawn."
    went_live = [version for version in facts.versions if version.live_since is not None]
    if went_live:
        return "live", f"{what} {_went_live(facts, went_live)}"
    if facts.holding:
        first = facts.holding[0]
        trained = (
            f"{facts.versions[-1].label} was trained on it and has not gone live."
            if facts.versions
            else "No version has been trained on it yet."
        )
        return "in_dataset", (
            f"{what} It is in the dataset {first.label} since {_time(first.created_at)}. {trained}"
        )
    if facts.newest_without is not None:
        return state, (
            f"{what} The dataset {facts.newest_without.label}, built since, does not hold it: "
            "what is left out of a dataset, and why, stands in its manifest."
        )
    return state, f"{what} It can enter the next dataset version."


def _went_live(facts: Facts, went_live: Sequence[Version]) -> str:
    version = max(went_live, key=lambda each: (each.is_live, each.live_since or 0))
    since = _time(version.live_since or 0)
    direct = {dataset.digest for dataset in facts.holding}
    dataset = version.dataset
    built = (
        f"the dataset {dataset.label}"
        if dataset.digest in direct
        else f"the dataset {dataset.label}, built on {facts.holding[0].label} that holds it,"
    )
    if version.is_live:
        return f"{version.label} was trained on {built} and is live since {since}."
    return (
        f"{version.label} was trained on {built} and went live at {since}; another version is live "
        "now."
    )


def _not_queued(
    facts: Facts, interaction: Interaction, flag_interval_s: float, now: int
) -> tuple[State, str]:
    asking = [rating for rating in facts.ratings if rating.asks_for_review]
    if not facts.ratings:
        return "not_queued", (
            "No feedback on this answer has been received, and nothing else has brought it to "
            "reviewers."
        )
    if interaction.status != "complete":
        return "not_queued", (
            f"The answer was not complete (its status is {interaction.status}): only complete "
            "answers are reviewed."
        )
    if not interaction.is_of_adapter:
        return "not_queued", (
            "The base model was asked by its own name: no adapter can learn from the answer. "
            "Ask through an alias."
        )
    if not asking:
        return "not_queued", (
            "Ratings of 0 and 1 without a correction are counted, but bring no answer to reviewers."
        )
    newest = asking[-1].created_at
    until = newest + RATING_LOOKBACK_DAYS * _DAY_MS
    if now > until:
        return "not_queued", (
            f"The feedback is older than {RATING_LOOKBACK_DAYS} days and was not queued in that "
            "time; it will not be."
        )
    if facts.left_out is not None:
        return "not_queued", f"{facts.left_out.sentence}{_next_look(facts.left_out, until, now)}"
    if now - newest > _LATE_INTERVALS * flag_interval_s * 1000:
        return "received", (
            "The feedback is kept, but was not looked at yet, although that happens every "
            f"{flag_interval_s:g} s: the scheduler does not run, or much newer feedback comes "
            "first."
        )
    return "received", (
        f"The feedback is kept. It is looked at within {flag_interval_s:g} s, and queued for "
        "reviewers if there is room."
    )


def _next_look(left_out: LeftOut, until: int, now: int) -> str:
    if left_out.code not in DAILY_LIMITS:
        return ""
    midnight = now - now % _DAY_MS + _DAY_MS
    if midnight > until:
        return f" By the next day it is older than {RATING_LOOKBACK_DAYS} days, so it stays out."
    return f" It is looked at again after {_time(midnight)}."


def _time(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
