"""Queries on rows that others write for us: training requests and dataset versions; and on our
evaluations.
"""

from __future__ import annotations

import re
from typing import cast

from sqlalchemy import Connection, select

from training.store.evaluation_types import EvaluationRow
from training.store.table_rows import (
    DatasetRow,
    OpenRequest,
    PlacedRequest,
    RequestRow,
    ShownRun,
    dataset_row_of,
    evaluation_row,
    request_row,
    run_row,
)
from whet.context import Context
from whet.database import reading
from whet.errors import NotFoundError
from whet.ids import dataset_reference
from whet.tables import datasets, evaluations, training_requests, training_runs


def dataset_row(connection: Connection, reference: str) -> DatasetRow:
    """Return the row of a dataset version.

    `reference` is `name@3` or `name@v3`, a name (its newest version), or a digest of which the
    first 8 characters are enough. Raises NotFoundError.
    """
    query = select(datasets).order_by(datasets.c.version.desc())
    if named_version := dataset_reference(reference):
        name, version = named_version
        query = query.where(datasets.c.name == name, datasets.c.version == version)
    elif re.fullmatch(r"[0-9a-f]{8,64}", reference):
        named = datasets.c.digest.startswith(reference) | (datasets.c.name == reference)
        query = query.where(named)
    else:
        query = query.where(datasets.c.name == reference)
    row = connection.execute(query.limit(1)).first()
    if row is None:
        raise NotFoundError(
            f"There is no dataset version {reference!r}.",
            hint="`whet datasets list` prints what there is.",
        )
    return dataset_row_of(row)


def find_request(connection: Connection, reference: str) -> RequestRow | None:
    """Return a training request by id or by the beginning of one; None where none or many fit."""
    request = training_requests.c
    found = connection.execute(
        select(training_requests)
        .where(request.id.startswith(reference, autoescape=True))
        .order_by(request.created_at)
        .limit(2)
    ).all()
    exact = [row for row in found if row.id == reference]
    rows = exact or (found if len(found) == 1 else [])
    return request_row(rows[0]) if rows else None


def open_requests(connection: Connection) -> list[OpenRequest]:
    """Requests whose run has not ended, oldest first; each with `run` (its unfinished run's row) or
    None.
    """
    joined = training_requests.outerjoin(
        training_runs, training_runs.c.request_id == training_requests.c.id
    )
    query = (
        select(training_requests, training_runs.c.id.label("run_id"), training_runs.c.attempt)
        .select_from(joined)
        .where(training_runs.c.id.is_(None) | (training_runs.c.state == "running"))
        .order_by(training_requests.c.created_at)
    )
    return [cast(OpenRequest, dict(row._mapping)) for row in connection.execute(query)]


def evaluations_of(connection: Connection, adapter_digest: str | None) -> list[EvaluationRow]:
    """Evaluations of one adapter, newest first."""
    query = select(evaluations).where(evaluations.c.adapter_digest == adapter_digest)
    return [
        evaluation_row(row)
        for row in connection.execute(
            query.order_by(evaluations.c.created_at.desc(), evaluations.c.id.desc())
        )
    ]


def requested(context: Context, request_id: str) -> PlacedRequest:
    """A request with `dataset_path` and `dataset_name`.

    Raises NotFoundError when its dataset version is not known.
    """
    with reading(context.database) as connection:
        request = request_row(
            connection.execute(
                select(training_requests).where(training_requests.c.id == request_id)
            ).one()
        )
        dataset = dataset_row(connection, request["dataset_digest"])
    return {**request, "dataset_path": dataset["path"], "dataset_name": dataset["name"]}


def run_of(connection: Connection, request_id: str) -> ShownRun | None:
    """The one run of a request, if it has begun."""
    row = connection.execute(
        select(training_runs).where(training_runs.c.request_id == request_id)
    ).first()
    return run_row(row) if row else None
