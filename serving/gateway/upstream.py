"""The gateway's connections to its engines: HTTP/1.1 over a pool, with as little Python per read as
can be.

httptools parses; what it hands out stays bytes. A stream's hundred little pieces that arrive in one
read wake the waiting request once, with one piece of bytes. A general client makes an object and a
wake-up of each, which was half of the gateway's work (docs/decisions/0006).
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import httptools

from whet.errors import ConfigurationError
from whet.urls import mask_url

HIGH_WATER_BYTES = 1 << 18  # of one answer kept for a slow client before the engine has to wait
HEAD_BYTES = 1 << 16  # of a response's status line and headers; an engine sends a few hundred
# Below the engine's 5 s, so that a connection is not used in the moment the engine closes it
KEEP_ALIVE_S = 4.0
CONNECT_S = 3.0  # an engine that does not accept within this on a private network is not there


class UpstreamError(Exception):
    """The engine's answer broke off, or is no HTTP; the argument says how."""


class NoAnswerError(UpstreamError):
    """The connection was not made, or ended before the first byte of an answer: the request may be
    sent again.
    """


class _Connection(asyncio.Protocol):
    """One connection; carries one request at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.closed = False
        self.idle_since = 0.0
        self._begin()

    def _begin(self) -> None:
        """Ready for the next answer."""
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._parts: list[bytes] = []
        self._waiting_bytes = self._head_bytes = 0
        self._paused = self._head_done = False
        self._framed = False  # the head says where the body ends
        self._failure: Exception | None = None
        self.status = 0
        self._keep_alive = self._surplus = False
        self.complete = False  # the whole answer has arrived

    # --- what a request asks of it ----------------------------------------------------------------------------------

    def send(self, head: bytes, body: bytes, timeout_s: float) -> None:
        self._begin()
        assert self._transport is not None
        self._timer = self._loop.call_later(timeout_s, self._fail, TimeoutError())
        self._transport.write(head + body)

    async def head(self) -> None:
        """Return when the status is known. Raises NoAnswerError, UpstreamError or TimeoutError."""
        while not self._head_done:
            await self._more()

    async def read(self) -> bytes:
        """The next bytes of the body, as many as there are; empty at its end."""
        while not self._parts:
            if self.complete:
                return b""
            await self._more()
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._parts, self._waiting_bytes = [], 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def _more(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def finish(self) -> bool:
        """End of this use; True when another request may have the connection."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.complete and self._keep_alive and not self._surplus and not self.closed:
            return True
        self.close()
        return False

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    # --- what the network says --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self.complete:  # nobody asked for this, so nobody may take it for an answer
            self.close()
            return
        if not self._head_done:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(UpstreamError(f"What it sent is no HTTP answer ({error})"))
            return
        if not self._head_done and self._head_bytes > HEAD_BYTES:
            self._fail(UpstreamError(f"Its answer's head is longer than {HEAD_BYTES} bytes"))
        elif (
            self._waiting_bytes > HIGH_WATER_BYTES
            and not self.complete
            and not self._paused
            and self._transport is not None
        ):
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        return False  # close too

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._head_done and not self._framed:
            self.complete = True  # a body that ends with its connection
            self._wake()
        elif not self.complete:
            self._fail(
                UpstreamError("It closed the connection before the answer was complete")
                if self._head_bytes
                else NoAnswerError("It closed the connection")
            )

    def _fail(self, failure: Exception) -> None:
        if not self.complete and self._failure is None:
            self._failure = failure
            self.close()
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- what the parser finds --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._surplus = self.complete  # a second answer in the same read

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        if not self._surplus:
            self.status = self._parser.get_status_code()
            # What comes before is a notice that the answer will follow
            self._head_done = self.status >= 200

    def on_body(self, body: bytes) -> None:
        if not self._surplus:
            self._parts.append(body)
            self._waiting_bytes += len(body)

    def on_message_complete(self) -> None:
        if self._head_done and not self._surplus:
            self.complete = True
            self._keep_alive = self._parser.should_keep_alive()


class Response:
    """An engine's answer whose head has arrived.

    Close it, read to its end or not; as a context it closes itself.
    """

    __slots__ = ("_connection", "_pool", "status")

    def __init__(self, connection: _Connection, pool: _Pool) -> None:
        self._connection, self._pool, self.status = connection, pool, connection.status

    async def read_chunk(self) -> bytes:
        """The bytes that have arrived, at least one; empty at the end.

        Raises UpstreamError or TimeoutError.
        """
        return await self._connection.read()

    async def read(self) -> bytes:
        """The whole body."""
        parts = []
        while data := await self._connection.read():
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @property
    def complete(self) -> bool:
        """The last byte has arrived."""
        return self._connection.complete

    def close(self) -> None:
        """Give the connection back when the answer is complete; else break it, and the engine stops
        generating.
        """
        if self._connection.finish():
            self._pool.keep(self._connection)


@dataclass(frozen=True, slots=True)
class _Address:
    host: str
    port: int
    tls: ssl.SSLContext | None
    prefix: bytes  # path before the engine's own
    name: bytes  # of the Host header

    @classmethod
    def of(cls, url: str) -> _Address:
        parts: SplitResult = urlsplit(url)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or any(ord(character) <= 32 for character in url)
        ):
            raise ConfigurationError(
                f"{mask_url(url)!r} is no address of an engine; expected http://HOST:PORT."
            )
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        return cls(
            parts.hostname,
            parts.port or (443 if tls else 80),
            tls,
            parts.path.rstrip("/").encode(),
            parts.netloc.rpartition("@")[2].encode(),
        )


class _Pool:
    """The connections to one engine.

    The one used last is used first, so that the others can grow old and go.
    """

    def __init__(self, address: _Address) -> None:
        self.address = address
        self._idle: list[_Connection] = []

    async def take(self, loop: asyncio.AbstractEventLoop) -> _Connection:
        oldest = loop.time() - KEEP_ALIVE_S
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and connection.idle_since > oldest:
                return connection
            connection.close()
        try:
            async with asyncio.timeout(CONNECT_S):
                _, connection = await loop.create_connection(
                    lambda: _Connection(loop),
                    self.address.host,
                    self.address.port,
                    ssl=self.address.tls,
                )
        except TimeoutError as error:
            raise NoAnswerError(f"It accepted no connection within {CONNECT_S:g} s") from error
        except OSError as error:
            raise NoAnswerError(str(error)) from error
        return connection

    def keep(self, connection: _Connection) -> None:
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)
        # The list is in the order of idleness: what is too old stands in front.
        oldest = connection.idle_since - KEEP_ALIVE_S
        while self._idle[0].closed or self._idle[0].idle_since < oldest:
            self._idle.pop(0).close()

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def __len__(self) -> int:
        return sum(not connection.closed for connection in self._idle)


class Upstream:
    """The one client of a gateway process for answers.

    No limit of connections: the engine queues, and a limit here would only hide that.
    """

    def __init__(self, headers: dict[str, str], timeout_s: float) -> None:
        """`headers` go with every request; `timeout_s` bounds one answer from its request to its
        last byte.
        """
        self._common = b"".join(
            f"{_clean(name)}: {_clean(value)}\r\n".encode() for name, value in headers.items()
        )
        self.timeout_s = timeout_s
        self._pools: dict[str, _Pool] = {}

    async def post(self, url: str, path: str, body: bytes, request_id: str) -> Response:
        """Send `body` to `url` + `path`.

        Raises NoAnswerError, UpstreamError or TimeoutError; nothing is tried twice here.
        """
        pool = self._pools.get(url)
        if pool is None:
            pool = self._pools[url] = _Pool(_Address.of(url))
        address = pool.address
        connection = await pool.take(asyncio.get_running_loop())
        head = b"POST %s%s HTTP/1.1\r\nHost: %s\r\n%sX-Request-Id: %s\r\nContent-Length: %d\r\n\r\n" % (
            address.prefix, path.encode(), address.name, self._common, request_id.encode(), len(body),
        )  # fmt: skip
        try:
            connection.send(head, body, self.timeout_s)
            await connection.head()
        except BaseException:
            connection.finish()
            raise
        return Response(connection, pool)

    @property
    def idle(self) -> int:
        """Open connections that wait for a request."""
        return sum(map(len, self._pools.values()))

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()


def _clean(text: str) -> str:
    """Raises ConfigurationError for a header that would become two."""
    if any(ord(character) < 32 for character in text):
        raise ConfigurationError(
            "The engine's key holds a control character; expected one line of text."
        )
    return text
