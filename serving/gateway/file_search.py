"""OpenAI's `file_search` tool as another spelling of the field `rag`.

The model gets no such tool: which collection is searched follows from the request, never from what
a model writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.gateway.answers import ApiError

_TOOL = "file_search"


def with_file_search(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body with its `file_search` tool as `rag`. Raises ApiError 400.

    A choice that forces the tool is dropped: the search happens in any case.
    """
    tools = body.get("tools")
    if not isinstance(tools, list) or not any(map(_is_file_search, tools)):
        return dict(body)
    searches = [tool for tool in tools if _is_file_search(tool)]
    if len(searches) > 1 or body.get("rag") is not None:
        raise _wrong("tools: expected one file_search tool, or the field 'rag', not both.", "tools")
    found = {**body, "rag": _read(searches[0])}
    found["tools"] = [tool for tool in tools if not _is_file_search(tool)] or None
    choice = body.get("tool_choice")
    if found["tools"] is None or (isinstance(choice, dict) and choice.get("type") == _TOOL):
        found["tool_choice"] = None
    return found


def _is_file_search(tool: Any) -> bool:
    return isinstance(tool, Mapping) and tool.get("type") == _TOOL


def _read(tool: Mapping[str, Any]) -> dict[str, Any]:
    stores = tool.get("vector_store_ids")
    if not isinstance(stores, list) or len(stores) != 1 or not isinstance(stores[0], str):
        raise _wrong(
            "The file_search tool: expected `vector_store_ids` with the name of one collection.",
            "tools.vector_store_ids",
        )
    rag: dict[str, Any] = {"collection": stores[0]}
    if (count := tool.get("max_num_results")) is not None:
        rag["top_k"] = count
    options = tool.get("ranking_options")
    if isinstance(options, Mapping) and options.get("score_threshold") is not None:
        rag["min_score"] = options["score_threshold"]
    if tool.get("filters") is not None:
        rag["filter"] = read_filter(tool["filters"])
    return rag


def read_filter(given: Any) -> dict[str, Any]:
    """Read `{"type": "eq" | "in", "key", "value"}`, or `{"type": "and", "filters": [...]}`."""
    kind = given.get("type") if isinstance(given, Mapping) else None
    if kind in ("eq", "in") and isinstance(given.get("key"), str) and "value" in given:
        return {given["key"]: given["value"]}
    if kind == "and" and isinstance(given.get("filters"), list):
        found: dict[str, Any] = {}
        for part in given["filters"]:
            for key, value in read_filter(part).items():
                if key in found:
                    raise _wrong(
                        f"filters: the field {key[:64]!r} is there twice.", "tools.filters"
                    )
                found[key] = value
        return found
    raise _wrong(
        "filters: expected the types 'eq' and 'in', or 'and' over these, each with `key` and "
        "`value`.",
        "tools.filters",
    )


def _wrong(message: str, param: str) -> ApiError:
    return ApiError(400, message, param=param, code="invalid_value")
