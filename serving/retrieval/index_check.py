"""Compares indexes with the collections they were built from, and repairs what differs."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable

import msgspec

from serving.retrieval.documents_store import (
    get_collection,
    list_collections,
    passages_of,
    require_collection,
)
from serving.retrieval.embedders import Embedder
from serving.retrieval.index import Index
from serving.retrieval.index_files import collection_folder, open_generation
from serving.retrieval.reindex import read_manifest, reindex
from whet.context import Context
from whet.database import reading
from whet.errors import WhetError

_log = logging.getLogger(__name__)


class IndexDifference(msgspec.Struct, frozen=True, kw_only=True):
    """How an index differs from the rows of its collection."""

    collection: str
    missing: int  # passages that the index lacks
    surplus: int  # passages of the index without a row
    is_stale: bool  # the digests differ

    @property
    def is_equal(self) -> bool:
        return not (self.missing or self.surplus or self.is_stale)


def compare(context: Context, collection: str) -> IndexDifference:
    """Compare every passage id of the index with the rows. Raises NotFoundError."""
    with reading(context.database) as connection:
        digest = require_collection(connection, collection).digest
        rows = {passage.id for passage, _, _ in passages_of(connection, collection)}
    generation = open_generation(collection_folder(context.settings.home, collection))
    if generation is None:
        return IndexDifference(
            collection=collection, missing=len(rows), surplus=0, is_stale=bool(rows)
        )
    index = Index(generation)
    try:
        indexed = set(index.passage_ids())
    finally:
        index.close()
    return IndexDifference(
        collection=collection,
        missing=len(rows - indexed),
        surplus=len(indexed - rows),
        is_stale=index.manifest.collection_digest != digest,
    )


def repair_indexes(context: Context, embedder: Callable[[], Embedder]) -> list[str]:
    """Build anew each index that is not of its collection's state or not of the current embedder.

    Files of collections that are gone are removed. Returns the collections that were indexed. The
    embedder is loaded only when something has to be built or compared.
    """
    with reading(context.database) as connection:
        names = {each.name: each.digest for each in list_collections(connection)}
    _remove_orphans(context, set(names))
    repaired = []
    for name, digest in names.items():
        if not int(digest or "0", 16) and read_manifest(context.settings, name) is None:
            continue  # nothing in it, and no index of something before
        try:
            found = reindex(context, name, embedder())
        except WhetError as error:
            _log.warning("the index of %s stays as it is: %s", name, error)
            continue
        if not found.was_current:
            _log.info("indexed %s: %d passages, %d embedded", name, found.passages, found.embedded)
            repaired.append(name)
    return repaired


def _remove_orphans(context: Context, names: set[str]) -> None:
    root = context.settings.home / "retrieval"
    for folder in root.iterdir() if root.is_dir() else ():
        if not folder.is_dir() or folder.name in names:
            continue
        with reading(context.database) as connection:  # it may have been created just now
            is_gone = get_collection(connection, folder.name) is None
        if is_gone:
            shutil.rmtree(folder)
