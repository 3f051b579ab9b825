"""`whet documents search`."""

from __future__ import annotations

import json
from functools import partial

from serving.retrieval.embedders import open_embedder
from serving.retrieval.records import Hit, Mode, Outcome, SearchRequest, SearchResult
from serving.retrieval.rerankers import open_reranker
from serving.retrieval.search import IndexSearcher
from whet.cli import emit, err, opened
from whet.context import Context
from whet.errors import InputError, NotFoundError, WhetError
from whet.json_types import JsonObject

_COLUMNS = ["page", "section", "score", "text"]
_SHOWN_CHARACTERS = 300  # of a passage in a table


class SearchFailedError(WhetError):
    """A search did not run."""

    code = "search_failed"


def search(
    *,
    name: str,
    question: str,
    top_k: int,
    mode: Mode,
    given_filter: str,
    min_score: float,
    neighbours: int,
    as_json: bool,
) -> None:
    """Print the passages that answer a question, best first."""
    request = SearchRequest(
        collection=name, query=question, top_k=top_k, mode=mode, min_score=min_score,
        filter=_parse_filter(given_filter), neighbours=neighbours,
    )  # fmt: skip
    with opened() as context:
        found = _search(context, request)
    if found.is_stale:
        err.print("The documents have changed since they were indexed; `whet documents reindex`.")
    rows = [_row(hit, whole=as_json) for hit in found.hits]
    emit(rows, as_json, columns=_COLUMNS, title=f"passages of {name}")


def _search(context: Context, request: SearchRequest) -> SearchResult:
    searcher = IndexSearcher(
        context, partial(open_embedder, context.settings), partial(open_reranker, context.settings)
    )
    try:
        found = searcher.search_now(request)
    finally:
        searcher.close()
    if found.outcome is Outcome.FORBIDDEN:
        raise NotFoundError(found.message, hint="`whet documents list` prints them.")
    if found.outcome is Outcome.FAILED:
        raise SearchFailedError(found.message)
    if found.message:
        err.print(found.message)
    return found


def _row(hit: Hit, *, whole: bool) -> JsonObject:
    text = hit.text if whole else " ".join(hit.text.split())[:_SHOWN_CHARACTERS]
    row: JsonObject = {
        "page": hit.address,
        "section": hit.section,
        "score": round(hit.score, 4),
        "text": text,
    }
    if not whole:
        return row
    return row | {
        "title": hit.title,
        "passage_id": hit.passage_id,
        "document_id": hit.document_id,
        "lexical_rank": hit.lexical_rank,
        "vector_rank": hit.vector_rank,
        "rerank_score": hit.rerank_score,
        "metadata": hit.metadata,
    }


def _parse_filter(given: str) -> JsonObject:
    try:
        found = json.loads(given) if given else {}
    except json.JSONDecodeError as error:
        raise InputError(f"--filter is no JSON: {error}.") from None
    if not isinstance(found, dict):
        raise InputError('--filter is no JSON object; expected {"field": "value"}.')
    return found
