"""From a client's bytes to a checked request, and from it to the bodies for the log and the engine.

Decoding along the types is one pass in C and is all that most requests need. A body that it
refuses is looked at once more, more patiently (`request_normalise`), before the client is told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from serving.gateway.answers import ApiError
from serving.gateway.request_normalise import REQUEST_TYPES, Dropped, normalise
from serving.gateway.request_policy import ANY_REQUEST, RequestPolicy
from serving.gateway.request_types import (
    ChatRequest,
    CompletionRequest,
    NamedToolChoice,
    Request,
    ResponsesRequest,
    StreamOptions,
)
from serving.gateway.schema_limits import check_constraints

_DECODERS: Mapping[str, msgspec.json.Decoder[Any]] = {
    route: msgspec.json.Decoder(kind) for route, kind in REQUEST_TYPES.items()
}
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A checked request, and the names of the fields that were left out of it."""

    request: Request
    ignored: tuple[str, ...] = ()


def parse(route: str, body: bytes, policy: RequestPolicy = ANY_REQUEST) -> ParsedRequest:
    """Raises ApiError 400 that names the field and says what is expected."""
    try:
        parsed = ParsedRequest(_DECODERS[route].decode(body))
    except msgspec.ValidationError:
        parsed = _parse_patiently(route, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid_json(error, body, "Send the documented fields.") from None
    request = parsed.request
    if isinstance(request, ChatRequest):
        _check_chat(request, policy)
    elif isinstance(request, ResponsesRequest):
        _check_responses(request, policy)
    else:
        _check_completion(request)
    check_constraints(request, policy.schema_limits)
    return ParsedRequest(_without_control_tokens(route, request, policy), parsed.ignored)


def _parse_patiently(route: str, body: bytes) -> ParsedRequest:
    dropped = Dropped()
    try:
        found = _decode_any(body)
        if not isinstance(found, dict):
            raise ApiError(400, "The body: expected a JSON object.", code="invalid_value")
        found = normalise(route, found, dropped)
        request = msgspec.convert(found, REQUEST_TYPES[route])
    except msgspec.ValidationError as error:
        raise explain(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid_json(error, body, "Send the documented fields.") from None
    return ParsedRequest(request, dropped.names())


_HALF_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


def invalid_json(error: Exception, body: bytes, advice: str) -> ApiError:
    """What is wrong with a body that is no JSON. `advice` says what to send."""
    if isinstance(error, RecursionError):
        return ApiError(400, f"The body is nested too deeply. {advice}", code="invalid_json")
    if "surrogate" in str(error) or ("truncated" in str(error) and _HALF_SURROGATE.search(body)):
        return ApiError(
            400, "The body holds half of a surrogate pair (\\ud800 to \\udfff), which is no "
            "character. Send whole characters.", code="invalid_json",
        )  # fmt: skip
    return ApiError(
        400,
        f"The body is not valid JSON: {error}. Send one JSON object in UTF-8, without NaN or "
        f"Infinity. {advice}",
        code="invalid_json",
    )


def explain(message: str) -> ApiError:
    """The refusal for msgspec's sentence, which names the place as `$.messages[0].role`."""
    text, _, place = message.partition(" - at `")
    param = place.rstrip("`").removeprefix("$").removeprefix(".") or None
    quoted = text.split("`")[1] if text.count("`") > 1 else "?"
    if text.startswith("Object contains unknown field"):
        param = f"{param}.{quoted}" if param else quoted
        return ApiError(
            400,
            f"The field {param!r} is not supported by this gateway. Remove it; docs/gateway.md "
            "lists the fields that are passed on.",
            param=param,
            code="unknown_field",
        )
    if text.startswith("Object missing required field"):
        param = f"{param}.{quoted}" if param else quoted
        return ApiError(
            400, f"The field {param!r} is missing.", param=param, code="missing_field"
        )
    if param and param.endswith(".type") and "content" in param:
        return ApiError(
            400,
            f"{param}: only text parts are accepted; this gateway fetches no images, audio or "
            "files.",
            param=param,
            code="unsupported_content",
        )
    where = f"{param}: " if param else "The body: "
    return ApiError(
        400, f"{where}{text[:1].lower()}{text[1:]}{_allowed(param)}.", param=param,
        code="invalid_value",
    )  # fmt: skip


# The values of fields that take one of a few; msgspec names the wrong value only.
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "role": ("system", "developer", "user", "assistant", "tool", "function"),
    "tool_choice": ("none", "auto", "required", "an object that names a function"),
    "reasoning_effort": ("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    "truncation": ("auto", "disabled"),
    "truncation_side": ("left", "right"),
    "type": ("function",),
}


def _allowed(param: str | None) -> str:
    choices = _CHOICES.get((param or "").rpartition(".")[2])
    return f"; expected {', '.join(choices[:-1])} or {choices[-1]}".replace(
        "expected  or", "expected"
    ) if choices else ""


# --- what types cannot say ---------------------------------------------------------------------


def _check_chat(request: ChatRequest, policy: RequestPolicy) -> None:
    for number, message in enumerate(request.messages):
        if message.content is None and message.role != "assistant":
            raise ApiError(
                400,
                f"messages[{number}].content is null; expected a text or a list of text parts. "
                "Only an assistant's message may be without.",
                param=f"messages[{number}].content",
                code="invalid_value",
            )
        if message.tool_calls is not None and not message.tool_calls:
            message.tool_calls = None
    if not request.tools:
        request.tools = None
        if request.tool_choice in ("none", "auto"):
            request.tool_choice = None
        elif request.tool_choice is not None:
            raise _no_tools()
    elif isinstance(request.tool_choice, NamedToolChoice):
        wanted = request.tool_choice.function.name
        if all(tool.function.name != wanted for tool in request.tools):
            raise _no_such_tool(wanted)
    if request.continue_final_message:
        _check_continued(request)
    if request.chat_template_kwargs is not None:
        _check_template_kwargs(request, policy)


def _check_continued(request: ChatRequest) -> None:
    if request.messages[-1].role != "assistant":
        raise ApiError(
            400,
            "continue_final_message continues an assistant's message, and the last message is "
            f"from {request.messages[-1].role}. Put the beginning of the answer last.",
            param="continue_final_message",
            code="invalid_value",
        )
    if request.add_generation_prompt is None:
        request.add_generation_prompt = False  # the engine's default contradicts the wish


def _no_tools() -> ApiError:
    return ApiError(
        400, "tool_choice asks for a tool call, and there are no tools. Send `tools`, or leave "
        "tool_choice out.", param="tool_choice", code="invalid_value",
    )  # fmt: skip


def _no_such_tool(name: str) -> ApiError:
    return ApiError(
        400, f"tool_choice names {name[:80]!r}, which is not among `tools`.",
        param="tool_choice", code="invalid_value",
    )  # fmt: skip


def _check_template_kwargs(request: ChatRequest | ResponsesRequest, policy: RequestPolicy) -> None:
    given = request.chat_template_kwargs or {}
    given = {name: value for name, value in given.items() if value is not None}
    request.chat_template_kwargs = given or None
    for name in given:
        if name not in policy.template_kwargs:
            allowed = ", ".join(sorted(policy.template_kwargs)) or "none"
            raise ApiError(
                400,
                f"chat_template_kwargs.{name[:80]} is not allowed by this gateway (allowed: "
                f"{allowed}). Its operator names what may pass in WHET_ALLOWED_TEMPLATE_KWARGS.",
                param=f"chat_template_kwargs.{name[:80]}",
                code="unknown_field",
            )


def _check_completion(request: CompletionRequest) -> None:
    """A list is token ids, or holds one prompt: several would be several answers in one row."""
    if request.echo is True and request.logprobs is not None:
        # They can end an engine that was started with the output head open to adapters.
        raise ApiError(
            400,
            "echo together with logprobs asks for log-probabilities of the prompt, which this "
            "gateway does not offer. Leave one of them out.",
            param="echo",
            code="unsupported_value",
        )
    prompt = request.prompt
    if isinstance(prompt, str):
        return
    if len(prompt) == 1 and not isinstance(prompt[0], int):
        if not prompt[0] and isinstance(prompt[0], list):
            raise ApiError(
                400, "prompt[0] is empty; expected token ids.", param="prompt",
                code="invalid_value",
            )  # fmt: skip
        request.prompt = prompt[0] if isinstance(prompt[0], str) else [*prompt[0]]
    elif not all(isinstance(part, int) for part in prompt):
        raise ApiError(
            400,
            "prompt: expected one text or one list of token ids. Send several prompts as several "
            "requests; the engine answers them together.",
            param="prompt",
            code="invalid_value",
        )


_ITEM_TYPES = ("message", "function_call", "function_call_output", "reasoning")
_PART_TYPES = ("input_text", "output_text", "text", "refusal", "reasoning_text", "summary_text")


def _check_responses(request: ResponsesRequest, policy: RequestPolicy) -> None:
    """The Responses API has many kinds of items and tools; those that fetch or run are refused."""
    for number, item in enumerate(request.input if isinstance(request.input, list) else []):
        _check_item(item, f"input[{number}]")
    if not request.tools:
        request.tools = None
        if request.tool_choice in ("none", "auto"):
            request.tool_choice = None
        elif request.tool_choice is not None:
            raise _no_tools()
    for number, tool in enumerate(request.tools or []):
        if tool.get("type") != "function":
            raise ApiError(
                400,
                f"tools[{number}].type: only 'function' is supported; this gateway runs no tools "
                "itself.",
                param=f"tools[{number}].type",
                code="unsupported_value",
            )
        tool.setdefault("parameters", None)  # the engine wants both keys there
        tool.setdefault("strict", None)
    if request.chat_template_kwargs is not None:
        _check_template_kwargs(request, policy)


def _check_item(item: dict[str, Any], place: str) -> None:
    for name in [name for name, value in item.items() if value is None]:
        del item[name]
    kind = item.get("type", "message")
    if kind not in _ITEM_TYPES:
        raise ApiError(
            400,
            f"{place}.type {str(kind)[:40]!r} is not supported: expected one of "
            f"{', '.join(_ITEM_TYPES)}.",
            param=f"{place}.type",
            code="unsupported_value",
        )
    for name in ("content", "output", "summary"):
        for part in item[name] if isinstance(item.get(name), list) else []:
            if not isinstance(part, dict) or part.get("type") not in _PART_TYPES:
                raise ApiError(
                    400,
                    f"{place}.{name}: only text parts are accepted; this gateway fetches no "
                    "images, audio or files.",
                    param=f"{place}.{name}",
                    code="unsupported_content",
                )
            for key in [key for key, value in part.items() if value is None]:
                del part[key]


# --- control tokens ----------------------------------------------------------------------------

# Where a person's text may stand. `prompt` of plain completions is left alone: it exists for those
# who write the template's control tokens themselves.
_TEXT_FIELDS = ("messages", "input", "instructions", "tools")


def _without_control_tokens(route: str, request: Request, policy: RequestPolicy) -> Request:
    """Control tokens in texts become plain text, so that nobody can forge a turn."""
    pattern = policy.control_tokens.pattern
    if pattern is None or route == "completions" or not pattern.search(_encode(request)):
        return request
    found = msgspec.to_builtins(request)
    for name in _TEXT_FIELDS:
        if name in found:
            found[name] = policy.control_tokens.neutralise_json(found[name])
    return msgspec.convert(found, type(request))


# --- the bodies --------------------------------------------------------------------------------


def logged_body(request: Request) -> bytes:
    """What was asked, for the log; `user` and `metadata` have columns of their own."""
    request.user = request.metadata = None
    return _encode(request)


def engine_body(request: Request, engine_model: str, interaction_id: str) -> bytes:
    """The body for the engine. Call it after `logged_body`: the request is changed for good."""
    request.model = engine_model
    if isinstance(request, ResponsesRequest):
        request.store = False
        return b'{"request_id":"%s",%s' % (interaction_id.encode(), _encode(request)[1:])
    request.rag = None
    if request.stream:
        options = request.stream_options
        keep = options.continuous_usage_stats if options is not None and options.include_usage else None
        request.stream_options = StreamOptions(include_usage=True, continuous_usage_stats=keep)
    else:
        request.stream_options = None
    return _encode(request)


def wants_usage(request: Request) -> bool:
    """True if the client asked for the usage chunk at the end of its stream."""
    options = getattr(request, "stream_options", None)
    return isinstance(options, StreamOptions) and bool(options.include_usage)
