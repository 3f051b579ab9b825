"""Calls of tools in messages, as a chat template is given them."""

from __future__ import annotations

from training.data.message import Message
from training.data.tools import calls_in
from whet.json_types import Json


def with_call(message: Message, at: int, **changed: Json) -> Message:
    """The message, rendered form, with its call number `at` changed in some fields."""
    calls = list(calls_in(message))
    call = calls[at]
    function = call["function"] if isinstance(call, dict) else None
    assert isinstance(call, dict) and isinstance(function, dict)  # as `for_template` writes it
    calls[at] = {**call, "function": {**function, **changed}}
    other = message.copy()
    other["tool_calls"] = calls
    return other


def called_tools(message: Message) -> list[str]:
    """Names of the tools that a message calls, in whatever form it says so."""
    functions = [call.get("function", call) for call in calls_in(message) if isinstance(call, dict)]
    return [
        str(function.get("name") or "?") for function in functions if isinstance(function, dict)
    ]
