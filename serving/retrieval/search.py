"""Answers searches from the collections' indexes; every hit is resolved against its row."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from serving.retrieval.documents_store import (
    get_collection,
    passages_by_id,
    passages_of_document,
)
from serving.retrieval.embedders import (
    Embedder,
    EmbedderSource,
    FloatArray,
    source_of,
)
from serving.retrieval.filters import check_filter
from serving.retrieval.fusion import Fusion
from serving.retrieval.index import Candidate, Index
from serving.retrieval.index_files import (
    collection_folder,
    current_generation,
    open_generation,
)
from serving.retrieval.records import (
    Collection,
    Document,
    Hit,
    Mode,
    Outcome,
    Passage,
    SearchRequest,
    SearchResult,
)
from serving.retrieval.reranking import OpenReranker, Reranking
from whet.context import Context
from whet.database import error_text, reading
from whet.errors import InputError, WhetError

MAX_TOP_K = 50  # more would not fit a prompt
MAX_NEIGHBOURS = 5
# Candidates that are resolved above `top_k`, so that those without a living row are replaced.
_SPARE = 4
# Searches at the same time. They share the cores; the rest wait in line.
_THREADS = 2
_log = logging.getLogger(__name__)

OpenEmbedder = Callable[[EmbedderSource], Embedder]


class IndexSearcher:
    """Searches in this process, with one open index per collection.

    Args:
        open_embedder: called with the settings that an index was built with, once for each.
        open_reranker: called once; without it, hits stay in the order of the fusion.
    """

    def __init__(
        self,
        context: Context,
        open_embedder: OpenEmbedder,
        open_reranker: OpenReranker = lambda: None,
    ) -> None:
        self._context = context
        self._open_embedder = open_embedder
        self._reranking = Reranking(open_reranker, context.settings.reranker_candidates)
        self._embedders: dict[bytes, Embedder] = {}
        self._indexes: dict[str, Index] = {}
        self._lock = threading.Lock()
        self._embedder_lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="search")

    async def search(self, request: SearchRequest) -> SearchResult:
        """Return the best passages. Never raises for a search that failed: its outcome says so."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self.search_now, request)

    def search_now(self, request: SearchRequest) -> SearchResult:
        """Search in the calling thread."""
        started = time.perf_counter()
        try:
            found = self._search(request)
        except WhetError as error:
            found = SearchResult(outcome=Outcome.FAILED, message=str(error))
        except (SQLAlchemyError, OSError, ValueError) as error:
            _log.exception("a search of %s failed", request.collection)
            message = (
                error_text(self._context.database, error)
                if isinstance(error, SQLAlchemyError)
                else f"The index of {request.collection!r} cannot be read: {error}."
            )
            found = SearchResult(outcome=Outcome.FAILED, message=message)
        return msgspec.structs.replace(found, took_ms=(time.perf_counter() - started) * 1000)

    def current_embedder(self) -> Embedder:
        """Return the embedder that the settings name. Raises EmbedderError."""
        return self._embedder(source_of(self._context.settings))

    def close(self) -> None:
        self._pool.shutdown()
        for index in self._indexes.values():
            index.close()
        self._indexes.clear()

    def _search(self, request: SearchRequest) -> SearchResult:
        _check(request)
        with reading(self._context.database) as connection:
            collection = get_collection(connection, request.collection)
            if collection is None:
                return SearchResult(
                    outcome=Outcome.FORBIDDEN,
                    message=f"There is no collection {request.collection!r}.",
                )
            index = self._index(request.collection)
            if index is None:
                return _without_index(collection)
            vector, notice = self._vector(request, index)
            candidates = index.search(
                request.query, vector, mode=request.mode, given_filter=request.filter,
                count=request.top_k + _SPARE, fusion=_fusion(collection),
            )  # fmt: skip
            wanted = max(request.top_k, self._reranking.candidates(request))
            hits, dropped = _resolve(connection, request, candidates, wanted)
        hits, problem = self._reranking.order(request, hits)
        return SearchResult(
            outcome=Outcome.FOUND if hits else Outcome.EMPTY,
            hits=hits,
            collection_digest=index.manifest.collection_digest,
            is_stale=index.manifest.collection_digest != collection.digest,
            dropped=dropped,
            message=" ".join(filter(None, (notice, problem))),
        )

    def _vector(self, request: SearchRequest, index: Index) -> tuple[FloatArray | None, str]:
        """Return the question's vector, and a notice when the words alone have to answer."""
        if request.mode is Mode.LEXICAL or index.manifest.passages == 0:
            return None, ""
        try:
            embedder = self._embedder(index.manifest.source)
            if embedder.identity == index.manifest.embedder:
                return embedder.embed_query(request.query), ""
            problem = f"the index was built with {index.manifest.embedder}, which is not there"
        except WhetError as error:
            problem = str(error)
        if request.mode is Mode.VECTOR:
            raise WhetError(f"The question cannot be embedded: {problem}")
        return None, f"Found by words alone: {problem}"

    def _embedder(self, source: EmbedderSource) -> Embedder:
        key = msgspec.json.encode(source)
        with self._embedder_lock:
            if key not in self._embedders:
                self._embedders[key] = self._open_embedder(source)
            return self._embedders[key]

    def _index(self, collection: str) -> Index | None:
        folder = collection_folder(self._context.settings.home, collection)
        with self._lock:
            held = self._indexes.get(collection)
            if held is not None and held.name == current_generation(folder):
                return held
            generation = open_generation(folder)
            if generation is None:
                return None
            # The one before is not closed here: another thread may be reading it. Its lock goes
            # with the last reference.
            self._indexes[collection] = Index(generation)
            return self._indexes[collection]


def _check(request: SearchRequest) -> None:
    if not request.query.strip():
        raise InputError("The question is empty.")
    if not 1 <= request.top_k <= MAX_TOP_K:
        raise InputError(f"top_k is {request.top_k}; expected 1 to {MAX_TOP_K}.")
    if not 0 <= request.neighbours <= MAX_NEIGHBOURS:
        raise InputError(f"neighbours is {request.neighbours}; expected 0 to {MAX_NEIGHBOURS}.")
    check_filter(request.filter)


def _fusion(collection: Collection) -> Fusion:
    return msgspec.convert(collection.settings.get("fusion", {}), Fusion)


def _without_index(collection: Collection) -> SearchResult:
    if not int(collection.digest or "0", 16):
        return SearchResult(outcome=Outcome.EMPTY, collection_digest=collection.digest)
    return SearchResult(
        outcome=Outcome.FAILED,
        message=(
            f"{collection.name!r} has no index yet; `whet documents reindex {collection.name}`"
            " builds it."
        ),
    )


def _resolve(
    connection: Connection, request: SearchRequest, candidates: Iterator[Candidate], wanted: int
) -> tuple[list[Hit], int]:
    """Return (hits, candidates without a living row): what leaves search is alive."""
    hits: list[Hit] = []
    dropped = 0
    waiting = (each for each in candidates if each.score >= request.min_score)
    while some := list(islice(waiting, wanted + _SPARE)):
        alive = passages_by_id(connection, [each.passage_id for each in some])
        for candidate in some:
            passage, document = alive.get(candidate.passage_id, (None, None))
            if passage is None or document is None or passage.collection != request.collection:
                dropped += 1
                continue
            hits.append(_hit(connection, request, candidate, passage, document))
            if len(hits) == wanted:
                return hits, dropped
    return hits, dropped


def _hit(
    connection: Connection,
    request: SearchRequest,
    candidate: Candidate,
    passage: Passage,
    document: Document,
) -> Hit:
    text = passage.text
    if request.neighbours:
        first = max(passage.position - request.neighbours, 0)
        around = passages_of_document(
            connection, document.id, first, passage.position + request.neighbours
        )
        text = "\n".join(each.text for each in around)
    return Hit(
        passage_id=passage.id,
        document_id=document.id,
        collection=passage.collection,
        title=document.title,
        address=document.address,
        section=passage.section,
        text=text,
        score=candidate.score,
        lexical_rank=candidate.lexical_rank,
        vector_rank=candidate.vector_rank,
        metadata=document.metadata,
    )
