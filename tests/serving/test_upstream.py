"""The gateway's own connections to an engine, against a server that answers byte by byte as told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing

import pytest

from serving.gateway import upstream as module
from serving.gateway.upstream import NoAnswerError, Upstream, UpstreamError
from whet.errors import ConfigurationError

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Server:
    """Answers each request by `script(reader, writer, number of the request)`."""

    def __init__(self, script: Script) -> None:
        self.script, self.connections, self.requests = script, 0, 0
        self.seen: list[bytes] = []
        self.left = asyncio.Event()
        self.url = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.seen.append(head + await reader.readexactly(length))
                self.requests += 1
                await self.script(reader, writer, self.requests)
                await writer.drain()
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.left.set()
            writer.close()


@asynccontextmanager
async def serving(script: Script, timeout_s: float = 5.0) -> AsyncIterator[tuple[Server, Upstream]]:
    server = Server(script)
    listener = await asyncio.start_server(server, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    with closing(Upstream({"Authorization": "Bearer secret"}, timeout_s)) as client:
        yield server, client
    listener.close()


def says(*pieces: bytes, close: bool = False) -> Script:
    """Each piece in a write of its own."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if close:
            writer.close()

    return script


async def ask(client: Upstream, server: Server) -> tuple[int, bytes]:
    response = await client.post(server.url, "/v1/x", b"{}", "int_1")
    try:
        return response.status, await response.read()
    finally:
        response.close()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_an_answer_is_the_same_however_the_network_cuts_it(size: int) -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n"
        b" \r\n5\r\nworld\r\n0\r\n\r\n"
    )
    pieces = [answer[start : start + size] for start in range(0, len(answer), size)]
    async with serving(says(*pieces)) as (server, client):
        for _ in range(3):
            assert await ask(client, server) == (200, b"hello world")
        assert server.connections == 1, "an answer read to its end gives its connection back"
        assert (
            b"Authorization: Bearer secret\r\n" in server.seen[0]
            and b"X-Request-Id: int_1\r\n" in server.seen[0]
            and server.seen[0].endswith(b"\r\n\r\n{}")
        )


async def test_pieces_that_came_together_are_handed_out_together() -> None:
    stream = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"3\r\nabc\r\n" * 100
        + b"0\r\n\r\n"
    )
    async with serving(says(stream)) as (server, client):
        response = await client.post(server.url, "/v1/x", b"{}", "int_1")
        assert (
            await response.read_chunk() == b"abc" * 100
            and response.complete
            and await response.read_chunk() == b""
        )
        response.close()


async def test_a_notice_before_the_answer_is_not_the_answer() -> None:
    async with serving(says(b"HTTP/1.1 100 Continue\r\n\r\n", WHOLE)) as (server, client):
        assert await ask(client, server) == (200, b"hello")


async def test_a_body_without_a_length_ends_with_its_connection() -> None:
    async with serving(says(b"HTTP/1.1 200 OK\r\n\r\nhello ", b"world", close=True)) as (
        server,
        client,
    ):
        assert await ask(client, server) == (200, b"hello world")
        assert client.idle == 0


@pytest.mark.parametrize(
    ("pieces", "error", "what"),
    [
        ((), NoAnswerError, "closed the connection"),
        ((b"HTTP/1.1 200 OK\r\nContent-",), UpstreamError, "before the answer was complete"),
        (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",),
            UpstreamError,
            "before the answer was complete",
        ),
        (
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",),
            UpstreamError,
            "before the answer was complete",
        ),
        (
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnothing\r\n",),
            UpstreamError,
            "no HTTP answer",
        ),
        ((b"SSH-2.0-OpenSSH\r\n\r\n",), UpstreamError, "no HTTP answer"),
        ((b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000,), UpstreamError, "head is longer"),
    ],
    ids=[
        "nothing",
        "half a head",
        "half a body",
        "a chunk too few",
        "no chunk",
        "another protocol",
        "an endless head",
    ],
)
async def test_what_is_no_whole_answer_is_an_error_that_says_so(
    pieces: tuple[bytes, ...], error: type[Exception], what: str
) -> None:
    async with serving(says(*pieces, close=True)) as (server, client):
        with pytest.raises(error, match=what):
            await ask(client, server)
        assert client.idle == 0, "a connection in an unknown state must not be used again"


async def test_a_refused_connection_may_be_tried_again() -> None:
    async with serving(says(WHOLE)) as (server, client):
        with pytest.raises(NoAnswerError):
            await client.post("http://127.0.0.1:1", "/v1/x", b"{}", "int_1")
        assert await ask(client, server) == (200, b"hello")


async def test_a_kept_connection_that_the_engine_closed_is_not_used() -> None:
    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(WHOLE)
        if number == 1:
            await writer.drain()
            writer.close()

    async with serving(script) as (server, client):
        assert await ask(client, server) == (200, b"hello")
        await asyncio.wait_for(server.left.wait(), 5)
        async with asyncio.timeout(5):
            while client.idle:
                await asyncio.sleep(0.005)
        assert await ask(client, server) == (200, b"hello") and server.connections == 2


async def test_bytes_that_nobody_asked_for_are_no_answer_to_the_next_request() -> None:
    stray = WHOLE.replace(b"hello", b"stray")
    async with serving(says(WHOLE + stray)) as (server, client):
        for _ in range(3):
            assert await ask(client, server) == (200, b"hello")
        assert server.connections == 3, "a connection with something left in it is given up"


async def test_an_old_connection_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(says(WHOLE)) as (server, client):
        await ask(client, server)
        monkeypatch.setattr(module, "KEEP_ALIVE_S", 0.0)
        await ask(client, server)
        assert server.connections == 2


async def test_a_limit_of_time_holds_for_the_whole_answer() -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"1\r\na\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(drip, timeout_s=0.2) as (server, client):
        with pytest.raises(TimeoutError):
            await ask(client, server)
        await asyncio.wait_for(server.left.wait(), 5)


async def test_a_response_closed_early_breaks_the_connection_so_that_the_engine_stops() -> None:
    async with serving(says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")) as (
        server,
        client,
    ):
        response = await client.post(server.url, "/v1/x", b"{}", "int_1")
        assert await response.read_chunk() == b"hello"
        response.close()
        await asyncio.wait_for(server.left.wait(), 5)
        assert client.idle == 0


async def test_an_engine_waits_for_a_slow_reader() -> None:
    """Otherwise a long answer to a stopped client would pile up in the gateway."""
    total = 64 << 20
    sent = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            writer.write(b"x" * (1 << 16))
            sent += 1 << 16
            await writer.drain()

    async with serving(flood) as (server, client):
        response = await client.post(server.url, "/v1/x", b"{}", "int_1")
        before = -1
        while before != sent:  # until the engine can send no more
            before = sent
            await asyncio.sleep(0.1)
        assert sent < total / 2, (
            f"the engine could send {sent >> 20} of {total >> 20} MiB to a reader that reads nothing"
        )
        assert len(await response.read()) == total
        response.close()


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1:1", "127.0.0.1:8000", "http://", "http://a b:1", "http://a:1\r\nX: y"]
)
async def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="no address of an engine"):
        await Upstream({}, 1.0).post(url, "/v1/x", b"", "int_1")


def test_a_key_that_would_become_a_second_header_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="control character"):
        Upstream({"Authorization": "Bearer a\r\nX-Other: b"}, 1.0)
