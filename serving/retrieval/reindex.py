"""Builds a collection's index anew from its rows, and swaps it in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import msgspec

from serving.retrieval.documents_store import (
    passages_of,
    require_collection,
    update_collection,
)
from serving.retrieval.embedders import Embedder, source_of
from serving.retrieval.index import FORMAT, IndexBuilder, Manifest
from serving.retrieval.index_files import (
    build_lock,
    collection_folder,
    current_generation,
    write_generation,
)
from serving.retrieval.index_state import noted_progress
from serving.retrieval.passages import embedded_text
from serving.retrieval.vectors_store import hashes_with_vectors, read_vectors, write_vectors
from whet.clock import now_ms
from whet.context import Context
from whet.database import reading, writing
from whet.errors import ConflictError
from whet.settings import Settings

# Texts that are embedded between two commits: half a second to a few of work, which is what a
# killed run loses.
_BATCH = 64
_READ_BATCH = 1000  # passages whose vectors are read at once
_TRIES = 5  # the documents may change while the index is built

Progress = Callable[[int, int], None]  # (texts embedded, texts to embed)
T = TypeVar("T")


class ReindexResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did."""

    collection: str
    generation: str
    digest: str
    passages: int
    embedded: int  # texts that had no vector yet
    was_current: bool  # nothing was to do


def reindex(
    context: Context,
    collection: str,
    embedder: Embedder,
    on_progress: Progress | None = None,
    *,
    force: bool = False,
) -> ReindexResult:
    """Embed what has no vector yet, build the index, and let it answer.

    A run that is killed loses at most one batch; the next one goes on. While it runs, the old
    index answers. With `force`, an index that is current is built all the same.

    Raises NotFoundError for an unknown collection, TextTooLongError for passages that this
    embedder does not read whole, ConflictError when the documents do not stop changing.
    """
    folder = collection_folder(context.settings.home, collection)
    with reading(context.database) as connection:
        require_collection(connection, collection)
    with build_lock(folder):
        if not force and (current := _current(context, collection, embedder)):
            return current
        embedded = 0
        with noted_progress(folder, on_progress) as progress:
            for _ in range(_TRIES):
                embedded += _embed_missing(context, collection, embedder, progress)
                built = _collect(context, collection, embedder)
                if built is not None:
                    return _swap_in(context, collection, embedder, *built, embedded)
    raise ConflictError(
        f"The documents of {collection!r} changed {_TRIES} times while it was indexed.",
        hint="Run `whet documents reindex` once they are all added.",
    )


def read_manifest(settings: Settings, collection: str) -> tuple[str, Manifest] | None:
    """Return (generation, manifest) of the index that answers; None when there is none."""
    folder = collection_folder(settings.home, collection)
    name = current_generation(folder)
    path = folder / name / "manifest.json"
    if not name or not path.is_file():
        return None
    return name, msgspec.json.decode(path.read_bytes(), type=Manifest)


def _current(context: Context, collection: str, embedder: Embedder) -> ReindexResult | None:
    found = read_manifest(context.settings, collection)
    with reading(context.database) as connection:
        digest = require_collection(connection, collection).digest
    if found is None:
        return None
    name, manifest = found
    built = (manifest.collection_digest, manifest.embedder, manifest.format)
    if built != (digest, embedder.identity, FORMAT):
        return None
    return ReindexResult(
        collection=collection, generation=name, digest=digest, passages=manifest.passages,
        embedded=0, was_current=True,
    )  # fmt: skip


def _embed_missing(
    context: Context, collection: str, embedder: Embedder, on_progress: Progress | None
) -> int:
    missing = _missing_texts(context, collection, embedder.identity)
    # By length, so that a batch takes about as long as its neighbours and the estimate holds.
    waiting = sorted(missing.items(), key=lambda item: (len(item[1]), item[0]))
    done = 0
    if on_progress:
        on_progress(0, len(waiting))
    for batch in _batched(waiting, _BATCH):
        vectors = embedder.embed_passages([text for _, text in batch])
        found = {digest: vector for (digest, _), vector in zip(batch, vectors, strict=True)}
        with writing(context.database) as connection:
            write_vectors(connection, found, embedder.identity)
        done += len(batch)
        if on_progress:
            on_progress(done, len(waiting))
    return done


def _missing_texts(context: Context, collection: str, identity: str) -> dict[str, str]:
    """Return {hash: text} of the passages without a vector."""
    missing: dict[str, str] = {}
    with reading(context.database) as connection:
        for batch in _batched(passages_of(connection, collection), _READ_BATCH):
            there = hashes_with_vectors(connection, (digest for _, _, digest in batch), identity)
            for passage, document, digest in batch:
                if digest not in there:
                    missing[digest] = embedded_text(document.title, passage.section, passage.text)
    return missing


def _collect(
    context: Context, collection: str, embedder: Embedder
) -> tuple[str, IndexBuilder] | None:
    """Return (digest, builder); None when the documents changed meanwhile."""
    builder = IndexBuilder(embedder.dimension)
    with reading(context.database) as connection:
        digest = require_collection(connection, collection).digest
        for batch in _batched(passages_of(connection, collection), _READ_BATCH):
            hashes = {digest for _, _, digest in batch}
            vectors = read_vectors(connection, hashes, embedder.identity)
            if len(vectors) < len(hashes):
                return None
            for passage, document, text_digest in batch:
                builder.add(passage, document, vectors[text_digest])
        # PostgreSQL shows each statement the newest rows.
        is_unchanged = require_collection(connection, collection).digest == digest
    return (digest, builder) if is_unchanged else None


def _swap_in(
    context: Context,
    collection: str,
    embedder: Embedder,
    digest: str,
    builder: IndexBuilder,
    embedded: int,
) -> ReindexResult:
    now, folder = now_ms(), collection_folder(context.settings.home, collection)
    name = f"{now}-{digest[:12]}"
    write_generation(
        folder,
        name,
        lambda target: builder.write(
            target, digest=digest, embedder=embedder.identity,
            source=source_of(context.settings), now=now,
        ),
    )  # fmt: skip
    with writing(context.database) as connection:
        if require_collection(connection, collection).embedder != embedder.identity:
            update_collection(connection, collection, now=now, embedder=embedder.identity)
    return ReindexResult(
        collection=collection, generation=name, digest=digest, passages=len(builder),
        embedded=embedded, was_current=False,
    )  # fmt: skip


def _batched(values: Iterator[T] | Sequence[T], size: int) -> Iterator[list[T]]:
    iterator = iter(values)
    while batch := list(islice(iterator, size)):
        yield batch
