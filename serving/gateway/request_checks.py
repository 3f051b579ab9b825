"""What types cannot say of a request: fields that belong together, and items of the Responses API.

The checks also tidy: empty lists become nothing, so that an engine is asked for what is meant.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from serving.gateway.answers import ApiError
from serving.gateway.file_search import with_file_search
from serving.gateway.request_normalise import with_allowed_tools
from serving.gateway.request_policy import RequestPolicy
from serving.gateway.request_types import (
    ChatRequest,
    CompletionRequest,
    NamedToolChoice,
    Rag,
    ResponsesRequest,
)

_MAY_BE_SILENT = ("assistant", "function")  # roles whose content may be null


def check_chat(request: ChatRequest, policy: RequestPolicy) -> None:
    for number, message in enumerate(request.messages):
        if message.content is None and message.role == "tool":
            message.content = ""  # a tool that gave nothing back
        elif message.content is None and message.role not in _MAY_BE_SILENT:
            raise ApiError(
                400,
                f"messages[{number}].content is null; expected a text or a list of text parts. "
                "Only a model's message may be without.",
                param=f"messages[{number}].content",
                code="invalid_value",
            )
        if message.tool_calls is not None and not message.tool_calls:
            message.tool_calls = None
    if not request.tools:
        request.tools = None
        if request.tool_choice in ("none", "auto"):
            request.tool_choice = None
        elif request.tool_choice is not None:
            raise _no_tools()
    elif isinstance(request.tool_choice, NamedToolChoice):
        wanted = request.tool_choice.function.name
        if all(tool.function.name != wanted for tool in request.tools):
            raise _no_such_tool(wanted)
    if request.continue_final_message:
        _check_continued(request)
    if request.chat_template_kwargs is not None:
        _check_template_kwargs(request, policy)


def _check_continued(request: ChatRequest) -> None:
    if request.messages[-1].role != "assistant":
        raise ApiError(
            400,
            "continue_final_message continues an assistant's message, and the last message is "
            f"from {request.messages[-1].role}. Put the beginning of the answer last.",
            param="continue_final_message",
            code="invalid_value",
        )
    if request.add_generation_prompt is None:
        request.add_generation_prompt = False  # the engine's default contradicts the wish


def _no_tools() -> ApiError:
    return ApiError(
        400, "tool_choice asks for a tool call, and there are no tools. Send `tools`, or leave "
        "tool_choice out.", param="tool_choice", code="invalid_value",
    )  # fmt: skip


def _no_such_tool(name: str) -> ApiError:
    return ApiError(
        400, f"tool_choice names {name[:80]!r}, which is not among `tools`.",
        param="tool_choice", code="invalid_value",
    )  # fmt: skip


def _check_template_kwargs(request: ChatRequest | ResponsesRequest, policy: RequestPolicy) -> None:
    given = request.chat_template_kwargs or {}
    given = {name: value for name, value in given.items() if value is not None}
    request.chat_template_kwargs = given or None
    for name in given:
        if name not in policy.template_kwargs:
            allowed = ", ".join(sorted(policy.template_kwargs)) or "none"
            raise ApiError(
                400,
                f"chat_template_kwargs.{name[:80]} is not allowed by this gateway (allowed: "
                f"{allowed}). Its operator names what may pass in WHET_ALLOWED_TEMPLATE_KWARGS.",
                param=f"chat_template_kwargs.{name[:80]}",
                code="unknown_field",
            )


def check_completion(request: CompletionRequest) -> None:
    """A list is token ids, or holds one prompt: several would be several answers in one row."""
    if request.rag:
        raise ApiError(
            400,
            "Retrieved passages go into a system message, and a plain prompt has none. Ask "
            "/v1/chat/completions or /v1/responses, or leave 'rag' out.",
            param="rag",
            code="unsupported_value",
        )
    if request.echo is True and request.logprobs is not None:
        # They can end an engine that was started with the output head open to adapters.
        raise ApiError(
            400,
            "echo together with logprobs asks for log-probabilities of the prompt, which this "
            "gateway does not offer. Leave one of them out.",
            param="echo",
            code="unsupported_value",
        )
    prompt = request.prompt
    if isinstance(prompt, str):
        return
    if len(prompt) == 1 and not isinstance(prompt[0], int):
        if not prompt[0] and isinstance(prompt[0], list):
            raise ApiError(
                400, "prompt[0] is empty; expected token ids.", param="prompt",
                code="invalid_value",
            )  # fmt: skip
        request.prompt = prompt[0] if isinstance(prompt[0], str) else [*prompt[0]]
    elif not all(isinstance(part, int) for part in prompt):
        raise ApiError(
            400,
            "prompt: expected one text or one list of token ids. Send several prompts as several "
            "requests; the engine answers them together.",
            param="prompt",
            code="invalid_value",
        )


_ITEM_TYPES = ("message", "function_call", "function_call_output", "reasoning")
_ITEM_KEYS = frozenset(
    {
        "type", "role", "content", "id", "status", "name", "namespace", "call_id", "arguments",
        "output", "summary", "encrypted_content", "phase",
    }
)  # fmt: skip
_PART_KEYS = frozenset({"type", "text", "refusal", "annotations", "logprobs"})
_PART_TYPES = ("input_text", "output_text", "text", "refusal", "reasoning_text", "summary_text")


def check_responses(request: ResponsesRequest, policy: RequestPolicy) -> None:
    """The Responses API has many kinds of items and tools; those that fetch or run are refused."""
    for number, item in enumerate(request.input if isinstance(request.input, list) else []):
        _check_item(item, f"input[{number}]")
    _take_file_search(request)
    if isinstance(request.tool_choice, dict):
        _check_responses_choice(request, request.tool_choice)
    if not request.tools:
        request.tools = None
        if request.tool_choice in ("none", "auto"):
            request.tool_choice = None
        elif request.tool_choice is not None:
            raise _no_tools()
    for number, tool in enumerate(request.tools or []):
        if tool.get("type") != "function":
            raise ApiError(
                400,
                f"tools[{number}].type: only 'function' and 'file_search' are supported; this "
                "gateway runs no other tools itself.",
                param=f"tools[{number}].type",
                code="unsupported_value",
            )
        tool.setdefault("parameters", None)  # the engine wants both keys there
        tool.setdefault("strict", None)
    if request.chat_template_kwargs is not None:
        _check_template_kwargs(request, policy)


def _take_file_search(request: ResponsesRequest) -> None:
    """Read a `file_search` tool as the field `rag`, which it is another spelling of."""
    if not any(tool.get("type") == "file_search" for tool in request.tools or ()):
        return
    given = {"tools": request.tools, "tool_choice": request.tool_choice, "rag": request.rag}
    found = with_file_search(given)
    request.tools, request.tool_choice = found.get("tools"), found.get("tool_choice")
    try:
        request.rag = msgspec.convert(found["rag"], Rag)
    except msgspec.ValidationError as error:
        raise ApiError(
            400, f"The file_search tool: {error}.", param="tools", code="invalid_value"
        ) from None


def _check_responses_choice(request: ResponsesRequest, choice: dict[str, Any]) -> None:
    """A choice that is an object names one function, or some of the tools."""
    kind = choice.get("type")
    if kind == "allowed_tools":
        found = with_allowed_tools({"tools": request.tools, "tool_choice": choice})
        request.tools, request.tool_choice = found["tools"], found["tool_choice"]
    elif kind != "function":
        raise ApiError(
            400,
            f"tool_choice.type {str(kind)[:40]!r} is not supported: expected 'function' or "
            "'allowed_tools'; this gateway runs no tools itself.",
            param="tool_choice.type",
            code="unsupported_value",
        )


def _check_item(item: dict[str, Any], place: str) -> None:
    for name in [name for name, value in item.items() if value is None or name not in _ITEM_KEYS]:
        del item[name]  # what an engine does not read, it must not have to look through
    kind = item.get("type", "message")
    if kind not in _ITEM_TYPES:
        stored = (
            " Nothing is stored here between requests: send the item itself (in the Vercel AI SDK "
            "set `store: false`)."
            if kind == "item_reference"
            else ""
        )
        raise ApiError(
            400,
            f"{place}.type {str(kind)[:40]!r} is not supported: expected one of "
            f"{', '.join(_ITEM_TYPES)}.{stored}",
            param=f"{place}.type",
            code="unsupported_value",
        )
    if kind == "function_call" and isinstance(item.get("arguments"), dict):
        item["arguments"] = json.dumps(item["arguments"], ensure_ascii=False)
    if kind == "message" and item.get("role") == "assistant":
        item.setdefault("type", "message")  # only with it the engine fills in what is missing
    for name in ("content", "output", "summary"):
        for part in item[name] if isinstance(item.get(name), list) else []:
            if not isinstance(part, dict) or part.get("type") not in _PART_TYPES:
                raise ApiError(
                    400,
                    f"{place}.{name}: only text parts are accepted; this gateway fetches no "
                    "images, audio or files.",
                    param=f"{place}.{name}",
                    code="unsupported_content",
                )
            for key in [key for key, each in part.items() if each is None or key not in _PART_KEYS]:
                del part[key]
