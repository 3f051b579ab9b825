"""What people change of collections, from the command line or the console, with its audit entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, or_, select

from serving.retrieval import documents_store as store
from serving.retrieval.defaults_store import load_defaults
from serving.retrieval.records import Collection
from whet import auditlog
from whet.database import reading, writing
from whet.errors import ConflictError, NotFoundError
from whet.tables import api_keys

EVERY_KEY = "all"


def set_readers(
    connection: Connection, name: str, keys: str, *, actor: str, now: int
) -> Collection:
    """Let only these API keys read a collection: names or ids, separated by commas, or `all`.

    Raises NotFoundError for a key or a collection that there is not.
    """
    allowed = None
    if keys.strip() != EVERY_KEY:
        told = [part.strip() for part in keys.split(",") if part.strip()]
        allowed = sorted({_key_id(connection, reference) for reference in told})
    record_change(connection, "documents.keys", name, {"keys": allowed}, actor=actor, now=now)
    return store.update_collection(connection, name, allowed_keys=allowed, now=now)


def remove_documents(
    database: Engine, name: str, documents: Sequence[tuple[str, str]], *, actor: str, now: int
) -> int:
    """Remove documents, each given as (id, address); return how many there were."""
    with writing(database) as connection:
        store.require_collection(connection, name)
        removed = store.remove_documents(connection, name, [one for one, _ in documents], now)
        detail = {"documents": sorted(address for _, address in documents)}
        record_change(connection, "documents.remove", name, detail, actor=actor, now=now)
    return removed


def require_removable(database: Engine, name: str) -> int:
    """Return how many documents a collection has.

    Raises NotFoundError when there is none, ConflictError while an alias retrieves from it.
    """
    with reading(database) as connection:
        store.require_collection(connection, name)
        users = [one.alias for one in load_defaults(connection).values() if one.collection == name]
        count = len(store.documents_of(connection, name))
    if users:
        raise ConflictError(
            f"{', '.join(users)} retrieves from {name!r}.",
            hint=f"`whet documents detach {users[0]}` first.",
        )
    return count


def remove_collection(database: Engine, name: str, *, actor: str, now: int) -> None:
    """Remove a collection with all documents. Raises as `require_removable`."""
    require_removable(database, name)
    with writing(database) as connection:
        store.remove_collection(connection, name)
        detail: dict[str, Any] = {"documents": []}
        record_change(connection, "documents.remove", name, detail, actor=actor, now=now)


def record_change(
    connection: Connection,
    action: str,
    name: str,
    detail: Mapping[str, object],
    *,
    actor: str,
    now: int,
) -> None:
    """Write the audit entry of a change of collection `name`."""
    auditlog.record(connection, actor=actor, action=action, subject=name, detail=detail, now=now)


def _key_id(connection: Connection, reference: str) -> str:
    is_named = or_(api_keys.c.id == reference, api_keys.c.name == reference)
    found = connection.execute(select(api_keys.c.id).where(is_named)).scalars().all()
    if len(found) != 1:
        raise NotFoundError(
            f"{len(found)} API keys go by {reference!r}; expected one.",
            hint="`whet keys list` prints names and ids.",
        )
    return str(found[0])
