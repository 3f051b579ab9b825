"""Brings what honest clients send into the form of the request types.

Most bodies decode at once and never come here. Those that do carry what SDKs add: annotations in
messages (`cache_control`, `provider_specific_fields`, the SDK's own message object sent back),
whole numbers written as floats, fields of the hosted API that mean nothing here. A walk along the
types drops or converts these and notes what it dropped; what is wrong stays wrong, so that the
decoder refuses it with its place.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import inspect

from serving.gateway.answers import ApiError
from serving.gateway.file_search import with_file_search
from serving.gateway.request_fields import judge_field
from serving.gateway.request_types import (
    ChatRequest,
    CompletionRequest,
    FunctionCall,
    Message,
    Request,
    ResponsesRequest,
)
from whet.json_types import JsonObject

REQUEST_TYPES: Mapping[str, type[Request]] = {
    "chat": ChatRequest,
    "completions": CompletionRequest,
    "responses": ResponsesRequest,
}

ROUTE_PATHS: Mapping[str, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
}

# Annotations whose value is dropped when it is no text, instead of being refused for its type:
# providers put objects and lists there.
_FREE_FORM = ("reasoning", "reasoning_content", "refusal")


class Dropped:
    """Names of what was left out, each once, in the order of their appearance."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    def add(self, name: str) -> None:
        self._names[name] = None

    def names(self) -> tuple[str, ...]:
        return tuple(self._names)


def normalise(route: str, body: JsonObject, dropped: Dropped) -> JsonObject:
    """The body with only fields that `route`'s request type has. Raises ApiError 400 for a
    top-level field that would change the answer and is not offered."""
    kind = REQUEST_TYPES[route]
    struct = inspect.type_info(kind)
    assert isinstance(struct, inspect.StructType)
    known = {field.encode_name: field.type for field in struct.fields}
    body = with_allowed_tools(_rename(body, dropped))
    if route == "chat":
        body = with_file_search(body)
    found: dict[str, Any] = {}
    for name, value in body.items():
        if name in known:
            found[name] = _fit(value, known[name], name, dropped)
            continue
        verdict = judge_field(name, value)
        if not verdict.is_dropped:
            raise unknown_field(name, verdict.substitute or _belongs_elsewhere(name), known)
        if verdict.is_said:
            dropped.add(name)
    return found


def _belongs_elsewhere(name: str) -> str:
    for route, kind in REQUEST_TYPES.items():
        if name in kind.__struct_fields__:
            return f"it belongs to {ROUTE_PATHS[route]}"
    return ""


def unknown_field(name: str, substitute: str, known: Iterable[str]) -> ApiError:
    """The refusal of a field, with what to use instead where that is known."""
    if not substitute and (close := difflib.get_close_matches(name, list(known), n=1, cutoff=0.8)):
        substitute = f"did you mean `{close[0]}`?"
    advice = f"{substitute[:1].upper()}{substitute[1:]}" if substitute else "Remove it"
    return ApiError(
        400,
        f"The field {name[:80]!r} is not supported by this gateway. {advice.rstrip('.?')}"
        f"{'?' if advice.endswith('?') else '.'} The page /docs of this gateway lists the fields.",
        param=name[:80],
        code="unknown_field",
    )


def _rename(body: JsonObject, dropped: Dropped) -> JsonObject:
    """OpenAI's newer name for `user`."""
    identifier = body.get("safety_identifier")
    if identifier is None or body.get("user") is not None:
        return body
    if not isinstance(identifier, str):
        raise ApiError(
            400, "safety_identifier: expected a text.", param="safety_identifier",
            code="invalid_value",
        )  # fmt: skip
    renamed = {name: value for name, value in body.items() if name != "safety_identifier"}
    return {**renamed, "user": identifier}


def with_allowed_tools(body: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's choice among some of the tools, as those tools: engines know no such choice."""
    choice = body.get("tool_choice")
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return body
    allowed = choice.get("allowed_tools", choice)
    mode, chosen = (
        (allowed.get("mode"), allowed.get("tools")) if isinstance(allowed, dict) else (None, None)
    )
    if mode not in ("auto", "required") or not isinstance(chosen, list):
        raise ApiError(
            400,
            "tool_choice of the type allowed_tools: expected `mode` (auto, required) and `tools`.",
            param="tool_choice",
            code="invalid_value",
        )
    tools = body.get("tools")
    if isinstance(tools, list):  # anything else is refused by the decoder
        names = {_tool_name(tool) for tool in chosen}
        tools = [tool for tool in tools if _tool_name(tool) in names]
    return {**body, "tools": tools, "tool_choice": mode}


def _tool_name(tool: Any) -> str | None:
    if not isinstance(tool, dict):
        return None
    function = tool.get("function")
    name = (function if isinstance(function, dict) else tool).get("name")
    return name if isinstance(name, str) else None


# --- the walk along a type ---------------------------------------------------------------------


def _members(expected: inspect.Type) -> list[inspect.Type]:
    """The types that a value may have, without their bounds."""
    types = expected.types if isinstance(expected, inspect.UnionType) else (expected,)
    return [_plain(member) for member in types]


def _fit(value: Any, expected: inspect.Type, path: str, dropped: Dropped) -> Any:
    if value is None or isinstance(value, str | int):
        return value
    return _fit_members(value, _members(expected), path, dropped)


def _fit_members(value: Any, members: Sequence[inspect.Type], path: str, dropped: Dropped) -> Any:
    if isinstance(value, float):
        return _whole(value, members)
    if isinstance(value, list):
        item = next((m.item_type for m in members if isinstance(m, inspect.ListType)), None)
        if item is None:
            return value
        items, path = _members(item), f"{path}[]"
        return [_fit_members(each, items, path, dropped) for each in value]
    if isinstance(value, dict):
        structs = [m for m in members if isinstance(m, inspect.StructType)]
        if structs:
            return _fit_struct(value, structs, path, dropped)
        values = next((m.value_type for m in members if isinstance(m, inspect.DictType)), None)
        if values is not None:
            return {name: _fit(each, values, path, dropped) for name, each in value.items()}
    return value


def _plain(member: inspect.Type) -> inspect.Type:
    return member.type if isinstance(member, inspect.Metadata) else member


def _whole(value: float, members: Sequence[inspect.Type]) -> float | int:
    """16.0 where an integer is meant: some languages have one kind of number."""
    if not value.is_integer():
        return value
    wants_int = any(isinstance(member, inspect.IntType) for member in members)
    takes_float = any(isinstance(member, inspect.FloatType | inspect.AnyType) for member in members)
    return int(value) if wants_int and not takes_float else value


def _fit_struct(
    value: JsonObject, structs: list[inspect.StructType], path: str, dropped: Dropped
) -> JsonObject:
    struct = _struct_for(value, structs)
    if struct is None:
        return value  # a kind that does not exist here: the decoder says so
    if prepare := _PREPARE.get(struct.cls):
        value = prepare(value, path, dropped)
    known = {field.encode_name: field for field in struct.fields}
    found: dict[str, Any] = {}
    if struct.tag_field is not None:
        found[struct.tag_field] = struct.tag
    for name, each in value.items():
        field = known.get(name)
        if field is not None:
            found[name] = _fit(each, field.type, f"{path}.{name}", dropped)
        elif each is not None and name != struct.tag_field:
            dropped.add(f"{path}.{name}")
    return found


def _struct_for(value: JsonObject, structs: list[inspect.StructType]) -> inspect.StructType | None:
    """By its tag. Without one, the first kind whose own fields are there: `{"text": …}`."""
    first = structs[0]
    if first.tag_field is None:
        return first
    tag = value.get(first.tag_field)
    for struct in structs:
        if struct.tag == tag:
            return struct
        required = [field.encode_name for field in struct.fields if field.required]
        if tag is None and all(name in value for name in required):
            return struct
    return None


# --- what is particular to some types ----------------------------------------------------------


def _prepare_message(message: JsonObject, path: str, dropped: Dropped) -> JsonObject:
    found = dict(message)
    for name in _FREE_FORM:
        if found.get(name) is not None and not isinstance(found[name], str):
            dropped.add(f"{path}.{name}")
            del found[name]
    calls = found.get("tool_calls")
    if isinstance(calls, list):
        found["tool_calls"] = [
            {"id": f"call_{number}", **_without_null(call)} if isinstance(call, dict) else call
            for number, call in enumerate(calls)
        ]
    return found


def _without_null(value: JsonObject) -> JsonObject:
    return {name: each for name, each in value.items() if each is not None}


def _prepare_call(call: JsonObject, path: str, dropped: Dropped) -> JsonObject:
    """Arguments are JSON text; some clients send the object itself, or nothing."""
    arguments = call.get("arguments")
    if arguments is None:
        return {**call, "arguments": "{}"}
    if isinstance(arguments, dict):
        return {**call, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return call


_PREPARE: Mapping[type, Callable[[dict[str, Any], str, Dropped], dict[str, Any]]] = {
    Message: _prepare_message,
    FunctionCall: _prepare_call,
}
