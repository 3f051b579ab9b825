"""Where something came from and what came of it, for every id there is: an answer back to the
reviewed conversations behind its adapter, a review forward to the versions that learned from it.

`KINDS` says, for each kind of thing, how to find it, describe it, and which things lie one step
before and after it. `trace` walks these steps in both directions and stops at `Bounds`.
"""

from __future__ import annotations

import re
from typing import Required, TypedDict

from sqlalchemy import Connection, RowMapping, select

from whet import tables as t
from whet.errors import NotFoundError
from whet.json_types import JsonObject
from whet.lineage_kinds import KINDS, Bounds, Ref, Steps
from whet.registry import parse_model

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
