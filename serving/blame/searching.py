"""Searches for blame: in the retrieval process, or in this one where none runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serving.retrieval.client import RetrievalClient
from serving.retrieval.records import Outcome, SearchRequest, SearchResult
from whet.context import Context

Search = Callable[[SearchRequest], SearchResult]


@contextmanager
def open_search(context: Context, fallback: Callable[[], Search] | None = None) -> Iterator[Search]:
    """Yield a search that asks the retrieval process.

    Args:
        fallback: makes the search that is used where the process does not answer; without it, the
            search's outcome says that it failed.
    """
    local: list[Search] = []

    def search(request: SearchRequest) -> SearchResult:
        if local:
            return local[0](request)
        found = asyncio.run(_ask(context, request))
        if found.outcome is Outcome.FAILED and fallback is not None:
            local.append(fallback())
            return local[0](request)
        return found

    yield search


async def _ask(context: Context, request: SearchRequest) -> SearchResult:
    async with RetrievalClient(context.settings) as client:
        return await client.search(request)
