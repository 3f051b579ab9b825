"""Calls of tools in a reviewed answer: as the review page shows them, and as people change them.

A person sees a JSON list of `{"name": …, "arguments": {…}}`. What was not changed stays exactly as
the model wrote it; what was changed has to be JSON again. Pure: no database, no clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from whet.conversation import ToolCall
from whet.errors import InputError

_FORM = '[{"name": "…", "arguments": {…}}]'
_MOST = 20  # calls of one answer; a model that makes more is in a loop


def editable_calls(calls: Sequence[ToolCall]) -> str:
    """Return the calls as JSON for a text field; empty without any."""
    if not calls:
        return ""
    shown = [{"name": call.name, "arguments": _decoded(call.arguments)} for call in calls]
    return json.dumps(shown, ensure_ascii=False, indent=1)


def read_calls(text: str) -> list[Any]:
    """Return what a text field holds; an empty one holds no call. Raises InputError."""
    if not text.strip():
        return []
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = (
            f" (line {error.lineno}: {error.msg})"
            if isinstance(error, json.JSONDecodeError)
            else ""
        )
        raise InputError(
            f"The calls of tools are not valid JSON{where}.",
            hint=f"Expected {_FORM}; your text is kept.",
        ) from error
    return value if isinstance(value, list) else [value]


def settled_calls(
    given: Sequence[Any] | None, original: Sequence[ToolCall]
) -> tuple[ToolCall, ...]:
    """Return the calls of an edited answer; the original ones, to the letter, where they are the
    same by name and arguments. `given` None is no call.

    Both {"name", "arguments"} and the chat route's form are taken, arguments as an object or as
    JSON text. Raises InputError.
    """
    calls = [
        _call(position, value, original) for position, value in enumerate(given or (), start=1)
    ]
    if len(calls) > _MOST:
        raise InputError(f"The answer has {len(calls)} calls of tools; expected at most {_MOST}.")
    return tuple(original) if same_calls(calls, original) else tuple(calls)


def _call(position: int, value: Any, original: Sequence[ToolCall]) -> ToolCall:
    function = value.get("function", value) if isinstance(value, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str) or not name.strip():
        raise InputError(f"Call {position} of a tool has no name.", hint=f"Expected {_FORM}.")
    arguments = function.get("arguments", {})
    arguments = _decoded(arguments) if isinstance(arguments, str) and arguments else arguments or {}
    if not isinstance(arguments, Mapping):
        raise InputError(
            f"The arguments of call {position} ({name}) are no JSON object.",
            hint=f"Expected {_FORM}.",
        )
    here = original[position - 1] if position <= len(original) else None
    call_id = str(value.get("id") or (here.id if here else "") or f"call_{position}")
    return ToolCall(call_id, name, json.dumps(arguments, ensure_ascii=False))


def same_calls(one: Sequence[ToolCall], other: Sequence[ToolCall]) -> bool:
    """Tell whether names and arguments are the same, in order; arguments as JSON values."""
    return [_key(call) for call in one] == [_key(call) for call in other]


def _key(call: ToolCall) -> str:
    return json.dumps([call.name, _decoded(call.arguments or "{}")], sort_keys=True)


def require_objects(calls: Sequence[ToolCall]) -> None:
    """Raise InputError for a call that cannot be learned: its arguments are no JSON object."""
    for call in calls:
        if not isinstance(_decoded(call.arguments or "{}"), dict):
            raise InputError(
                f"The arguments of the call of {call.name} are no JSON object, so nobody could "
                "answer it.",
                hint="Correct them and save an edit, or reject the conversation.",
            )


def answer_text(text: str, calls: Sequence[ToolCall]) -> str:
    """Return an answer as one text, its words first: what is kept with the decision."""
    return "\n".join(filter(None, [text, editable_calls(calls)]))


def _decoded(text: str) -> Any:
    """Return what JSON text says; the text itself where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
