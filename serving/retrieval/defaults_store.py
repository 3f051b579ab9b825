"""What an alias retrieves when a request says nothing, and who may read which collection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, insert, select

from whet import auditlog
from whet.errors import InputError, NotFoundError
from whet.json_types import JsonObject
from whet.registry import current_rollouts, list_adapters
from whet.retrieval_tables import collections, retrieval_defaults


class RetrievalDefault(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `retrieval_defaults`."""

    alias: str
    collection: str
    top_k: int = 4
    min_score: float = 0.0
    filter: dict[str, Any] = {}
    actor: str = ""
    updated_at: int = 0


def load_defaults(connection: Connection) -> dict[str, RetrievalDefault]:
    """Return the default of each alias that has one."""
    rows = connection.execute(select(retrieval_defaults).order_by(retrieval_defaults.c.alias))
    return {row.alias: RetrievalDefault(**row._mapping) for row in rows}


def load_readers(connection: Connection) -> dict[str, frozenset[str] | None]:
    """Return for each collection the ids of the keys that may read it; None: every key."""
    rows = connection.execute(select(collections.c.name, collections.c.allowed_keys))
    return {
        row.name: None if row.allowed_keys is None else frozenset(row.allowed_keys) for row in rows
    }


def parse_filter(pairs: Sequence[str]) -> JsonObject:
    """Return the filter of `KEY=VALUE` texts; a key given twice may have either value.

    Raises InputError.
    """
    found: dict[str, list[str]] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not (key and separator):
            raise InputError(f"--filter {pair!r}: expected KEY=VALUE.", hint="--filter language=en")
        found.setdefault(key, []).append(value)
    return {key: values[0] if len(values) == 1 else [*values] for key, values in found.items()}


def attach(
    connection: Connection, default: RetrievalDefault, *, base_alias: str | None = None
) -> None:
    """Let the alias retrieve. Raises NotFoundError for a collection or a name that there is not.

    `base_alias`: the name of the base model; None: names are not checked.
    """
    names = {adapter.label for adapter in list_adapters(connection)} | {base_alias}
    if base_alias and default.alias not in names | set(current_rollouts(connection)):
        raise NotFoundError(
            f"There is no model {default.alias!r}.", hint="`whet rollout show` lists the aliases."
        )
    if default.collection not in load_readers(connection):
        raise NotFoundError(
            f"There is no collection {default.collection!r}.",
            hint="`whet documents list` shows those that there are.",
        )
    connection.execute(
        delete(retrieval_defaults).where(retrieval_defaults.c.alias == default.alias)
    )
    connection.execute(insert(retrieval_defaults).values(msgspec.structs.asdict(default)))
    detail = {
        "collection": default.collection,
        "top_k": default.top_k,
        "min_score": default.min_score,
        "filter": default.filter,
    }
    auditlog.record(
        connection,
        actor=default.actor,
        action="retrieval.attach",
        subject=default.alias,
        detail=detail,
        now=default.updated_at,
    )


def detach(connection: Connection, alias: str, *, actor: str, now: int) -> None:
    """Let the alias retrieve nothing any more. Raises NotFoundError when it does not."""
    gone = connection.execute(
        delete(retrieval_defaults).where(retrieval_defaults.c.alias == alias)
    ).rowcount
    if not gone:
        raise NotFoundError(
            f"{alias!r} retrieves nothing.", hint="`whet documents list` shows which aliases do."
        )
    auditlog.record(connection, actor=actor, action="retrieval.detach", subject=alias, now=now)
