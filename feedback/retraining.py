"""From enough reviewed examples to a training request: the only writer of `training_requests`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, select

from feedback import dataset_store, datasets, retraining_store
from feedback.next_version import Preview, preview
from feedback.policy import (
    Decision,
    Policy,
    Repairs,
    State,
    decide,
    needed_examples,
    policy_of,
    training_command,
)
from whet.auditlog import record
from whet.context import Context
from whet.database import insert_ignore, reading, writing
from whet.errors import ConflictError, WhetError
from whet.ids import new_id
from whet.tables import audit, training_requests

_AUDIT_ACTION = "retraining.decision"


def aliases(connection: Connection) -> list[str]:
    """Return aliases that have standing examples: the only ones that could learn something."""
    return retraining_store.standing_aliases(connection)


def gather(context: Context, alias: str, *, now: int) -> State:
    """Read what the policy wants to know of one alias."""
    policy = policy_of(context.settings)
    obstacle, coming = "", None
    try:
        coming = preview(context, alias)
    except WhetError as error:  # the seed's folder is gone: the sentence says what to do
        obstacle = str(error)
    with reading(context.database) as connection:
        return _state(connection, alias, coming, policy, now, obstacle)


def _state(
    connection: Connection,
    alias: str,
    coming: Preview | None,
    policy: Policy,
    now: int,
    obstacle: str,
) -> State:
    # First, because a run ends and its version appears in one transaction: read afterwards, the
    # version is there; read before, neither would be seen.
    unfinished = retraining_store.unfinished(connection, alias)
    learned = _learned(connection, alias, unfinished)
    more_errors = retraining_store.has_more_errors(connection, alias)
    new = coming.example_ids - learned if coming else frozenset()
    digest = coming.digest if coming else None
    built = dataset_store.by_digest(connection, digest) if digest else None
    trial = retraining_store.trial(connection, alias)
    needed = needed_examples(policy, more_errors=more_errors)
    elsewhere = retraining_store.repaired_elsewhere(connection, new)
    teaching = new - elsewhere.document - elsewhere.search
    clear = (
        retraining_store.reached_at(connection, alias, teaching, needed),
        retraining_store.last_end_at(connection, alias),
    )
    return State(
        alias=alias,
        new_examples=len(new),
        last_request_at=retraining_store.last_request_at(connection, alias),
        unfinished_request=unfinished.id if unfinished else None,
        run_started=unfinished.is_started if unfinished else False,
        canary=trial.label if trial else None,
        canary_has_traffic=trial.has_traffic if trial else True,
        open_alerts=retraining_store.count_alerts(connection, alias),
        more_errors=more_errors,
        dataset=built.label if built else None,
        trained_by=retraining_store.trained_by(connection, alias, digest) if digest else None,
        ended=retraining_store.ended_training(connection, alias, digest),
        review=retraining_store.review(
            connection, alias, quiet_ms=policy.quiet_ms,
            since=now - policy.quiet_ms - policy.review_wait_ms,
        ),
        clear_since=max((instant for instant in clear if instant is not None), default=None),
        obstacle=obstacle,
        repairs=Repairs(len(elsewhere.document), len(elsewhere.search)),
        training_ms=retraining_store.training_ms(connection, alias),
    )  # fmt: skip


def _learned(
    connection: Connection, alias: str, unfinished: retraining_store.Unfinished | None
) -> frozenset[str]:
    """Return the examples that the training under way, else the last that made a version, has."""
    if unfinished is not None:
        return retraining_store.examples_in(connection, unfinished.dataset_digest)
    success = retraining_store.last_success(connection, alias)
    if success is None:
        return frozenset()
    return retraining_store.examples_in(connection, success.dataset_digest)


def count_new_examples(context: Context) -> dict[str, int]:
    """Return alias → its new examples, as the policy counts them: see `State.new_examples`."""
    found = {}
    with reading(context.database) as connection:
        names = aliases(connection)
    for alias in names:
        try:
            coming = preview(context, alias)
        except WhetError:  # the Datasets page says what is missing
            coming = None
        with reading(context.database) as connection:
            unfinished = retraining_store.unfinished(connection, alias)
            learned = _learned(connection, alias, unfinished)
        found[alias] = len(coming.example_ids - learned) if coming else 0
    return found


def look(context: Context, alias: str, now: int) -> tuple[State, Decision]:
    """Return what the policy sees of one alias, and what it would decide; nothing is written."""
    state = gather(context, alias, now=now)
    return state, decide(state, policy_of(context.settings), now)


def as_json(context: Context, alias: str, now: int) -> dict[str, Any]:
    """Return what programs and commands show of the policy of one alias."""
    state, decision = look(context, alias, now)
    return {"alias": alias, "state": asdict(state), "decision": asdict(decision)}


def consider(context: Context, alias: str, *, now: int, actor: str = "policy") -> Decision:
    """Look at one alias once, and ask for training if the policy says so. Twice asks once."""
    _, decision = look(context, alias, now)
    if decision.ask:
        request_id, fresh = request(context, alias, actor=actor, reason=decision.reason, now=now)
        if not fresh:  # somebody else asked, or took a decision back, at the same moment
            _, decision = look(context, alias, now)
        if not fresh and decision.ask:
            sentence = f"The new examples of {alias} change no row that {request_id} trained on."
            decision = Decision(False, sentence, "nothing_new")
    _keep(context, alias, decision, actor=actor, now=now)
    return decision


def request(
    context: Context,
    alias: str,
    *,
    actor: str,
    reason: str,
    now: int,
    digest: str | None = None,
    recipe: dict[str, Any] | None = None,
) -> tuple[str, bool]:
    """Ask for training on `digest`, or on the dataset version of now.

    Returns (id, True) of the new request. Returns (id, False) of what stands against it: another
    request or run of the alias that goes on, or the run that made a version of these rows. One
    that was cancelled or failed does not.
    """
    if digest is None:
        digest = datasets.build(context, alias, actor=actor, now=now, note=reason).digest
    request_id = new_id("req", at=now)
    with writing(context.database) as connection:
        _one_at_a_time(connection)
        if standing := _stands_against(connection, alias, digest):
            return standing, False
        values = {
            "id": request_id, "alias": alias, "dataset_digest": digest, "recipe": recipe or {},
            "reason": reason, "requested_by": actor, "created_at": now,
            "attempt": retraining_store.attempts(connection, alias, digest) + 1,
        }  # fmt: skip
        insert = insert_ignore(connection, training_requests).values(**values)
        if connection.execute(insert.returning(training_requests.c.id)).first() is None:
            raise ConflictError(f"Training for {alias} was asked for at the same moment.")
        detail = {"alias": alias, "dataset": digest, "reason": reason}
        record(
            connection, actor=actor, action="training.request", subject=request_id,
            detail=detail, now=now,
        )  # fmt: skip
    return request_id, True


def _one_at_a_time(connection: Connection) -> None:
    """Let nobody else ask before this transaction ends. SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(823476513)")


def _stands_against(connection: Connection, alias: str, digest: str) -> str | None:
    unfinished = retraining_store.unfinished(connection, alias)
    return unfinished.id if unfinished else retraining_store.trained_by(connection, alias, digest)


def request_by_hand(
    context: Context, alias: str, *, actor: str, now: int, digest: str | None = None
) -> str:
    """Ask for training now, as an operator.

    Raises ConflictError while another training is under way, or when a version was made of these
    rows. A request that was cancelled or failed stands against nothing.
    """
    with reading(context.database) as connection:
        _require_none_under_way(connection, alias)
    if digest is None:
        digest = datasets.build(context, alias, actor=actor, now=now).digest
    request_id, fresh = request(
        context, alias, actor=actor, reason=f"{actor} asked for it.", now=now, digest=digest
    )
    if fresh:
        return request_id
    with reading(context.database) as connection:
        _require_none_under_way(connection, alias)
        version = dataset_store.by_digest(connection, digest)
    label = version.label if version else digest
    command = training_command(
        State(alias=alias, new_examples=0, dataset=label), policy_of(context.settings)
    )
    raise ConflictError(
        f"Training on exactly these rows ({label}) was done already ({request_id}).",
        hint=f"See what it made: `whet train show {request_id}`. To train on them once more: "
        f"`{command}`.",
    )


def _require_none_under_way(connection: Connection, alias: str) -> None:
    if unfinished := retraining_store.unfinished(connection, alias):
        raise ConflictError(
            f"Training for {alias} is under way already ({unfinished.id}).",
            hint=f"Wait for it, or cancel it: `whet train cancel {unfinished.run or unfinished.id}`"
            ".",
        )


def _keep(context: Context, alias: str, decision: Decision, *, actor: str, now: int) -> None:
    """Record a decision of another kind than the last; counts change with every review."""
    with reading(context.database) as connection:
        if _last_code(connection, alias) == decision.code:
            return
    with writing(context.database) as connection:
        if _last_code(connection, alias) != decision.code:
            detail = {"ask": decision.ask, "reason": decision.reason, "code": decision.code}
            record(
                connection, actor=actor, action=_AUDIT_ACTION, subject=alias, detail=detail,
                now=now,
            )  # fmt: skip


def _last_code(connection: Connection, alias: str) -> str | None:
    query = select(audit.c.detail).where(audit.c.action == _AUDIT_ACTION, audit.c.subject == alias)
    detail = connection.execute(query.order_by(audit.c.sequence.desc()).limit(1)).scalar()
    return str(detail.get("code")) if detail else None
