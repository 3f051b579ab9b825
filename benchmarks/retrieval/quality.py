"""Recall of words, vectors and both, over the manual and the questions beside this file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.retrieval.manual import Question, fetch_manual, load_questions
from serving.retrieval import documents_store
from serving.retrieval.chunking import DEFAULT_CHUNK_TOKENS
from serving.retrieval.embedders import Embedder, open_embedder
from serving.retrieval.ingest import Divider, Ingest
from serving.retrieval.records import Mode, SearchRequest
from serving.retrieval.reindex import reindex
from serving.retrieval.rerankers import open_reranker
from serving.retrieval.search import MAX_TOP_K, IndexSearcher
from serving.retrieval.sources import scan
from whet.clock import now_ms
from whet.context import Context, open_context
from whet.database import writing
from whet.settings import load_settings
from whet.urls import mask_url

CUTS = (1, 4, 10)
_COLLECTION = "manual"


def measure_quality(cache: Path, home: Path) -> dict[str, Any]:
    """Index the manual in `home` (what is there is kept) and ask every question in each mode."""
    folder = fetch_manual(cache)
    context = open_context(load_settings(home=home))
    embedder = open_embedder(context.settings)
    _ingest(context, folder, embedder)
    started, processor = time.perf_counter(), time.process_time()
    indexed = reindex(context, _COLLECTION, embedder, _show)
    seconds = time.perf_counter() - started
    result: dict[str, Any] = {
        "embedder": embedder.identity,
        "chunk_tokens": DEFAULT_CHUNK_TOKENS,
        "passages": indexed.passages,
        "embedded": indexed.embedded,
        "index_s": round(seconds, 1),
        "index_processor_s": round(time.process_time() - processor, 1),
        "recall": {},
    }
    open_source = partial(open_embedder, context.settings)
    searcher = IndexSearcher(context, open_source)
    for mode in Mode:
        result["recall"][mode.value] = _recall(searcher, mode, load_questions())
    searcher.close()
    if reranker := open_reranker(context.settings):
        searcher = IndexSearcher(context, open_source, lambda: reranker)
        result["reranker"] = mask_url(context.settings.reranker)
        result["recall"]["reranked"] = _recall(searcher, Mode.HYBRID, load_questions())
        searcher.close()
    context.close()
    return result


def _ingest(context: Context, folder: Path, embedder: Embedder) -> None:
    now = now_ms()
    with writing(context.database) as connection:
        collection = documents_store.get_collection(
            connection, _COLLECTION
        ) or documents_store.create_collection(
            connection, _COLLECTION, embedder=embedder.identity,
            chunk_tokens=DEFAULT_CHUNK_TOKENS, now=now,
        )  # fmt: skip
    divider = Divider(embedder.count_tokens, embedder.identity)
    report = Ingest(context.database, collection, divider, now=now).run(scan([str(folder)]))
    print(f"{report.added} pages added, {report.unchanged} unchanged, {len(report.failed)} failed")


def _show(done: int, total: int) -> None:
    if done % 1024 == 0:
        print(f"{done} of {total} texts embedded", flush=True)


def _recall(
    searcher: IndexSearcher, mode: Mode, questions: Sequence[Question]
) -> dict[str, dict[str, Any]]:
    """Return {part of the questions: {"questions", "@1", "@4", "@10"}}."""
    found = [(question, _first_pages(searcher, mode, question.question)) for question in questions]
    parts = {
        "all": found,
        "unseen": [each for each in found if each[0].unseen],
        "intent": [each for each in found if each[0].kind == "intent"],
        "known": [each for each in found if each[0].kind == "known"],
    }
    return {name: _shares(part) for name, part in parts.items()}


def _shares(part: Sequence[tuple[Question, list[str]]]) -> dict[str, Any]:
    shares: dict[str, Any] = {"questions": len(part)}
    for cut in CUTS:
        hits = sum(bool(set(question.pages) & set(pages[:cut])) for question, pages in part)
        shares[f"@{cut}"] = round(hits / len(part), 3)
    return shares


def _first_pages(searcher: IndexSearcher, mode: Mode, question: str) -> list[str]:
    """Return the different pages of the best passages, best first."""
    request = SearchRequest(collection=_COLLECTION, query=question, mode=mode, top_k=MAX_TOP_K)
    result = searcher.search_now(request)
    return list(dict.fromkeys(hit.address for hit in result.hits))
