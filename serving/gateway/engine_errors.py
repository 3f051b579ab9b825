"""What a client is told when an engine refuses its request: a status of its own fault or ours, the
field that is to blame, and a sentence without the engine's inner names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from serving.gateway.answers import ApiError, error_body
from serving.gateway.request_types import ChatRequest, Request, ResponsesRequest

RETRY_AFTER_S = 5
_MAX_SENTENCE = 2000  # characters of an engine's message that are passed on
_CLIENT_STATUSES = frozenset({400, 413, 415, 422})
_BUSY_STATUSES = frozenset({429, 503})
# How the engine names the field at the end of a sentence: "… (parameter=tools, value=[])".
_PARAMETER = re.compile(r"\s*\(parameter=([^,)]+)[^)]*\)\.?\s*$")
# One fault in the list that the engine prints: {'type': …, 'loc': 'body.tools.0', 'msg': '…', …}.
_FAULT = re.compile(r"'loc': '(?P<loc>[^']*)', 'msg': (?P<msg>'[^']*'|\"[^\"]*\")")
_MEMBER = re.compile(r"[A-Z]\w*")  # of a union of types, in a fault's place
_TOO_LONG = ("maximum context length", "longer than the maximum model length")
_ENGINE_IS_LOST = ("EngineCore", "EngineDead", "engine is dead")


def no_engine_ready(label: str, *, is_base_ready: bool = True) -> ApiError:
    """The error of a request that no engine can take now. `label`: what was asked for.

    Where not even the base is ready, no engine is: `is_base_ready` says which of the two it was.
    """
    what = f"No engine has {label} ready" if is_base_ready else "No engine is ready"
    return ApiError(
        503,
        f"{what} at this moment. Try again in {RETRY_AFTER_S} seconds; `whet status` and "
        f"`whet adapters show {label}` say why.",
        code="engine_unavailable",
        retry_after_s=RETRY_AFTER_S,
    )


class EngineRefusal(ApiError):
    """The engine said no before the first token; nothing was sent to the client yet."""


@dataclass(frozen=True, slots=True)
class EngineError:
    """An engine's error, from a body or from an event of a stream."""

    message: str
    param: str | None = None
    code: int | None = None  # HTTP status, where the engine gives one


def read_error(value: Any) -> EngineError:
    """Read an engine's `error`, decoded or as the bytes of a whole body, whatever its form."""
    if isinstance(value, bytes):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return EngineError(str(value[:200], "utf-8", "replace"))
    value = value.get("error", value) if isinstance(value, dict) else value
    if not isinstance(value, dict):
        return EngineError(str(value)[:_MAX_SENTENCE])
    message = str(value.get("message", value))[:_MAX_SENTENCE]
    param, code = value.get("param"), value.get("code")
    is_status = isinstance(code, int) and not isinstance(code, bool) and 400 <= code <= 599
    return EngineError(
        message,
        param if isinstance(param, str) else None,
        code if is_status else None,
    )


def refusal(status: int, error: EngineError, request: Request | None) -> EngineRefusal:
    """The error for the client. `status`: of the engine's response, or of its error event.

    `request`: what was asked; None for a request that generates nothing.
    """
    if status in _BUSY_STATUSES:
        return EngineRefusal(
            status, error.message, param=error.param, code="engine_busy",
            retry_after_s=RETRY_AFTER_S,
        )  # fmt: skip
    if status in _CLIENT_STATUSES:
        sentence, param = _sentence(error)
        param = param or _first_word(sentence, request)
        code = "context_length_exceeded" if _is_too_long(sentence) else "engine_refused"
        return EngineRefusal(400, sentence, param=param, code=code)
    field = _constraint_field(request) if request is not None else ""
    if field and not _is_lost(error):
        return EngineRefusal(
            400,
            f"The engine cannot follow the constraint in {field}: {error.message[:500]}. "
            "Correct or simplify it.",
            param=field,
            code="engine_refused",
        )
    return EngineRefusal(
        502, f"The engine failed ({status}): {error.message[:500]}", param=error.param,
        code="engine_error",
    )  # fmt: skip


def engine_broke(cause: Exception, limit_s: float) -> ApiError:
    """502 for an engine that went away, 504 for one that took longer than `limit_s`."""
    if isinstance(cause, TimeoutError):
        status, why = 504, f"The answer took longer than {limit_s:g} s and was cut."
    else:
        status, why = 502, f"The engine broke off: {str(cause).rstrip('.')}."
    return ApiError(status, why, code="engine_error", retry_after_s=1)


def log_unavailable(reason: str) -> ApiError:
    """503: what cannot be logged is not answered."""
    return ApiError(
        503,
        f"{reason} Nothing is answered that is not logged; try again later.",
        code="log_unavailable",
        retry_after_s=RETRY_AFTER_S,
    )


def _is_too_long(sentence: str) -> bool:
    """OpenAI has a code of its own for a prompt beyond the context, which frameworks look for."""
    return any(mark in sentence for mark in _TOO_LONG)


def stream_notice(
    route: str, message: str, sent: Sequence[bytes], error: ApiError | None = None
) -> bytes:
    """The event that ends a stream whose answer is not whole.

    `sent`: the stream so far; events of the Responses API are numbered. `error`: of which kind the
    notice is.
    """
    status, param, code = 502, None, "engine_error"
    if error is not None:
        status, param, code = error.status, error.param, error.code or code
    if route == "responses":
        event = {
            "type": "error",
            "sequence_number": _next_number(sent),
            "code": code,
            "message": message,
            "param": param,
        }
        return b"event: error\ndata: %s\n\n" % msgspec.json.encode(event)
    return b"data: %s\n\n" % error_body(status, message, param, code)


_NUMBER = re.compile(rb'"sequence_number": ?(\d+)')


def _next_number(sent: Sequence[bytes]) -> int:
    for data in reversed(sent):
        if numbers := _NUMBER.findall(data):
            return int(numbers[-1]) + 1
    return 0


def _is_lost(error: EngineError) -> bool:
    return any(mark in error.message for mark in _ENGINE_IS_LOST)


def _sentence(error: EngineError) -> tuple[str, str | None]:
    """The message for a client and the field it is about."""
    message, param = error.message, error.param
    if found := _PARAMETER.search(message):
        param = param or found[1].strip("'\" ")
        message = message[: found.start()]
    if "validation error" in message and (faults := _FAULT.findall(message)):
        return _from_faults(faults, param)
    return message, _name(param or "") or None


def _first_word(sentence: str, request: Request | None) -> str | None:
    """The field that a sentence begins with: "n must be 1 when …"."""
    word = sentence.split(" ", 1)[0].strip("`'\"")
    return word if request is not None and word in request.__struct_fields__ else None


def _from_faults(faults: list[tuple[str, str]], param: str | None) -> tuple[str, str | None]:
    """The deepest fault says most: the others are alternatives of a union that were tried."""
    place, quoted = max(faults, key=lambda fault: len(_parts(fault[0])))
    name = _name(place) or _name(param or "")
    sentence = quoted[1:-1].rstrip(".")
    return (f"{name}: {sentence}." if name else f"{sentence}."), name or None


def _name(place: str) -> str:
    """`tools[0].function` for the engine's `body.tools.0.Tool.function`."""
    return "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in _parts(place)).lstrip(
        "."
    )


def _parts(place: str) -> list[str]:
    found = [part.strip(" '") for part in place.split(".")]
    return [part for part in found if part and part != "body" and not _MEMBER.fullmatch(part)]


def _constraint_field(request: Request) -> str:
    """The field that constrains the answer's form; empty when none does."""
    if request.structured_outputs is not None:
        return "structured_outputs"
    if isinstance(request, ResponsesRequest):
        text_format = (request.text or {}).get("format")
        return "text.format" if text_format else ("tools" if request.tools else "")
    kind = (request.response_format or {}).get("type")
    if kind not in (None, "text"):
        return "response_format"
    return "tools" if isinstance(request, ChatRequest) and request.tools else ""
