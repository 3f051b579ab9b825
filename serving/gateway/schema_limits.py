"""How large a constraint on an answer may be: JSON schemas, choices, regexes, grammars, tools.

An engine turns a constraint into a grammar in its front process before the first token, and every
other client of that engine waits meanwhile. The cost grows with the number of values in a schema
and with the branches of its alternatives, which nesting multiplies; the limits keep one request's
share below what a long prompt costs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from serving.gateway.answers import ApiError
from serving.gateway.regex_size import repeated_size
from serving.gateway.request_types import ChatRequest, CompletionRequest, ResponsesRequest
from whet.json_types import JsonObject

_ALTERNATIVES = ("anyOf", "oneOf", "allOf")
# Together they reach vLLM's third grammar backend, which writes every reference out in its front
# process: a schema of 250 bytes that refers to itself took all memory.
_UNROLLED = {"$ref", "patternProperties"}
_COUNTS = ("minItems", "maxItems", "minProperties", "maxProperties")


@dataclass(frozen=True, slots=True)
class SchemaLimits:
    """Bounds for one constraint. The defaults leave room for what code generators write, and keep
    the engine's work on a constraint below about half a second on two cores."""

    max_bytes: int = 65_536  # of the constraint as JSON
    max_nodes: int = 5_000  # values and keys in it
    max_depth: int = 64  # objects and lists within each other; the engine itself stops at 64 levels
    # Of list items and properties: with features that vLLM's first backend lacks, its second one
    # writes them out, and 1,000,000 took all memory of the machine.
    max_count: int = 10_000
    # Atoms that quantifiers in a regex stand for: the engine's work grows with their square, and
    # it failed at {1,1000}.
    max_repeated: int = 512
    max_alternatives: int = 64  # branches of anyOf, oneOf and allOf that are more than a plain type


def check_constraints(
    request: ChatRequest | CompletionRequest | ResponsesRequest, limits: SchemaLimits
) -> None:
    """Raises ApiError 400 for a constraint beyond the limits; names the field and the limit."""
    for place, constraint in _constraints(request):
        check_constraint(place, constraint, limits)


def _constraints(
    request: ChatRequest | CompletionRequest | ResponsesRequest,
) -> Iterator[tuple[str, Any]]:
    if request.structured_outputs is not None:
        yield "structured_outputs", request.structured_outputs
    if isinstance(request, ResponsesRequest):
        if request.text is not None:
            yield "text", request.text
        for number, item in enumerate(request.tools or ()):
            yield f"tools[{number}].parameters", item.get("parameters")
        return
    if request.response_format is not None:
        yield "response_format", request.response_format
    if isinstance(request, ChatRequest):
        for number, tool in enumerate(request.tools or ()):
            yield f"tools[{number}].function.parameters", tool.function.parameters


def check_constraint(place: str, constraint: Any, limits: SchemaLimits) -> None:
    """Raises ApiError 400. `constraint` is decoded JSON; texts that hold JSON are looked into."""
    size = len(msgspec.json.encode(constraint))
    if size > limits.max_bytes:
        raise _refusal(place, f"has {size:,} bytes; at most {limits.max_bytes:,} are accepted")
    nodes = alternatives = 0
    keys: set[str] = set()
    waiting: list[tuple[Any, int]] = [(_decoded(constraint), 1)]
    while waiting:
        value, depth = waiting.pop()
        nodes += 1
        if nodes > limits.max_nodes:
            raise _refusal(place, f"has more than {limits.max_nodes:,} values")
        if depth > limits.max_depth:
            raise _refusal(place, f"is nested more than {limits.max_depth} levels deep")
        if isinstance(value, dict):
            _check_counts(place, value, limits)
            _check_patterns(place, value, limits)
            alternatives += _branches(value)
            nodes += len(value)
            keys.update(value.keys() & _UNROLLED)
            waiting.extend((_decoded(each), depth + 1) for each in value.values())
        elif isinstance(value, list):
            waiting.extend((each, depth + 1) for each in value)
        if keys == _UNROLLED:
            raise _refusal(place, "holds `patternProperties` beside `$ref`")
        if alternatives > limits.max_alternatives:
            raise _refusal(
                place,
                f"has more than {limits.max_alternatives} alternatives (branches of "
                "anyOf, oneOf and allOf)",
            )


def _refusal(place: str, what: str) -> ApiError:
    return ApiError(
        400,
        f"{place} {what}, because an engine that works on it keeps everybody else waiting. "
        "Make it smaller: name shared parts once in `$defs`, split the question, or check the "
        "answer afterwards.",
        param=place,
        code="schema_too_large",
    )


def _check_counts(place: str, value: JsonObject, limits: SchemaLimits) -> None:
    for name in _COUNTS:
        count = value.get(name)
        if isinstance(count, int | float) and count > limits.max_count:
            raise _refusal(place, f"has {name} above {limits.max_count:,}")


def _check_patterns(place: str, value: JsonObject, limits: SchemaLimits) -> None:
    patterns = [value.get("pattern"), value.get("regex")]
    properties = value.get("patternProperties")
    if isinstance(properties, dict):
        patterns.extend(properties)
    for pattern in patterns:
        if isinstance(pattern, str) and repeated_size(pattern) > limits.max_repeated:
            raise _refusal(
                place, f"has a regex that repeats more than {limits.max_repeated} characters"
            )


def _decoded(value: Any) -> Any:
    """`structured_outputs.json` and structural tags may hold their JSON as a text."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _branches(value: JsonObject) -> int:
    """Alternatives that hold more than a plain type: `{"type": "null"}` costs nothing."""
    found = 0
    for name in _ALTERNATIVES:
        branches = value.get(name)
        if isinstance(branches, list):
            found += sum(
                isinstance(branch, dict) and not branch.keys() <= {"type", "title", "description"}
                for branch in branches
            )
    return found
