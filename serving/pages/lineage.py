"""From an adapter back to the people behind it, and forward from a conversation to what it taught."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, func, select

from whet.registry import Adapter
from whet.tables import (
    adapters,
    datasets,
    evaluations,
    examples,
    interactions,
    reviews,
    training_runs,
)

_SHOWN = 12  # reviewed conversations that are listed; the count says how many there are


@dataclass(frozen=True)
class Lineage:
    """What one adapter version came from. Anything may be missing: an imported adapter has no run."""

    adapter: Adapter
    run: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    dataset: dict[str, Any] | None = None
    parents: list[dict[str, Any]] = field(default_factory=list)
    reviewed: int = 0
    reviewers: list[tuple[str, int]] = field(default_factory=list)
    conversations: list[dict[str, Any]] = field(default_factory=list)


def adapter_by_digest(connection: Connection, digest: str | None) -> Adapter | None:
    row = (
        connection.execute(select(adapters).where(adapters.c.digest == digest)).first()
        if digest
        else None
    )
    return Adapter(**row._mapping) if row else None


def lineage(connection: Connection, adapter: Adapter) -> Lineage:
    run_columns = [column for column in training_runs.c if column.name != "curve"]
    run = (
        _one(connection, select(*run_columns).where(training_runs.c.id == adapter.run_id))
        if adapter.run_id
        else None
    )
    evaluation = _one(
        connection,
        select(evaluations)
        .where(evaluations.c.adapter_digest == adapter.digest)
        .order_by(evaluations.c.created_at.desc()),
    )
    dataset = (
        _one(connection, select(datasets).where(datasets.c.digest == adapter.dataset_digest))
        if adapter.dataset_digest
        else None
    )
    if dataset is None:
        return Lineage(adapter, run, evaluation)
    parents = [
        dict(row._mapping)
        for row in connection.execute(
            select(datasets).where(datasets.c.digest.in_(dataset["parents"] or []))
        )
    ]
    ids = list(dataset["example_ids"] or [])
    people: dict[str, int] = {}
    # SQLite takes a limited number of parameters in one statement
    for start in range(0, len(ids), 500):
        chunk = ids[start : start + 500]
        query = (
            select(reviews.c.reviewer, func.count())
            .join(examples, examples.c.review_id == reviews.c.id)
            .where(examples.c.id.in_(chunk))
            .group_by(reviews.c.reviewer)
        )
        for name, count in connection.execute(query):
            people[name] = people.get(name, 0) + count
    shown = (
        select(
            examples.c.id,
            examples.c.interaction_id,
            examples.c.source,
            examples.c.created_at,
            reviews.c.reviewer,
            interactions.c.request,
        )
        .join(reviews, reviews.c.id == examples.c.review_id)
        .join(interactions, interactions.c.id == examples.c.interaction_id, isouter=True)
        .where(examples.c.id.in_(ids[:_SHOWN]))
    )
    conversations = [dict(row._mapping) for row in connection.execute(shown)]
    return Lineage(
        adapter,
        run,
        evaluation,
        dataset,
        parents,
        len(ids),
        sorted(people.items(), key=lambda item: -item[1]),
        conversations,
    )


def taught(connection: Connection, interaction_id: str) -> list[dict[str, Any]]:
    """The examples made of a conversation, with the dataset versions and adapters that contain
    each.
    """
    found = []
    for example in connection.execute(
        select(examples).where(examples.c.interaction_id == interaction_id)
    ):
        holding = [
            row
            for row in connection.execute(
                select(
                    datasets.c.digest, datasets.c.name, datasets.c.version, datasets.c.example_ids
                )
            )
            if example.id in row.example_ids
        ]
        digests = [row.digest for row in holding]
        trained = [
            f"{row.name}@v{row.version}"
            for row in connection.execute(
                select(adapters)
                .where(adapters.c.dataset_digest.in_(digests))
                .order_by(adapters.c.version)
            )
        ]
        found.append(
            {
                "id": example.id,
                "source": example.source,
                "withdrawn_at": example.withdrawn_at,
                "datasets": [f"{row.name} v{row.version}" for row in holding],
                "adapters": trained,
            }
        )
    return found


def _one(connection: Connection, query: Any) -> dict[str, Any] | None:
    row = connection.execute(query.limit(1)).first()
    return dict(row._mapping) if row else None
