"""Whether an answer that had to be machine-readable is: JSON that was asked for, and the arguments
of tool calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from serving.gateway.request_types import Request
from serving.gateway.sse import Answer

_JSON_FORMATS = ("json_object", "json_schema")


def is_well_formed(request: Request, answer: Answer) -> bool | None:
    """None where plain text was asked for and given.

    Arguments of a tool call must be a JSON object, which clients unpack into parameters. A schema
    is the engine's to keep; that the text is JSON at all shows when it was cut or never
    constrained.
    """
    if getattr(request, "tools", None) and answer.response is not None:
        calls = list(_arguments(answer.response))
        if calls:
            return all(isinstance(_decoded(arguments), dict) for arguments in calls)
    if _wanted_format(request) in _JSON_FORMATS:
        return _decoded(answer.text) is not _NO_JSON
    return None


def _wanted_format(request: Request) -> Any:
    wanted: Any = getattr(request, "response_format", None)
    text = getattr(request, "text", None)
    if isinstance(text, dict):
        wanted = text.get("format")
    return wanted.get("type") if isinstance(wanted, dict) else None


def _arguments(response: dict[str, Any]) -> Iterator[Any]:
    """Of the calls in an assistant's message, or in the output items of the Responses API."""
    for call in response.get("tool_calls") or ():
        if isinstance(call, dict) and isinstance(call.get("function"), dict):
            yield call["function"].get("arguments")
    for item in response.get("output") or ():
        if isinstance(item, dict) and item.get("type") == "function_call":
            yield item.get("arguments")


_NO_JSON = object()


def _decoded(text: Any) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, TypeError, UnicodeDecodeError):
        return _NO_JSON
