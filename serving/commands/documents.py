"""`whet documents list`, `show` and `remove`."""

from __future__ import annotations

import msgspec
import typer
from sqlalchemy import Connection, select

from serving.retrieval import administration
from serving.retrieval import documents_store as store
from serving.retrieval.defaults_store import load_defaults
from serving.retrieval.notices import notice_text
from serving.retrieval.records import Collection, Document
from whet.cli import actor, emit, opened
from whet.clock import iso, now_ms
from whet.context import Context
from whet.database import reading
from whet.errors import NotFoundError
from whet.json_types import JsonObject
from whet.tables import api_keys

_SHOWN_CHARACTERS = 200  # of a passage in a table


def list_all(*, name: str, as_json: bool) -> None:
    """List collections, or the documents of one."""
    with opened() as context, reading(context.database) as connection:
        if name:
            store.require_collection(connection, name)
            rows = [_document_row(one) for one in store.documents_of(connection, name)]
        else:
            counts = store.count_contents(connection)
            names = {row.id: row.name for row in connection.execute(select(api_keys))}
            defaults = load_defaults(connection).values()
            rows = [
                _collection_row(one, counts.get(one.name, {}), names)
                | {"attached": [each.alias for each in defaults if each.collection == one.name]}
                for one in store.list_collections(connection)
            ]
    emit(rows, as_json, title=f"documents of {name}" if name else "collections")


def show(*, name: str, document: str, as_json: bool) -> None:
    """Print a document and the passages that searches find."""
    with opened() as context, reading(context.database) as connection:
        store.require_collection(connection, name)
        found = _find(connection, name, document)
        passages = store.passages_of_document(connection, found.id)
    if as_json:
        told = msgspec.to_builtins(found) | {"passages": msgspec.to_builtins(passages)}
        emit(told, True)
        return
    emit(_document_row(found) | {"id": found.id, "metadata": found.metadata}, False)
    rows = [
        {
            "position": one.position,
            "page": one.page,
            "section": one.section,
            "tokens": one.tokens,
            "text": " ".join(one.text.split())[:_SHOWN_CHARACTERS],
        }
        for one in passages
    ]
    emit(rows, False, title="passages")


def remove(*, name: str, documents: list[str], yes: bool, as_json: bool) -> None:
    """Remove documents, or a collection with all of them: no later answer has their text."""
    now = now_ms()
    with opened() as context:
        if documents:
            with reading(context.database) as connection:
                store.require_collection(connection, name)
                found = [_find(connection, name, one) for one in documents]
            removed = administration.remove_documents(
                context.database, name, [(one.id, one.address) for one in found],
                actor=actor(), now=now,
            )  # fmt: skip
        else:
            removed = _remove_collection(context, name, yes)
    emit({"collection": name, "removed": removed}, as_json)


def _find(connection: Connection, collection: str, reference: str) -> Document:
    found = [
        one
        for one in store.documents_of(connection, collection)
        if reference in (one.id, one.address)
    ]
    if not found:
        raise NotFoundError(
            f"{collection!r} has no document {reference!r}.",
            hint=f"`whet documents list {collection}` prints them.",
        )
    return found[0]


def _remove_collection(context: Context, name: str, yes: bool) -> int:
    count = administration.require_removable(context.database, name)
    if not yes:
        typer.confirm(f"Remove the collection {name} with its {count} documents?", abort=True)
    administration.remove_collection(context.database, name, actor=actor(), now=now_ms())
    return count


def _collection_row(
    collection: Collection, counts: dict[str, int], names: dict[str, str]
) -> JsonObject:
    allowed = collection.allowed_keys
    return {
        "name": collection.name,
        "documents": counts.get("documents", 0),
        "failed": counts.get("failed", 0),
        "passages": counts.get("passages", 0),
        "keys": "all" if allowed is None else ", ".join(names.get(one, one) for one in allowed),
        "chunk_tokens": collection.chunk_tokens,
        "changed": iso(collection.updated_at),
        "description": collection.description,
    }


def _document_row(document: Document) -> JsonObject:
    return {
        "address": document.address,
        "title": document.title,
        "type": document.media_type,
        "language": document.language,
        "state": document.state,
        "passages": document.passages,
        "updated": iso(document.updated_at),
        "notes": document.error or "; ".join(map(notice_text, document.notices)),
    }
