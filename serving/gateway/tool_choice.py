"""Holds a forced tool call to its tool's schema.

An engine that is told to call a tool writes any JSON as arguments, unless the function is `strict`;
small models then answer with a bare string, and the client's library fails on it. A client that
forces a call and says nothing of `strict` gets it.
"""

from __future__ import annotations

from serving.gateway.request_types import ChatRequest, NamedToolChoice, Request, ResponsesRequest


def make_strict(request: Request) -> bool:
    """Set `strict` where a call is forced and the client left it open; True if anything changed."""
    if isinstance(request, ChatRequest):
        return _make_chat_strict(request)
    if isinstance(request, ResponsesRequest):
        return _make_responses_strict(request)
    return False


def relax(request: Request) -> None:
    """Take `make_strict` back, for an engine that cannot follow the schema."""
    for tool in getattr(request, "tools", None) or ():
        if isinstance(tool, dict):
            tool["strict"] = None
        else:
            tool.function.strict = None


def _make_chat_strict(request: ChatRequest) -> bool:
    choice = request.tool_choice
    if not request.tools or choice in (None, "none", "auto"):
        return False
    named = choice.function.name if isinstance(choice, NamedToolChoice) else None
    functions = [tool.function for tool in request.tools]
    if any(function.strict is not None for function in functions):
        return False  # the client knows the switch
    changed = False
    for function in functions:
        if function.parameters and named in (None, function.name):
            function.strict = changed = True
    return changed


def _make_responses_strict(request: ResponsesRequest) -> bool:
    choice = request.tool_choice
    if not request.tools or choice in (None, "none", "auto"):
        return False
    if any(tool.get("strict") is not None for tool in request.tools):
        return False
    named = choice.get("name") if isinstance(choice, dict) else None
    changed = False
    for tool in request.tools:
        if tool.get("parameters") and named in (None, tool.get("name")):
            tool["strict"] = changed = True
    return changed
