"""The retrieval process and its client."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn

from serving.retrieval.client import RetrievalClient, RetrievalError
from serving.retrieval.records import Outcome, SearchRequest
from serving.retrieval.search import IndexSearcher
from serving.retrieval.server import create_retrieval_app
from tests.serving.conftest import free_port, wait_for
from tests.serving.retrieval.worlds import add_collection, add_document, open_words
from whet.context import Context, open_context
from whet.errors import InputError
from whet.settings import load_settings


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Context]:
    context = open_context(load_settings(home=tmp_path, retrieval_port=free_port()))
    add_collection(context)
    add_document(context, "a", "The warranty lasts two years.")
    app = create_retrieval_app(context, IndexSearcher(context, open_words), check_every_s=0.05)
    config = uvicorn.Config(app, port=context.settings.retrieval_port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started, "the server started")
    yield context
    server.should_exit = True
    thread.join()
    context.close()


async def _search(context: Context, query: str) -> object:
    async with RetrievalClient(context.settings) as client:
        return await client.search(SearchRequest(collection="manual", query=query))


def test_the_process_indexes_what_is_not_and_answers(served: Context) -> None:
    def found() -> bool:
        result = asyncio.run(_search(served, "warranty"))
        return result.outcome is Outcome.FOUND and result.hits[0].address == "a"

    wait_for(found, "the index was built")
    add_document(served, "b", "Tablets come with a charger.")
    wait_for(
        lambda: asyncio.run(_search(served, "charger")).hits[0].address == "b", "indexed again"
    )


async def test_texts_are_embedded(served: Context) -> None:
    async with RetrievalClient(served.settings) as client:
        found = await client.embed(["one text", "two"])
        assert (len(found.vectors), found.tokens, found.dimension) == (2, 3, 32)
        assert np.isclose(np.linalg.norm(np.frombuffer(found.vectors[0], "<f4")), 1, atol=1e-5)
        with pytest.raises(InputError, match="the embedder reads 64"):
            await client.embed(["word " * 65])
        with pytest.raises(InputError, match="0 texts"):
            await client.embed([])


async def test_without_the_key_nothing_is_answered(served: Context, tmp_path: Path) -> None:
    other = load_settings(
        home=tmp_path / "other", retrieval_url=served.settings.resolved_retrieval_url
    )
    async with RetrievalClient(other) as client:
        result = await client.search(SearchRequest(collection="manual", query="warranty"))
        assert result.outcome is Outcome.FAILED and "retrieval.key" in result.message


async def test_a_process_that_is_not_there_is_a_failed_search(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, retrieval_port=free_port())
    async with RetrievalClient(settings) as client:
        started = time.monotonic()
        result = await client.search(SearchRequest(collection="manual", query="warranty"))
        assert result.outcome is Outcome.FAILED and "does not answer" in result.message
        assert time.monotonic() - started < 2
        with pytest.raises(RetrievalError):
            await client.embed(["text"])
