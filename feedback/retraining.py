"""From enough reviewed examples to a training request: the only writer of `training_requests`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select

from feedback import datasets
from feedback.policy import Decision, State, decide, policy_of
from whet.auditlog import record
from whet.context import Context
from whet.database import insert_ignore, reading, writing
from whet.errors import ConflictError
from whet.ids import new_id
from whet.registry import current_rollouts, list_adapters
from whet.tables import alerts, audit, examples, training_requests, training_runs
from whet.tables import datasets as versions

_OVER = ("succeeded", "failed", "cancelled")
_AUDIT_ACTION = "retraining.decision"


def aliases(connection: Connection) -> list[str]:
    """Aliases that have standing examples: the only ones that could learn something."""
    query = select(examples.c.alias).where(examples.c.withdrawn_at.is_(None)).distinct().order_by(examples.c.alias)
    return [str(alias) for alias in connection.execute(query).scalars()]


def gather(connection: Connection, alias: str) -> State:
    """What the policy wants to know of one alias."""
    last = connection.execute(
        select(training_requests)
        .where(training_requests.c.alias == alias)
        .order_by(training_requests.c.created_at.desc(), training_requests.c.id.desc())
        .limit(1)
    ).first()
    used = _examples_in(connection, last.dataset_digest) if last else set()
    standing = connection.execute(select(examples.c.id).where(examples.c.alias == alias, examples.c.withdrawn_at.is_(None))).scalars()
    unfinished, started = _unfinished(connection, alias)
    return State(
        alias=alias,
        new_examples=sum(example not in used for example in standing),
        last_request_at=last.created_at if last else None,
        unfinished_request=unfinished,
        run_started=started,
        canary=_canary(connection, alias),
        more_errors=connection.execute(
            select(func.count()).select_from(alerts).where(alerts.c.alias == alias, alerts.c.kind == "errors", alerts.c.open_marker.is_not(None))
        ).scalar_one()
        > 0,
        open_alerts=connection.execute(select(func.count()).select_from(alerts).where(alerts.c.alias == alias, alerts.c.state == "open")).scalar_one(),
    )


def _examples_in(connection: Connection, digest: str) -> set[str]:
    row = connection.execute(select(versions.c.example_ids).where(versions.c.digest == digest)).first()
    return set(row.example_ids) if row else set()


def _unfinished(connection: Connection, alias: str) -> tuple[str | None, bool]:
    """(request id or run id, whether a worker has it); also a run that a person started by hand counts."""
    query = (
        select(training_requests.c.id, training_runs.c.state)
        .join(training_runs, training_runs.c.request_id == training_requests.c.id, isouter=True)
        .where(training_requests.c.alias == alias, training_runs.c.state.is_(None) | training_runs.c.state.not_in(_OVER))
        .order_by(training_requests.c.created_at.desc())
    )
    row = connection.execute(query).first()
    if row is not None:
        return row.id, row.state is not None
    by_hand = connection.execute(select(training_runs.c.id).where(training_runs.c.alias == alias, training_runs.c.state.not_in(_OVER))).scalar()
    return by_hand, by_hand is not None


def _canary(connection: Connection, alias: str) -> str | None:
    live = current_rollouts(connection).get(alias)
    if live is None or live.state != "canary" or live.candidate_digest is None:
        return None
    label = next((adapter.label for adapter in list_adapters(connection, alias, removed=True) if adapter.digest == live.candidate_digest), None)
    return label or live.candidate_digest[:8]


def consider(context: Context, alias: str, *, now: int, actor: str = "policy") -> Decision:
    """One look at one alias: asks for training if the policy says so. Doing it twice asks once."""
    with reading(context.database) as connection:
        state = gather(connection, alias)
    decision = decide(state, policy_of(context.settings), now)
    if decision.ask:
        request_id, fresh = request(context, alias, actor=actor, reason=decision.reason, now=now)
        if not fresh:
            decision = Decision(False, f"The new examples of {alias} change no row of the dataset that {request_id} asked to train on.", "nothing_new")
    _keep(context, alias, decision, actor=actor, now=now)
    return decision


def request(
    context: Context, alias: str, *, actor: str, reason: str, now: int, digest: str | None = None, recipe: dict[str, Any] | None = None
) -> tuple[str, bool]:
    """Ask for training on `digest`, or on the dataset version of now. Returns (request id, whether it is new).

    One request per alias and dataset, ever: whoever asks again gets the first one's id.
    """
    digest = digest or datasets.build(context, alias, actor=actor, now=now, note=reason).digest
    request_id = new_id("req", at=now)
    with writing(context.database) as connection:
        values = {
            "id": request_id, "alias": alias, "dataset_digest": digest, "recipe": recipe or {}, "reason": reason, "requested_by": actor, "created_at": now,
        }  # fmt: skip
        if connection.execute(insert_ignore(connection, training_requests).values(**values).returning(training_requests.c.id)).first():
            record(
                connection, actor=actor, action="training.request", subject=request_id, detail={"alias": alias, "dataset": digest, "reason": reason}, now=now
            )
            return request_id, True
        known = connection.execute(
            select(training_requests.c.id).where(training_requests.c.alias == alias, training_requests.c.dataset_digest == digest)
        ).scalar_one()
    return str(known), False


def request_by_hand(context: Context, alias: str, *, actor: str, now: int, digest: str | None = None) -> str:
    """An operator asks now. Raises ConflictError while another request is under way, or when these rows were asked for before."""
    with reading(context.database) as connection:
        state = gather(connection, alias)
    if state.unfinished_request:
        raise ConflictError(
            f"Training for {alias} is under way already ({state.unfinished_request}).", hint="Wait for it, or cancel it with `whet train cancel`."
        )
    request_id, fresh = request(context, alias, actor=actor, reason=f"{actor} asked for it.", now=now, digest=digest)
    if not fresh:
        raise ConflictError(f"Training on exactly these rows was asked for before ({request_id}).", hint="Review more conversations, or look at that run.")
    return request_id


def _keep(context: Context, alias: str, decision: Decision, *, actor: str, now: int) -> None:
    """Into the audit log when the kind of decision changed; the counts inside the sentence change with every review."""
    with reading(context.database) as connection:
        if _last_code(connection, alias) == decision.code:
            return
    with writing(context.database) as connection:
        if _last_code(connection, alias) != decision.code:
            detail = {"ask": decision.ask, "reason": decision.reason, "code": decision.code}
            record(connection, actor=actor, action=_AUDIT_ACTION, subject=alias, detail=detail, now=now)


def _last_code(connection: Connection, alias: str) -> str | None:
    query = select(audit.c.detail).where(audit.c.action == _AUDIT_ACTION, audit.c.subject == alias).order_by(audit.c.sequence.desc()).limit(1)
    detail = connection.execute(query).scalar()
    return str(detail.get("code")) if detail else None
