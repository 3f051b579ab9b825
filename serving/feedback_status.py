"""What became of an application's feedback: read from every package's tables, said in a sentence.

`load_facts` holds all queries, `assemble` is pure. Reviewers' names and texts are never read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import msgspec
from sqlalchemy import Connection, Text, cast, or_, select

from serving.log.records import RatingRecord
from whet.access import same_group
from whet.feedback_rules import DAILY_LIMITS, RATING_LOOKBACK_DAYS
from whet.tables import (
    adapters,
    api_keys,
    datasets,
    examples,
    interactions,
    ratings,
    review_items,
    review_left_out,
    reviews,
    rollouts,
)

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


# --- queries --------------------------------------------------------------------------------------


def is_own_interaction(connection: Connection, interaction_id: str, key_id: str) -> bool | None:
    """Whether a key of `key_id`'s group asked for the answer; None while its row is not there."""
    query = select(same_group(interactions.c.api_key_id, key_id))
    found = connection.execute(query.where(interactions.c.id == interaction_id)).scalar()
    return None if found is None else bool(found)


def load_facts(
    connection: Connection, interaction_id: str, key_id: str, received: Sequence[RatingRecord] = ()
) -> Facts | None:
    """Read what became of an answer for a key of the group that asked for it.

    `received`: ratings of this process that may not be in the database yet.
    Returns None when no such answer and no rating is known, or they are another group's.
    """
    row = connection.execute(
        select(
            interactions.c.status,
            interactions.c.alias,
            interactions.c.adapter,
            same_group(interactions.c.api_key_id, key_id).label("is_own"),
        ).where(interactions.c.id == interaction_id)
    ).first()
    if row is not None and not row.is_own:
        return None
    given = _ratings(connection, interaction_id, key_id, received)
    if row is None:
        return Facts(interaction_id, given) if given else None
    interaction = Interaction(row.status, bool(row.alias or row.adapter))
    return _reviewed(connection, interaction_id, interaction, given)


def _ratings(
    connection: Connection, interaction_id: str, key_id: str, received: Sequence[RatingRecord]
) -> list[Rating]:
    stored = connection.execute(
        select(ratings).where(
            ratings.c.interaction_id == interaction_id, same_group(ratings.c.api_key_id, key_id)
        )
    )
    found = {
        row.id: Rating(
            row.id, row.rating, row.comment, row.correction, row.labels or [], row.created_at
        )
        for row in stored
    }
    keys = {record.api_key_id for record in received}
    mates = select(api_keys.c.id).where(
        api_keys.c.id.in_(keys), same_group(api_keys.c.id, key_id)
    )
    own = {key_id, *connection.execute(mates).scalars()} if keys else set()
    for record in received:
        if record.api_key_id in own and record.id not in found:
            labels = msgspec.json.decode(record.labels) or []
            found[record.id] = Rating(
                record.id, record.rating, record.comment, record.correction, labels,
                record.created_at,
            )  # fmt: skip
    return sorted(found.values(), key=lambda rating: (rating.created_at, rating.id))


def _reviewed(
    connection: Connection, interaction_id: str, interaction: Interaction, given: Sequence[Rating]
) -> Facts:
    item = connection.execute(
        select(review_items.c.state, review_items.c.created_at).where(
            review_items.c.interaction_id == interaction_id
        )
    ).first()
    if item is None:
        left_out = connection.execute(
            select(review_left_out.c.reason, review_left_out.c.sentence).where(
                review_left_out.c.interaction_id == interaction_id
            )
        ).first()
        return Facts(
            interaction_id,
            given,
            interaction,
            left_out=LeftOut(left_out.reason, left_out.sentence) if left_out else None,
        )
    decisions = connection.execute(
        select(reviews.c.id, reviews.c.decision, reviews.c.created_at, reviews.c.standing).where(
            reviews.c.interaction_id == interaction_id
        )
    ).all()
    made = connection.execute(
        select(
            examples.c.id, examples.c.review_id, examples.c.created_at, examples.c.withdrawn_at,
            examples.c.alias,
        ).where(examples.c.review_id.in_([decision.id for decision in decisions]))
    ).all()  # fmt: skip
    decision = next((each for each in decisions if each.standing is not None), None)
    of_review = [each for each in made if decision is not None and each.review_id == decision.id]
    stands = any(each.withdrawn_at is None for each in of_review)
    counted = of_review or made  # after an undo: what older versions still hold
    alias = counted[0].alias if counted else ""
    since = min((each.created_at for each in counted), default=0)
    known = _datasets(connection, [each.id for each in counted], since) if counted else {}
    holding = [dataset for dataset, holds in known.values() if holds]
    newest = max(
        (each for each in known.values() if each[0].label.rpartition("@")[0] == alias),
        key=lambda each: each[0].created_at,
        default=None,
    )
    return Facts(
        interaction_id,
        given,
        interaction,
        queued_at=item.created_at,
        is_taken_out=item.state == "skipped" and decision is None,
        was_undone=any(each.standing is None for each in decisions),
        review=decision and Review(decision.decision, decision.created_at, stands),
        holding=holding,
        newest_without=newest[0] if newest and not newest[1] else None,
        versions=_versions(connection, holding, [dataset for dataset, _ in known.values()]),
    )


def _datasets(
    connection: Connection, example_ids: Sequence[str], since: int
) -> dict[str, tuple[Dataset, bool]]:
    """Digest → the version, and whether it holds one of the examples; oldest first."""
    ids = cast(datasets.c.example_ids, Text)
    holds = or_(*(ids.contains(f'"{each}"', autoescape=True) for each in example_ids))
    query = select(
        datasets.c.digest, datasets.c.name, datasets.c.version, datasets.c.parents,
        datasets.c.created_at, holds.label("holds"),
    ).where(datasets.c.created_at >= since)  # fmt: skip
    rows = connection.execute(query.order_by(datasets.c.created_at, datasets.c.version))
    return {
        row.digest: (
            Dataset(row.digest, f"{row.name}@{row.version}", row.created_at, row.parents or []),
            bool(row.holds),
        )
        for row in rows
    }


def _versions(
    connection: Connection, holding: Sequence[Dataset], later: Sequence[Dataset]
) -> list[Version]:
    """Versions trained on a dataset that holds the example, or on one built on such a dataset."""
    reached = {dataset.digest: dataset for dataset in descendants(holding, later)}
    if not reached:
        return []
    columns = (
        adapters.c.digest, adapters.c.name, adapters.c.version, adapters.c.dataset_digest,
    )  # fmt: skip
    trained = connection.execute(
        select(*columns)
        .where(adapters.c.dataset_digest.in_(reached))
        .order_by(adapters.c.created_at, adapters.c.version)
    ).all()
    stable = rollouts.alias()
    digests = [row.digest for row in trained]
    concerned = select(stable.c.alias).where(stable.c.stable_digest.in_(digests))
    history = connection.execute(
        select(rollouts.c.alias, rollouts.c.stable_digest, rollouts.c.created_at)
        .where(rollouts.c.alias.in_(concerned))
        .order_by(rollouts.c.alias, rollouts.c.generation)
    )
    times = live_times([(row.alias, row.stable_digest, row.created_at) for row in history])
    found = []
    for row in trained:
        since, is_live = times.get(row.digest, (None, False))
        label, dataset = f"{row.name}@v{row.version}", reached[row.dataset_digest]
        found.append(Version(label, dataset, since, is_live))
    return found


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
            "Ratings of 0 and 1 without a correction are counted, but bring no answer to "
            "reviewers."
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
