"""`whet adapters …` and `whet export …`: what is stored, what comes in, what goes out."""

from __future__ import annotations

from typing import TypedDict

from sqlalchemy import Connection, select

from training.store import adapter_store
from whet.cli import actor, emit, opened
from whet.clock import iso, now_ms
from whet.database import reading
from whet.registry import Adapter, alias_filter, find_adapter, list_adapters
from whet.tables import replicas


class AdapterSummary(TypedDict):
    """A version as commands list it."""

    adapter: str
    digest: str
    gate: str
    rank: int
    base_digest: str
    dataset_digest: str | None
    run_id: str | None
    path: str
    engine_name: str
    created_at: int
    removed_at: int | None


class ShownAdapter(AdapterSummary):
    """A version as `whet adapters show` prints it."""

    verdict: str
    reason: str
    served_by: list[dict[str, object]]
    card: dict[str, object]


def _summary(adapter: Adapter) -> AdapterSummary:
    return {
        "adapter": adapter.label,
        "digest": adapter.digest,
        "gate": adapter.gate,
        "rank": adapter.rank,
        "base_digest": adapter.base_digest,
        "dataset_digest": adapter.dataset_digest,
        "run_id": adapter.run_id,
        "path": adapter.path,
        "engine_name": adapter.engine_name,
        "created_at": adapter.created_at,
        "removed_at": adapter.removed_at,
    }


def list_all(*, name: str, removed: bool, as_json: bool) -> None:
    """Versions, newest first."""
    with opened() as context:
        with reading(context.database) as connection:
            found = [
                _summary(adapter)
                for adapter in list_adapters(
                    connection, alias_filter(connection, name), removed=removed
                )
            ]
        if as_json:
            emit(found, True, title="adapters")
            return
        emit(
            [
                {
                    "adapter": row["adapter"],
                    "gate": row["gate"],
                    "rank": row["rank"],
                    "digest": row["digest"][:8],
                    "base": row["base_digest"][:8],
                    "created": iso(row["created_at"]),
                }
                for row in found
            ],
            False,
            title="adapters",
        )


def show(*, reference: str, as_json: bool) -> None:
    """One version with its card."""
    with opened() as context:
        with reading(context.database) as connection:
            adapter = find_adapter(connection, reference)
            served_by = _served_by(connection, adapter)
        card = (
            adapter.card
            if as_json
            else {
                key: value
                for key, value in adapter.card.items()
                if key in ("recipe", "training", "libraries", "left_out", "imported", "merged")
            }
        )
        judged = adapter.card.get("evaluation") or {}
        shown: ShownAdapter = {
            **_summary(adapter),
            "verdict": judged.get("verdict", "none"),
            "reason": judged.get("reason", ""),
            "served_by": served_by,
            "card": card,
        }
        emit(shown if as_json else _for_people(shown), as_json)


def _for_people(shown: AdapterSummary) -> dict[str, object]:
    """What is known, with moments as people write them."""
    moments = {
        key: iso(at)
        for key, at in (("created_at", shown["created_at"]), ("removed_at", shown["removed_at"]))
        if at
    }
    return {key: value for key, value in {**shown, **moments}.items() if value not in (None, "")}


def _served_by(connection: Connection, adapter: Adapter) -> list[dict[str, object]]:
    """Engines that proved the version, with their parity, and those that refused it, and why."""
    rows = connection.execute(select(replicas).order_by(replicas.c.url)).all()
    return [
        {
            "replica": row.url,
            "state": row.state,
            **row.ready.get(adapter.digest, {}),
            "ready": adapter.digest in row.ready,
            "refused": row.refused.get(adapter.digest),
        }
        for row in rows
    ]


def verify(*, reference: str, as_json: bool) -> None:
    """Hash the stored files again. Exit code 1 at the first that is not what was stored."""
    with opened() as context:
        with reading(context.database) as connection:
            some = [find_adapter(connection, reference)] if reference else list_adapters(connection)
        for adapter in some:
            adapter_store.verify(context, adapter)
        emit(
            [
                {"adapter": adapter.label, "digest": adapter.digest, "intact": True}
                for adapter in some
            ],
            as_json,
            title="adapters",
        )


def remove(*, reference: str, as_json: bool) -> None:
    """Withdraw a version. Refused while an alias points to it."""
    with opened() as context:
        removed = adapter_store.remove(context, reference, actor=actor(), now=now_ms())
        emit(
            {
                "adapter": removed.label,
                "removed": True,
                "files": "deleted an hour from now, once no engine holds them",
            },
            as_json,
        )
