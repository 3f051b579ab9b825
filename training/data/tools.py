"""Tools and calls of tools: what a row may hold, and calls as plain data that can be compared.

The forms are OpenAI's: `tools` is a list of `{"type": "function", "function": {"name", …}}`, and a
call is `{"type": "function", "function": {"name", "arguments"}}` with arguments as JSON text or as
an object. Both are also taken without the outer object, as `{"name", …}`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from training.data.message import Message
from training.data.wrong import Wrong, kind_of, shown
from whet.json_types import Json, JsonObject

_NAMES_OF_ARGUMENTS = ("arguments", "parameters")  # Llama 3's templates write the second


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool by its name with arguments."""

    name: str
    arguments: Mapping[str, Json]

    def __str__(self) -> str:
        """The call as people read it: `stock({"part": "lamp"})`."""
        return f"{self.name}({json.dumps(self.arguments, ensure_ascii=False)})"


@dataclass(frozen=True, slots=True)
class FoundCall:
    """A call in a text: the characters `start` to `end` are its JSON object."""

    start: int
    end: int
    call: Call


def tools_of(raw: Mapping[str, Json]) -> list[JsonObject]:
    """Return a row's tools as the engine gives them to the chat template; [] without any.

    A text that is JSON (as table cells hold) counts as what it says; `functions` is OpenAI's
    earlier name. Raises Wrong.
    """
    value = raw.get("tools") or raw.get("functions")
    if isinstance(value, str):
        value = None if value.strip() in ("", "null") else _decoded(value) or value
    if not value:
        return []
    if not isinstance(value, list):
        raise Wrong(f"'tools' is {kind_of(value)}", "a list of tools, or the same as JSON text")
    return [_tool(position, tool) for position, tool in enumerate(value, start=1)]


def _tool(position: int, value: object) -> JsonObject:
    """The fields and their order are those of vLLM's request model, which also names absent ones:
    the template writes the tools as JSON, so another order would be other tokens."""
    function = value.get("function", value) if isinstance(value, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str) or not name.strip():
        raise Wrong(
            f"tool {position} is {shown(value)}",
            '{"type": "function", "function": {"name": …, "description": …, "parameters": …}}',
        )
    parameters = function.get("parameters")
    if isinstance(parameters, str):
        parameters = _decoded(parameters)
    if parameters is not None and not isinstance(parameters, dict):
        found = f"the parameters of tool {position} ({name}) are {kind_of(parameters)}"
        raise Wrong(found, "a JSON schema as an object")
    kept = {"name": name, "description": function.get("description"), "parameters": parameters}
    if isinstance(function.get("strict"), bool):
        kept["strict"] = function["strict"]
    return {"type": "function", "function": kept}


def calls_in(message: Mapping[str, object]) -> list[Json]:
    """Return the entries of a message's `tool_calls`; [] without any."""
    calls = message.get("tool_calls")
    return calls if isinstance(calls, list) else []


def for_template(message: Message) -> Message:
    """Return the message with the arguments of its calls as objects.

    Engines decode them for chat templates, and put an empty object where they are no object.
    """
    calls = calls_in(message)
    plain = message.copy()
    if calls:
        plain["tool_calls"] = [_call_for_template(call) for call in calls]
    else:
        plain.pop("tool_calls", None)
    return plain


def _call_for_template(call: Json) -> Json:
    function = _function(call)
    if function is None:
        return call
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = _decoded(arguments)
    function = {**function, "arguments": arguments if isinstance(arguments, dict) else {}}
    if not isinstance(call, dict) or "function" not in call:
        return {"type": "function", "function": function}
    return {"type": "function", **call, "function": function}


def _function(call: Json) -> JsonObject | None:
    function = call.get("function", call) if isinstance(call, dict) else None
    return function if isinstance(function, dict) and "name" in function else None


def calls_of(message: Mapping[str, object]) -> tuple[Call, ...]:
    """Return the calls of a message in order; arguments that are no JSON object are empty."""
    found = []
    for call in calls_in(message):
        function = _function(_call_for_template(call))
        arguments = function.get("arguments") if function is not None else None
        if function is not None and isinstance(arguments, dict):
            found.append(Call(str(function["name"]), arguments))
    return tuple(found)


def require_learnable_calls(position: int, message: Mapping[str, object]) -> None:
    """Raise Wrong when a call of message `position` (from 1) cannot be learned.

    It needs a name and arguments that are a JSON object. In turns that are only seen both are
    taken as they are, because the engine takes them too.
    """
    calls = message.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        raise Wrong(f"'tool_calls' of message {position} is {kind_of(calls)}", "a list of calls")
    for call in calls or []:
        function = _function(call)
        name = function.get("name") if function else None
        if function is None or not isinstance(name, str) or not name.strip():
            raise Wrong(
                f"a call without a name in message {position}: {shown(call)}",
                '{"type": "function", "function": {"name": …, "arguments": {…}}}',
            )
        arguments = function.get("arguments")
        decoded = _decoded(arguments) if isinstance(arguments, str) else arguments
        if arguments not in (None, "") and not isinstance(decoded, dict):
            raise Wrong(
                f"the arguments {shown(arguments)} of the call of {name} in message {position}",
                "a JSON object, or the same as text",
            )


def _decoded(text: str) -> Json:
    """Decode JSON. Returns None for a text that is none."""
    try:
        read: Json = json.loads(text)
        return read
    except (ValueError, RecursionError):
        return None


def find_calls(text: str) -> list[FoundCall]:
    """Find every JSON object in a text that names a function and its arguments, in order.

    This is how most chat templates write calls, whatever they put around them.
    """
    found, at, decoder = [], text.find("{"), json.JSONDecoder()
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            value, end = None, at + 1
        call = _as_call(value)
        if call is not None:
            found.append(FoundCall(at, end, call))
        at = text.find("{", end if call is not None else at + 1)
    return found


def _as_call(value: object) -> Call | None:
    value = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = next((value[name] for name in _NAMES_OF_ARGUMENTS if name in value), None)
    return Call(value["name"], arguments) if isinstance(arguments, dict) else None


def same_calls(expected: Sequence[Call], found: Sequence[Call]) -> bool:
    """Tell whether both are the same calls by name and arguments.

    Calls of one turn are made at the same time, so their order does not matter. Arguments are
    compared as JSON values: `1` and `1.0` are equal, `1` and `true` are not.
    """
    return Counter(map(_key, expected)) == Counter(map(_key, found))


def overlap_of_calls(expected: Sequence[Call], found: Sequence[Call]) -> float:
    """Return the F1 over names and single arguments, 0 to 1: it shows what is nearly right."""
    wanted, given = Counter(_facts(expected)), Counter(_facts(found))
    shared = sum((wanted & given).values())
    return 2 * shared / (wanted.total() + given.total()) if shared else 0.0


def _facts(calls: Sequence[Call]) -> Iterator[str]:
    for call in calls:
        yield call.name
        yield from (_key(Call(call.name, {name: value})) for name, value in call.arguments.items())


def _key(call: Call) -> str:
    return json.dumps([call.name, _number_form(dict(call.arguments))], sort_keys=True)


def _number_form(value: Json) -> Json:
    """Write whole floats as integers: JSON has one kind of number."""
    if isinstance(value, dict):
        return {name: _number_form(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_number_form(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
