"""Where something came from and what came of it, for every id there is: an answer back to the
reviewed conversations behind its adapter, a review forward to the versions that learned from it.

`KINDS` says, for each kind of thing, how to find it, describe it, and which things lie one step
before and after it. `trace` walks these steps in both directions and stops at `Bounds`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Required, TypedDict

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
from whet.errors import NotFoundError
from whet.json_types import JsonObject
from whet.registry import merged_from, parse_model


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

_DIGEST = re.compile(r"[0-9a-f]{8,64}")
_DATASET_LABEL = re.compile(r"(?P<name>.+)@v?(?P<version>[0-9]{1,9})")
_DEEDS = 20  # entries of the audit log shown with a trace


def identify(connection: Connection, reference: str) -> list[Ref]:
    """What a reference names: an id of any kind, a request id, a digest or the start of one,
    `support@v7`, `support@3`.

    More than one when it fits several (a digest's start). Raises NotFoundError.
    """
    refs = [
        Ref(name, reference)
        for name, kind in KINDS.items()
        if connection.execute(
            select(kind.table.c[kind.key]).where(kind.table.c[kind.key] == reference)
        ).first()
    ]
    refs = refs or _by_label(connection, reference) or _by_request_id(connection, reference)
    if not refs and _DIGEST.fullmatch(reference):
        for name in ("adapter", "dataset"):
            column = KINDS[name].table.c.digest
            refs += [
                Ref(name, digest)
                for digest in connection.execute(
                    select(column).where(column.startswith(reference)).limit(10)
                ).scalars()
            ]
    if not refs:
        raise NotFoundError(
            f"Nothing goes by {reference!r}.",
            hint=(
                "Give an id as the headers, pages and commands print it (int_…, rev_…, run_…), a"
                " digest, an adapter such as support@v7 or a dataset such as support@3."
            ),
        )
    return refs


def _by_label(connection: Connection, reference: str) -> list[Ref]:
    name, version = parse_model(reference)
    if version is not None:
        digest = connection.execute(
            select(t.adapters.c.digest).where(
                t.adapters.c.name == name, t.adapters.c.version == version
            )
        ).scalar()
        if digest:
            return [Ref("adapter", digest)]
    label = _DATASET_LABEL.fullmatch(reference)
    if label:
        digest = connection.execute(
            select(t.datasets.c.digest).where(
                t.datasets.c.name == label["name"], t.datasets.c.version == int(label["version"])
            )
        ).scalar()
        return [Ref("dataset", digest)] if digest else []
    return []


def _by_request_id(connection: Connection, reference: str) -> list[Ref]:
    found = connection.execute(
        select(t.interactions.c.id).where(t.interactions.c.request_id == reference).limit(10)
    ).scalars()
    return [Ref("interaction", key) for key in found]


# --- walking -------------------------------------------------------------------------------------------------------


class Deed(TypedDict):
    """What the audit log has on a thing."""

    actor: str
    action: str
    detail: JsonObject
    created_at: int


class TraceNode(TypedDict, total=False):
    """A thing in a trace, or `more` of a kind that a bound left out."""

    kind: Required[str]
    id: str
    what: str
    at: int | None
    missing: bool
    again: bool
    deeper: bool
    more: int
    came_from: list[TraceNode]
    came_of_it: list[TraceNode]
    deeds: list[Deed]


def trace(connection: Connection, ref: Ref, bounds: Bounds | None = None) -> TraceNode:
    """The thing itself, with `came_from` and `came_of_it` as trees, and what the audit log has on
    it.

    Every node is `{"kind", "id", "what", "at"}` with its own branches; `again` marks one shown
    before in the same direction, `missing` one whose row is gone (erased, or past its retention),
    `more` counts what a bound left out.
    """
    bounds = bounds or Bounds()
    node = _node(connection, ref)
    row = _row(connection, ref)
    if row is not None:
        node["came_from"] = _Walk(connection, bounds, "before").branches(ref, row, 0)
        node["came_of_it"] = _Walk(connection, bounds, "after").branches(ref, row, 0)
    deeds = (
        select(t.audit.c.actor, t.audit.c.action, t.audit.c.detail, t.audit.c.created_at)
        .where(t.audit.c.subject == ref.key)
        .order_by(t.audit.c.sequence)
        .limit(_DEEDS)
    )
    node["deeds"] = [
        Deed(actor=deed.actor, action=deed.action, detail=deed.detail, created_at=deed.created_at)
        for deed in connection.execute(deeds)
    ]
    return node


class _Walk:
    """One walk in one direction: breadth is bounded per step, the whole by a number of nodes, and
    nothing is shown twice.
    """

    def __init__(self, connection: Connection, bounds: Bounds, direction: str) -> None:
        self._connection = connection
        self._bounds = bounds
        self._direction = direction
        self._seen: set[Ref] = set()

    def branches(self, ref: Ref, row: RowMapping, depth: int) -> list[TraceNode]:
        self._seen.add(ref)
        steps: Steps = getattr(KINDS[ref.kind], self._direction)
        found: list[TraceNode] = []
        for link in steps(self._connection, row, self._bounds.per_step):
            nodes = [
                self._branch(each, depth + 1)
                for each in link.refs
                if len(self._seen) < self._bounds.nodes
            ]
            left_out = link.more + len(link.refs) - len(nodes)
            found += nodes
            if left_out and link.refs:
                found.append({"kind": link.refs[0].kind, "more": left_out})
        return found

    def _branch(self, ref: Ref, depth: int) -> TraceNode:
        node = _node(self._connection, ref)
        if ref in self._seen:
            return {**node, "again": True}
        self._seen.add(ref)
        row = _row(self._connection, ref)
        if row is None:
            return node
        if depth >= self._bounds.depth:
            return {**node, "deeper": True}
        if self._direction == "before":
            return {**node, "came_from": self.branches(ref, row, depth)}
        return {**node, "came_of_it": self.branches(ref, row, depth)}


def _row(connection: Connection, ref: Ref) -> RowMapping | None:
    kind = KINDS[ref.kind]
    return (
        connection.execute(select(kind.table).where(kind.table.c[kind.key] == ref.key))
        .mappings()
        .first()
    )


def _node(connection: Connection, ref: Ref) -> TraceNode:
    row = _row(connection, ref)
    if row is None:
        return {"kind": ref.kind, "id": ref.key, "missing": True}
    at = next(
        (row[name] for name in ("created_at", "started_at", "opened_at") if name in row), None
    )
    return {"kind": ref.kind, "id": ref.key, "what": KINDS[ref.kind].describe(row), "at": at}
