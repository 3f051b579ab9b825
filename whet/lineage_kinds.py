"""Kinds of things that have a lineage: how each is described, and its links both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Table,
    Text,
    and_,
    cast,
    func,
    or_,
    select,
)

from whet import tables as t
from whet.access import same_group
from whet.registry import merged_from


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far to walk; what is left out is counted, never dropped in silence."""

    # From an answer through two generations of adapters to the conversations behind the first
    depth: int = 12
    per_step: int = 10  # things of one kind shown beside each other
    nodes: int = 300  # in each direction; more fits no screen


@dataclass(frozen=True, slots=True)
class Ref:
    kind: str
    key: str


@dataclass(frozen=True, slots=True)
class Link:
    """One step: the things of one kind that a query finds, with how many there are beyond those
    taken.
    """

    refs: list[Ref]
    more: int = 0


Steps = Callable[[Connection, RowMapping, int], Iterable[Link]]


@dataclass(frozen=True, slots=True)
class Kind:
    table: Table
    key: str  # name of the column that identifies a row
    describe: Callable[[RowMapping], str]
    before: Steps
    after: Steps


# --- one step in each direction ------------------------------------------------------------------------------------


def _named(kind: str, *keys: str | None) -> Link:
    return Link([Ref(kind, key) for key in keys if key])


def _matching(
    connection: Connection, kind: str, condition: ColumnElement[bool], limit: int
) -> Link:
    """Rows of a kind under a condition, newest first."""
    found = KINDS[kind]
    key = found.table.c[found.key]
    moment = next(
        found.table.c[name]
        for name in ("created_at", "started_at", "opened_at")
        if name in found.table.c
    )
    refs = [
        Ref(kind, str(value))
        for value in connection.execute(
            select(key).where(condition).order_by(moment.desc(), key).limit(limit)
        ).scalars()
    ]
    more = 0
    if len(refs) == limit:
        more = (
            connection.execute(
                select(func.count()).select_from(found.table).where(condition)
            ).scalar_one()
            - limit
        )
    return Link(refs, more)


def _listed(kind: str, keys: list[str] | None, limit: int) -> Link:
    keys = keys or []
    return Link([Ref(kind, key) for key in keys[:limit]], max(0, len(keys) - limit))


def _holds(column: ColumnElement[Any], key: str) -> ColumnElement[bool]:
    """The JSON column mentions this id as a string."""
    return cast(column, Text).contains(f'"{key}"', autoescape=True)


def _none(_connection: Connection, _row: RowMapping, _limit: int) -> list[Link]:
    return []


def _interaction_before(connection: Connection, row: RowMapping, limit: int) -> list[Link]:
    links = [_named("adapter", row["adapter_digest"])]
    if row["alias"] and row["rollout_generation"] is not None:
        links.append(
            _matching(
                connection,
                "rollout",
                (t.rollouts.c.alias == row["alias"])
                & (t.rollouts.c.generation == row["rollout_generation"]),
                limit,
            )
        )
    return links


def _counted_ratings(interaction: RowMapping) -> ColumnElement[bool]:
    """Those of the application that asked; a rating of another one counts nowhere."""
    return and_(
        t.ratings.c.interaction_id == interaction["id"],
        same_group(t.ratings.c.api_key_id, interaction["api_key_id"]),
    )


def _interaction_after(connection: Connection, row: RowMapping, limit: int) -> list[Link]:
    return [
        _matching(connection, "rating", _counted_ratings(row), limit),
        _matching(connection, "review item", t.review_items.c.interaction_id == row["id"], limit),
        _matching(connection, "alert", _holds(t.alerts.c.detail, row["id"]), limit),
    ]


def _rating_after(connection: Connection, row: RowMapping, limit: int) -> list[Link]:
    asked = (
        t.review_items.c.interaction_id == row["interaction_id"]
    ) & t.review_items.c.reason.in_(("rating", "correction"))
    return [_matching(connection, "review item", asked, limit)]


def _dataset_says(row: RowMapping) -> str:
    rows, reviewed = sum(row["rows"].values()), len(row["example_ids"])
    text = f"{row['name']}@{row['version']}: {rows} rows, {reviewed} of them reviewed"
    files = [file["name"] for file in (row["imported"] or {}).get("files", [])]
    source = f", imported from {_short(', '.join(files))}" if files else ""
    return f"{text}{source}, by {row['created_by']}"


def _dataset_before(_connection: Connection, row: RowMapping, limit: int) -> list[Link]:
    return [
        _listed("example", row["example_ids"], limit),
        _listed("dataset", row["parents"], limit),
    ]


def _dataset_after(connection: Connection, row: RowMapping, limit: int) -> list[Link]:
    digest = row["digest"]
    return [
        _matching(
            connection, "training request", t.training_requests.c.dataset_digest == digest, limit
        ),
        _matching(
            connection,
            "run",
            (t.training_runs.c.dataset_digest == digest) & t.training_runs.c.request_id.is_(None),
            limit,
        ),
        _matching(connection, "dataset", _holds(t.datasets.c.parents, digest), limit),
    ]


def _adapter_after(connection: Connection, row: RowMapping, limit: int) -> list[Link]:
    digest = row["digest"]
    return [
        _matching(connection, "evaluation", t.evaluations.c.adapter_digest == digest, limit),
        _matching(
            connection,
            "rollout",
            or_(t.rollouts.c.stable_digest == digest, t.rollouts.c.candidate_digest == digest),
            limit,
        ),
        _matching(connection, "interaction", t.interactions.c.adapter_digest == digest, limit),
        _listed("adapter", sorted(merged_from(connection, {digest})), limit),
    ]


def _adapter_before(_connection: Connection, row: RowMapping, limit: int) -> list[Link]:
    merged = (row["card"] or {}).get("merged") or {}
    return [
        _named("run", row["run_id"]) if row["run_id"] else _named("dataset", row["dataset_digest"]),
        _listed("adapter", [part["digest"] for part in merged.get("from", [])], limit),
    ]


def _run_before(_connection: Connection, row: RowMapping, _limit: int) -> list[Link]:
    return [
        (
            _named("training request", row["request_id"])
            if row["request_id"]
            else _named("dataset", row["dataset_digest"])
        )
    ]


def _alert_before(_connection: Connection, row: RowMapping, limit: int) -> list[Link]:
    detail = row["detail"] or {}
    return [
        _named("drift report", detail.get("drift_report_id")),
        _listed("interaction", detail.get("interaction_ids"), limit),
    ]


def _short(text: str | None, length: int = 80) -> str:
    text = " ".join((text or "").split())
    return text if len(text) <= length else text[: length - 1] + "…"


def _served_by(row: RowMapping) -> str:
    return f"{row['adapter']}@v{row['version']}" if row["adapter"] else "the base model"


def _rollout_says(row: RowMapping) -> str:
    share = f", candidate gets {row['candidate_share']:.0%}" if row["candidate_digest"] else ""
    return (
        f"{row['alias']} generation {row['generation']}: {row['state']}{share}, by {row['actor']}:"
        f" {_short(row['reason'])}"
    )


KINDS: dict[str, Kind] = {
    "interaction": Kind(
        t.interactions,
        "id",
        lambda row: (
            f"{row['status']}, answered by {_served_by(row)}: {_short(row['response_text'])!r}"
        ),
        _interaction_before,
        _interaction_after,
    ),
    "rating": Kind(
        t.ratings,
        "id",
        lambda row: f"{row['rating']:+d} {_short(row['comment'])}".rstrip(),
        lambda _c, row, _n: [_named("interaction", row["interaction_id"])],
        _rating_after,
    ),
    "review item": Kind(
        t.review_items,
        "id",
        lambda row: f"{row['state']}, because of {row['reason']}: {_short(row['why'])}",
        lambda _c, row, _n: [
            _named("interaction", row["interaction_id"]),
            _named("alert", row["alert_id"]),
        ],
        lambda c, row, n: [_matching(c, "review", t.reviews.c.item_id == row["id"], n)],
    ),
    "review": Kind(
        t.reviews,
        "id",
        lambda row: (
            f"{row['decision']} by {row['reviewer']}"
            + (" (undone)" if row["undone_at"] else "")
            + (f": {_short(row['answer'])!r}" if row["answer"] else "")
        ),
        lambda _c, row, _n: [_named("review item", row["item_id"])],
        lambda c, row, n: [_matching(c, "example", t.examples.c.review_id == row["id"], n)],
    ),
    "example": Kind(
        t.examples,
        "id",
        lambda row: (
            f"{row['source']}, for {row['alias']}" + (" (withdrawn)" if row["withdrawn_at"] else "")
        ),
        lambda _c, row, _n: [_named("review", row["review_id"])],
        lambda c, row, n: [_matching(c, "dataset", _holds(t.datasets.c.example_ids, row["id"]), n)],
    ),
    "dataset": Kind(
        t.datasets,
        "digest",
        _dataset_says,
        _dataset_before,
        _dataset_after,
    ),
    "training request": Kind(
        t.training_requests,
        "id",
        lambda row: f"for {row['alias']}, by {row['requested_by']}: {_short(row['reason'])}",
        lambda _c, row, _n: [_named("dataset", row["dataset_digest"])],
        lambda c, row, n: [_matching(c, "run", t.training_runs.c.request_id == row["id"], n)],
    ),
    "run": Kind(
        t.training_runs,
        "id",
        lambda row: (
            f"{row['state']}, for {row['alias']}, on base {row['base_digest'][:8]}"
            + (f": {_short(row['error'])}" if row["error"] else "")
        ),
        _run_before,
        lambda c, row, n: [
            _named("adapter", row["adapter_digest"]),
            _matching(c, "evaluation", t.evaluations.c.run_id == row["id"], n),
        ],
    ),
    "adapter": Kind(
        t.adapters,
        "digest",
        lambda row: (
            f"{row['name']}@v{row['version']}: rank {row['rank']}, gate {row['gate']}, on base"
            f" {row['base_digest'][:8]}" + (" (removed)" if row["removed_at"] else "")
        ),
        _adapter_before,
        _adapter_after,
    ),
    "evaluation": Kind(
        t.evaluations,
        "id",
        lambda row: (
            f"{row['verdict']} against {(row['against_digest'] or 'the base')[:8]}:"
            f" {_short(row['reason'])}"
        ),
        lambda _c, row, _n: [
            _named("adapter", row["adapter_digest"]),
            _named("dataset", row["dataset_digest"]),
        ],
        _none,
    ),
    "rollout": Kind(
        t.rollouts,
        "id",
        _rollout_says,
        lambda _c, row, _n: [_named("adapter", row["stable_digest"], row["candidate_digest"])],
        lambda c, row, n: [
            _matching(
                c,
                "interaction",
                (t.interactions.c.alias == row["alias"])
                & (t.interactions.c.rollout_generation == row["generation"]),
                n,
            )
        ],
    ),
    "alert": Kind(
        t.alerts,
        "id",
        lambda row: f"{row['severity']}, {row['state']}: {_short(row['title'])}",
        _alert_before,
        lambda c, row, n: [_matching(c, "review item", t.review_items.c.alert_id == row["id"], n)],
    ),
    "drift report": Kind(
        t.drift_reports,
        "id",
        lambda row: f"{row['verdict']} for {row['alias']}: {_short(row['summary'])}",
        _none,
        lambda c, row, n: [_matching(c, "alert", _holds(t.alerts.c.detail, row["id"]), n)],
    ),
    "API key": Kind(
        t.api_keys,
        "id",
        lambda row: f"{row['name']}" + (" (revoked)" if row["revoked_at"] else ""),
        _none,
        lambda c, row, n: [
            _matching(c, "interaction", t.interactions.c.api_key_id == row["id"], n)
        ],
    ),
}

# --- finding what an id names --------------------------------------------------------------------------------------
