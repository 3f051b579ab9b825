"""The gateway as applications see it, through the real `openai` client."""

from __future__ import annotations

import gc
import hashlib
import http.client
import json
from typing import Any

import openai
import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from serving.rollout_store import RolloutStore
from tests.serving.conftest import Running, wait_for
from tests.serving.mock_engine import BASE
from whet.access import create_key, revoke_key
from whet.clock import now_ms
from whet.database import reading, writing
from whet.tables import ratings

HELLO = [{"role": "user", "content": "hello"}]


def post(
    gateway: Running, path: str, body: bytes | dict[str, Any], headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(
        "POST",
        path,
        data,
        {
            "Authorization": f"Bearer {gateway.key}",
            "Content-Type": "application/json",
            **(headers or {}),
        },
    )
    response = connection.getresponse()
    return (
        response.status,
        {name.lower(): value for name, value in response.getheaders()},
        response.read(),
    )


def test_a_chat_answer_names_its_version_and_is_logged(gateway: Running) -> None:
    answer = gateway.client().chat.completions.with_raw_response.create(
        model="support", messages=HELLO, user="anna", metadata={"ticket": "7"}, temperature=0
    )
    body = answer.parse()
    assert answer.headers["x-whet-adapter"] == "support@v1"
    assert body.id == answer.headers["x-whet-interaction-id"] == answer.headers["x-request-id"]
    assert body.model == "support"
    assert body.choices[0].message.content.startswith("support--v1--")
    row = gateway.row(body.id)
    assert (
        row.status,
        row.http_status,
        row.alias,
        row.adapter,
        row.version,
        row.arm,
        row.end_user,
        row.stream,
    ) == (
        "complete",
        200,
        "support",
        "support",
        1,
        "stable",
        "anna",
        False,
    )
    assert row.request == {"model": "support", "messages": HELLO, "temperature": 0}
    assert row.metadata == {"ticket": "7"}
    assert row.response == {"role": "assistant", "content": body.choices[0].message.content}
    assert row.response_text == body.choices[0].message.content
    assert (row.prompt_tokens, row.completion_tokens, row.finish_reason) == (11, 8, "stop")
    assert row.response_sha256 == hashlib.sha256(answer.content).hexdigest()
    assert (
        row.retrieved is None
        and row.replica == gateway.engine.url
        and row.ttft_ms > 0
        and row.duration_ms >= row.ttft_ms
    )


def test_the_engine_sees_its_own_name_and_nothing_of_the_caller(gateway: Running) -> None:
    gateway.client().chat.completions.create(
        model="support",
        messages=HELLO,
        user="anna",
        metadata={"a": "b"},
        extra_headers={"x-forwarded-for": "1.2.3.4", "cookie": "a=b"},
    )
    body, headers = gateway.engine.seen[-1], gateway.engine.seen_headers[-1]
    assert body["model"].startswith("support--v1--") and set(body) == {"model", "messages"}
    assert not {"x-forwarded-for", "cookie"} & {name.lower() for name in headers}
    assert gateway.key not in str(headers)


@pytest.mark.parametrize("split_bytes", [None, 1, 7, 64])
def test_a_stream_is_complete_whatever_way_the_network_cuts_it(
    gateway: Running, split_bytes: int | None
) -> None:
    gateway.engine.faults.split_bytes = split_bytes
    stream = gateway.client().chat.completions.create(
        model="support", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    identity = stream.response.headers["x-whet-interaction-id"]
    assert {chunk.id for chunk in chunks} == {identity} and {chunk.model for chunk in chunks} == {
        "support"
    }
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.count("support--v1--") == 8 and chunks[-1].usage.completion_tokens == 8
    row = gateway.row(identity)
    assert (
        row.status,
        row.response_text,
        row.completion_tokens,
        row.finish_reason,
        row.stream,
    ) == ("complete", text, 8, "stop", True)


def test_requests_are_freed_without_the_garbage_collector(gateway: Running) -> None:
    """What refers to itself stays until the collector stops every request to look for it."""
    ask = gateway.client().chat.completions.create

    def ask_each_way() -> None:
        ask(model="support", messages=HELLO)
        with pytest.raises(openai.NotFoundError):
            ask(model="nobody", messages=HELLO)

    ask_each_way()
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            ask_each_way()
        alive = sum(isinstance(each, RequestResponseCycle) for each in gc.get_objects())
    finally:
        gc.enable()
    connections = len(gateway.app.state.connection_watch.connections)  # each keeps its last request
    assert alive <= connections, "requests are kept that no connection has"


def test_usage_stays_inside_when_the_client_did_not_ask(gateway: Running) -> None:
    stream = gateway.client().chat.completions.create(model="support", messages=HELLO, stream=True)
    chunks = list(stream)
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    row = gateway.row(stream.response.headers["x-whet-interaction-id"])
    assert row.completion_tokens == 8
    assert "stream_options" not in row.request


def test_the_hash_in_the_row_is_of_the_bytes_the_client_received(gateway: Running) -> None:
    for body in ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}, {}):
        status, headers, content = post(
            gateway, "/v1/chat/completions", {"model": "support", "messages": HELLO, **body}
        )
        assert status == 200
        assert (
            gateway.row(headers["x-whet-interaction-id"]).response_sha256
            == hashlib.sha256(content).hexdigest()
        )


def test_completions_plain_and_streamed(gateway: Running) -> None:
    answer = gateway.client().completions.create(model="support@v2", prompt="hello")
    assert answer.choices[0].text.startswith("support--v2--") and answer.model == "support@v2"
    row = gateway.row(answer.id)
    assert (row.route, row.arm, row.alias, row.version, row.response) == (
        "completions",
        "exact",
        None,
        2,
        {"text": answer.choices[0].text},
    )
    stream = gateway.client().completions.create(model="base", prompt=[1, 2, 3], stream=True)
    text = "".join(chunk.choices[0].text for chunk in stream)
    assert text.startswith(BASE) and stream.response.headers["x-whet-adapter"] == "base"
    row = gateway.row(stream.response.headers["x-whet-interaction-id"])
    assert (row.arm, row.adapter, row.response) == ("base", None, {"text": text})


def test_responses_plain_and_streamed(gateway: Running) -> None:
    answer = gateway.client().responses.create(model="support", input="hello")
    assert answer.output_text.startswith("support--v1--") and answer.model == "support"
    row = gateway.row(answer.id)
    assert (
        row.route,
        row.status,
        row.response_text,
        row.prompt_tokens,
        row.completion_tokens,
        row.finish_reason,
    ) == (
        "responses",
        "complete",
        answer.output_text,
        11,
        8,
        "stop",
    )
    events = list(
        stream := gateway.client().responses.create(
            model="support", input=[{"role": "user", "content": "hello"}], stream=True
        )
    )
    assert (
        events[-1].type == "response.completed"
        and events[-1].response.id == stream.response.headers["x-whet-interaction-id"]
    )
    assert gateway.row(events[-1].response.id).response_text == answer.output_text
    assert gateway.engine.seen[-1]["store"] is False


def test_tool_calls_pass_through_and_are_put_together_in_the_log(gateway: Running) -> None:
    tools: Any = [
        {
            "type": "function",
            "function": {
                "name": "look_up",
                "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
            },
        }
    ]
    answer = gateway.client().chat.completions.create(
        model="support", messages=HELLO, tools=tools, tool_choice="auto"
    )
    assert answer.choices[0].message.tool_calls[0].function.name == "look_up"
    stream = gateway.client().chat.completions.create(
        model="support", messages=HELLO, tools=tools, stream=True
    )
    list(stream)
    whole, streamed = (
        gateway.row(answer.id),
        gateway.row(stream.response.headers["x-whet-interaction-id"]),
    )
    assert whole.response == streamed.response
    assert streamed.response["tool_calls"] == [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "look_up", "arguments": '{"a": 1}'},
        }
    ]
    assert streamed.finish_reason == "tool_calls"


def test_structured_output_settings_reach_the_engine(gateway: Running) -> None:
    schema: Any = {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": {"type": "object"}},
    }
    gateway.client().chat.completions.create(
        model="support",
        messages=HELLO,
        response_format=schema,
        extra_body={"structured_outputs": {"choice": ["a", "b"]}, "top_k": 5},
    )
    body = gateway.engine.seen[-1]
    assert (
        body["response_format"] == schema
        and body["structured_outputs"] == {"choice": ["a", "b"]}
        and body["top_k"] == 5
    )


def test_models_lists_what_can_be_asked_for(gateway: Running) -> None:
    assert {model.id for model in gateway.client().models.list()} == {
        "support",
        "support@v1",
        "support@v2",
        "base",
    }


def test_an_unknown_key_is_refused_on_every_route(gateway: Running) -> None:
    with pytest.raises(openai.AuthenticationError, match="key is not valid"):
        gateway.client("whet-wrong").chat.completions.create(model="support", messages=HELLO)
    with pytest.raises(openai.AuthenticationError):
        gateway.client("whet-wrong").models.list()
    for path in (
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/embeddings",
        "/v1/feedback",
    ):
        status, _, body = post(gateway, path, {}, {"Authorization": "Basic x"})
        assert status == 401 and json.loads(body)["error"]["code"] == "invalid_api_key"
    assert gateway.rows() == [] and gateway.engine.seen == []


def test_a_new_key_works_at_once_and_a_revoked_one_dies_within_two_seconds(
    gateway: Running,
) -> None:
    context = gateway.context
    with writing(context.database) as connection:
        key_id, key = create_key(
            connection, "late", secret=context.secret, actor="tests", now=now_ms()
        )
    client = gateway.client(key)
    client.models.list()
    with writing(context.database) as connection:
        revoke_key(connection, key_id, actor="tests", now=now_ms())

    def refused() -> bool:
        try:
            client.models.list()
        except openai.AuthenticationError:
            return True
        return False

    wait_for(refused, "the revoked key's end", timeout_s=2)


def test_unknown_models_are_404_and_leave_nothing_behind(gateway: Running) -> None:
    for name in (
        "nope",
        "support@v99",
        "support--v1--deadbeef",
        BASE,
        "../../etc/passwd",
        "support\n",
        "<script>",
        "/models/x",
        "org/model",
        "support@v1@v1",
        "x" * 200,
        "é",
        "\u0000",
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            gateway.client().chat.completions.create(model=name, messages=HELLO)
        assert caught.value.code == "model_not_found" and "GET /v1/models" in caught.value.message
    assert gateway.engine.seen == [] and gateway.rows() == []


BAD_BODIES: list[tuple[bytes, int, str]] = [
    (b"", 400, "invalid_json"),
    (b"{", 400, "invalid_json"),
    (b"[]", 400, "invalid_value"),
    (b"null", 400, "invalid_value"),
    (b'{"model": NaN}', 400, "invalid_json"),
    (b'{"model":"support","messages":[{"role":"user","content":"\xff"}]}', 400, "invalid_json"),
    (b'{"model":"support","messages":[{"role":"user","content":"\\ud800"}]}', 400, "invalid_json"),
    (b"[" * 100_000, 400, "invalid_json"),
    (b'{"model":"support","messages":[{"role":"user","content":"x"}],"tools":' + b'[{"a":' * 20_000 + b"1" + b"}]" * 20_000 + b"}", 400, "invalid_json"),
    (b'{"messages":[{"role":"user","content":"x"}]}', 400, "missing_field"),
    (b'{"model":"support"}', 400, "missing_field"),
    (b'{"model":7,"messages":[{"role":"user","content":"x"}]}', 400, "invalid_value"),
    (b'{"model":"support","messages":[]}', 400, "invalid_value"),
    (b'{"model":"support","messages":"x"}', 400, "invalid_value"),
    (b'{"model":"support","messages":[{"role":"king","content":"x"}]}', 400, "invalid_value"),
    (b'{"model":"support","messages":[{"role":"user","content":7}]}', 400, "invalid_value"),
    (b'{"model":"support","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://169.254.169.254/"}}]}]}', 400, ""),
    (b'{"model":"support","messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"x"}}]}]}', 400, ""),
    (b'{"model":"support","messages":[{"role":"user","content":"x"}],"n":9}', 400, "invalid_value"),
    (b'{"model":"support","messages":[{"role":"user","content":"x"}],"n":0}', 400, "invalid_value"),
    (b'{"model":"support","messages":[{"role":"user","content":"x"}],"n":1e400}', 400, ""),
    (b'{"model":"support","messages":[{"role":"user","content":"x"}],"temperature":-1}', 400, "invalid_value"),
    (b'{"model":"support","messages":[{"role":"user","content":"x"}],"max_tokens":"5"}', 400, "invalid_value"),
    (b'{"model":"support","messages":[{"role":"user","content":"x"}],"max_tokens":99999999999999999999}', 400, ""),
    (b'{"model":"support","messages":[{"role":"user","content":"x"}],"stream":"yes"}', 400, "invalid_value"),
    (b'{"model":"support","messages":[{"role":"user","content":"x"}],"user":7}', 400, "invalid_value"),
    (b'{"model":"support","messages":[{"role":"user","content":"x"}],"user":"' + b"u" * 257 + b'"}', 400, "invalid_value"),
    (b'{"model":"support","messages":[{"role":"user","content":"x"}],"metadata":{"a":{"b":1}}}', 400, "invalid_value"),
    *[
        (b'{"model":"support","messages":[{"role":"user","content":"x"}],"%s":%s}' % (name.encode(), value.encode()), 400, "unknown_field")
        for name, value in {
            "chat_template": '"{{ 7*7 }}"', "chat_template_kwargs": '{"a": 1}',
            "documents": '[{"a": "b"}]', "mm_processor_kwargs": '{"a": 1}',
            "media_io_kwargs": '{"a": 1}', "kv_transfer_params": '{"a": 1}',
            "vllm_xargs": '{"a": 1}', "priority": "-9", "request_id": '"x"', "cache_salt": '"x"', "use_beam_search": "true", "echo": "true", "best_of": "100", "session_id": '"x"', "nonsense": "1",
        }.items()
    ],
]  # fmt: skip


@pytest.mark.parametrize(("body", "status", "code"), BAD_BODIES)
def test_a_bad_body_gets_a_sentence_and_never_reaches_the_engine(
    gateway_module: Running, body: bytes, status: int, code: str
) -> None:
    found, _, content = post(gateway_module, "/v1/chat/completions", body)
    error = json.loads(content)["error"]
    assert found == status and error["message"] and error["type"] == "invalid_request_error"
    assert not code or error["code"] == code
    assert gateway_module.engine.seen == [] and gateway_module.rows() == []


def test_other_routes_check_their_bodies_too(gateway: Running) -> None:
    cases = [
        ("/v1/completions", {"model": "support", "prompt": ["a", "b"]}),
        ("/v1/completions", {"model": "support", "prompt": [[1], [2]]}),
        ("/v1/completions", {"model": "support", "prompt": [-1]}),
        ("/v1/completions", {"model": "support", "prompt": "a", "prompt_logprobs": 1}),
        ("/v1/completions", {"model": "support", "prompt": "a", "echo": True, "logprobs": 1}),
        ("/v1/completions", {"model": "support", "prompt_embeds": "x", "prompt": "a"}),
        ("/v1/responses", {"model": "support", "input": [{"type": "computer_call_output"}]}),
        (
            "/v1/responses",
            {
                "model": "support",
                "input": [
                    {
                        "role": "user",
                        "content": [{"type": "input_image", "image_url": "http://10.0.0.1/"}],
                    }
                ],
            },
        ),
        (
            "/v1/responses",
            {
                "model": "support",
                "input": "x",
                "tools": [{"type": "mcp", "server_url": "http://10.0.0.1/"}],
            },
        ),
        ("/v1/responses", {"model": "support", "input": "x", "previous_response_id": "y"}),
        ("/v1/responses", {"model": "support", "input": "x", "background": True}),
        ("/v1/chat/completions", {"model": "support", "messages": HELLO, "rag": {"top_k": 2}}),
    ]
    for path, body in cases:
        status, _, content = post(gateway, path, body)
        assert status == 400, (path, body, content)
    assert gateway.engine.seen == []


def test_a_body_over_the_limit_is_413_with_and_without_its_length(gateway: Running) -> None:
    long = json.dumps(
        {"model": "support", "messages": [{"role": "user", "content": "x" * (1 << 20)}]}
    ).encode()
    assert post(gateway, "/v1/chat/completions", long)[0] == 413
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    connection.request(
        "POST",
        "/v1/chat/completions",
        iter([long[:600_000], long[600_000:]]),
        {"Authorization": f"Bearer {gateway.key}", "Transfer-Encoding": "chunked"},
        encode_chunked=True,
    )
    assert connection.getresponse().status == 413
    assert gateway.engine.seen == []


def test_methods_and_paths_that_do_not_exist(gateway: Running) -> None:
    for method, path, expected in (
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/nope", 404),
        ("POST", "/v1/load_lora_adapter", 404),
        ("POST", "/adapters", 404),
        ("POST", "/v1/models", 405),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
        connection.request(method, path, headers={"Authorization": f"Bearer {gateway.key}"})
        response = connection.getresponse()
        assert (response.status, "message" in json.loads(response.read())["error"]) == (
            expected,
            True,
        )


def test_embeddings_say_what_is_missing(gateway: Running) -> None:
    with pytest.raises(openai.InternalServerError, match="no embedding model"):
        gateway.client().embeddings.create(model="base", input="x")


def test_the_same_feedback_twice_is_one_row(gateway: Running) -> None:
    answer = gateway.client().chat.completions.create(model="support", messages=HELLO)
    body = {"interaction_id": answer.id, "rating": -1, "comment": "wrong term", "labels": ["facts"]}
    first, second = post(gateway, "/v1/feedback", body), post(gateway, "/v1/feedback", body)
    other = post(gateway, "/v1/feedback", {**body, "comment": "still wrong"})
    assert (first[0], second[0], other[0]) == (202, 202, 202) and first[2] == second[2] != other[2]

    def rows() -> Any:
        with reading(gateway.context.database) as connection:
            found = connection.execute(ratings.select().order_by(ratings.c.comment)).all()
        return found if len(found) == 2 else None

    found = wait_for(rows, "two ratings")
    assert (found[1].rating, found[1].comment, found[1].labels, found[1].interaction_id) == (
        -1,
        "wrong term",
        ["facts"],
        answer.id,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"rating": 2},
        {"rating": "1"},
        {"interaction_id": "x"},
        {"interaction_id": None},
        {"extra": 1},
        {"labels": [""]},
        {"comment": "x" * 40_000},
    ],
)
def test_feedback_is_checked(gateway_module: Running, change: dict[str, Any]) -> None:
    status, _, content = post(
        gateway_module, "/v1/feedback", {"interaction_id": "int_" + "0" * 22, "rating": 1, **change}
    )
    assert status == 400 and json.loads(content)["error"]["message"]


def test_text_that_databases_dislike_is_kept(gateway: Running) -> None:
    """NUL, quotes, surrogate pairs and control characters in the request."""
    strange = "nul \0 quote \" ' backslash \\u0000 emoji \U0001f600 line\u2028 rtl \u202e"
    answer = gateway.client().chat.completions.create(
        model="support", messages=[{"role": "user", "content": strange}], user="o'brien\0"
    )
    row = gateway.row(answer.id)
    assert row.request["messages"][0]["content"] == strange.replace("\0", "\ufffd")
    assert row.end_user == "o'brien\ufffd"


def test_health_readiness_and_metrics(gateway: Running) -> None:
    gateway.client().chat.completions.create(model="support", messages=HELLO, user="someone")
    for name in ("never-heard-of", "nor-of-this"):
        with pytest.raises(openai.NotFoundError):
            gateway.client().chat.completions.create(model=name, messages=HELLO)
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    found = {}
    for path in ("/healthz", "/readyz", "/metrics"):
        connection.request("GET", path)
        response = connection.getresponse()
        found[path] = (response.status, response.read().decode())
    assert found["/healthz"][0] == 200 and json.loads(found["/readyz"][1]) == {
        "ready": True,
        "missing": [],
        "failing": [],
    }
    text = found["/metrics"][1]
    assert 'whet_gateway_answers_total{arm="stable",route="chat",status="complete"} 1.0' in text
    assert (
        'whet_gateway_tokens_total{kind="completion"} 8.0' in text
        and 'whet_gateway_refused_total{status="404"} 2.0' in text
    )
    assert not any(
        word in text
        for word in ("someone", "never-heard-of", "nor-of-this", "support", gateway.key)
    )


def test_a_request_id_is_taken_over_if_it_is_harmless(gateway: Running) -> None:
    for given, expected in (("abc-1.2:3", "abc-1.2:3"), ("bad id", None), ("x" * 129, None)):
        _, headers, _ = post(
            gateway,
            "/v1/chat/completions",
            {"model": "support", "messages": HELLO},
            {"x-request-id": given},
        )
        assert headers["x-request-id"] == (expected or headers["x-whet-interaction-id"])
        assert gateway.row(headers["x-whet-interaction-id"]).request_id == headers["x-request-id"]


def test_without_a_ready_replica_the_answer_is_503_with_a_time_to_try_again(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.gateway.forwarding.ENGINE_WAIT_S", 0.3)
    from tests.serving.conftest import set_replica

    set_replica(gateway.context, gateway.engine.url, {}, state="gone")
    gateway.refresh()
    status, headers, body = post(
        gateway, "/v1/chat/completions", {"model": "support", "messages": HELLO}
    )
    assert (status, headers["retry-after"], json.loads(body)["error"]["code"]) == (
        503,
        "5",
        "engine_unavailable",
    )
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    connection.request("GET", "/readyz")
    assert connection.getresponse().status == 503


def test_a_user_stays_on_one_side_of_a_canary_and_the_share_is_kept(gateway: Running) -> None:
    store = RolloutStore(gateway.context.database, gateway.context.settings)
    store.start("support", "support@v2", 0.3, actor="tests", reason="try", now=now_ms())
    gateway.refresh()
    client = gateway.client()

    def version(user: str) -> str:
        return str(
            client.chat.completions.with_raw_response.create(
                model="support", messages=HELLO, user=user
            ).headers["x-whet-adapter"]
        )

    first = {f"user{n}": version(f"user{n}") for n in range(120)}
    share = sum(label == "support@v2" for label in first.values()) / len(first)
    assert 0.15 < share < 0.45
    assert all(version(user) == label for user, label in list(first.items())[:30])
    store.set_share("support", 0.7, actor="tests", reason="more", now=now_ms())
    gateway.refresh()
    assert all(
        version(user) == "support@v2"
        for user in [user for user, label in first.items() if label == "support@v2"][:15]
    )
    wait_for(
        lambda: len([row for row in gateway.rows() if row.arm == "candidate"]) > 20,
        "the rows of the candidate",
    )
    assert {row.arm for row in gateway.rows()} == {"stable", "candidate"}
