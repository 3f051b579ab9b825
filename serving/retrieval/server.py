"""The retrieval process: search and embedding over HTTP, for the gateway and the console.

It listens on loopback and asks for the key in `WHET_HOME/retrieval.key`. Embedder and indexes are
loaded when they are first needed. At its start and then every few minutes it compares each index
with its collection and builds anew what differs, while the old index answers.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import msgspec
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.retrieval.embedders import Embedder, FloatArray, open_embedder
from serving.retrieval.index_check import repair_indexes
from serving.retrieval.messages import EmbedRequest, EmbedResult, Failure
from serving.retrieval.records import SearchRequest
from serving.retrieval.rerankers import open_reranker
from serving.retrieval.search import IndexSearcher
from whet.access import retrieval_key
from whet.context import Context
from whet.errors import AccessError, InputError, WhetError
from whet.supervision import TaskSupervisor

CHECK_EVERY_S = 300  # seconds between comparisons of indexes with their collections
MAX_EMBED_TEXTS = 2048  # OpenAI's limit for one request
_JSON = "application/json"
_log = logging.getLogger(__name__)
T = TypeVar("T")


def create_retrieval_app(
    context: Context, searcher: IndexSearcher | None = None, *, check_every_s: float = CHECK_EVERY_S
) -> Starlette:
    """Return the application. `searcher` is closed with it."""
    served = searcher or IndexSearcher(
        context, partial(open_embedder, context.settings), partial(open_reranker, context.settings)
    )
    server = _Server(context, served)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        server.tasks.start("index check", partial(server.keep_indexes, check_every_s))
        try:
            yield
        finally:
            await server.tasks.stop()
            served.close()

    return Starlette(
        routes=[
            Route("/healthz", server.health),
            Route("/search", server.search, methods=["POST"]),
            Route("/embed", server.embed, methods=["POST"]),
        ],
        lifespan=lifespan,
        exception_handlers={WhetError: _failure, Exception: _defect},
    )


async def _failure(_: Request, error: Exception) -> Response:
    assert isinstance(error, WhetError)
    body = msgspec.json.encode(Failure(code=error.code, message=str(error)))
    return Response(body, error.status, media_type=_JSON)


async def _defect(_: Request, __: Exception) -> Response:
    """Starlette raises the error again after this answer, so that it is logged."""
    message = "The retrieval process failed on this request; its log says why."
    return Response(
        msgspec.json.encode(Failure(code="internal_error", message=message)), 500, media_type=_JSON
    )


class _Server:
    def __init__(self, context: Context, searcher: IndexSearcher) -> None:
        self._context = context
        self._searcher = searcher
        self._key = retrieval_key(context.settings.home)
        self.tasks = TaskSupervisor()

    async def health(self, _: Request) -> Response:
        """Alive, and what of its work does not go on."""
        found = {"status": "alive", "failing": [*self.tasks.failures.values()]}
        return Response(msgspec.json.encode(found), media_type=_JSON)

    async def search(self, request: Request) -> Response:
        asked = _decode(await self._body(request), SearchRequest)
        found = await self._searcher.search(asked)
        return Response(msgspec.json.encode(found), media_type=_JSON)

    async def embed(self, request: Request) -> Response:
        asked = _decode(await self._body(request), EmbedRequest)
        if not 1 <= len(asked.texts) <= MAX_EMBED_TEXTS:
            raise InputError(f"{len(asked.texts)} texts; expected 1 to {MAX_EMBED_TEXTS}.")
        found = await asyncio.to_thread(self._embed, asked)
        return Response(msgspec.json.encode(found), media_type=_JSON)

    def _embed(self, asked: EmbedRequest) -> EmbedResult:
        embedder = self._searcher.current_embedder()
        embed: Callable[[Sequence[str]], Iterable[FloatArray]]
        embed = partial(_embed_queries, embedder) if asked.as_queries else embedder.embed_passages
        return EmbedResult(
            vectors=[vector.astype("<f4").tobytes() for vector in embed(asked.texts)],
            tokens=sum(embedder.count_tokens(text) for text in asked.texts),
            embedder=embedder.identity,
            dimension=embedder.dimension,
        )

    async def _body(self, request: Request) -> bytes:
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._key}".encode()):
            raise AccessError("The retrieval process is asked with the key in retrieval.key.")
        return await request.body()

    async def keep_indexes(self, every_s: float) -> None:
        """Compare the indexes with the collections, again and again."""
        while True:
            try:
                await asyncio.to_thread(
                    repair_indexes, self._context, self._searcher.current_embedder
                )
            except (WhetError, SQLAlchemyError, OSError):
                _log.exception("the indexes could not be compared with their collections")
            await asyncio.sleep(every_s)


def _embed_queries(embedder: Embedder, texts: Sequence[str]) -> Sequence[FloatArray]:
    return [embedder.embed_query(text) for text in texts]


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise InputError(f"The request is not what is expected: {error}.") from None
