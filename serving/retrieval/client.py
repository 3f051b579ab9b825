"""Asks the retrieval process, from an event loop that must not compute."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar

import aiohttp
import msgspec

from serving.retrieval.messages import EmbedRequest, EmbedResult, Failure
from serving.retrieval.records import Outcome, SearchRequest, SearchResult
from whet.access import retrieval_key
from whet.errors import InputError, WhetError
from whet.settings import Settings

SEARCH_TIMEOUT_S = 5.0  # a search takes milliseconds, the first one loads model and index
EMBED_TIMEOUT_S = 60.0  # thousands of texts
CONNECT_TIMEOUT_S = 1.0  # on loopback; a process that is not there says so at once
T = TypeVar("T")


class RetrievalError(WhetError):
    """The retrieval process is absent, or failed."""

    code = "retrieval_failed"
    status = 503


class RetrievalClient:
    """One connection pool to the retrieval process; use it as an async context, or `close` it."""

    def __init__(self, settings: Settings, *, timeout_s: float = SEARCH_TIMEOUT_S) -> None:
        self._url = settings.resolved_retrieval_url
        self._headers = {
            "Authorization": f"Bearer {retrieval_key(settings.home)}",
            "Content-Type": "application/json",
        }
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> RetrievalClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def search(self, request: SearchRequest) -> SearchResult:
        """Search. Never raises for a search that failed: its outcome says so."""
        try:
            return await self._ask("/search", request, SearchResult, self._timeout_s)
        except WhetError as error:
            return SearchResult(outcome=Outcome.FAILED, message=str(error))

    async def embed(self, texts: list[str], *, as_queries: bool = False) -> EmbedResult:
        """Embed texts. Raises InputError for texts that are refused, RetrievalError otherwise."""
        asked = EmbedRequest(texts=texts, as_queries=as_queries)
        return await self._ask("/embed", asked, EmbedResult, EMBED_TIMEOUT_S)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _ask(self, path: str, body: msgspec.Struct, kind: type[T], timeout_s: float) -> T:
        if self._session is None:  # made here: it belongs to the loop that runs now
            self._session = aiohttp.ClientSession(headers=self._headers)
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        url, encoded = f"{self._url}{path}", msgspec.json.encode(body)
        try:
            async with self._session.post(url, data=encoded, timeout=timeout) as response:
                content = await response.read()
        except TimeoutError:
            raise RetrievalError(
                f"The retrieval process did not answer within {timeout_s:g} s."
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise RetrievalError(
                f"The retrieval process does not answer: {error}.",
                hint="`whet up` starts it; WHET_RETRIEVAL_URL names another.",
            ) from None
        return _read(response.status, content, kind)


def _read(status: int, content: bytes, kind: type[T]) -> T:
    try:
        if status == 200:
            return msgspec.json.decode(content, type=kind)
        failure = msgspec.json.decode(content, type=Failure)
    except msgspec.DecodeError:
        raise RetrievalError(
            f"The retrieval process answers with status {status} and no JSON of ours.",
            hint="Look at its log.",
        ) from None
    if status == 400:
        raise InputError(failure.message)
    raise RetrievalError(failure.message)
