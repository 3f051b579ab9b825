"""What a client is told when an engine refuses its request: a status of its own fault or ours, the
field that is to blame, and a sentence without the engine's inner names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from serving.gateway.answers import ApiError
from serving.gateway.request_types import ChatRequest, Request, ResponsesRequest

RETRY_AFTER_S = 5
_MAX_SENTENCE = 2000  # characters of an engine's message that are passed on
_CLIENT_STATUSES = frozenset({400, 413, 415, 422})
_BUSY_STATUSES = frozenset({429, 503})
# How the engine names the field at the end of a sentence: "… (parameter=tools, value=[])".
_PARAMETER = re.compile(r"\s*\(parameter=([^,)]+)[^)]*\)\.?\s*$")
# One entry of the list of faults that pydantic prints: {'type': …, 'loc': (…), 'msg': '…'}.
_PYDANTIC_ENTRY = re.compile(r"'loc': \(?'?(?P<loc>[^)']*(?:'[^)]*)?)\)?.*?'msg': (?P<msg>'[^']*'|\"[^\"]*\")")
_UNION_MEMBER = re.compile(r"^[A-Z]\w*|^function-|^list\[|^str$|^dict\[|^literal|^is-instance", re.ASCII)
_ENGINE_IS_LOST = ("EngineCore", "EngineDead", "engine is dead")


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
        return EngineRefusal(400, sentence, param=param, code="engine_refused")
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


def _is_lost(error: EngineError) -> bool:
    return any(mark in error.message for mark in _ENGINE_IS_LOST)


def _sentence(error: EngineError) -> tuple[str, str | None]:
    """The message for a client and the field it is about."""
    message, param = error.message, error.param
    if found := _PARAMETER.search(message):
        param = param or found[1].strip("'\" ")
        message = message[: found.start()]
    if "validation error" in message and (entries := _PYDANTIC_ENTRY.findall(message)):
        return _from_pydantic(entries, param)
    return message, param


def _from_pydantic(entries: list[tuple[str, str]], param: str | None) -> tuple[str, str | None]:
    """The deepest fault says most: the others are alternatives of a union that were tried."""
    places = [([part for part in _place(loc) if not _UNION_MEMBER.match(part)], message)
              for loc, message in entries]  # fmt: skip
    parts, message = max(places, key=lambda place: len(place[0]))
    name = "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in parts).lstrip(".")
    sentence = message.strip("'\"")
    name = name or param or ""
    return (f"{name}: {sentence}." if name else f"{sentence}."), name or None


def _place(loc: str) -> list[str]:
    parts = [part.strip(" '\"") for part in re.split(r"[.,]", loc)]
    return [part for part in parts if part and part != "body"]


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
