"""POST /v1/tokenize and /v1/detokenize: the tokens that a model makes of a request, by alias.

Nothing is generated and nothing is logged; the engine's own routes do the work. A body of
`/v1/chat/completions` or `/v1/completions` can be sent as it is, to count its prompt.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from serving.gateway.answers import ApiError, Receive, Scope
from serving.gateway.core import Core
from serving.gateway.engine_errors import EngineError, no_engine_ready, read_error, refusal
from serving.gateway.request_body import read_body
from serving.gateway.request_types import ChatRequest, CompletionRequest, Int31, Request
from serving.gateway.requests import explain, invalid_json, parse
from serving.gateway.routing import pick_replica
from serving.gateway.upstream import UpstreamError
from whet.json_types import JsonObject

# Fields of a chat request that decide which tokens its prompt has.
_PROMPT_FIELDS = (
    "messages", "tools", "add_generation_prompt", "continue_final_message", "add_special_tokens",
    "chat_template_kwargs",
)  # fmt: skip


class DetokenizeRequest(msgspec.Struct, forbid_unknown_fields=True):
    """POST /v1/detokenize."""

    model: Annotated[str, Meta(min_length=1, max_length=200)]
    tokens: Annotated[list[Int31], Meta(max_length=1_000_000)]


async def tokenize(core: Core, scope: Scope, receive: Receive) -> bytes | None:
    """`{"count", "max_model_len", "tokens", "token_strs"}`; None when the client has left.
    Raises ApiError."""
    body = await _read(core, scope, receive)
    if body is None:
        return None
    fields = _decode_object(body)
    with_texts = fields.pop("return_token_strs", None)
    if with_texts not in (None, True, False):
        raise ApiError(
            400, "return_token_strs: expected true or false.", param="return_token_strs",
            code="invalid_value",
        )  # fmt: skip
    route = "chat" if "messages" in fields else "completions"
    request = parse(route, msgspec.json.encode(fields), core.request_policy).request
    sent = prompt_fields(request) | {"return_token_strs": bool(with_texts)}
    return await _ask(core, "/tokenize", request.model, sent, request)


async def detokenize(core: Core, scope: Scope, receive: Receive) -> bytes | None:
    """`{"prompt"}`: the text of token ids; None when the client has left. Raises ApiError."""
    body = await _read(core, scope, receive)
    if body is None:
        return None
    try:
        request = msgspec.convert(_decode_object(body), DetokenizeRequest)
    except msgspec.ValidationError as error:
        raise explain(str(error)) from None
    return await _ask(core, "/detokenize", request.model, {"tokens": [*request.tokens]}, None)


async def _read(core: Core, scope: Scope, receive: Receive) -> bytes | None:
    caller = await core.caller(scope)
    return await read_body(receive, caller, core.context.settings.request_max_bytes)


def _decode_object(body: bytes) -> JsonObject:
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid_json(error, body, "Send the documented fields.") from None
    if not isinstance(fields, dict):
        raise ApiError(400, "The body: expected a JSON object.", code="invalid_value")
    return fields


def prompt_fields(request: Request) -> JsonObject:
    """Return the fields of a chat or completions request that its prompt is made of."""
    if isinstance(request, ChatRequest):
        found = msgspec.to_builtins(request)
        return {name: found[name] for name in _PROMPT_FIELDS if name in found}
    assert isinstance(request, CompletionRequest)
    if not isinstance(request.prompt, str):
        raise ApiError(
            400, "prompt: expected a text; token ids are tokens already.", param="prompt",
            code="invalid_value",
        )  # fmt: skip
    special = {} if request.add_special_tokens is None else {
        "add_special_tokens": request.add_special_tokens
    }  # fmt: skip
    return {"prompt": request.prompt, **special}


async def _ask(
    core: Core, path: str, model: str, fields: JsonObject, request: Request | None
) -> bytes:
    """The engine's answer. `request`: what the client asked, for the words of a refusal."""
    target = (await core.choose(model, "")).target
    replica = pick_replica(target.replicas)
    if replica is None:
        raise no_engine_ready(target.label)
    name = target.engine_model or replica.base_model
    try:
        response = await core.upstream.post(
            replica.url, path, msgspec.json.encode({"model": name, **fields}), "tokenize"
        )
        try:
            raw = await response.read()
        finally:
            response.close()
    except (UpstreamError, TimeoutError) as error:
        raise ApiError(
            502, f"The engine broke off: {error or 'it took too long'}. Try again.",
            code="engine_error", retry_after_s=1,
        ) from error  # fmt: skip
    if response.status == 200:
        return raw
    found = read_error(raw)
    sentence = EngineError(found.message.replace(name, model), found.param, found.code)
    raise refusal(response.status, sentence, request)
