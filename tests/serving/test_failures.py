"""Engines that break off, clients that go away, a log that cannot be written: what the client gets
and what the row says.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import time
from typing import Any

import openai
import pytest

from tests.serving.conftest import Running, set_replica, wait_for
from tests.serving.mock_engine import MockEngine
from tests.serving.test_protocol import HELLO, post

STREAM = {"model": "support", "messages": HELLO, "stream": True}


def only_row(gateway: Running) -> Any:
    found = wait_for(gateway.rows, "a row")
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    "fault", [{"cut_after": 4}, {"eof_after": 4}, {"cut_after": 4, "split_bytes": 13}]
)
def test_a_stream_that_the_engine_cuts_ends_with_an_error_and_no_done(
    gateway: Running, fault: dict[str, int]
) -> None:
    vars(gateway.engine.faults).update(fault, chunk_delay_s=0.01)
    status, _, content = post(gateway, "/v1/chat/completions", STREAM)
    assert status == 200 and b"[DONE]" not in content
    last = content.rstrip().split(b"\n\n")[-1]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "engine_error"
    row = only_row(gateway)
    assert row.status == "cut" and row.error and row.finish_reason is None
    assert (row.response_text or "").count("support") == max(0, next(iter(fault.values())) - 1)


def test_a_defect_of_ours_is_an_error_in_openais_shape(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("serving.gateway.completions.parse", fail)
    status, _, content = post(gateway, "/v1/chat/completions", STREAM)
    assert (status, json.loads(content)["error"]["code"]) == (500, "internal_error")


def test_a_stream_cut_before_its_first_event_is_502(gateway: Running) -> None:
    gateway.engine.faults.cut_after = 0
    status, _, content = post(gateway, "/v1/chat/completions", STREAM)
    assert (status, json.loads(content)["error"]["code"]) == (502, "engine_error")
    assert (only_row(gateway).status, only_row(gateway).http_status) == ("error", 502)


def test_the_openai_client_raises_when_a_stream_is_cut(gateway: Running) -> None:
    gateway.engine.faults.cut_after = 3
    with pytest.raises(openai.APIError, match="not the whole answer"):
        list(gateway.client().chat.completions.create(**STREAM))


def test_done_after_an_error_event_is_not_success(gateway: Running) -> None:
    gateway.engine.faults.error_after = 3
    status, _, content = post(gateway, "/v1/chat/completions", STREAM)
    assert (
        status == 200 and b"EngineCore encountered an issue" in content and b"[DONE]" not in content
    )
    error = json.loads(content.rstrip().split(b"\n\n")[-1].removeprefix(b"data: "))["error"]
    assert (error["type"], error["code"]) == ("server_error", "engine_error"), "in our own form"
    row = only_row(gateway)
    assert (row.status, row.error) == ("error", "EngineCore encountered an issue.")
    assert row.response_text.count("support") == 2


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_the_engine_aborts_is_not_complete(gateway: Running, stream: bool) -> None:
    gateway.engine.faults.finish_reason = "abort"
    gateway.engine.faults.chunk_delay_s = 0.01  # so that the stream has begun before it ends
    status, _, content = post(gateway, "/v1/chat/completions", {**STREAM, "stream": stream})
    assert status == (200 if stream else 502) and b"error" in content and b"[DONE]" not in content
    assert only_row(gateway).status in {"cut", "error"}


def test_the_responses_api_hears_of_a_cut_too(gateway: Running) -> None:
    gateway.engine.faults.cut_after = 3
    _, _, content = post(
        gateway, "/v1/responses", {"model": "support", "input": "x", "stream": True}
    )
    assert (
        content.rstrip().split(b"\n\n")[-1].startswith(b"event: error\ndata: ")
        and b"response.completed" not in content
    )
    assert only_row(gateway).status == "cut"


def test_what_the_engine_refuses_is_the_clients_to_know(gateway: Running) -> None:
    gateway.engine.faults.refuse_status = 400
    with pytest.raises(openai.BadRequestError, match="refused for support"):
        gateway.client().chat.completions.create(model="support", messages=HELLO)
    row = only_row(gateway)
    assert (row.status, row.http_status) == ("error", 400) and "--" not in row.error


@pytest.mark.parametrize(
    ("found", "told"), [(500, 502), (401, 502), (503, 503), (429, 429), (422, 400)]
)
def test_an_engines_own_failure_has_a_status_that_says_so(
    gateway: Running, found: int, told: int
) -> None:
    gateway.engine.faults.refuse_status = found
    status, headers, _ = post(gateway, "/v1/chat/completions", STREAM)
    assert status == told and ("retry-after" in headers) == (told in {429, 503})
    assert only_row(gateway).http_status == told


def test_a_connection_that_breaks_before_the_first_byte_is_tried_again(gateway: Running) -> None:
    gateway.engine.faults.drop = 1
    assert (
        gateway.client()
        .chat.completions.create(model="support", messages=HELLO)
        .choices[0]
        .finish_reason
        == "stop"
    )
    assert len(gateway.engine.seen) == 2 and only_row(gateway).status == "complete"


def test_a_dead_replica_is_passed_over_for_one_that_lives(gateway: Running) -> None:
    engine_names = {
        digest: target.engine_model
        for digest, target in (
            (r.stable.adapter.digest, r.stable)
            for r in gateway.app.core.refresher.current.routes.values()
            if r.stable.adapter
        )
    }
    with MockEngine() as second:
        second.adapters = dict.fromkeys(engine_names.values(), "/x")
        set_replica(gateway.context, second.url, engine_names)
        gateway.refresh()
        second.stop()
        for _ in range(12):
            assert (
                gateway.client().chat.completions.create(model="support", messages=HELLO).model
                == "support"
            )
    assert {row.status for row in gateway.rows()} <= {"complete"}


def test_a_replica_that_forgot_a_version_is_passed_over_until_it_has_it_again(
    gateway: Running,
) -> None:
    names, gateway.engine.adapters = gateway.engine.adapters, {}
    asyncio.run_coroutine_threadsafe(
        _later(0.5, lambda: gateway.engine.adapters.update(names)), gateway.loop
    )
    answer = gateway.client().chat.completions.create(model="support", messages=HELLO)
    assert answer.choices[0].message.content.startswith("support--v1--")
    assert only_row(gateway).status == "complete"


def test_a_restarting_engine_costs_waiting_not_failures(gateway: Running) -> None:
    adapters = dict(gateway.engine.adapters)
    gateway.client().chat.completions.create(model="support", messages=HELLO)
    gateway.engine.stop()

    def back() -> None:
        gateway.engine.start()
        gateway.engine.adapters.update(adapters)

    asyncio.run_coroutine_threadsafe(_later(1.0, back), gateway.loop)
    assert (
        gateway.client()
        .chat.completions.create(model="support", messages=HELLO)
        .choices[0]
        .finish_reason
        == "stop"
    )


async def _later(seconds: float, do: Any) -> None:
    await asyncio.sleep(seconds)
    await asyncio.to_thread(do)


def _send_and_leave(
    gateway: Running, body: dict[str, Any], *, after_bytes: int = 0, after_s: float = 0.0
) -> None:
    data = json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer"
            b" %s\r\nContent-Length: %d\r\n\r\n%s" % (gateway.key.encode(), len(data), data)
        )
        got = 0
        while got < after_bytes:
            got += len(connection.recv(256))
        time.sleep(after_s)


@pytest.mark.parametrize(
    "when", ["before the first token", "in mid-stream", "waiting for a whole answer"]
)
def test_a_client_that_leaves_stops_the_engine_and_its_row_says_cancelled(
    gateway: Running, when: str
) -> None:
    engine = gateway.engine
    if when == "in mid-stream":
        engine.faults.chunk_delay_s = 0.15
        _send_and_leave(gateway, STREAM, after_bytes=700)
    else:
        engine.faults.start_delay_s = 30
        _send_and_leave(
            gateway, {**STREAM, "stream": when != "waiting for a whole answer"}, after_s=0.3
        )
    wait_for(lambda: engine.aborted == 1 and engine.running == 0, "the engine's end", timeout_s=3)
    row = only_row(gateway)
    assert (row.status, row.http_status, row.finish_reason) == ("cancelled", 499, None)
    assert ("support" in (row.response_text or "")) == (when == "in mid-stream")
    assert gateway.app.core.refresher.current.routes["support"].stable.replicas[0].in_flight == 0


def test_a_hundred_departures_leak_nothing(gateway: Running) -> None:
    gateway.engine.faults.chunk_delay_s = 0.05
    gateway.engine.words = 40
    for n in range(100):
        _send_and_leave(gateway, STREAM, after_bytes=(n % 5) * 200)
    wait_for(lambda: gateway.engine.running == 0, "the engine's end")
    rows = wait_for(lambda: len(found := gateway.rows()) == 100 and found, "a row each")
    assert {row.status for row in rows} == {"cancelled"}
    core = gateway.app.core
    assert core.refresher.current.routes["support"].stable.replicas[0].in_flight == 0
    wait_for(lambda: core.upstream.idle <= 1, "the connections' end")


def test_an_answer_over_the_time_limit_is_cut(gateway: Running) -> None:
    gateway.engine.faults.start_delay_s = 30
    gateway.app.core.upstream.timeout_s = 0.4
    with pytest.raises(openai.InternalServerError, match="longer than"):
        gateway.client().chat.completions.create(model="support", messages=HELLO)
    row = only_row(gateway)
    assert (row.status, row.http_status) == ("cut", 504)
    gateway.engine.faults.start_delay_s, gateway.engine.faults.chunk_delay_s = 0, 0.2
    assert b"not the whole answer" in post(gateway, "/v1/chat/completions", STREAM)[2]


def test_nothing_is_answered_that_cannot_be_logged(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up while answers are on their way, then new requests are refused, then it goes
    on by itself.
    """
    write = os.write
    full, has_begun = True, False

    def no_space(handle: int, data: bytes) -> int:
        begins = has_begun and b'"status":"begun"' in data
        if full and data.startswith(b'{"kind":') and not begins:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data)

    monkeypatch.setattr("serving.log.spool.os.write", no_space)
    status, headers, content = post(gateway, "/v1/chat/completions", {**STREAM, "stream": False})
    assert (status, json.loads(content)["error"]["code"]) == (503, "log_unavailable")
    assert "x-whet-interaction-id" not in headers, "an id promises a row"
    gateway.app.core.spool.failure = ""
    status, _, content = post(gateway, "/v1/chat/completions", STREAM)
    assert status == 503 and b"[DONE]" not in content, "a stream's first record comes first"
    gateway.app.core.spool.failure, has_begun = "", True
    gateway.engine.faults.chunk_delay_s = 0.01
    status, _, content = post(gateway, "/v1/chat/completions", STREAM)
    assert status == 200 and b"[DONE]" not in content and b"withheld" in content
    seen = len(gateway.engine.seen)
    status, headers, _ = post(gateway, "/v1/chat/completions", STREAM)
    assert (status, headers["retry-after"], len(gateway.engine.seen)) == (503, "5", seen)
    full = False
    wait_for(
        lambda: post(gateway, "/v1/chat/completions", STREAM)[2].endswith(b"data: [DONE]\n\n"),
        "the log's recovery",
    )
    wait_for(lambda: "complete" in {row.status for row in gateway.rows()}, "rows")
    left = [(row.status, row.http_status) for row in gateway.rows() if row.status != "complete"]
    assert left == [("cut", 503)], "the stream that was withheld, whose head the client has"


def test_a_disk_that_fills_within_a_line_leaves_no_piece_of_it(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving.log.spool import Spool, SpoolError

    spool = Spool(tmp_path, "t")
    spool.append(b"one\n")
    write = os.write
    monkeypatch.setattr("serving.log.spool.os.write", lambda handle, data: write(handle, data[:3]))
    with pytest.raises(SpoolError):
        spool.append(b"two is long\n")
    monkeypatch.undo()
    spool.append(b"three\n")
    assert spool.files[-1].path.read_bytes() == b"one\nthree\n"
