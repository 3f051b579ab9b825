"""Whether an answer that had to be machine-readable is: JSON that was asked for, and the arguments of tool calls."""

from __future__ import annotations

from typing import Any

import msgspec

from serving.gateway.requests import Request
from serving.gateway.sse import Answer

_JSON_FORMATS = ("json_object", "json_schema")


def readable(request: Request, answer: Answer) -> bool | None:
    """None where plain text was asked for and given. A schema is the engine's to keep; that the text is JSON at all shows when it was cut or never constrained."""
    wanted: Any = getattr(request, "response_format", None)
    calls = answer.response.get("tool_calls") if answer.response and getattr(request, "tools", None) else None
    if isinstance(calls, list) and calls:
        return all(_is_json(call.get("function", {}).get("arguments")) for call in calls if isinstance(call, dict))
    if isinstance(wanted, dict) and wanted.get("type") in _JSON_FORMATS:
        return _is_json(answer.text)
    return None


def _is_json(text: Any) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, TypeError, UnicodeDecodeError):
        return False
    return True
