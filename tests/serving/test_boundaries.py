"""Planted defects: whatever raises, the client gets a well-formed end, and the log one row.

And tasks that die beside the requests: `/readyz` shows them within seconds, and they heal.
"""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from serving.gateway.core import Core
from serving.gateway.interaction_row import RowBuilder
from serving.gateway.metrics import Metrics
from serving.gateway.stream_editor import StreamEditor
from serving.gateway.upstream import Response
from serving.log.drain import Drain
from serving.log.spool import Spool
from tests.serving.conftest import Running, serve, wait_for
from tests.serving.mock_engine import MockEngine
from tests.serving.test_protocol import HELLO, post
from whet.access import revoke_key
from whet.clock import now_ms
from whet.context import Context
from whet.database import writing

ROUTES = {
    "/v1/chat/completions": {"model": "support", "messages": HELLO},
    "/v1/completions": {"model": "support", "prompt": "Hello"},
    "/v1/responses": {"model": "support", "input": "Hello"},
}


class PlantedError(Exception):
    """What no code of the gateway knows."""


def fail(*_: object, **__: object) -> Any:
    raise PlantedError("planted")


def fail_on_call(number: int, real: Any) -> Any:
    """`real`, except that its call `number` (from 1) raises."""
    calls = [0]

    def wrapper(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == number:
            raise PlantedError("planted")
        return real(*arguments, **options)

    return wrapper


def only_row(gateway: Running) -> Any:
    found = wait_for(gateway.rows, "a row")
    assert len(found) == 1
    return found[0]


def error_of(content: bytes, route: str) -> dict[str, Any]:
    """The error that ends a stream."""
    last = content.rstrip().split(b"\n\n")[-1]
    event = json.loads(last.split(b"data: ", 1)[1])
    return event if route == "/v1/responses" else event["error"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("stage", ["routing", "before", "log record"])
def test_a_defect_before_the_head_is_500_and_one_row(
    gateway: Running, monkeypatch: pytest.MonkeyPatch, stage: str, route: str, stream: bool
) -> None:
    if stage == "routing":
        monkeypatch.setattr(Core, "choose", fail)
    elif stage == "before":
        monkeypatch.setattr("serving.gateway.forwarding.pick_replica", fail)
    else:
        monkeypatch.setattr(RowBuilder, "begun" if stream else "ended", fail)
        gateway.engine.faults.chunk_delay_s = 0.01  # a stream that comes at once has one record
    status, headers, content = post(gateway, route, {**ROUTES[route], "stream": stream})
    assert status == 500
    assert json.loads(content)["error"] == {
        "message": "The gateway failed on this request; its log says why.",
        "type": "server_error",
        "param": None,
        "code": "internal_error",
    }
    row = only_row(gateway)
    assert (row.status, row.http_status, row.model) == ("error", 500, "support")
    assert row.id == headers["x-whet-interaction-id"] and row.request["model"] == "support"


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("stage", ["during", "log record", "after"])
def test_a_defect_in_a_stream_ends_it_with_an_error_and_one_row(
    gateway: Running, monkeypatch: pytest.MonkeyPatch, stage: str, route: str
) -> None:
    if stage == "during":
        monkeypatch.setattr(StreamEditor, "feed", fail_on_call(5, StreamEditor.feed))
        gateway.engine.faults.chunk_delay_s = 0.01
    elif stage == "log record":
        monkeypatch.setattr(RowBuilder, "ended", fail)
        gateway.engine.faults.chunk_delay_s = 0.01
    else:
        gateway.engine.faults.chunk_delay_s = 0.01
        monkeypatch.setattr(Spool, "flushed", _fail_after_the_row(Spool.flushed))
    status, headers, content = post(gateway, route, {**ROUTES[route], "stream": True})
    assert status == 200 and b"[DONE]" not in content
    error = error_of(content, route)
    assert error["code"] == "internal_error" and "not the whole answer" in error["message"]
    row = only_row(gateway)
    assert row.id == headers["x-whet-interaction-id"]
    assert row.status == ("complete" if stage == "after" else "error")
    if stage == "during":
        assert row.response_text.startswith("support"), "the row has what the client has"


def _fail_after_the_row(real: Any) -> Any:
    """The second flush of a stream comes between its row and its last bytes."""
    calls = [0]

    async def flushed(self: Spool) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise PlantedError("planted")
        await real(self)

    return flushed


def test_a_defect_after_the_last_bytes_changes_nothing_for_the_client(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Response, "complete", property(fail))
    stream = {**ROUTES["/v1/chat/completions"], "stream": True}
    _, _, content = post(gateway, "/v1/chat/completions", stream)
    assert content.endswith(b"data: [DONE]\n\n")
    assert only_row(gateway).status == "complete"


def test_a_defect_in_a_counter_costs_no_second_row(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Metrics, "count_answer", fail)
    status, headers, _ = post(gateway, "/v1/chat/completions", ROUTES["/v1/chat/completions"])
    assert status == 500 and only_row(gateway).id == headers["x-whet-interaction-id"]


def test_openais_client_raises_on_a_stream_with_a_defect(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StreamEditor, "feed", fail_on_call(4, StreamEditor.feed))
    gateway.engine.faults.chunk_delay_s = 0.01
    with pytest.raises(openai.APIError, match="not the whole answer"):
        stream = gateway.client().chat.completions.create(
            model="support", messages=HELLO, stream=True
        )
        list(stream)


@pytest.mark.parametrize(
    ("method", "path", "plant"),
    [
        ("POST", "/v1/feedback", "serving.gateway.ratings.parse_feedback"),
        ("GET", "/v1/feedback/int_0", "serving.gateway.feedback_lookup.FeedbackStatus.answer"),
        ("GET", "/readyz", "serving.gateway.app._missing"),
        ("GET", "/metrics", "serving.gateway.metrics.generate_latest"),
        ("GET", "/v1/models", "serving.gateway.core.Core.caller"),
        ("POST", "/v1/embeddings", "serving.gateway.app.embed"),
        ("POST", "/v1/tokenize", "serving.gateway.core.Core.caller"),
    ],
)
def test_a_defect_on_any_route_is_an_error_of_openais_shape(
    gateway: Running, monkeypatch: pytest.MonkeyPatch, method: str, path: str, plant: str
) -> None:
    monkeypatch.setattr(plant, fail)
    client = gateway.client()
    with pytest.raises(openai.InternalServerError) as raised:
        client.with_options(base_url=gateway.url).request(
            object, openai._models.FinalRequestOptions.construct(method=method, url=path)
        )
    assert raised.value.body["code"] == "internal_error"


# --- background tasks ---------------------------------------------------------------------------


def readiness(gateway: Running) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"{gateway.url}/readyz", timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture
def watched(gateway: Running) -> Iterator[Running]:
    """A gateway of which it is sure that nothing fails."""
    assert readiness(gateway) == (200, {"ready": True, "missing": [], "failing": []})
    yield gateway


@pytest.mark.parametrize(
    ("task", "plant", "is_ready"),
    [
        ("refresher of keys and aliases", "serving.gateway.snapshot.load_snapshot", False),
        ("disk watch", "serving.log.spool.Spool.check", True),
        ("connection watch", "serving.gateway.http_protocol.GatewayHttpProtocol.check", True),
    ],
)
def test_a_task_that_dies_is_shown_within_5_s_and_heals(
    watched: Running, monkeypatch: pytest.MonkeyPatch, task: str, plant: str, is_ready: bool
) -> None:
    is_open = socket.create_connection(("127.0.0.1", watched.port))  # to be looked at
    with is_open, monkeypatch.context() as planted:
        planted.setattr(plant, fail)

        def shown() -> Any:
            status, found = readiness(watched)
            return found["failing"] and (status, found)

        status, found = wait_for(shown, f"{task} in /readyz", timeout_s=5)
        assert f"background task {task!r} failed" in found["failing"][0]
        assert (status == 200) is is_ready and found["ready"] is is_ready
    wait_for(lambda: readiness(watched)[1]["failing"] == [], "healing", timeout_s=20)
    assert readiness(watched)[0] == 200


def test_the_thread_that_drains_the_log_outlives_a_defect(
    watched: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as planted:
        planted.setattr(Drain, "step", fail)
        failing = wait_for(lambda: readiness(watched)[1]["failing"], "the drain", timeout_s=5)
        assert "PlantedError" in failing[0]
        post(watched, "/v1/chat/completions", ROUTES["/v1/chat/completions"])
    assert only_row(watched).status == "complete"
    wait_for(lambda: readiness(watched)[1]["failing"] == [], "healing", timeout_s=20)


def test_the_keeper_of_engines_is_shown_and_heals(
    sqlite_context: Context, engine: MockEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.keeper.Reconciler.tick", fail)
    for running in serve(sqlite_context, engine, services=None):
        failing = wait_for(lambda: readiness(running)[1]["failing"], "the keeper", timeout_s=5)  # noqa: B023
        assert "keep engines and rollouts" in failing[0]
        monkeypatch.undo()
        wait_for(lambda: readiness(running)[1]["failing"] == [], "healing", timeout_s=20)  # noqa: B023


def test_a_revoked_key_dies_after_the_refresher_failed(
    watched: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as planted:
        planted.setattr("serving.gateway.snapshot.load_snapshot", fail)
        wait_for(lambda: readiness(watched)[1]["failing"], "the refresher", timeout_s=5)
        with writing(watched.context.database) as connection:
            revoke_key(connection, "tests", actor="tests", now=now_ms())
    body = ROUTES["/v1/chat/completions"]
    wait_for(lambda: post(watched, "/v1/chat/completions", body)[0] == 401, "401", timeout_s=20)
