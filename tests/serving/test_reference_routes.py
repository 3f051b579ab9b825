"""Models, tokens and the API's description: what an application finds out without asking anybody."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import jsonschema
import openai
import pytest

from serving.gateway.openapi import openapi_document
from serving.rollout_store import RolloutStore
from tests.serving.conftest import Running
from tests.serving.test_requests import HARMLESS
from whet.clock import now_ms
from whet.commands.start import first_model
from whet.context import Context


def get(gateway: Running, path: str, key: str = "") -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(gateway.url + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_model_is_found_by_each_of_its_names(gateway: Running) -> None:
    client = gateway.client()
    for name in ("support", "support@v1", "base"):
        assert client.models.retrieve(name).id == name
    assert get(gateway, "/v1/models/support%40v1", gateway.key)[1]["id"] == "support@v1"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nobody")
    assert caught.value.code == "model_not_found"
    status, body = get(gateway, "/v1/models/nobody")
    assert (status, body["error"]["code"]) == (401, "invalid_api_key"), "the key comes first"


def test_a_card_says_what_the_name_stands_for_and_how_long_a_context_is(gateway: Running) -> None:
    store = RolloutStore(gateway.context.database, gateway.context.settings)
    store.start("support", "support@v2", 0.25, actor="tests", reason="try", now=now_ms())
    gateway.refresh()
    card = get(gateway, "/v1/models/support", gateway.key)[1]
    assert card["max_model_len"] == gateway.context.settings.engine_max_model_len
    assert card["root"] == card["whet"]["stands_for"] == "support@v1"
    assert card["whet"]["trial"] == {"version": "support@v2", "share": 0.25}
    assert card["whet"]["limits"]["request_bytes"] == 1 << 20
    listed = get(gateway, "/v1/models", gateway.key)[1]["data"]
    assert card in listed and {one["whet"]["kind"] for one in listed} == {
        "alias", "version", "base",
    }  # fmt: skip
    assert get(gateway, "/v1/models/support@v2", gateway.key)[1]["whet"]["trial"] is None


def test_the_description_has_a_place_for_each_route_and_needs_no_key(gateway: Running) -> None:
    status, document = get(gateway, "/openapi.json")
    assert status == 200 and document["openapi"].startswith("3.1")
    routed = {route.path for route in gateway.app.routes if route.path.startswith("/v1/")}  # type: ignore[attr-defined]
    for path in {*gateway.app.direct, *routed} - {"/v1/models/{model:path}"}:
        assert path in document["paths"], f"{path} is answered and not described"
    with urllib.request.urlopen(f"{gateway.url}/docs", timeout=20) as response:
        page = response.read().decode()
    assert "<script" not in page and "https://" not in page, "nothing runs, nothing is fetched"
    for name in ("/v1/chat/completions", "WHET_REQUEST_MAX_BYTES", "safety_identifier"):
        assert name in page


ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    ("ChatRequest", {"model": "m", "messages": [{"role": "user", "content": "hi"}]}),
    (
        "ChatRequest",
        {
            "model": "m", "store": True, "service_tier": "auto", "n": None,
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {}}]},
                {"role": "assistant", "content": None, "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "c", "content": "ok"},
            ],
        },
    ),
    ("CompletionRequest", {"model": "m", "prompt": [[1, 2]], "best_of": 1}),
    ("ResponsesRequest", {"model": "m", "input": "hi", "safety_identifier": "u"}),
    ("TokenizeRequest", {"model": "m", "prompt": "hi", "return_token_strs": True}),
    ("TokenizeRequest", {"model": "m", "messages": [{"role": "user", "content": "hi"}]}),
    ("Feedback", {"interaction_id": "int_1", "rating": -1}),
    ("Feedback", {"interaction_id": "int_1", "correction": "x"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body"), ACCEPTED)
def test_what_is_accepted_fits_the_description(name: str, body: dict[str, Any]) -> None:
    document = openapi_document()
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(body)


def test_dropped_fields_fit_the_description() -> None:
    document = openapi_document()
    fields = document["components"]["schemas"]["ChatRequest"]["properties"]
    assert {"store", "verbosity", "best_of"} <= fields.keys() & HARMLESS.keys()


def test_tokens_are_counted_by_alias(gateway: Running) -> None:
    def ask(path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            gateway.url + path,
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {gateway.key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as response:
            found: dict[str, Any] = json.loads(response.read())
        return found

    body = {"model": "support", "messages": [{"role": "user", "content": "hi"}], "temperature": 1}
    for path in ("/v1/tokenize", "/tokenize"):
        assert ask(path, body)["tokens"]
    assert gateway.rows() == [], "counting is no interaction"


def test_the_first_question_is_for_the_alias_once_it_is_live(gateway: Running) -> None:
    assert first_model(gateway.context) == "support"


def test_the_first_question_is_for_the_base_of_a_new_installation(sqlite_context: Context) -> None:
    assert first_model(sqlite_context) == "base"
