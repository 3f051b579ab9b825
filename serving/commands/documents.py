"""`whet documents add`, `list`, `show` and `remove`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import typer
from sqlalchemy import Connection, select

from serving.commands.documents_progress import ingest_progress
from serving.retrieval import administration
from serving.retrieval import documents_store as store
from serving.retrieval.chunking import DEFAULT_CHUNK_TOKENS, LEAST_CHUNK_TOKENS
from serving.retrieval.defaults_store import load_defaults
from serving.retrieval.ingest import Divider, Ingest, IngestReport
from serving.retrieval.notices import notice_text
from serving.retrieval.records import Collection, Document
from serving.retrieval.sources import Scan, scan
from whet.cli import actor, emit, err, opened
from whet.clock import iso, now_ms
from whet.context import Context
from whet.database import reading, writing
from whet.errors import InputError, NotFoundError
from whet.tables import api_keys

if TYPE_CHECKING:
    from serving.retrieval.embedders import Embedder

_AS_JSON = typer.Option(False, "--json", help="Print JSON.")
_SHOWN_CHARACTERS = 200  # of a passage in a table
_SOME_FAILED = 1  # exit code


def add(
    name: str = typer.Argument(..., help="The collection; it is created when it is new."),
    paths: list[str] = typer.Argument(..., help="Files, folders, or URLs that fsspec opens."),
    sync: bool = typer.Option(
        False, "--sync", help="Remove documents whose files are gone from these folders."
    ),
    yes: bool = typer.Option(False, "--yes", help="Also when that is more than a fifth of them."),
    metadata: list[str] = typer.Option(
        [], "--metadata", help="KEY=VALUE for these documents; searches filter by it."
    ),
    keys: str = typer.Option(
        "", "--keys", help="Names or ids of the API keys that may read the collection, or `all`."
    ),
    prefix: str = typer.Option(
        "", "--prefix", help="Goes in front of each address, such as https://example.com/docs/."
    ),
    source: str = typer.Option(
        "", "--source", help="Where they come from, instead of the path: same source, same files."
    ),
    description: str = typer.Option("", "--description", help="Of a new collection."),
    chunk_tokens: int = typer.Option(
        0, "--chunk-tokens", help="Longest passage of a new collection, in tokens."
    ),
    index: bool = typer.Option(True, "--index/--no-index", help="Index them afterwards."),
    as_json: bool = _AS_JSON,
) -> None:
    """Add what is new or changed to a collection; exit code 1 when a file could not be read."""
    # The embedder's libraries take a second to load, for which no other command should wait.
    from serving.retrieval.embedders import open_embedder
    from serving.retrieval.reindex import reindex

    now = now_ms()
    with opened() as context:
        embedder = open_embedder(context.settings)
        with writing(context.database) as connection:
            collection = _collection_for(connection, name, embedder, description, chunk_tokens, now)
            collection = _with_keys(connection, collection, keys, now)
            known = sorted({one.source for one in store.documents_of(connection, name)})
        found = scan(paths, source=source, prefix=prefix, known_sources=known)
        run = Ingest(
            context.database,
            collection,
            Divider(embedder.count_tokens, embedder.identity),
            metadata=_parse_metadata(metadata),
            now=now,
        )
        with ingest_progress() as progress:
            report = run.run(found, progress.on_document)
            if sync:
                report = run.remove_missing(found, is_sure=yes)
            with writing(context.database) as connection:
                administration.record_change(
                    connection, "documents.add", name, report.counts(), actor=actor(), now=now
                )
            if index:
                reindex(context, name, embedder, progress.on_embedded)
    _print_report(report, found, as_json)
    if report.failed:
        raise typer.Exit(_SOME_FAILED)


def list_command(
    name: str = typer.Argument("", help="Print the documents of one; without it, all collections."),
    as_json: bool = _AS_JSON,
) -> None:
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


def show(
    name: str = typer.Argument(..., help="The collection."),
    document: str = typer.Argument(..., help="The document's address or id."),
    as_json: bool = _AS_JSON,
) -> None:
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


def remove(
    name: str = typer.Argument(..., help="The collection."),
    documents: list[str] = typer.Argument(
        None, help="Addresses or ids; without any, the whole collection."
    ),
    yes: bool = typer.Option(False, "--yes", help="Do not ask before a collection is removed."),
    as_json: bool = _AS_JSON,
) -> None:
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


def add_document_commands(app: typer.Typer) -> None:
    """Add these commands to `whet documents`."""
    app.command("add")(add)
    app.command("list")(list_command)
    app.command("show")(show)
    app.command("remove")(remove)


def _collection_for(
    connection: Connection,
    name: str,
    embedder: Embedder,
    description: str,
    chunk_tokens: int,
    now: int,
) -> Collection:
    """Return the collection, created when it is new."""
    found = store.get_collection(connection, name)
    if found is not None and not chunk_tokens:
        return found
    size = chunk_tokens or min(DEFAULT_CHUNK_TOKENS, embedder.max_tokens)
    if not LEAST_CHUNK_TOKENS <= size <= embedder.max_tokens:
        raise InputError(
            f"--chunk-tokens is {size}; expected {LEAST_CHUNK_TOKENS} to {embedder.max_tokens}, "
            "which is what the embedder reads."
        )
    if found is not None:
        return store.update_collection(connection, name, chunk_tokens=size, now=now)
    return store.create_collection(
        connection,
        name,
        embedder=embedder.identity,
        chunk_tokens=size,
        description=description,
        now=now,
    )


def _with_keys(connection: Connection, collection: Collection, keys: str, now: int) -> Collection:
    if not keys:
        return collection
    return administration.set_readers(connection, collection.name, keys, actor=actor(), now=now)


def _parse_metadata(given: list[str]) -> dict[str, Any] | None:
    """Return {key: value}; None when nothing was given, which keeps what documents have."""
    pairs = [part.partition("=") for part in given]
    wrong = next((part for part, (key, equals, _) in zip(given, pairs, strict=True)
                  if not equals or not key), None)  # fmt: skip
    if wrong is not None:
        raise InputError(f"--metadata is {wrong!r}; expected KEY=VALUE.")
    return {key: value for key, _, value in pairs} or None


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
) -> dict[str, Any]:
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


def _document_row(document: Document) -> dict[str, Any]:
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


def _print_report(report: IngestReport, found: Scan, as_json: bool) -> None:
    """Print counts to standard output, and to standard error what was left out and why."""
    told = report.counts()
    if as_json:
        failed = [{"address": address, "reason": reason} for address, reason in report.failed]
        left_out = {"unknown_types": dict(found.unknown), "unseen": found.errors}
        emit(told | {"failed": failed, "kept": report.kept} | left_out, True)
        return
    emit(told, False)
    lines = [f"{address}: {reason}" for address, reason in report.failed]
    lines += [f"{address}: {notice_text(notice)}." for address, notice in report.notices]
    lines += [f"Not seen: {error}" for error in found.errors]
    lines += [found.sentence_on_unknown()]
    lines += [f"Nothing was removed: {report.kept}"] if report.kept else []
    for line in filter(None, lines):
        err.print(line, markup=False, soft_wrap=True)
