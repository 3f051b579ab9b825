"""HTTP/1.1 on one connection: uvicorn's protocol, with limits in time and size, and errors as JSON.

uvicorn waits without end for a head or a body that was begun, takes heads of any size, and answers
broken HTTP as plain text. The limits in time are kept by one task that looks at all connections;
a request itself sets no timer.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from enum import Enum
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.gateway.answers import (
    ApiError,
    Headers,
    Receive,
    Scope,
    Send,
    send_bytes,
    send_error,
)

CONNECTION_KEY = "whet.connection"  # of a scope, under which a request finds its connection
# Of a scope: a weak reference to uvicorn's state of this request, which holds the scope. With a
# strong one, each request stayed until the garbage collector, which takes 10 ms, came to find it.
_CYCLE_KEY = "whet.cycle"
STATE_KEY = "connection_watch"  # of the lifespan state, by which a connection finds its watch
MAX_HEAD_BYTES = 65_536  # request line and headers; nginx takes 32 KiB, Apache 8 KiB a line
_READ_HEAD_BYTES = 4 * MAX_HEAD_BYTES  # read on so far, to answer: closing at once would reset
_LOOK_S = 1.0  # between looks at the connections
_UPGRADE_HEADERS = (b"upgrade", b"http2-settings")
_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


class Phase(Enum):
    """What a connection waits for."""

    IDLE = "the first byte of a request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    ANSWER = "the application"
    READ = "the client, to read what was sent"
    CLOSE = "the client, to read the last that was sent"


class ConnectionWatch:
    """Closes connections whose client does not get on. One per server process."""

    def __init__(self, head_timeout_s: float, body_timeout_s: float, read_timeout_s: float) -> None:
        """Limits for heads and bodies to arrive, and for an answer that nobody reads."""
        self.connections: set[GatewayHttpProtocol] = set()
        self.head_timeout_s = head_timeout_s
        self.body_timeout_s = body_timeout_s
        self.read_timeout_s = read_timeout_s

    async def run(self) -> None:
        pause = min(_LOOK_S, self.head_timeout_s / 4, self.body_timeout_s / 4)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(pause)
            now = loop.time()
            for connection in list(self.connections):
                connection.check(now, self)


class GatewayHttpProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._watch: ConnectionWatch | None = self.app_state.get(STATE_KEY)
        self._head_bytes = 0  # received of a head that is not complete
        self._phase = Phase.IDLE
        self._phase_scope: object = None  # the request that the phase is of
        self._phase_since = 0.0
        self.on_disconnect: Callable[[], None] | None = None  # of the request being answered

    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope: Scope = self.scope  # type: ignore[assignment]  # keys of our own in it
        scope[CONNECTION_KEY] = self

    def forget_request(self) -> None:
        """The request is answered: nobody is to be told any more that the client leaves."""
        self.on_disconnect = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._phase_since = self.loop.time()
        if self._watch is not None:
            self._watch.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.on_disconnect is not None:
            self.on_disconnect()
        if self._watch is not None:
            self._watch.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._continue_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(_malformed(error))
            return
        cycle = self.cycle
        if cycle is not None and self.scope is cycle.scope:
            self._head_bytes = 0
        elif self._head_bytes > _READ_HEAD_BYTES:
            self._refuse(_head_too_large())

    def _should_upgrade(self) -> bool:
        """Stop at every request that offers another protocol, before it is taken for one without
        a body, which is what the parser makes of it."""
        return True

    def _continue_without_upgrade(self, rest: bytes) -> None:
        """Read the request again as if it had offered nothing, which RFC 9110 allows.

        Java's client offers HTTP/2 with its first request, whatever its method.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(_malformed(ValueError("this is no proxy")))
            return
        kept = [header for header in self.headers if header[0] not in _UPGRADE_HEADERS]
        version = self.parser.get_http_version().encode()
        head = b"%s %s HTTP/%s\r\n" % (method, self.url, version)
        head += b"".join(b"%s: %s\r\n" % header for header in kept)
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(head + b"\r\n" + rest)

    def on_headers_complete(self) -> None:
        if self._head_bytes > MAX_HEAD_BYTES and self._head_size() > MAX_HEAD_BYTES:
            app, self.app = self.app, _answer_head_too_large
            super().on_headers_complete()
            self.app = app
        else:
            super().on_headers_complete()
        cycle = self.cycle
        scope: Scope = self.scope  # type: ignore[assignment]
        if cycle is not None and self.scope is cycle.scope:  # else the head is read a second time
            scope[_CYCLE_KEY] = weakref.ref(cycle)  # it runs from the loop's next turn on

    def _head_size(self) -> int:
        """Bytes of the head that was just read."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def check(self, now: float, watch: ConnectionWatch) -> None:
        """Close the connection if it has been waiting for its client for too long."""
        phase = self._current_phase()
        if phase is not self._phase or self.scope is not self._phase_scope:
            self._phase, self._phase_scope, self._phase_since = phase, self.scope, now
            return
        waited = now - self._phase_since
        if phase is Phase.HEAD and waited > watch.head_timeout_s:
            self._refuse(_too_slow("head", watch.head_timeout_s))
        elif phase is Phase.BODY and waited > watch.body_timeout_s:
            self._refuse(_too_slow("body", watch.body_timeout_s))
        elif phase is Phase.IDLE and waited > self.timeout_keep_alive:
            # Without a word: a client that is just sending would take it for its answer.
            self.transport.close()
        elif (phase is Phase.READ and waited > watch.read_timeout_s) or (
            phase is Phase.CLOSE and waited > watch.body_timeout_s
        ):
            self.transport.abort()  # closing would wait until everything is read

    def _current_phase(self) -> Phase:
        if self.transport.is_closing():
            return Phase.CLOSE
        if self.flow.write_paused:
            return Phase.READ
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            is_begun = self.scope is not None and (cycle is None or self.scope is not cycle.scope)
            return Phase.HEAD if is_begun else Phase.IDLE
        if self.pipeline or cycle.response_started or not cycle.more_body:
            return Phase.ANSWER
        return Phase.BODY

    def _refuse(self, error: ApiError) -> None:
        """Answer a request that never became whole, and close.

        While an earlier request is being answered, that answer is finished and nothing follows it.
        """
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            if self._current_phase() is not Phase.BODY:
                self.cycle.keep_alive = False
                return
            self.cycle.disconnected = True  # for the application, which waits for the body
            self.cycle.message_event.set()
        body = error.body()
        self.transport.write(
            b"HTTP/1.1 %d %s\r\n" % (error.status, _REASONS[error.status])
            + b"".join(b"%s: %s\r\n" % header for header in error.all_headers())
            + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            + (b"" if self._is_head_request() else body)
        )
        self.transport.close()

    def _is_head_request(self) -> bool:
        return self.scope is not None and self.scope.get("method") == "HEAD"


async def respond(scope: Scope, send: Send, status: int, body: bytes, headers: Headers) -> None:
    """Send a whole response; `headers` without its length.

    On a connection of this server it is written at once, which costs one call into the kernel
    instead of two. Where something stands between (`send` is another's), it goes that way.
    """
    reference = scope.get(_CYCLE_KEY)
    cycle = reference() if reference else None
    if cycle is None or send != cycle.send or cycle.flow.write_paused or cycle.response_started:
        await send_bytes(send, status, body, headers)
        return
    if cycle.disconnected:
        return
    cycle.response_started = cycle.response_complete = True
    lines = [b"%s: %s\r\n" % header for header in headers]
    if not cycle.keep_alive:
        lines.append(b"connection: close\r\n")
    head = b"%s%scontent-length: %d\r\n\r\n" % (STATUS_LINE[status], b"".join(lines), len(body))
    cycle.transport.write(head + body)
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()


def watch_client(
    scope: Scope, receive: Receive, on_disconnect: Callable[[], None]
) -> Callable[[], object]:
    """Have `on_disconnect` called when the client of a request goes away; returns what ends this.

    Call it when the body was read. A connection of this server says it itself; with another server
    a task waits for its message.
    """
    connection = scope.get(CONNECTION_KEY)
    if isinstance(connection, GatewayHttpProtocol):
        connection.on_disconnect = on_disconnect
        return connection.forget_request
    loop = asyncio.get_running_loop()
    watcher: asyncio.Task[Any] = loop.create_task(receive())  # type: ignore[arg-type]

    def message_came(task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            on_disconnect()

    watcher.add_done_callback(message_came)
    return watcher.cancel


async def _answer_head_too_large(_: Scope, __: Receive, send: Send) -> None:
    await send_error(send, _head_too_large())


def _head_too_large() -> ApiError:
    return ApiError(
        431,
        f"The request line and headers are longer than {MAX_HEAD_BYTES} bytes. "
        "Send less in headers; prompts belong into the body.",
        code="headers_too_large",
    )


def _too_slow(part: str, limit_s: float) -> ApiError:
    return ApiError(
        408,
        f"The {part} of the request did not arrive within {limit_s:g} s "
        f"(WHET_{part.upper()}_TIMEOUT_S). Send it again.",
        code="request_timeout",
    )


def _malformed(error: Exception) -> ApiError:
    if isinstance(error, httptools.HttpParserInvalidURLError | httptools.HttpParserCallbackError):
        problem = "its target is no path in ASCII; percent-encode what is not"
    else:
        problem = str(error)
    return ApiError(400, f"The request is not valid HTTP/1.1: {problem}.", code="invalid_http")
