"""A searcher over rows in memory, and a gateway with collections for tests."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from sqlalchemy import insert

from serving.retrieval.records import Hit, Outcome, SearchRequest, SearchResult
from serving.rollout_store import RolloutStore
from tests.serving.conftest import Running, add_version, serve, set_replica
from tests.serving.mock_engine import BASE, MockEngine
from whet.clock import now_ms
from whet.context import open_context
from whet.database import writing
from whet.registry import engine_name
from whet.retrieval_tables import collections
from whet.settings import load_settings

DIGEST = "d" * 64
_WORD = re.compile(r"\w+")


def hit(number: int, text: str, *, collection: str = "manual", **more: Any) -> Hit:
    """Return a passage of a document of its own."""
    fields: dict[str, Any] = {
        "title": f"Page {number}",
        "address": f"pages/{number}.md",
        "section": "Terms",
        "score": 0.0,
        **more,
    }
    return Hit(
        passage_id=f"psg_{collection}_{number}",
        document_id=f"doc_{collection}_{number}",
        collection=collection,
        text=text,
        **fields,
    )


class MemorySearcher:
    """Ranks by the share of the question's words that a passage has."""

    def __init__(self, hits: Iterable[Hit] = ()) -> None:
        self.hits = list(hits)
        self.asked: list[SearchRequest] = []
        self.answer: SearchResult | None = None  # instead of a search

    async def search(self, request: SearchRequest) -> SearchResult:
        self.asked.append(request)
        if self.answer is not None:
            return self.answer
        words = set(_WORD.findall(request.query.lower()))
        found: list[tuple[float, Hit]] = []
        for passage in self.hits:
            share = len(words & set(_WORD.findall(passage.text.lower()))) / max(1, len(words))
            if passage.collection == request.collection and share > 0:
                found.append((share, passage))
        found.sort(key=lambda pair: (-pair[0], pair[1].passage_id))
        hits = [msgspec.structs.replace(passage, score=share) for share, passage in found]
        hits = [each for each in hits if each.score >= request.min_score][: request.top_k]
        outcome = Outcome.FOUND if hits else Outcome.EMPTY
        return SearchResult(outcome=outcome, hits=hits, collection_digest=DIGEST, took_ms=0.1)


class CitingEngine(MockEngine):
    """Answers what a test says, a word at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = ["Lamps", " are", " kept", " 24", " months", " [1]", "."]
        self.rewritten: str | None = None  # the answer of the base; None: as everybody's
        self.rewrite_delay_s = 0.0  # before it

    def _text(self, body: dict[str, Any]) -> list[str]:
        if body["model"] == BASE and self.rewritten is not None:
            return [self.rewritten]
        return list(self.answer)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body["model"] == BASE:
            await asyncio.sleep(self.rewrite_delay_s)
        return await super()._chat(request)


def add_collection(running: Running, name: str, allowed: list[str] | None = None) -> None:
    """Write a collection's row, as `whet documents add` does."""
    now = now_ms()
    with writing(running.context.database) as connection:
        connection.execute(
            insert(collections).values(
                name=name, description="", embedder="none", chunk_tokens=256, allowed_keys=allowed,
                settings={}, digest=DIGEST, created_at=now, updated_at=now,
            )
        )  # fmt: skip
    running.refresh()


def serve_with(
    searcher: MemorySearcher, home: Path, engine: MockEngine, **settings: Any
) -> Iterator[Running]:
    """Serve `support` v1 with a collection `manual` that every key may read."""
    context = open_context(load_settings(home=home, **settings))
    digest = add_version(context, "support", 1)
    name = engine_name("support", 1, digest)
    engine.adapters[name] = "/x"
    set_replica(context, engine.url, {digest: name})
    RolloutStore(context.database, context.settings).promote(
        "support", "support@v1", actor="tests", reason="first", now=now_ms()
    )
    for running in serve(context, engine, searcher=searcher):
        add_collection(running, "manual")
        yield running
    context.close()
