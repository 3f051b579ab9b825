"""Queries on what the retraining policy wants to know: trainings, trials, reviews and alerts."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Select, and_, func, or_, select

from feedback.claims import was_skipped
from feedback.policy import EndedTraining, Review
from whet.registry import Adapter, Rollout, current_rollouts, list_adapters, objection
from whet.tables import (
    alerts,
    blame_verdicts,
    datasets,
    examples,
    replicas,
    review_items,
    reviews,
    rollouts,
    training_requests,
    training_runs,
)

_OVER = ("succeeded", "failed", "cancelled")
# What a verdict names → what repairs it: no training.
_DOCUMENT, _SEARCH = ("document",), ("index", "prompt")
_BATCH = 500  # ids in one statement, below every database's limit of parameters
_LOOKED_BACK = 50  # requests: far more in a row than the longest pause needs


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A request or run that is not over."""

    id: str
    is_started: bool
    run: str | None
    dataset_digest: str


@dataclass(frozen=True, slots=True)
class Success:
    """A run that made a version."""

    run: str
    dataset_digest: str
    ended_at: int


@dataclass(frozen=True, slots=True)
class RepairedElsewhere:
    """Ids of examples whose answer a document or the search repairs."""

    document: frozenset[str]
    search: frozenset[str]


@dataclass(frozen=True, slots=True)
class Trial:
    """A version that is tried, or passed its gate and is not decided about."""

    label: str
    has_traffic: bool


def standing_aliases(connection: Connection) -> list[str]:
    """Return aliases that have standing examples: the only ones that could learn something."""
    query = select(examples.c.alias).where(examples.c.withdrawn_at.is_(None)).distinct()
    return [str(alias) for alias in connection.execute(query.order_by(examples.c.alias)).scalars()]


def unfinished(connection: Connection, alias: str) -> Unfinished | None:
    """Return the request that is not over, or a run that a person started by hand."""
    request, run = training_requests.c, training_runs.c
    query = (
        select(request.id, request.dataset_digest, run.id.label("run"))
        .join(training_runs, run.request_id == request.id, isouter=True)
        .where(request.alias == alias, run.state.is_(None) | run.state.not_in(_OVER))
        .order_by(request.created_at.desc())
    )
    if row := connection.execute(query.limit(1)).first():
        return Unfinished(row.id, row.run is not None, row.run, row.dataset_digest)
    by_hand = connection.execute(
        select(run.id, run.dataset_digest)
        .where(run.alias == alias, run.state.not_in(_OVER))
        .limit(1)
    ).first()
    return Unfinished(by_hand.id, True, by_hand.id, by_hand.dataset_digest) if by_hand else None


def _made_a_version() -> ColumnElement[bool]:
    """Return the condition for runs that the alias's next version builds on.

    What a run by hand wrote into a folder of its own is no version.
    """
    in_folder = func.coalesce(training_runs.c.recipe["into"].as_string(), "") != ""
    by_hand = training_runs.c.request_id.is_(None)
    return and_(training_runs.c.state == "succeeded", ~and_(by_hand, in_folder))


def last_success(connection: Connection, alias: str) -> Success | None:
    """Return the newest run that made a version."""
    row = connection.execute(_successes(alias).limit(1)).first()
    return Success(row.id, row.digest, row.ended_at) if row else None


def _successes(alias: str) -> Select[tuple[str, str, int]]:
    run = training_runs.c
    ended_at = func.coalesce(run.finished_at, run.started_at).label("ended_at")
    # A run may go on with rows made from those it was asked for: what a teacher answered to them.
    digest = func.coalesce(training_requests.c.dataset_digest, run.dataset_digest).label("digest")
    return (
        select(run.id, digest, ended_at)
        .join(training_requests, run.request_id == training_requests.c.id, isouter=True)
        .where(run.alias == alias, _made_a_version())
        .order_by(ended_at.desc(), run.started_at.desc(), run.id.desc())
    )


def examples_in(connection: Connection, digest: str) -> frozenset[str]:
    """Return the reviewed examples in a dataset version; none where there is no such version."""
    query = select(datasets.c.example_ids).where(datasets.c.digest == digest)
    return frozenset(connection.execute(query).scalar() or ())


def repaired_elsewhere(connection: Connection, example_ids: frozenset[str]) -> RepairedElsewhere:
    """Return which of the examples correct an answer that needs no training, by its verdict.

    A verdict on an earlier review of the answer does not count.
    """
    verdict, example = blame_verdicts.c, examples.c
    faults: dict[str, str] = {}
    ids = sorted(example_ids)
    for start in range(0, len(ids), _BATCH):
        query = (
            select(example.id, verdict.fault)
            .join(blame_verdicts, verdict.interaction_id == example.interaction_id)
            .where(
                example.id.in_(ids[start : start + _BATCH]),
                or_(verdict.review_id.is_(None), verdict.review_id == example.review_id),
            )
        )
        faults |= {row.id: row.fault for row in connection.execute(query)}
    document, search = (
        frozenset(found for found, fault in faults.items() if fault in wanted)
        for wanted in (_DOCUMENT, _SEARCH)
    )
    return RepairedElsewhere(document, search)


def training_ms(connection: Connection, alias: str) -> int | None:
    """Return how long the newest training that made a version took."""
    run = training_runs.c
    query = select(run.finished_at, run.started_at).where(run.alias == alias, _made_a_version())
    query = query.where(run.finished_at.is_not(None)).order_by(run.finished_at.desc())
    row = connection.execute(query.limit(1)).first()
    return row.finished_at - row.started_at if row else None


def trained_by(connection: Connection, alias: str, digest: str) -> str | None:
    """Return the newest run that made a version of the alias from exactly that dataset."""
    made = _successes(alias).subquery()
    query = select(made.c.id).where(made.c.digest == digest).order_by(made.c.ended_at.desc())
    found = connection.execute(query.limit(1)).scalar()
    return str(found) if found else None


def attempts(connection: Connection, alias: str, digest: str) -> int:
    """Return how often training on these rows was asked for."""
    request = training_requests.c
    query = select(func.coalesce(func.max(request.attempt), 0))
    query = query.where(request.alias == alias, request.dataset_digest == digest)
    return int(connection.execute(query).scalar_one())


def last_request_at(connection: Connection, alias: str) -> int | None:
    """Return when training of the alias was asked for last."""
    query = select(func.max(training_requests.c.created_at))
    return connection.execute(query.where(training_requests.c.alias == alias)).scalar()


def ended_training(connection: Connection, alias: str, digest: str | None) -> EndedTraining | None:
    """Return the newest requested training, where it ended without a version.

    Those before the last success no longer matter. `digest` is that of the next version.
    """
    success = last_success(connection, alias)
    since = success.ended_at if success else -1
    found = [
        row
        for row in connection.execute(_ended_requests(alias).limit(_LOOKED_BACK))
        if row.ended_at > since
    ]
    if not found:
        return None
    newest = found[0]
    same_rows = _ended_requests(alias).where(training_requests.c.dataset_digest == digest)
    by = newest.cancel_requested_by or "an operator"
    reason = f"by {by}" if newest.state == "cancelled" else " ".join((newest.error or "").split())
    return EndedTraining(
        run=newest.id,
        state=newest.state,
        reason=reason if len(reason) <= 160 else f"{reason[:159].rstrip()}…",
        ended_at=newest.ended_at,
        in_a_row=len(found),
        same_rows=len(connection.execute(same_rows.limit(_LOOKED_BACK)).all()),
    )


def _ended_requests(alias: str) -> Select[tuple[str, str, str | None, str | None, int]]:
    run = training_runs.c
    ended_at = func.coalesce(run.finished_at, run.heartbeat_at).label("ended_at")
    return (
        select(run.id, run.state, run.error, run.cancel_requested_by, ended_at)
        .join(training_requests, run.request_id == training_requests.c.id)
        .where(training_requests.c.alias == alias, run.state.in_(("failed", "cancelled")))
        .order_by(ended_at.desc(), run.id.desc())
    )


def trial(connection: Connection, alias: str) -> Trial | None:
    """Return the version of the alias that is tried, or that passed its gate and waits for it."""
    live = current_rollouts(connection).get(alias)
    versions = list_adapters(connection, alias, removed=True)
    if live is not None and live.state == "canary" and live.candidate_digest is not None:
        tried = (a.label for a in versions if a.digest == live.candidate_digest)
        return Trial(next(tried, live.candidate_digest[:8]), True)
    passed = _undecided(connection, alias, live, versions)
    return Trial(passed.label, False) if passed else None


def _undecided(
    connection: Connection, alias: str, live: Rollout | None, versions: list[Adapter]
) -> Adapter | None:
    """Return the newest version that passed, where no rollout has named it or passed it by.

    Only the newest is ever tried by itself. One that a later evaluation objects to, or that an
    engine refuses, never is, so nothing waits for it.
    """
    passed = [a for a in versions if a.gate == "pass" and a.removed_at is None]
    newest = max(passed, key=lambda a: a.version, default=None)
    if newest is None:
        return None
    stable = next((a for a in versions if live and a.digest == live.stable_digest), None)
    if stable is not None and stable.version >= newest.version:
        return None
    named = (rollouts.c.stable_digest, rollouts.c.candidate_digest, rollouts.c.previous_digest)
    decided = or_(*(column == newest.digest for column in named))
    if connection.execute(select(rollouts.c.id).where(rollouts.c.alias == alias, decided)).first():
        return None
    refused = connection.execute(select(replicas.c.refused).where(replicas.c.state == "ready"))
    if any(newest.digest in (found or {}) for found in refused.scalars()):
        return None
    return None if objection(connection, newest) else newest


def review(connection: Connection, alias: str, *, quiet_ms: int, since: int) -> Review:
    """Return what people do with the queue; of decisions before `since` only the last counts."""
    item = review_items.c
    waiting = connection.execute(
        select(func.count())
        .select_from(review_items)
        # One that a reviewer skipped may wait for ever, and training does not wait for it.
        .where(item.alias == alias, item.state == "waiting", ~was_skipped())
    ).scalar_one()
    instants: list[int] = []
    for column in (reviews.c.created_at, reviews.c.undone_at):
        done = select(column).join(review_items, item.id == reviews.c.item_id)
        done = done.where(item.alias == alias, column.is_not(None))
        instants += connection.execute(done.where(column >= since)).scalars()
        instants += connection.execute(done.order_by(column.desc()).limit(1)).scalars()
    if not instants:
        return Review(waiting)
    instants.sort(reverse=True)
    began_at = instants[0]
    for instant in instants[1:]:
        if began_at - instant > quiet_ms:
            break
        began_at = instant
    return Review(waiting, instants[0], began_at)


def reached_at(
    connection: Connection, alias: str, example_ids: frozenset[str], count: int
) -> int | None:
    """Return when the `count`-th of the alias's examples came, or None with fewer."""
    if count > len(example_ids):
        return None
    query = select(examples.c.id, examples.c.created_at).where(examples.c.alias == alias)
    created = sorted(row.created_at for row in connection.execute(query) if row.id in example_ids)
    return created[count - 1] if count <= len(created) else None


def last_end_at(connection: Connection, alias: str) -> int | None:
    """Return when the last training of the alias ended, or its last rollout was decided."""
    ended = select(func.max(training_runs.c.finished_at)).where(training_runs.c.alias == alias)
    decided = select(func.max(rollouts.c.created_at)).where(rollouts.c.alias == alias)
    found = [connection.execute(query).scalar() for query in (ended, decided)]
    return max((instant for instant in found if instant is not None), default=None)


def count_alerts(connection: Connection, alias: str) -> int:
    """Return how many alerts of the alias are open."""
    query = select(func.count()).select_from(alerts)
    query = query.where(alerts.c.alias == alias, alerts.c.state == "open")
    return int(connection.execute(query).scalar_one())


def has_more_errors(connection: Connection, alias: str) -> bool:
    """Tell whether the random audit finds more wrong answers than before."""
    query = select(alerts.c.id).where(alerts.c.alias == alias, alerts.c.kind == "errors")
    found = connection.execute(query.where(alerts.c.open_marker.is_not(None)).limit(1)).first()
    return found is not None
