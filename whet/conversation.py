"""Reads a logged request and its answer as a conversation, whichever route it came by.

Pure functions of the stored JSON. They take whatever a client sent: what is not of a known shape
becomes an empty text, never an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from whet.json_types import Json, JsonObject

_CALL_ITEMS = {"function_call": "arguments", "custom_tool_call": "input"}
_RESULT_ITEMS = ("function_call_output", "custom_tool_call_output")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool by the model. `arguments` is the text that the model wrote."""

    id: str
    name: str
    arguments: str

    @property
    def readable_arguments(self) -> str:
        """Arguments as indented JSON, or as they are when they are no JSON."""
        try:
            return json.dumps(json.loads(self.arguments), ensure_ascii=False, indent=1)
        except (ValueError, RecursionError):
            return self.arguments

    def as_chat(self) -> JsonObject:
        function: JsonObject = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation. `parts` is its content as the client sent it."""

    role: str
    parts: Any = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""  # of a tool's result: the call that it answers
    name: str = ""

    @property
    def content(self) -> str:
        """Text of the message; a part that is not text is named in brackets."""
        return text_of(self.parts)

    def as_chat(self) -> JsonObject:
        """The message in the form of the chat route, with its content as one text."""
        message: JsonObject = {"role": self.role, "content": self.content}
        if self.name:
            message["name"] = self.name
        if self.tool_calls:
            message["tool_calls"] = [call.as_chat() for call in self.tool_calls]
        if self.tool_call_id:
            message["tool_call_id"] = self.tool_call_id
        return message


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model answered. `given` is the beginning of `text` that the client wrote itself."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    given: str = ""


def text_of(content: Any) -> str:
    """Text of a message's content: a string, or a list of parts.

    Parts that are not text are named in brackets, such as `[image_url]`.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and not _is_token_ids(content):
        return "".join(_part_text(part) for part in content)
    return str(content)


def _is_token_ids(content: Sequence[Any]) -> bool:
    return bool(content) and all(isinstance(part, int | list) for part in content)


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping):
        text = part.get("text")
        return text if isinstance(text, str) else f"[{part.get('type', 'part')}]"
    return str(part)


def plain_text_of(content: Any) -> str:
    """Only the text of a message's content, text parts on lines of their own."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
    return "\n".join(text for text in texts if isinstance(text, str))


def other_parts_of(content: Any) -> list[str]:
    """Kinds of the parts that are not text, such as `image_url`."""
    if not isinstance(content, list):
        return []
    if _is_token_ids(content):
        flat = [part for one in content for part in (one if isinstance(one, list) else [one])]
        return [f"{len(flat)} token ids"]
    others = (part for part in content if isinstance(part, Mapping) and "text" not in part)
    return [str(part.get("type", "part")) for part in others]


# --- what was asked ---------------------------------------------------------------------------


def history(request: Any) -> list[Message]:
    """Messages before the answer.

    A last assistant message that the request asked to continue is the beginning of the answer
    (`answer_of`), so it is not among them.
    """
    asked = _asked(request)
    return asked[:-1] if _is_continued(request) else asked


def _asked(request: Any) -> list[Message]:
    if not isinstance(request, Mapping):
        return []
    if isinstance(request.get("messages"), list):
        return [_message(item) for item in request["messages"] if isinstance(item, Mapping)]
    found: list[Message] = []
    if request.get("instructions"):
        found.append(Message("system", request["instructions"]))
    if isinstance(request.get("input"), list):
        return [*found, *_from_items(request["input"])]
    for field in ("prompt", "input"):
        if request.get(field) is not None:
            return [*found, Message("user", _prompt(request[field]))]
    return found


def _prompt(prompt: Any) -> Any:
    """A completion's prompt: a text, several of them as lines, or token ids."""
    if isinstance(prompt, list) and all(isinstance(item, str) for item in prompt):
        return "\n".join(prompt)
    return prompt


def _message(item: Mapping[str, Json]) -> Message:
    return Message(
        role=str(item.get("role") or "user"),
        parts=item.get("content"),
        tool_calls=tool_calls_of(item),
        tool_call_id=str(item.get("tool_call_id") or ""),
        name=str(item.get("name") or ""),
    )


def tool_calls_of(message: Mapping[str, Json]) -> tuple[ToolCall, ...]:
    """Calls of tools in a message of the chat route."""
    calls = message.get("tool_calls")
    return tuple(_tool_call(call) for call in calls) if isinstance(calls, list) else ()


def _tool_call(call: Any) -> ToolCall:
    call = call if isinstance(call, Mapping) else {}
    function = call.get("function")
    function = function if isinstance(function, Mapping) else {}
    arguments = _written(function.get("arguments"))
    return ToolCall(str(call.get("id") or ""), str(function.get("name") or "?"), arguments)


def _written(value: Any) -> str:
    """A value as the model wrote it: text, or JSON where a client decoded it before."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def _from_items(items: list[Any]) -> list[Message]:
    """Input items of the Responses route as chat messages, joined as vLLM joins them."""
    messages: list[Message] = []
    for item in items:
        if isinstance(item, str):
            messages.append(Message("user", item))
        elif isinstance(item, Mapping):
            _append_item(messages, item)
    return messages


def _append_item(messages: list[Message], item: Mapping[str, Json]) -> None:
    last = messages[-1] if messages and messages[-1].role == "assistant" else None
    kind = item.get("type")
    if kind in _CALL_ITEMS:
        call = _item_call(item)
        if last is not None:
            messages[-1] = replace(last, tool_calls=(*last.tool_calls, call))
        else:
            messages.append(Message("assistant", tool_calls=(call,)))
    elif kind in _RESULT_ITEMS:
        call_id = str(item.get("call_id") or "")
        output = item.get("output")
        content = output if isinstance(output, list) else _written(output)
        messages.append(Message("tool", content, tool_call_id=call_id))
    elif "role" in item or ("content" in item and kind in (None, "message")):
        message = _message(item)
        if last is not None and message.role == "assistant" and not last.content:
            messages[-1] = replace(last, parts=message.parts)
        else:
            messages.append(message)
    elif kind != "reasoning":
        messages.append(Message("user", [{"type": str(kind or "item")}]))


def _item_call(item: Mapping[str, Json]) -> ToolCall:
    arguments = _written(item.get(_CALL_ITEMS[str(item["type"])]))
    return ToolCall(str(item.get("call_id") or ""), str(item.get("name") or "?"), arguments)


def request_tools(request: Any) -> list[JsonObject]:
    """Return the functions that a request offers, in the form of the chat route.

    The Responses route writes them without the inner object; other kinds of tools are left out.
    """
    tools = request.get("tools") if isinstance(request, Mapping) else None
    found: list[JsonObject] = []
    for tool in tools if isinstance(tools, list) else []:
        if not isinstance(tool, Mapping) or tool.get("type", "function") != "function":
            continue
        function = tool.get("function", tool)
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            kept = {name: value for name, value in function.items() if name != "type"}
            found.append({"type": "function", "function": kept})
    return found


def last_question(request: Any) -> str:
    """The last text of a user, the prompt of a completion, or an empty string."""
    if not isinstance(request, Mapping):
        return ""
    for field in ("messages", "input"):
        turns = request.get(field)
        if isinstance(turns, list):
            return next(filter(None, map(plain_text_of, _user_contents(turns))), "")
    prompt = request.get("prompt", request.get("input"))
    return plain_text_of(prompt)


def _user_contents(turns: list[Any]) -> Iterator[Any]:
    for turn in reversed(turns):
        if isinstance(turn, str):
            yield turn
        elif isinstance(turn, Mapping) and turn.get("role") == "user":
            yield turn.get("content")


# --- what was answered ------------------------------------------------------------------------


def _is_continued(request: Any) -> bool:
    """Whether the answer continues the request's last message (`continue_final_message`)."""
    if not isinstance(request, Mapping) or request.get("continue_final_message") is not True:
        return False
    messages = request.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, Mapping) and last.get("role") == "assistant"


def given_beginning(request: Any) -> str:
    """The beginning of the answer that the client wrote itself; empty where it wrote none."""
    return text_of(request["messages"][-1].get("content")) if _is_continued(request) else ""


def answer_of(request: Any, response: Any, response_text: str | None) -> Answer:
    """The whole answer of a logged request.

    `response_text` holds a given beginning and its continuation; in older rows the continuation
    alone. There the beginning is put before it.
    """
    given = given_beginning(request)
    text = response_text or ""
    if given and response_text is not None and _lacks_beginning(request, response, text, given):
        text = given + text
    return Answer(text, answer_tool_calls(response), given if text.startswith(given) else "")


def _lacks_beginning(request: Any, response: Any, text: str, given: str) -> bool:
    if not text.startswith(given):
        return True
    # A continuation may begin with the same words again. The engine's own answer, which is kept
    # beside the text, holds the continuation alone, except where the request asked for an echo.
    content = response.get("content") if isinstance(response, Mapping) else None
    return content == text and not request.get("echo")


def answer_tool_calls(response: Any) -> tuple[ToolCall, ...]:
    """Calls of tools in a logged answer of the chat or the Responses route."""
    if not isinstance(response, Mapping):
        return ()
    output = response.get("output")
    if not isinstance(output, list):
        return tool_calls_of(response)
    items = (item for item in output if isinstance(item, Mapping))
    return tuple(_item_call(item) for item in items if item.get("type") in _CALL_ITEMS)
