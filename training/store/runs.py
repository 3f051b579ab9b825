"""The only writer of `training_runs`: one row per run, fenced by its attempt number.

A process may write to a row only while the row is `running` under the attempt that the process was
started with. So a process that was believed dead and comes back changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast

from sqlalchemy import Connection, select, update

from training.store.again import command_again
from training.store.requests import find_request, run_of
from training.store.table_rows import (
    Curve,
    Estimate,
    Progress,
    RunRow,
    ShownRun,
    encode_run,
    run_row,
)
from whet.auditlog import record
from whet.context import Context
from whet.database import insert_ignore, reading, writing
from whet.errors import ConflictError, NotFoundError
from whet.ids import new_id
from whet.tables import training_runs

RUNNING, SUCCEEDED, FAILED, CANCELLED = "running", "succeeded", "failed", "cancelled"
_CURVE_POINTS = 500
# A run by hand writes its heartbeat every few seconds; without one for this long, the process that
# ran it is gone.
_ABANDONED_MS = 120_000
# Four heartbeats that did not come: the process is gone, or the machine so slow that its attempt is
# better fenced off
SILENT_MS = 20_000
MAX_ATTEMPTS = 3
_CANCELLED = "Cancelled on request."


class Superseded(Exception):
    """The row is no longer this attempt's to write: another process took the run over, or it ended."""


@dataclass(frozen=True)
class Run:
    """One attempt at one run."""

    id: str
    attempt: int
    alias: str
    started_at: int
    request_id: str | None = None


def start(
    context: Context,
    *,
    alias: str,
    dataset_digest: str,
    base_digest: str,
    recipe: Mapping[str, object],
    estimate: Estimate,
    worker: str,
    now: int,
    request_id: str | None = None,
) -> Run:
    """Write the row of a new run.

    Raises ConflictError when the request has a run already: another worker took it up, or it was
    cancelled.
    """
    run_id = new_id("run", at=now)
    values: dict[str, object] = {
        "id": run_id,
        "request_id": request_id,
        "alias": alias,
        "dataset_digest": dataset_digest,
        "base_digest": base_digest,
        "recipe": recipe,
        "state": RUNNING,
        "progress": {"stage": "loading"},
        "curve": [],
        "estimate": estimate,
        "attempt": 1,
        "worker": worker[:128],
        "started_at": now,
        "heartbeat_at": now,
    }
    with writing(context.database) as connection:
        new = insert_ignore(connection, training_runs).values(**encode_run(values))
        if connection.execute(new.returning(training_runs.c.id)).first() is None:
            raise ConflictError(f"The request {request_id} has a run already.")
    return Run(run_id, 1, alias, now, request_id)


def reclaim(context: Context, run_id: str, *, worker: str, now: int) -> Run:
    """Begin the next attempt at a run whose process is gone.

    Raises Superseded when the run has ended.
    """
    with writing(context.database) as connection:
        row = connection.execute(
            select(training_runs).where(training_runs.c.id == run_id).with_for_update()
        ).one()
        if row.state != RUNNING:
            raise Superseded(run_id)
        # A run that was put down has no process left that could write, so the same number serves
        # again and no attempt is lost.
        attempt = row.attempt + 1 if row.worker else row.attempt
        connection.execute(
            update(training_runs)
            .where(training_runs.c.id == run_id)
            .values(
                attempt=attempt,
                worker=worker[:128],
                heartbeat_at=now,
                progress={"stage": "loading"},
                curve=[],
            )
        )
        return Run(run_id, attempt, row.alias, row.started_at, row.request_id)


def resume(
    context: Context, reference: str, *, worker: str, actor: str, now: int
) -> tuple[Run, ShownRun]:
    """Begin the next attempt at a run that failed or whose process is gone; returns it with the row
    as it was.

    A requested run is only put down again: its worker takes it up. Raises NotFoundError, and
    ConflictError for a run that trains, succeeded or was cancelled.
    """
    with writing(context.database) as connection:
        row = find(connection, reference)
        if row["state"] in (SUCCEEDED, CANCELLED):
            raise ConflictError(
                f"The run {row['id']} has ended: {row['state']}.",
                hint=f"Train on its rows again: `{command_again(context, connection, row)}`.",
            )
        if newer := _successor(connection, row):
            raise ConflictError(
                f"Training on the same rows was asked for again since, and {newer} goes on or made "
                "a version of them.",
                hint=f"`whet train show {newer}` follows it.",
            )
        if row["state"] == RUNNING and row["worker"] and row["heartbeat_at"] > now - SILENT_MS:
            raise ConflictError(
                f"The run {row['id']} is running in {row['worker']}.",
                hint=(
                    f"`whet train show {row['id']}` follows it; 20 seconds after its process is "
                    "gone, it can be resumed."
                ),
            )
        values: dict[str, object] = {
            "state": RUNNING,
            "error": None,
            "finished_at": None,
            "attempt": row["attempt"] + 1,
            "heartbeat_at": now,
        }
        requested = row["request_id"] is not None
        values |= {
            "worker": "" if requested else worker[:128],
            "progress": {"stage": "waiting" if requested else "loading"},
        }
        connection.execute(
            update(training_runs)
            .where(training_runs.c.id == row["id"], training_runs.c.attempt == row["attempt"])
            .values(**values)
        )
        record(connection, actor=actor, action="run.resume", subject=row["id"], now=now)
    return (
        Run(row["id"], row["attempt"] + 1, row["alias"], row["started_at"], row["request_id"]),
        row,
    )


def _successor(connection: Connection, row: RunRow) -> str | None:
    """Return the later run of the alias on the same rows that goes on or succeeded."""
    run = training_runs.c
    found = connection.execute(
        select(run.id)
        .where(run.alias == row["alias"], run.dataset_digest == row["dataset_digest"])
        .where(run.id != row["id"], run.started_at >= row["started_at"])
        .where(run.state.in_((RUNNING, SUCCEEDED)))
        .order_by(run.started_at.desc())
        .limit(1)
    ).scalar()
    return str(found) if found else None


def release(context: Context, run: Run, now: int) -> None:
    """The worker stops and has ended the run's process: whoever comes next goes on, and this does
    not count as a failed attempt.
    """
    try:
        with writing(context.database) as connection:
            _update(
                connection,
                run,
                {"worker": "", "progress": {"stage": "waiting"}, "heartbeat_at": now},
            )
    except Superseded:
        return


def describe(context: Context, run: Run, **values: object) -> None:
    """Fill in what is known only now (recipe, estimate, digests). Raises Superseded."""
    with writing(context.database) as connection:
        _update(connection, run, values)


def report(
    context: Context,
    run: Run,
    *,
    progress: Progress,
    curve: Curve | None,
    now: int,
) -> bool:
    """Write progress and heartbeat; returns True when somebody asked to cancel. Raises Superseded."""
    values: dict[str, object] = {"progress": progress, "heartbeat_at": now}
    if curve is not None:
        values["curve"] = thin(curve)
    with writing(context.database) as connection:
        _update(connection, run, values)
        return (
            connection.execute(
                select(training_runs.c.cancel_requested_by).where(training_runs.c.id == run.id)
            ).scalar()
            is not None
        )


def beat(context: Context, run: Run, now: int) -> None:
    """Only the heartbeat. Raises Superseded."""
    with writing(context.database) as connection:
        _update(connection, run, {"heartbeat_at": now})


def succeed(
    connection: Connection,
    run: Run,
    *,
    adapter_digest: str | None,
    progress: Progress,
    curve: Curve,
    now: int,
) -> None:
    """End the run inside the transaction that makes the adapter visible; None: what it made lies in
    a folder outside the store. Raises Superseded, which undoes that transaction.
    """
    _update(
        connection,
        run,
        {
            "state": SUCCEEDED,
            "adapter_digest": adapter_digest,
            "progress": progress,
            "curve": thin(curve),
            "heartbeat_at": now,
            "finished_at": now,
        },
    )


def end(context: Context, run: Run, state: str, error: str, now: int) -> bool:
    """End the run without an adapter; False when it had ended already or belongs to another
    attempt.
    """
    try:
        with writing(context.database) as connection:
            _update(
                connection,
                run,
                {"state": state, "error": error, "heartbeat_at": now, "finished_at": now},
            )
    except Superseded:
        return False
    return True


def _update(connection: Connection, run: Run, values: Mapping[str, object]) -> None:
    row = training_runs.c
    is_ours = (row.id == run.id) & (row.attempt == run.attempt) & (row.state == RUNNING)
    query = update(training_runs).where(is_ours).values(**encode_run(values))
    if connection.execute(query).rowcount != 1:
        raise Superseded(run.id)


def request_cancel(context: Context, reference: str, *, actor: str, now: int) -> ShownRun:
    """Cancel a run, or a request that no worker has taken up; returns the run's row.

    A run that a process works on stops at its next step; any other is over at once, and
    `state` says which. Either way its examples count as new again and training on the same rows
    may be asked for. Raises NotFoundError, and ConflictError for a run that has ended.
    """
    with writing(context.database) as connection:
        row = _run_of_request(connection, reference, now) or find(connection, reference)
        if row["state"] != RUNNING:
            raise ConflictError(
                f"The run {row['id']} has ended: {row['state']}.", hint="Nothing was changed."
            )
        values: dict[str, object] = {"cancel_requested_by": actor}
        if not row["worker"] or row["heartbeat_at"] <= now - SILENT_MS:
            values |= {"state": CANCELLED, "error": _CANCELLED, "finished_at": now}
        same = (training_runs.c.id == row["id"]) & (training_runs.c.state == RUNNING)
        connection.execute(update(training_runs).where(same).values(**values))
        record(connection, actor=actor, action="run.cancel", subject=row["id"], now=now)
    return cast(ShownRun, {**row, **values})


def _run_of_request(connection: Connection, reference: str, now: int) -> ShownRun | None:
    """Return the run of a request by the request's id; one that has none gets it here.

    A request is never changed after it is written: what came of it is the run that names it.
    """
    request = find_request(connection, reference)
    if request is None:
        return None
    values = {
        "id": new_id("run", at=now), "request_id": request["id"], "alias": request["alias"],
        "dataset_digest": request["dataset_digest"], "base_digest": "",
        "recipe": request["recipe"], "state": RUNNING, "progress": {"stage": "waiting"},
        "curve": [], "estimate": {}, "attempt": 1, "worker": "", "started_at": now,
        "heartbeat_at": now,
    }  # fmt: skip
    connection.execute(insert_ignore(connection, training_runs).values(**values))
    return run_of(connection, request["id"])


def find(connection: Connection, reference: str) -> ShownRun:
    """A run by id or by the beginning of one. Raises NotFoundError."""
    rows = connection.execute(
        select(training_runs)
        .where(training_runs.c.id.startswith(reference, autoescape=True))
        .order_by(training_runs.c.started_at.desc())
        .limit(2)
    ).all()
    if not rows or (len(rows) > 1 and rows[0].id != reference):
        raise NotFoundError(
            "There is"
            f" {'no run' if not rows else 'more than one run that begins with'} {reference!r}.",
            hint="`whet train list` prints them.",
        )
    return run_row(rows[0])


def newest(connection: Connection, alias: str | None, limit: int) -> list[ShownRun]:
    """Runs, newest first."""
    query = select(training_runs).order_by(training_runs.c.started_at.desc()).limit(limit)
    if alias is not None:
        query = query.where(training_runs.c.alias == alias)
    return [run_row(row) for row in connection.execute(query)]


def close_abandoned(context: Context, now: int) -> list[str]:
    """End runs by hand whose process has gone silent; returns their ids.

    Requested runs are taken over instead, by the worker.
    """
    run = training_runs.c
    is_silent = (
        (run.state == RUNNING) & run.request_id.is_(None) & (run.heartbeat_at < now - _ABANDONED_MS)
    )
    with reading(context.database) as connection:
        ids = list(connection.execute(select(run.id).where(is_silent)).scalars())
    if not ids:
        return []
    with writing(context.database) as connection:
        for run_id in ids:
            error = (
                "The process that ran it stopped without a word (killed, or out of memory). "
                f"`whet train resume {run_id}` goes on with it."
            )
            connection.execute(
                update(training_runs)
                .where(is_silent, run.id == run_id)
                .values(state=FAILED, error=error, finished_at=now)
            )
    return ids


def ended_for_good(connection: Connection, ids: Collection[str]) -> list[str]:
    """Those of the runs that no attempt can follow."""
    ended = training_runs.c.id.in_(ids) & training_runs.c.state.in_((SUCCEEDED, CANCELLED))
    return [row.id for row in connection.execute(select(training_runs.c.id).where(ended))]


def thin(curve: Curve, points: int = _CURVE_POINTS) -> Curve:
    """At most `points` of the curve, evenly spread, the last one kept."""
    if len(curve) <= points:
        return curve
    return [curve[round(number * (len(curve) - 1) / (points - 1))] for number in range(points)]
