"""From a client's bytes to a checked request, and from it to the bodies for the log and the engine.

Decoding along the types is one pass in C and is all that most requests need. A body that it
refuses is looked at once more, more patiently (`request_normalise`), before the client is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from serving.gateway.answers import ApiError
from serving.gateway.request_checks import check_chat, check_completion, check_responses
from serving.gateway.request_normalise import REQUEST_TYPES, Dropped, normalise, unknown_field
from serving.gateway.request_policy import ANY_REQUEST, RequestPolicy
from serving.gateway.request_types import (
    ChatRequest,
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
        raise invalid_json(error, body, _ADVICE) from None
    request = parsed.request
    if isinstance(request, ChatRequest):
        check_chat(request, policy)
    elif isinstance(request, ResponsesRequest):
        check_responses(request, policy)
    else:
        check_completion(request)
    check_constraints(request, policy.schema_limits)
    return ParsedRequest(_without_control_tokens(route, request, policy), parsed.ignored)


def _parse_patiently(route: str, body: bytes) -> ParsedRequest:
    dropped = Dropped()
    try:
        found = _decode_any(body)
        if not isinstance(found, dict):
            raise ApiError(400, "The body: expected a JSON object.", code="invalid_value")
        found = normalise(route, found, dropped)
        _check_bias(found.get("logit_bias"))
        request = msgspec.convert(found, REQUEST_TYPES[route])
    except msgspec.ValidationError as error:
        raise explain(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid_json(error, body, _ADVICE) from None
    return ParsedRequest(request, dropped.names())


_MAX_BIAS = 100.0  # OpenAI's and the engine's


def _check_bias(bias: Any) -> None:
    """Name the token whose bias is wrong, which the decoder cannot."""
    for token, value in bias.items() if isinstance(bias, dict) else ():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or abs(value) > _MAX_BIAS:
            raise ApiError(
                400,
                f"logit_bias[{token[:20]!r}]: expected a number from -100 to 100.",
                param=f"logit_bias[{token[:20]!r}]",
                code="invalid_value",
            )


_ADVICE = "The page /docs of this gateway shows the fields."
_HALF_PAIR = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"  # a first half without the second
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # or the other way round
)


def invalid_json(error: Exception, body: bytes, advice: str) -> ApiError:
    """What is wrong with a body that is no JSON. `advice` says what to send."""
    if not body.strip():
        return ApiError(400, f"The body is empty. {advice}", code="invalid_json")
    if isinstance(error, RecursionError):
        return ApiError(400, f"The body is nested too deeply. {advice}", code="invalid_json")
    if _HALF_PAIR.search(body) and ("surrogate" in str(error) or "truncated" in str(error)):
        return ApiError(
            400, "The body holds half of a surrogate pair (an escape from \\ud800 to \\udfff alone), "
            f"which is no character. {advice}", code="invalid_json",
        )  # fmt: skip
    return ApiError(
        400,
        f"The body is not valid JSON: {error}. Send one JSON object in UTF-8, without NaN or "
        f"Infinity. {advice}",
        code="invalid_json",
    )


def explain(message: str, known: Sequence[str] = ()) -> ApiError:
    """The refusal for msgspec's sentence, which names the place as `$.messages[0].role`.

    `known`: the fields of the body, for one that was misspelt.
    """
    text, _, place = message.partition(" - at `")
    param = place.rstrip("`").removeprefix("$").removeprefix(".") or None
    quoted = text.split("`")[1] if text.count("`") > 1 else "?"
    if text.startswith("Object contains unknown field"):
        return unknown_field(f"{param}.{quoted}" if param else quoted, "", known)
    if text.startswith("Object missing required field"):
        param = f"{param}.{quoted}" if param else quoted
        if param.endswith(".type") and "content[" in param:
            return _only_text(param)
        return ApiError(400, f"The field {param!r} is missing.", param=param, code="missing_field")
    if param and param.endswith(".type") and "content" in param:
        return _only_text(param)
    where = f"{param}: " if param else "The body: "
    return ApiError(
        400, f"{where}{text[:1].lower()}{text[1:]}{_allowed(param)}.", param=param,
        code="invalid_value",
    )  # fmt: skip


def _only_text(param: str) -> ApiError:
    return ApiError(
        400,
        f"{param}: only text parts are accepted; this gateway fetches no images, audio or files.",
        param=param,
        code="unsupported_content",
    )


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
    return (
        f"; expected {', '.join(choices[:-1])} or {choices[-1]}".replace("expected  or", "expected")
        if choices
        else ""
    )


# --- control tokens ----------------------------------------------------------------------------

# Where a person's text may stand. `prompt` of plain completions is left alone: it exists for those
# who write the template's control tokens themselves.
_TEXT_FIELDS = (
    "messages", "input", "instructions", "tools", "tool_choice", "chat_template_kwargs",
)  # fmt: skip
_PART_FIELDS = ("content", "output", "summary")  # of a message or item: may be lists of parts
_PART_TEXTS = ("text", "refusal", "thinking")  # where a part has its text


def _without_control_tokens(route: str, request: Request, policy: RequestPolicy) -> Request:
    """Control tokens in texts become plain text, so that nobody can forge a turn."""
    pattern = policy.control_tokens.pattern
    if pattern is None or route == "completions":
        return request
    if not pattern.search(_encode(request)) and not _has_split_token(request, policy):
        return request
    found = msgspec.to_builtins(request)
    for name in _TEXT_FIELDS:
        if name in found:
            found[name] = policy.control_tokens.neutralise_json(found[name])
    for parts in _part_lists(found):
        texts = policy.control_tokens.separate([_part_text(part) for part in parts])
        for number, (part, text) in enumerate(zip(parts, texts, strict=True)):
            if isinstance(part, str):
                parts[number] = text
            elif (place := _text_place(part)) is not None:
                part[place] = text
    return msgspec.convert(found, type(request))


def _has_split_token(request: Request, policy: RequestPolicy) -> bool:
    """True if parts of one message make a control token together."""
    if isinstance(request, ChatRequest):
        lists = [m.content for m in request.messages if isinstance(m.content, list)]
        found: Any = {"messages": [{"content": msgspec.to_builtins(each)} for each in lists]}
    else:
        found = {"input": getattr(request, "input", None)}
    find = policy.control_tokens.find
    return any(find("".join(map(_part_text, parts))) for parts in _part_lists(found))


def _part_lists(found: dict[str, Any]) -> Iterator[list[Any]]:
    """Lists of two parts or more in the messages of chat or the items of Responses."""
    messages = found.get("messages") or found.get("input")
    for message in messages if isinstance(messages, list) else ():
        for name in _PART_FIELDS:
            parts = message.get(name)
            if isinstance(parts, list) and len(parts) > 1:
                yield parts


def _text_place(part: Any) -> str | None:
    for name in _PART_TEXTS if isinstance(part, dict) else ():
        if isinstance(part.get(name), str):
            return name
    return None


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    place = _text_place(part)
    return "" if place is None else str(part[place])


# --- the bodies --------------------------------------------------------------------------------


def logged_body(request: Request) -> bytes:
    """What was asked, for the log; `user` and `metadata` have columns of their own."""
    request.user = request.metadata = None
    return _encode(request)


def engine_body(request: Request, engine_model: str, interaction_id: str) -> bytes:
    """The body for the engine. Call it after `logged_body`: the request is changed for good."""
    request.model = engine_model
    request.rag = None
    if isinstance(request, ResponsesRequest):
        request.store = False
        return b'{"request_id":"%s",%s' % (interaction_id.encode(), _encode(request)[1:])
    if request.stream:
        options = request.stream_options
        has_usage = options is not None and options.include_usage
        keep = options.continuous_usage_stats if options is not None and has_usage else None
        request.stream_options = StreamOptions(include_usage=True, continuous_usage_stats=keep)
    else:
        request.stream_options = None
    return _encode(request)


def wants_usage(request: Request) -> bool:
    """True if the client asked for the usage chunk at the end of its stream."""
    options = getattr(request, "stream_options", None)
    return isinstance(options, StreamOptions) and bool(options.include_usage)
