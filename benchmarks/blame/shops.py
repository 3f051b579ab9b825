"""The shop's documents, searched in memory (tests) or in a real index (the benchmark)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import msgspec

from benchmarks.blame.worlds import Fact, World
from serving.blame.lookup import Resolve, Search, resolve_in
from serving.retrieval.chunking import DEFAULT_CHUNK_TOKENS
from serving.retrieval.documents_store import create_collection
from serving.retrieval.embedders import open_embedder
from serving.retrieval.filters import IndexedDocument, document_mask
from serving.retrieval.ingest import Divider, Ingest
from serving.retrieval.records import Document, Hit, Outcome, SearchRequest, SearchResult
from serving.retrieval.reindex import reindex
from serving.retrieval.search import IndexSearcher
from serving.retrieval.sources import scan
from whet.clock import now_ms
from whet.context import open_context
from whet.database import writing
from whet.settings import load_settings

_WORD = re.compile(r"\w+")


class MemoryShop:
    """Ranks passages by the share of the question's words that they have."""

    def __init__(self, world: World, facts: Iterable[Fact]) -> None:
        self._documents = {
            f"psg_{fact.address}": (_hit(world, fact), _document(fact)) for fact in facts
        }
        self.resolve: Resolve = self._documents.get

    def search(self, request: SearchRequest) -> SearchResult:
        wanted = set(_WORD.findall(request.query.lower()))
        found: list[Hit] = []
        for hit, document in self._documents.values():
            known = IndexedDocument(
                id=document.id, address=document.address, language=document.language,
                title=document.title, metadata=document.metadata,
            )  # fmt: skip
            words = set(_WORD.findall(f"{hit.title} {hit.text}".lower()))
            share = len(wanted & words) / max(1, len(wanted))
            if share >= request.min_score and document_mask([known], request.filter)[0]:
                found.append(msgspec.structs.replace(hit, score=share))
        found.sort(key=lambda hit: (-hit.score, hit.passage_id))
        hits = found[: request.top_k]
        return SearchResult(outcome=Outcome.FOUND if hits else Outcome.EMPTY, hits=hits)


class IndexedShop:
    """A real collection: pages in a folder, parsed, divided, embedded and indexed."""

    def __init__(self, world: World, facts: Iterable[Fact], folder: Path) -> None:
        pages = folder / "pages"
        for fact in facts:
            page = pages / fact.address
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(world.document(fact), encoding="utf-8")
        self._context = open_context(load_settings(home=folder / "home"))
        embedder = open_embedder(self._context.settings)
        now = now_ms()
        with writing(self._context.database) as connection:
            collection = create_collection(
                connection, "shop", embedder=embedder.identity,
                chunk_tokens=DEFAULT_CHUNK_TOKENS, now=now,
            )  # fmt: skip
        divider = Divider(embedder.count_tokens, embedder.identity)
        Ingest(self._context.database, collection, divider, now=now).run(scan([str(pages)]))
        reindex(self._context, "shop", embedder, lambda done, total: None)
        self._searcher = IndexSearcher(
            self._context, partial(open_embedder, self._context.settings)
        )
        self.search: Search = self._searcher.search_now
        self.resolve: Resolve = resolve_in(self._context)

    def close(self) -> None:
        self._searcher.close()
        self._context.close()


Shop = MemoryShop | IndexedShop


def _hit(world: World, fact: Fact) -> Hit:
    return Hit(
        passage_id=f"psg_{fact.address}", document_id=f"doc_{fact.address}", collection="shop",
        title=f"{fact.attribute.name.capitalize()} of the {fact.product}", address=fact.address,
        section="", text=world.statement(fact), score=0.0,
    )  # fmt: skip


def _document(fact: Fact) -> Document:
    return Document(
        id=f"doc_{fact.address}", collection="shop", address=fact.address, title="",
        media_type="text/markdown", language="en", content_sha256="",
    )  # fmt: skip
