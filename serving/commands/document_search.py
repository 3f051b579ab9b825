"""`whet documents search` and `whet documents reindex`."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import typer
from rich.progress import Progress

from serving.retrieval.records import Hit, Mode, Outcome, SearchRequest, SearchResult
from whet.cli import emit, err, opened
from whet.context import Context
from whet.errors import InputError, NotFoundError, WhetError

if TYPE_CHECKING:
    from serving.retrieval.reindex import ReindexResult

_AS_JSON = typer.Option(False, "--json", help="Print JSON.")
_COLUMNS = ["page", "section", "score", "text"]
_SHOWN_CHARACTERS = 300  # of a passage in a table


class SearchFailedError(WhetError):
    """A search did not run."""

    code = "search_failed"


def search(
    name: str = typer.Argument(..., help="The collection."),
    question: str = typer.Argument(..., help="What to look for."),
    top_k: int = typer.Option(4, "--top-k", help="Most passages to print."),
    mode: Mode = typer.Option(Mode.HYBRID, "--mode", help="Which ranking answers."),
    given_filter: str = typer.Option(
        "", "--filter", help='JSON over metadata, address, language, title: {"team": "billing"}.'
    ),
    min_score: float = typer.Option(0.0, "--min-score", help="Leave out passages below, 0 to 1."),
    neighbours: int = typer.Option(
        0, "--neighbours", help="Passages before and after each hit that come with its text."
    ),
    as_json: bool = _AS_JSON,
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


def reindex_command(
    name: str = typer.Argument(..., help="The collection."),
    force: bool = typer.Option(False, "--force", help="Also when the index is current."),
    as_json: bool = _AS_JSON,
) -> None:
    """Build the index of a collection anew from its rows; the old one answers meanwhile."""
    with opened() as context:
        found = _reindex(context, name, force)
    row = {
        "collection": found.collection,
        "passages": found.passages,
        "embedded": found.embedded,
        "state": "was current" if found.was_current else "built",
    }
    emit([row], as_json, columns=list(row), title="index")


def add_search_commands(app: typer.Typer) -> None:
    """Add both commands to `whet documents`."""
    app.command("search")(search)
    app.command("reindex")(reindex_command)


def _search(context: Context, request: SearchRequest) -> SearchResult:
    # The embedder's libraries take a second to load, for which no other command should wait.
    from serving.retrieval.embedders import open_embedder
    from serving.retrieval.rerankers import open_reranker
    from serving.retrieval.search import IndexSearcher

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


def _reindex(context: Context, name: str, force: bool) -> ReindexResult:
    from serving.retrieval.embedders import open_embedder
    from serving.retrieval.reindex import reindex

    embedder = open_embedder(context.settings)
    with Progress(console=err, transient=True) as progress:
        task = progress.add_task("embedding", total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        return reindex(context, name, embedder, show, force=force)


def _row(hit: Hit, *, whole: bool) -> dict[str, Any]:
    text = hit.text if whole else " ".join(hit.text.split())[:_SHOWN_CHARACTERS]
    row = {
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


def _parse_filter(given: str) -> dict[str, Any]:
    try:
        found = json.loads(given) if given else {}
    except json.JSONDecodeError as error:
        raise InputError(f"--filter is no JSON: {error}.") from None
    if not isinstance(found, dict):
        raise InputError('--filter is no JSON object; expected {"field": "value"}.')
    return found
