"""Calls of tools in messages, as a chat template is given them."""

from __future__ import annotations

from typing import Any


def with_call(message: dict[str, Any], at: int, **changed: Any) -> dict[str, Any]:
    """The message, rendered form, with its call number `at` changed in some fields."""
    calls = list(message["tool_calls"])
    calls[at] = {**calls[at], "function": {**calls[at]["function"], **changed}}
    return {**message, "tool_calls": calls}


def called_tools(message: dict[str, Any]) -> list[str]:
    """Names of the tools that a message calls, in whatever form it says so."""
    calls = message.get("tool_calls")
    functions = (
        [call.get("function", call) for call in calls if isinstance(call, dict)]
        if isinstance(calls, list)
        else []
    )
    return [
        str(function.get("name") or "?") for function in functions if isinstance(function, dict)
    ]
