"""`whet documents add`: read what is new or changed, and index it."""

from __future__ import annotations

import typer
from sqlalchemy import Connection

from serving.commands.documents_progress import ingest_progress
from serving.retrieval import administration
from serving.retrieval import documents_store as store
from serving.retrieval.chunking import DEFAULT_CHUNK_TOKENS, LEAST_CHUNK_TOKENS
from serving.retrieval.embedders import Embedder, open_embedder
from serving.retrieval.ingest import Divider, Ingest, IngestReport
from serving.retrieval.notices import notice_text
from serving.retrieval.records import Collection
from serving.retrieval.reindex import reindex
from serving.retrieval.sources import Scan, scan
from whet.cli import actor, emit, err, opened
from whet.clock import now_ms
from whet.database import writing
from whet.errors import InputError
from whet.json_types import JsonObject

_SOME_FAILED = 1  # exit code


def add(
    *,
    name: str,
    paths: list[str],
    sync: bool,
    yes: bool,
    metadata: list[str],
    keys: str,
    prefix: str,
    source: str,
    description: str,
    chunk_tokens: int,
    index: bool,
    as_json: bool,
) -> None:
    """Add what is new or changed to a collection; exit code 1 when a file could not be read."""
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


def _parse_metadata(given: list[str]) -> JsonObject | None:
    """Return {key: value}; None when nothing was given, which keeps what documents have."""
    pairs = [part.partition("=") for part in given]
    wrong = next((part for part, (key, equals, _) in zip(given, pairs, strict=True)
                  if not equals or not key), None)  # fmt: skip
    if wrong is not None:
        raise InputError(f"--metadata is {wrong!r}; expected KEY=VALUE.")
    return {key: value for key, _, value in pairs} or None


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
