"""Queries on collections, documents and passages. Every change keeps the collection's digest.

The digest is the sum, modulo 2^256, of one hash for each indexed document (its id, content,
pipeline, title and metadata). A sum follows a changed document without reading the others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from serving.retrieval.passages import text_digest
from serving.retrieval.records import Collection, Document, Passage
from whet.errors import ConflictError, NotFoundError
from whet.ids import check_name
from whet.json_types import JsonObject
from whet.tables import collections, documents, passage_vectors, passages

INDEXED, FAILED = "indexed", "failed"  # states of a document
EMPTY_DIGEST = "0" * 64
_BATCH = 500  # ids in one statement, below every database's limit of parameters
_MODULUS = 1 << 256


# --- collections ----------------------------------------------------------------------------------


def create_collection(
    connection: Connection,
    name: str,
    *,
    embedder: str,
    chunk_tokens: int,
    description: str = "",
    allowed_keys: Sequence[str] | None = None,
    settings: JsonObject | None = None,
    now: int,
) -> Collection:
    """Create an empty collection.

    Raises InputError for a name that cannot be one, ConflictError for one that is taken.
    """
    check_name(name, "collection")
    created = Collection(
        name=name,
        description=description,
        embedder=embedder,
        chunk_tokens=chunk_tokens,
        allowed_keys=None if allowed_keys is None else sorted(set(allowed_keys)),
        settings=settings or {},
        digest=EMPTY_DIGEST,
        created_at=now,
        updated_at=now,
    )
    if get_collection(connection, name) is not None:
        raise _taken(name)
    try:
        connection.execute(insert(collections).values(**msgspec.structs.asdict(created)))
    except IntegrityError:  # somebody else created it between the two statements
        raise _taken(name) from None
    return created


def _taken(name: str) -> ConflictError:
    return ConflictError(
        f"There is a collection {name!r} already.", hint=f"`whet documents list {name}` shows it."
    )


def get_collection(connection: Connection, name: str) -> Collection | None:
    """Return the collection of that name, or None."""
    row = connection.execute(select(collections).where(collections.c.name == name)).first()
    return _collection(row) if row is not None else None


def require_collection(connection: Connection, name: str) -> Collection:
    """Return the collection of that name. Raises NotFoundError when there is none."""
    found = get_collection(connection, name)
    if found is None:
        raise NotFoundError(
            f"There is no collection {name!r}.", hint="`whet documents list` prints them."
        )
    return found


def list_collections(connection: Connection) -> list[Collection]:
    """Return all collections by name."""
    rows = connection.execute(select(collections).order_by(collections.c.name))
    return [_collection(row) for row in rows]


def update_collection(connection: Connection, name: str, *, now: int, **changes: Any) -> Collection:
    """Change `description`, `embedder`, `chunk_tokens`, `allowed_keys` or `settings`.

    Raises NotFoundError when there is no such collection.
    """
    found = require_collection(connection, name)
    changed = msgspec.structs.replace(found, updated_at=now, **changes)
    values = msgspec.structs.asdict(changed)
    kept = {key: values[key] for key in (*changes, "updated_at")}
    connection.execute(update(collections).where(collections.c.name == name).values(**kept))
    return changed


def remove_collection(connection: Connection, name: str) -> None:
    """Remove a collection with everything in it. Raises NotFoundError when there is none."""
    _lock(connection, name)
    require_collection(connection, name)
    hashes = _text_hashes(connection, passages.c.collection == name)
    connection.execute(delete(passages).where(passages.c.collection == name))
    connection.execute(delete(documents).where(documents.c.collection == name))
    connection.execute(delete(collections).where(collections.c.name == name))
    _remove_vectors(connection, hashes)


def may_read(collection: Collection, api_key_id: str) -> bool:
    """Tell whether requests with this API key may be answered from the collection."""
    return collection.allowed_keys is None or api_key_id in collection.allowed_keys


def count_contents(connection: Connection, collection: str = "") -> dict[str, dict[str, int]]:
    """Return {collection: {"documents", "failed", "passages"}}; an empty collection is absent.

    `collection`: only that one.
    """
    counted = select(
        documents.c.collection,
        documents.c.state,
        func.count().label("number"),
        func.sum(documents.c.passages).label("passages"),
    ).group_by(documents.c.collection, documents.c.state)
    if collection:
        counted = counted.where(documents.c.collection == collection)
    rows = connection.execute(counted)
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        counts = found.setdefault(row.collection, {"documents": 0, "failed": 0, "passages": 0})
        counts["documents" if row.state == INDEXED else "failed"] += row.number
        counts["passages"] += int(row.passages)
    return found


# --- documents ------------------------------------------------------------------------------------


def documents_of(
    connection: Connection, collection: str, addresses: Iterable[str] | None = None
) -> list[Document]:
    """Return a collection's documents by address, failed ones too; `addresses`: of these alone."""
    chosen = select(documents).where(documents.c.collection == collection)
    if addresses is not None:
        chosen = chosen.where(documents.c.address.in_(list(addresses)))
    return [_document(row) for row in connection.execute(chosen.order_by(documents.c.address))]


def get_document(connection: Connection, document_id: str) -> Document | None:
    """Return the document of that id, or None."""
    row = connection.execute(select(documents).where(documents.c.id == document_id)).first()
    return _document(row) if row is not None else None


def replace_document(
    connection: Connection, document: Document, new: Sequence[Passage], now: int
) -> None:
    """Write a document with its passages in place of what was there under its id.

    The caller's transaction holds it together. A failed document has no passages. Raises
    NotFoundError when the collection is gone.
    """
    _lock(connection, document.collection)
    before = get_document(connection, document.id)
    old_hashes = _text_hashes(connection, passages.c.document_id == document.id)
    connection.execute(delete(passages).where(passages.c.document_id == document.id))
    connection.execute(delete(documents).where(documents.c.id == document.id))
    connection.execute(insert(documents).values(**_document_row(document, len(new))))
    rows = [_passage_row(passage, document) for passage in new]
    if rows:
        connection.execute(insert(passages), rows)
    _remove_vectors(connection, old_hashes - {row["text_sha256"] for row in rows})
    _move_digest(connection, document.collection, [before] if before else [], [document], now)


def remove_documents(
    connection: Connection, collection: str, document_ids: Iterable[str], now: int
) -> int:
    """Remove documents with their passages and vectors; return how many there were."""
    _lock(connection, collection)
    removed: list[Document] = []
    for ids in _batched(sorted(set(document_ids))):
        chosen = (documents.c.collection == collection) & documents.c.id.in_(ids)
        removed += [_document(row) for row in connection.execute(select(documents).where(chosen))]
        hashes = _text_hashes(connection, passages.c.document_id.in_(ids))
        connection.execute(delete(passages).where(passages.c.document_id.in_(ids)))
        connection.execute(delete(documents).where(chosen))
        _remove_vectors(connection, hashes)
    _move_digest(connection, collection, removed, [], now)
    return len(removed)


# --- passages -------------------------------------------------------------------------------------


def passages_by_id(
    connection: Connection, passage_ids: Iterable[str]
) -> dict[str, tuple[Passage, Document]]:
    """Return the living ones of these passages with their documents.

    Every search resolves its hits here: a passage that was removed or replaced is absent.
    """
    found: dict[str, tuple[Passage, Document]] = {}
    for ids in _batched(sorted(set(passage_ids))):
        rows = connection.execute(select(passages).where(passages.c.id.in_(ids))).all()
        owners = _indexed_documents(connection, {row.document_id for row in rows})
        for row in rows:
            if row.document_id in owners:
                found[row.id] = (_passage(row), owners[row.document_id])
    return found


def passages_of_document(
    connection: Connection, document_id: str, first: int = 0, last: int | None = None
) -> list[Passage]:
    """Return a document's passages from position `first` to `last` (both included), in order."""
    chosen = select(passages).where(passages.c.document_id == document_id)
    chosen = chosen.where(passages.c.position >= first).order_by(passages.c.position)
    if last is not None:
        chosen = chosen.where(passages.c.position <= last)
    return [_passage(row) for row in connection.execute(chosen)]


def passages_of(connection: Connection, collection: str) -> Iterator[tuple[Passage, Document, str]]:
    """Yield each passage of the indexed documents with its document and `text_sha256`.

    Read in batches, by document id and position. On PostgreSQL, where each statement sees the
    newest rows, compare the collection's digest before and after.
    """
    for owners in _indexed_batches(connection, collection):
        rows = connection.execute(
            select(passages)
            .where(passages.c.document_id.in_(owners))
            .order_by(passages.c.document_id, passages.c.position)
        ).all()
        for row in rows:
            yield _passage(row), owners[row.document_id], row.text_sha256


def remove_unused_vectors(connection: Connection) -> int:
    """Remove vectors of texts that no passage has; return how many."""
    used = select(passages.c.text_sha256)
    gone = delete(passage_vectors).where(passage_vectors.c.text_sha256.not_in(used))
    return connection.execute(gone).rowcount


def compute_digest(connection: Connection, collection: str) -> str:
    """Compute a collection's digest from its documents: what its row has to say."""
    total = sum(_contribution(document) for document in documents_of(connection, collection))
    return f"{total % _MODULUS:064x}"


# --- parts ----------------------------------------------------------------------------------------


def _lock(connection: Connection, collection: str) -> None:
    """Let one writer at a time change a collection, so that no digest is lost.

    SQLite's write transaction does that for the whole database.
    """
    chosen = select(collections.c.name).where(collections.c.name == collection)
    connection.execute(chosen.with_for_update())


def _move_digest(
    connection: Connection,
    name: str,
    before: Sequence[Document],
    after: Sequence[Document],
    now: int,
) -> None:
    total = int(require_collection(connection, name).digest, 16)
    total += sum(map(_contribution, after)) - sum(map(_contribution, before))
    values = {"digest": f"{total % _MODULUS:064x}", "updated_at": now}
    connection.execute(update(collections).where(collections.c.name == name).values(**values))


def _contribution(document: Document) -> int:
    """Return the document's part of the digest: zero unless it is indexed."""
    if document.state != INDEXED:
        return 0
    parts = (
        document.id,
        document.content_sha256,
        document.pipeline,
        document.title,
        json.dumps(document.metadata, sort_keys=True),
    )
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest(), "big")


def _text_hashes(connection: Connection, chosen: Any) -> set[str]:
    return set(connection.execute(select(passages.c.text_sha256).where(chosen)).scalars())


def _remove_vectors(connection: Connection, hashes: set[str]) -> None:
    """Remove the vectors of texts that no passage has any more."""
    for some in _batched(sorted(hashes)):
        used = select(passages.c.text_sha256).where(passages.c.text_sha256.in_(some))
        gone = set(some) - set(connection.execute(used).scalars())
        connection.execute(delete(passage_vectors).where(passage_vectors.c.text_sha256.in_(gone)))


def _indexed_documents(connection: Connection, ids: set[str]) -> dict[str, Document]:
    chosen = select(documents).where(documents.c.id.in_(ids), documents.c.state == INDEXED)
    return {row.id: _document(row) for row in connection.execute(chosen)}


def _indexed_batches(connection: Connection, collection: str) -> Iterator[dict[str, Document]]:
    chosen = select(documents).where(
        documents.c.collection == collection, documents.c.state == INDEXED
    )
    last = ""
    while rows := connection.execute(_page(chosen, last)).all():
        yield {row.id: _document(row) for row in rows}
        last = rows[-1].id


def _page(chosen: Select[Any], after: str) -> Select[Any]:
    return chosen.where(documents.c.id > after).order_by(documents.c.id).limit(_BATCH)


def _batched(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), _BATCH):
        yield values[start : start + _BATCH]


def _collection(row: Row[Any]) -> Collection:
    return msgspec.convert(_values(row), Collection)


def _document(row: Row[Any]) -> Document:
    return msgspec.convert(_values(row), Document)


def _passage(row: Row[Any]) -> Passage:
    return msgspec.convert(_values(row), Passage)


def _values(row: Row[Any]) -> dict[str, object]:
    # SQLAlchemy's keys are of a subclass of str, which msgspec does not take.
    return {str(key): value for key, value in row._mapping.items()}


def _document_row(document: Document, passage_count: int) -> JsonObject:
    values: dict[str, Any] = msgspec.to_builtins(document)
    return values | {"passages": passage_count}


def _passage_row(passage: Passage, document: Document) -> JsonObject:
    values: dict[str, Any] = msgspec.to_builtins(passage)
    values["text_sha256"] = text_digest(document.title, passage.section, passage.text)
    return values
