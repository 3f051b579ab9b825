"""What stands around the API in HTTP: origins, methods, paths, encodings, and clients that are slow
or do not speak HTTP. Everything over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import re
import socket
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from serving.gateway.answers import STREAM_HEADERS
from serving.gateway.cors import EXPOSED_HEADERS
from serving.gateway.http_protocol import (
    MAX_HEAD_BYTES,
    STATE_KEY,
    ConnectionWatch,
    GatewayHttpProtocol,
)
from serving.gateway.paths import find_meant_path, normalise_path
from tests.serving.conftest import Running, serve, set_replica, wait_for
from tests.serving.mock_engine import MockEngine
from whet.context import open_context
from whet.settings import load_settings

ORIGIN = "https://app.example.com"
POST_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/feedback")
GET_PATHS = ("/healthz", "/readyz", "/metrics", "/v1/models")
CHAT = {"model": "base", "messages": [{"role": "user", "content": "hello"}]}
Answer = tuple[int, dict[str, str], bytes]


def ask(
    gateway: Running,
    method: str,
    path: str,
    body: bytes | dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
    *,
    with_key: bool = True,
) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    key = {"Authorization": f"Bearer {gateway.key}"} if with_key else {}
    connection.request(method, path, content, key | (headers or {}))
    response = connection.getresponse()
    answer = response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    connection.close()
    return answer


def error_of(answer: Answer, status: int, code: str) -> dict[str, Any]:
    """The error of an answer that has this status and code, in OpenAI's shape."""
    assert answer[0] == status, answer
    assert answer[1]["content-type"] == "application/json"
    error: dict[str, Any] = json.loads(answer[2])["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    assert error["code"] == code, error
    return error


def open_socket(gateway: Running, sent: bytes = b"") -> socket.socket:
    opened = socket.create_connection(("127.0.0.1", gateway.port), timeout=20)
    opened.sendall(sent)
    return opened


def read_all(opened: socket.socket) -> bytes:
    """Everything until the gateway closes."""
    found = b""
    try:
        while part := opened.recv(65_536):
            found += part
    except ConnectionResetError:
        pass
    return found


def parse(raw: bytes) -> Answer:
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    pairs = (line.split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), {name.lower(): value for name, value in pairs}, body


def head_of(gateway: Running, path: str = "/v1/chat/completions", extra: str = "") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key}\r\n{extra}"
    ).encode()


@pytest.fixture(scope="module")
def open_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One that pages of `ORIGIN` may call, with a ready base."""
    home = tmp_path_factory.mktemp("origins") / "home"
    context = open_context(
        load_settings(home=home, cors_origins=f"{ORIGIN}, http://localhost:3000")
    )
    with MockEngine() as engine:
        set_replica(context, engine.url, {})
        yield from serve(context, engine)
    context.close()


@pytest.fixture
def impatient(tmp_path: Path, engine: MockEngine) -> Iterator[Running]:
    """One that waits for heads and bodies for less than a second."""
    settings = load_settings(home=tmp_path / "home", head_timeout_s=0.6, body_timeout_s=0.6)
    context = open_context(settings)
    set_replica(context, engine.url, {})
    yield from serve(context, engine)
    context.close()


# --- origins -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [*POST_PATHS, "/v1/models", "/v1/embeddings", "/v1/chat/completions/"]
)
def test_preflight_of_every_route_is_answered_for_a_listed_origin(
    open_gateway: Running, path: str
) -> None:
    asked = "authorization, content-type, x-request-id, x-stainless-lang, x-anything"
    status, headers, _ = ask(
        open_gateway,
        "OPTIONS",
        path,
        headers={
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": asked,
        },
        with_key=False,
    )
    assert status == 200 and headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in headers["access-control-allow-methods"]
    assert headers["access-control-allow-headers"] == asked
    assert int(headers["access-control-max-age"]) > 0 and "Origin" in headers["vary"]
    assert "access-control-allow-credentials" not in headers


def test_preflight_of_another_origin_is_refused_with_a_sentence(open_gateway: Running) -> None:
    answer = ask(
        open_gateway,
        "OPTIONS",
        "/v1/chat/completions",
        headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
        with_key=False,
    )
    assert "WHET_CORS_ORIGINS" in error_of(answer, 400, "origin_not_allowed")["message"]
    assert "access-control-allow-origin" not in answer[1]


def test_every_answer_to_a_listed_origin_may_be_read(open_gateway: Running) -> None:
    """Answers, streams and errors of all kinds, of direct routes and others."""
    page = {"Origin": ORIGIN}
    answers = {
        "answer": ask(open_gateway, "POST", "/v1/chat/completions", CHAT, page),
        "stream": ask(open_gateway, "POST", "/v1/chat/completions", CHAT | {"stream": True}, page),
        "bad body": ask(open_gateway, "POST", "/v1/chat/completions", b"{", page),
        "no key": ask(open_gateway, "POST", "/v1/responses", CHAT, page, with_key=False),
        "no model": ask(
            open_gateway, "POST", "/v1/completions", {"model": "x", "prompt": "y"}, page
        ),
        "method": ask(open_gateway, "GET", "/v1/feedback", None, page),
        "no path": ask(open_gateway, "GET", "/nope", None, page),
        "models": ask(open_gateway, "GET", "/v1/models", None, page),
        "ready": ask(open_gateway, "GET", "/readyz", None, page),
    }
    for name, (status, headers, body) in answers.items():
        assert headers.get("access-control-allow-origin") == ORIGIN, (name, status, headers, body)
        assert headers["access-control-expose-headers"] == ", ".join(EXPOSED_HEADERS), name
        assert "Origin" in headers["vary"], name
    assert answers["stream"][2].endswith(b"data: [DONE]\n\n")
    other = ask(open_gateway, "GET", "/v1/models", None, {"Origin": "https://evil.example"})
    assert other[0] == 200 and "access-control-allow-origin" not in other[1]


def test_every_header_of_ours_may_be_read_by_a_page() -> None:
    folder = Path(__file__).parents[2] / "serving" / "gateway"
    sources = [path.read_text() for path in folder.glob("*.py") if path.name != "cors.py"]
    written = {name for text in sources for name in re.findall(r'b?"(x-whet-[a-z-]+)"', text)}
    assert written and written <= set(EXPOSED_HEADERS)


def test_without_the_setting_there_is_no_cors_header_and_options_is_405(gateway: Running) -> None:
    preflight = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    found = [ask(gateway, "OPTIONS", path, None, preflight) for path in (*POST_PATHS, *GET_PATHS)]
    for answer in found:
        error_of(answer, 405, "method_not_allowed")
        assert answer[1]["allow"] in ("POST", "GET, HEAD")
    found.append(ask(gateway, "POST", "/v1/chat/completions", CHAT, {"Origin": ORIGIN}))
    assert found[-1][0] == 200
    assert not [name for _, headers, _ in found for name in headers if "access-control" in name]


def test_a_star_allows_every_origin(tmp_path: Path, engine: MockEngine) -> None:
    context = open_context(load_settings(home=tmp_path / "home", cors_origins="*"))
    set_replica(context, engine.url, {})
    for running in serve(context, engine):
        _, headers, _ = ask(running, "GET", "/v1/models", None, {"Origin": "https://any.example"})
        assert headers["access-control-allow-origin"] == "*"
        _, headers, _ = ask(running, "GET", "/v1/models")
        assert "access-control-allow-origin" not in headers
    context.close()


# --- streams and methods -----------------------------------------------------------------------


def test_stream_headers_keep_proxies_from_collecting() -> None:
    assert dict(STREAM_HEADERS) == {
        b"content-type": b"text/event-stream; charset=utf-8",
        b"cache-control": b"no-cache",
        b"x-accel-buffering": b"no",
    }


@pytest.mark.parametrize("path", [*GET_PATHS, "/v1/models/", "//healthz"])
def test_head_is_get_without_a_body(gateway: Running, path: str) -> None:
    got, asked = ask(gateway, "GET", path), ask(gateway, "HEAD", path)
    assert asked[0] == got[0] == 200 and asked[2] == b""
    assert set(asked[1]) == set(got[1]) and asked[1]["content-type"] == got[1]["content-type"]
    if path != "/metrics":  # whose length changes by itself
        assert asked[1]["content-length"] == got[1]["content-length"] == str(len(got[2]))


def test_head_needs_a_key_where_get_does(gateway: Running) -> None:
    assert ask(gateway, "HEAD", "/v1/models", with_key=False)[0] == 401
    assert ask(gateway, "HEAD", "/healthz", with_key=False)[0] == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"])
@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        *[(path, "POST") for path in (*POST_PATHS, "/v1/embeddings", "/v1/chat/completions/")],
        *[(path, "GET, HEAD") for path in GET_PATHS],
    ],
)
def test_a_method_that_is_not_answered_is_405_with_allow(
    gateway_module: Running, method: str, path: str, allowed: str
) -> None:
    if method in allowed:
        return
    answer = ask(gateway_module, method, path)
    assert answer[0] == 405 and answer[1]["allow"] == allowed
    if method != "HEAD":
        error_of(answer, 405, "method_not_allowed")


# --- paths -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions/",
        "/v1/chat/completions//",
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat%2Fcompletions",
        "/v1/ch%61t/completions",
        "/v1/chat/completions?api-version=1",
    ],
)
def test_slashes_and_encodings_that_mean_one_thing_are_understood(
    gateway: Running, path: str
) -> None:
    assert ask(gateway, "POST", path, CHAT)[0] == 200


def test_a_list_of_models_with_a_slash_is_no_redirect(gateway: Running) -> None:
    assert ask(gateway, "GET", "/v1/models/")[0] == 200


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/models", "/v1/models"),
        ("/chat/completions", "/v1/chat/completions"),
        ("/models", "/v1/models"),
        ("/completions/", "/v1/completions"),
        ("/V1/Chat/Completions", "/v1/chat/completions"),
        ("/v1/Models", "/v1/models"),
        ("/api/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/openai/responses", "/v1/responses"),
        ("/V1/v1/feedback", "/v1/feedback"),
        ("/v1/v1/nonsense", ""),
    ],
)
def test_a_wrong_base_url_is_told_the_right_one(
    gateway_module: Running, path: str, meant: str
) -> None:
    for method in ("GET", "POST"):
        answer = ask(gateway_module, method, path, b"{}" if method == "POST" else None)
        message = error_of(answer, 404, "not_found")["message"]
        assert message.endswith(f" {gateway_module.url}/v1"), message
        assert f"there is {meant}" in message if meant else "but there is" not in message


@pytest.mark.parametrize(
    "path", ["/", "/nope", "/v1", "/v1/", "/v1/images", "/adapters", "/%FF", "/v1/../x"]
)
def test_what_is_nowhere_is_404(gateway_module: Running, path: str) -> None:
    assert "/docs" in error_of(ask(gateway_module, "GET", path), 404, "not_found")["message"]


def test_a_strange_host_is_not_repeated(gateway_module: Running) -> None:
    answer = ask(gateway_module, "GET", "/models", None, {"Host": "x y<script>"})
    assert "script" not in answer[2].decode()


def test_normalised_paths() -> None:
    cases = {
        "/": "/",
        "": "/",
        "//": "/",
        "/a//b/": "/a/b",
        "/a": "/a",
        "/v1/models/a%": "/v1/models/a%",
    }
    assert {path: normalise_path(path) for path in cases} == cases
    assert find_meant_path("/x/y", lambda _: False) is None
    assert find_meant_path("/v1", lambda _: True) is None


# --- bodies ------------------------------------------------------------------------------------

_PLAIN = json.dumps(CHAT).encode()
_RAW = zlib.compressobj(wbits=-15)
_ENCODED = {
    "gzip": gzip.compress(_PLAIN, mtime=0),
    "x-gzip": gzip.compress(_PLAIN, mtime=0),
    "GZIP": gzip.compress(_PLAIN, mtime=0),
    "deflate": zlib.compress(_PLAIN),
    "deflate ": _RAW.compress(_PLAIN) + _RAW.flush(),
    "identity": _PLAIN,
    "br": _PLAIN,  # says so and is not
}


@pytest.mark.parametrize("encoding", list(_ENCODED))
def test_compressed_bodies_are_read(gateway: Running, encoding: str) -> None:
    answer = ask(
        gateway, "POST", "/v1/chat/completions", _ENCODED[encoding], {"Content-Encoding": encoding}
    )
    assert answer[0] == 200, answer
    assert gateway.engine.seen[-1]["messages"] == CHAT["messages"]


@pytest.mark.parametrize("path", POST_PATHS)
@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "aes128gcm"])
def test_an_unread_compression_is_415_with_what_is_read(
    gateway_module: Running, path: str, encoding: str
) -> None:
    answer = ask(gateway_module, "POST", path, b"\x01\x02\x03", {"Content-Encoding": encoding})
    error_of(answer, 415, "unsupported_content_encoding")
    assert answer[1]["accept-encoding"] == "gzip, deflate"


def test_a_body_grows_to_the_limit_and_not_beyond(gateway_module: Running) -> None:
    """Bombs end at the limit, whatever they would become."""
    limit = gateway_module.context.settings.request_max_bytes
    bomb = zlib.compressobj(9, wbits=31)
    content = b"".join(bomb.compress(b"{" + b" " * (1 << 20)) for _ in range(400)) + bomb.flush()
    assert len(content) < limit
    began = time.monotonic()
    answer = ask(
        gateway_module, "POST", "/v1/chat/completions", content, {"Content-Encoding": "gzip"}
    )
    error_of(answer, 413, "request_too_large")
    assert time.monotonic() - began < 5, "400 MiB were made of it"
    largest = _PLAIN + b" " * (limit - len(_PLAIN))
    for body, code in ((largest, "engine"), (largest + b" ", "request_too_large")):
        packed = gzip.compress(body)
        answer = ask(gateway_module, "POST", "/v1/feedback", packed, {"Content-Encoding": "gzip"})
        assert (json.loads(answer[2])["error"]["code"] == "request_too_large") is (code != "engine")


@pytest.mark.parametrize(
    "body",
    [
        b"not gzip",
        gzip.compress(_PLAIN, mtime=0)[:-6],
        gzip.compress(_PLAIN, mtime=0) + b"tail",
        gzip.compress(b"{}", mtime=0) * 2,
    ],
    ids=["plain", "cut off", "with a tail", "two members"],
)
def test_broken_gzip_is_a_sentence(gateway_module: Running, body: bytes) -> None:
    answer = ask(gateway_module, "POST", "/v1/responses", body, {"Content-Encoding": "gzip"})
    assert "gzip" in error_of(answer, 400, "invalid_encoding")["message"]


@pytest.mark.parametrize("charset", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_other_encodings_than_utf8_are_named(gateway_module: Running, charset: str) -> None:
    for body in (_PLAIN.decode().encode(charset), "[]".encode(charset)):
        answer = ask(gateway_module, "POST", "/v1/chat/completions", body)
        assert "UTF-8" in error_of(answer, 400, "invalid_encoding")["message"]


def test_a_byte_order_mark_is_left_out(gateway: Running) -> None:
    for body in (b"\xef\xbb\xbf" + _PLAIN, b"\r\n " + _PLAIN + b"\n"):
        assert ask(gateway, "POST", "/v1/chat/completions", body)[0] == 200


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/x-www-form-urlencoded", b"model=base&messages=x"),
        ("application/x-www-form-urlencoded; charset=utf-8", b"model=base"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1',
        ),
    ],
)
def test_a_form_is_415_and_told_what_to_send(
    gateway_module: Running, kind: str, body: bytes
) -> None:
    answer = ask(gateway_module, "POST", "/v1/feedback", body, {"Content-Type": kind})
    error = error_of(answer, 415, "unsupported_media_type")
    assert "application/json" in error["message"] and answer[1]["accept"] == "application/json"


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_json_is_read_whatever_the_type_says(gateway: Running, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    assert ask(gateway, "POST", "/v1/chat/completions", CHAT, headers)[0] == 200


# --- time and size -----------------------------------------------------------------------------


def test_a_head_that_does_not_come_is_408(impatient: Running) -> None:
    began = time.monotonic()
    with open_socket(impatient, b"POST /v1/chat/completions HTTP/1.1\r\nHos") as opened:
        answer = parse(read_all(opened))
    assert "WHET_HEAD_TIMEOUT_S" in error_of(answer, 408, "request_timeout")["message"]
    assert answer[1]["connection"] == "close" and 0.5 < time.monotonic() - began < 5


def test_a_head_that_drips_is_408(impatient: Running) -> None:
    with open_socket(impatient) as opened:
        opened.settimeout(0.1)
        raw, began = b"", time.monotonic()
        for byte in head_of(impatient) * 10:
            opened.sendall(bytes([byte]))
            try:
                raw = opened.recv(65_536)
                break
            except TimeoutError:
                assert time.monotonic() - began < 10, "the head may drip for ever"
    error_of(parse(raw), 408, "request_timeout")


@pytest.mark.parametrize("extra", ["Content-Length: 500\r\n", "Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("path", POST_PATHS)
def test_a_body_that_does_not_come_is_408(impatient: Running, extra: str, path: str) -> None:
    with open_socket(impatient, head_of(impatient, path, extra) + b"\r\n") as opened:
        if "chunked" in extra:
            opened.sendall(b"5\r\n{")
        answer = parse(read_all(opened))
    assert "WHET_BODY_TIMEOUT_S" in error_of(answer, 408, "request_timeout")["message"]
    assert impatient.rows() == [] and impatient.engine.seen == []


def test_the_second_request_of_a_connection_has_the_same_limits(impatient: Running) -> None:
    whole = head_of(impatient, extra=f"Content-Length: {len(_PLAIN)}\r\n") + b"\r\n" + _PLAIN
    with open_socket(impatient, whole) as opened:
        assert opened.recv(65_536).startswith(b"HTTP/1.1 200")
        opened.sendall(b"GET /healthz HTT")
        raw = read_all(opened)
    error_of(parse(raw[raw.index(b"HTTP/1.1 408") :]), 408, "request_timeout")


def test_an_answer_that_takes_longer_than_the_limits_is_not_cut(impatient: Running) -> None:
    """The limits are for what the client owes, also while it has begun its next request."""
    impatient.engine.faults.start_delay_s = 1.5
    whole = head_of(impatient, extra=f"Content-Length: {len(_PLAIN)}\r\n") + b"\r\n" + _PLAIN
    with open_socket(impatient, whole + b"GET /hea") as opened:
        raw = read_all(opened)
    assert raw.startswith(b"HTTP/1.1 200"), raw
    assert raw.count(b"HTTP/1.1 408") == 1, "its next head never came"


def test_many_slow_clients_go_and_nobody_waits_for_them(impatient: Running) -> None:
    slow = [open_socket(impatient, b"GET / HTTP/1.1\r\nX: ") for _ in range(100)]
    slow += [
        open_socket(impatient, head_of(impatient, extra="Content-Length: 9\r\n\r\n"))
        for _ in range(100)
    ]
    began = time.monotonic()
    assert ask(impatient, "GET", "/healthz")[0] == 200
    assert time.monotonic() - began < 2
    assert all(b" 408 " in read_all(opened)[:20] for opened in slow)
    for opened in slow:
        opened.close()
    watch: ConnectionWatch = impatient.app.state.connection_watch
    wait_for(lambda: not watch.connections, "the end of all connections")


class FullTransport(asyncio.Transport):
    """A connection whose client reads nothing, so that closing it never ends."""

    def __init__(self) -> None:
        super().__init__()
        self.is_closed = self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed or self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


async def test_a_client_that_does_not_read_is_let_go() -> None:
    """The time is handed in: a limit of minutes takes no minutes to test."""
    watch = ConnectionWatch(head_timeout_s=15, body_timeout_s=60, read_timeout_s=600)
    config = uvicorn.Config(lambda: None, http=GatewayHttpProtocol, ws="none", log_config=None)
    config.load()

    def connect() -> tuple[GatewayHttpProtocol, FullTransport]:
        state = {STATE_KEY: watch}
        protocol = GatewayHttpProtocol(config=config, server_state=ServerState(), app_state=state)
        transport = FullTransport()
        protocol.connection_made(transport)
        return protocol, transport

    protocol, transport = connect()
    protocol.pause_writing()
    for now, is_aborted in ((0, False), (599, False), (601, True)):
        protocol.check(now, watch)
        assert transport.is_aborted is is_aborted, now
    protocol, transport = connect()
    protocol.data_received(b"nonsense\r\n\r\n")
    assert transport.is_closed and not transport.is_aborted
    for now, is_aborted in ((0, False), (59, False), (61, True)):
        protocol.check(now, watch)
        assert transport.is_aborted is is_aborted, now
    assert watch.connections
    protocol.connection_lost(None)
    assert protocol not in watch.connections


def test_silent_connections_close_without_a_word(
    impatient: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GatewayHttpProtocol, "timeout_keep_alive", 0.5, raising=False)
    with open_socket(impatient) as silent, open_socket(impatient, b"\r\n") as blank:
        for opened in (silent, blank):
            opened.settimeout(10)
            assert read_all(opened) == b""


@pytest.mark.parametrize("size", [MAX_HEAD_BYTES + 1, 100_000, 200_000])
def test_a_large_head_is_431(gateway_module: Running, size: int) -> None:
    answer = ask(gateway_module, "GET", "/v1/models", None, {"X-Large": "x" * size})
    assert str(MAX_HEAD_BYTES) in error_of(answer, 431, "headers_too_large")["message"]
    many = {f"X-{number}": "x" * 1000 for number in range(size // 1000)}
    connection = open_socket(gateway_module)
    lines = "".join(f"{name}: {value}\r\n" for name, value in many.items())
    connection.sendall(f"GET /healthz HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode())
    error_of(parse(read_all(connection)), 431, "headers_too_large")
    connection.close()


def test_a_head_without_an_end_is_closed(gateway_module: Running) -> None:
    with open_socket(gateway_module) as opened:
        opened.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(200):
                opened.sendall(b"x" * 65_536)


def test_a_large_body_is_no_large_head(gateway: Running) -> None:
    large = CHAT | {"messages": [{"role": "user", "content": "x" * 900_000}]}
    assert ask(gateway, "POST", "/v1/chat/completions", large)[0] == 200
    assert ask(gateway, "GET", "/healthz", None, {"X-Large": "x" * 60_000})[0] == 200


# --- broken HTTP -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad name: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n",
        b"GET http:// HTTP/1.1\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40,
    ],
)
def test_what_is_no_http_gets_an_error_of_the_usual_shape(
    gateway_module: Running, raw: bytes
) -> None:
    with open_socket(gateway_module, raw) as opened:
        answer = parse(read_all(opened))
    error_of(answer, 400, "invalid_http")
    assert answer[1]["connection"] == "close"


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"5\r\n{}", b"-1\r\n", b"FFFFFFFFFFFFFFFFF\r\n"])
def test_a_broken_chunk_is_400_and_leaves_nothing(gateway: Running, chunk: bytes) -> None:
    begun = head_of(gateway, extra="Transfer-Encoding: chunked\r\n") + b"\r\n2\r\n{ \r\n"
    with open_socket(gateway, begun + chunk + b"xxxxxxx\r\n") as opened:
        error_of(parse(read_all(opened)), 400, "invalid_http")
    assert gateway.rows() == [] and gateway.engine.seen == []


def test_nonsense_after_a_request_does_not_spoil_its_answer(gateway: Running) -> None:
    whole = head_of(gateway, extra=f"Content-Length: {len(_PLAIN)}\r\n") + b"\r\n" + _PLAIN
    with open_socket(gateway, whole + b"nonsense\r\n\r\n") as opened:
        status, headers, body = parse(read_all(opened))
    assert status == 200 and len(body) == int(headers["content-length"]), (status, body)


def test_a_client_that_offers_http2_is_answered(gateway: Running) -> None:
    """Java's client sends this with its first request."""
    offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
    extra = f"{offer}Content-Length: {len(_PLAIN)}\r\n"
    with open_socket(gateway, head_of(gateway, extra=extra) + b"\r\n" + _PLAIN) as opened:
        first = opened.recv(65_536)
        opened.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        rest = read_all(opened)
    assert first.startswith(b"HTTP/1.1 200"), first
    assert b"HTTP/1.1 200" in rest and rest.endswith(b'{"status":"alive"}')


def test_pipelined_requests_are_answered_in_order(gateway: Running) -> None:
    whole = head_of(gateway, extra=f"Content-Length: {len(_PLAIN)}\r\n") + b"\r\n" + _PLAIN
    last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with open_socket(gateway, whole * 2 + last) as opened:
        raw = read_all(opened)
    assert raw.count(b"HTTP/1.1 200") == 3 and raw.endswith(b'{"status":"alive"}')
    wait_for(lambda: len(gateway.rows()) == 2, "two rows")
