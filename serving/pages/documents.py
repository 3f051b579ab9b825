"""Documents: collections, what is in them, how their index stands, and what a search finds."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from serving.pages import document_changes, document_values, reading
from serving.retrieval import documents_listing_store as listing
from serving.retrieval.client import RetrievalClient
from serving.retrieval.defaults_store import parse_filter
from serving.retrieval.documents_listing_store import DocumentFilters
from serving.retrieval.documents_store import get_document, require_collection
from serving.retrieval.highlight import Piece, mark_words
from serving.retrieval.notices import notice_text
from serving.retrieval.parsing.process import LARGEST_FILE
from serving.retrieval.records import Document, Hit, Mode, Outcome, SearchRequest, SearchResult
from serving.retrieval.upload_runner import UploadRunner
from whet.database import reading as reads
from whet.errors import InputError, NotFoundError
from whet.web.filters import clip, plural
from whet.web.shell import Shell

SEARCHED = 10  # passages that the search box shows; a prompt takes four
_LONGEST_QUESTION = 2000  # characters, as the gateway searches for
_UNKNOWN_LANGUAGE = "en"


@dataclass(frozen=True)
class FoundPassage:
    """A hit, with the question's words marked."""

    hit: Hit
    pieces: list[Piece]


@dataclass(frozen=True)
class SearchView:
    """What the search box was asked, and what came of it."""

    query: str = ""
    mode: str = Mode.HYBRID.value
    filter: str = ""
    problem: str = ""  # what is wrong with the question itself
    result: SearchResult | None = None
    hits: tuple[FoundPassage, ...] = ()


def add(routes: APIRouter, shell: Shell) -> None:
    """Add the pages to `routes`."""
    shell.add_page("Documents", "/documents", "documents", 45)
    runner = UploadRunner(shell.context)
    document_changes.add(routes, shell, runner)
    _add_collections(routes, shell)
    _add_document(routes, shell)


def _add_collections(routes: APIRouter, shell: Shell) -> None:
    viewer = Depends(shell.require("viewer"))
    settings = shell.context.settings

    @routes.get("/documents", dependencies=[viewer])
    def collections(request: Request) -> Response:
        """Every collection: how many documents, how its index stands, who reads it."""
        with reads(shell.context.database) as connection:
            found = document_values.load_collections(connection, settings)
        headline = document_values.describe_collections(found)
        return shell.render(request, "serving/documents.html", collections=found, headline=headline)

    @routes.get("/documents/{name}", dependencies=[viewer])
    async def collection(
        request: Request,
        name: str,
        q: str = "",
        mode: str = "",
        filter: str = "",
        find: str = "",
        state: str = "",
        after: str = "",
    ) -> Response:
        """One collection: a search with its hits, the documents (`find`, `state`), the index."""
        filters = DocumentFilters(find[:200], state if state in listing.STATES else "", after)
        values = await run_in_threadpool(_collection_values, shell, name, filters)
        found = await _search(shell, name, q, mode, filter)
        rows = request.headers.get("hx-request") and request.headers.get("hx-target") == "rows"
        template = "serving/collection_rows.html" if rows else "serving/collection.html"
        return shell.render(request, template, search=found, **values)

    @routes.get("/documents/{name}/live", dependencies=[viewer])
    def live(request: Request, name: str) -> Response:
        """The part of a collection's page that follows uploads and index."""
        with reads(shell.context.database) as connection:
            found = document_values.load_collection(connection, settings, name)
        return shell.render(
            request, "serving/collection_live.html", view=found, headline=_headline(found)
        )


def _add_document(routes: APIRouter, shell: Shell) -> None:
    @routes.get(
        "/documents/{name}/documents/{document_id}",
        dependencies=[Depends(shell.require("viewer"))],
    )
    def document(
        request: Request, name: str, document_id: str, first: int = 0, passage: str = ""
    ) -> Response:
        """One document: its passages as text, and the answers that had one of them."""
        values = _document_values(shell, name, document_id, max(first, 0), passage[:40])
        return shell.render(request, "serving/document.html", **values)


def _collection_values(shell: Shell, name: str, filters: DocumentFilters) -> dict[str, object]:
    settings = shell.context.settings
    with reads(shell.context.database) as connection:
        view = document_values.load_collection(connection, settings, name)
        rows, after = listing.list_documents(connection, name, filters)
        total = listing.count_documents(connection, name, filters)
        models = document_values.model_names(connection, settings)
        keys = sorted(set(document_values.key_names(connection).values()))
    return {
        "view": view,
        "rows": rows,
        "total": total,
        "filters": filters,
        "states": listing.STATES,
        "next_query": filters.query(after=after) if after else "",
        "notice_text": notice_text,
        "models": models,
        "keys": keys,
        "modes": [mode.value for mode in Mode],
        "largest_file": LARGEST_FILE,
        "headline": _headline(view),
        "Outcome": Outcome,
    }


def _headline(view: document_values.CollectionView) -> str:
    amount = f"{view.name}: {plural(view.documents, 'document')}"
    return f"{amount}, {view.failed} could not be read" if view.failed else amount


async def _search(shell: Shell, name: str, query: str, mode: str, given: str) -> SearchView:
    query = query.strip()[:_LONGEST_QUESTION]
    chosen = mode if mode in tuple(Mode) else Mode.HYBRID.value
    asked = SearchView(query=query, mode=chosen, filter=given[:500])
    if not query:
        return asked
    try:
        found_filter = parse_filter(asked.filter.split())
    except InputError as error:
        return SearchView(query, chosen, asked.filter, problem=f"The filter: {error.message}")
    request = SearchRequest(
        collection=name, query=query, top_k=SEARCHED, mode=Mode(chosen), filter=found_filter
    )
    async with RetrievalClient(shell.context.settings) as client:
        result = await client.search(request)
    hits = await run_in_threadpool(_marked, shell, result.hits, query)
    return SearchView(query, chosen, asked.filter, result=result, hits=hits)


def _marked(shell: Shell, hits: list[Hit], query: str) -> tuple[FoundPassage, ...]:
    with reads(shell.context.database) as connection:
        owners = {hit.document_id: get_document(connection, hit.document_id) for hit in hits}
    return tuple(
        FoundPassage(hit, mark_words(hit.text, query, [_language(owners[hit.document_id])]))
        for hit in hits
    )


def _language(document: Document | None) -> str:
    return document.language if document and document.language else _UNKNOWN_LANGUAGE


def _document_values(
    shell: Shell, name: str, document_id: str, first: int, passage: str
) -> dict[str, object]:
    with reads(shell.context.database) as connection:
        require_collection(connection, name)
        found = get_document(connection, document_id)
        if found is None or found.collection != name:
            raise NotFoundError(
                f"{name!r} has no document {clip(document_id, 60)!r}.",
                hint="It may have been removed or replaced: the collection's page lists what "
                "there is.",
            )
        position = listing.position_of(connection, found.id, passage) if passage else None
        if position is not None and not first <= position < first + listing.PASSAGE_ROWS:
            first = position - position % listing.PASSAGE_ROWS
        shown = listing.list_passages(connection, found.id, first)
        uses = listing.list_uses(connection, found.id, passage)
        tokens = listing.count_tokens_of(connection, [found.id]).get(found.id, 0)
    last = first + len(shown)
    return {
        "name": name,
        "document": found,
        "tokens": tokens,
        "passages": shown,
        "positions": {one.id: one.position + 1 for one in shown},
        "uses": uses,
        "questions": {use.interaction_id: reading.question(use.request) for use in uses},
        "uses_of": _count_uses(uses),
        "passage": passage,
        "is_passage_gone": bool(passage) and position is None,
        "first": first,
        "previous_first": max(first - listing.PASSAGE_ROWS, 0) if first else None,
        "next_first": last if last < found.passages else None,
        "scanned": listing.SCANNED_ANSWERS,
        "notices": [notice_text(notice) for notice in found.notices],
    }


def _count_uses(uses: list[listing.PassageUse]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for use in uses:
        counts[use.passage_id] = counts.get(use.passage_id, 0) + 1
    return counts
