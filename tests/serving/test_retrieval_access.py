"""No key gets a passage of a collection that it may not read, whatever it asks for."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from serving.retrieval.records import Hit, Outcome, SearchRequest, SearchResult
from serving.retrieval.reindex import reindex
from serving.retrieval.search import IndexSearcher
from tests.serving.conftest import Running
from tests.serving.memory_searcher import (
    CitingEngine,
    MemorySearcher,
    add_collection,
    hit,
    serve_with,
)
from tests.serving.retrieval.worlds import WordEmbedder, add_document, open_words
from whet.access import create_key
from whet.clock import now_ms
from whet.database import writing

QUERIES = 5000
SECRET = "xylophone-secret"
PUBLIC = "Lamps are kept."
ASKED: list[Any] = [{"role": "user", "content": f"What is {SECRET} about lamps?"}]


class LeakySearcher(MemorySearcher):
    """An index that mixes collections up: it returns passages of all of them."""

    async def search(self, request: SearchRequest) -> SearchResult:
        hits: list[Hit] = [hit(n, each.text, collection=each.collection, score=0.9)
                           for n, each in enumerate(self.hits)]  # fmt: skip
        random.Random(len(request.query)).shuffle(hits)
        return SearchResult(outcome=Outcome.FOUND, hits=hits)


@pytest.fixture
def engine() -> Iterator[CitingEngine]:
    with CitingEngine() as running:
        yield running


@pytest.fixture(params=["memory", "leaky", "index"])
def running(
    request: pytest.FixtureRequest, engine: CitingEngine, tmp_path: Path
) -> Iterator[Running]:
    passages = [hit(1, PUBLIC), hit(2, f"{SECRET} lamps.", collection="private")]
    kind = LeakySearcher if request.param == "leaky" else MemorySearcher
    for found in serve_with(kind(passages), tmp_path / "home", engine):
        with writing(found.context.database) as connection:
            key_b, _ = create_key(
                connection, "b", secret=found.context.secret, actor="tests", now=now_ms()
            )
        add_collection(found, "private", allowed=[key_b])
        if request.param != "index":
            yield found
            continue
        searcher = _index(found, passages)
        found.app.core.searcher = searcher
        yield found
        searcher.close()


def _index(running: Running, passages: list[Hit]) -> IndexSearcher:
    """Index the passages as `whet documents add` and `reindex` do."""
    for each in passages:
        add_document(running.context, each.address, each.text, collection=each.collection)
        reindex(running.context, each.collection, WordEmbedder())
    return IndexSearcher(running.context, open_words)


def _request(rng: random.Random, number: int) -> tuple[str, dict[str, Any]]:
    """Return a route and a body that tries to get at `private`."""
    collection = rng.choice(["private", "private", "manual", "PRIVATE", "private ", "none"])
    rag: Any = {"collection": collection, "top_k": rng.randint(1, 50)}
    if rng.random() < 0.3:
        rag["filter"] = {"collection": rng.choice(["private", ["private", "manual"]])}
    if rng.random() < 0.3:
        rag["mode"] = rng.choice(["lexical", "vector", "hybrid"])
    body: dict[str, Any] = {"model": "support", "stream": rng.random() < 0.3}
    tool = {"type": "file_search", "vector_store_ids": [collection]}
    body |= rng.choice([{"rag": rag}, {"tools": [tool]}])
    if number % 2:
        return "/v1/responses", {**body, "input": ASKED[0]["content"]}
    return "/v1/chat/completions", {**body, "messages": ASKED}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_passage_of_a_forbidden_collection(running: Running, engine: CitingEngine) -> None:
    statuses: list[int] = []

    async def ask_all() -> None:
        headers = {"Authorization": f"Bearer {running.key}"}
        rng = random.Random(19)
        waiting = asyncio.Semaphore(8)
        async with aiohttp.ClientSession(running.url, headers=headers) as session:

            async def ask(path: str, body: dict[str, Any]) -> None:
                async with waiting, session.post(path, json=body) as response:
                    content = await response.read()
                    statuses.append(response.status)
                    # What the client wrote itself may come back as the query.
                    answer = content.replace(ASKED[0]["content"].encode(), b"")
                    assert SECRET.encode() not in answer

            requests = [_request(rng, number) for number in range(QUERIES)]
            await asyncio.gather(*(ask(path, body) for path, body in requests))

    asyncio.run(ask_all())
    assert len(statuses) == QUERIES and set(statuses) == {200, 404}
    question = ASKED[0]["content"]
    assert any(PUBLIC in json.dumps(body) for body in engine.seen)
    for body in engine.seen:
        assert SECRET not in json.dumps(body).replace(question, "")
