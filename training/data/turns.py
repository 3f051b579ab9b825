"""Messages of other tools as Whet writes them: names of roles and fields, calls of tools.

What is not understood is left as it is: `training/data/shapes.py` says what is wrong with it.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeGuard

from training.data.wrong import Wrong, one_of_each, shown
from whet.json_types import Json, JsonObject

CALLS = "tool call"  # a turn that is a call of a tool
_ROLES = {
    "system": "system",
    "developer": "developer",
    **dict.fromkeys(("user", "human", "prompter", "customer", "client", "end_user"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "chatgpt", "bot", "chatbot", "model", "ai", "agent", "llm"),
        "assistant",
    ),
    **dict.fromkeys(("tool", "function", "observation", "ipython", "tool_response"), "tool"),
    **dict.fromkeys(("tool_result", "tool_output", "function_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call", "tool_calls"), CALLS),
}
_ROLE_NAMES = ("from", "speaker", "author", "sender")  # beside `role`
_CONTENT_NAMES = ("value", "text", "message", "parts")  # beside `content`
_LEARNED_NAMES = ("train", "loss")  # of a message, beside OpenAI's `weight`
_TEXT_PARTS = ("text", "input_text", "output_text")  # of a content in parts


def messages_from(value: Json) -> Json:
    """Return a list of messages in OpenAI's form; what is no list of them comes back as it is.

    Texts that are JSON, or that Python wrote (`[{'role': …}]`), count as what they say.
    Raises Wrong for a call of a tool that is no JSON.
    """
    value = decoded(value)
    if isinstance(value, dict) and _role_in(value) is not None:
        value = [value]
    if not isinstance(value, list):
        return value
    return _joined([_message(decoded(item)) for item in value])


def decoded(value: Json) -> Json:
    """Return what a text says that is a list or an object in JSON or as Python writes it."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        read: Json = json.loads(value, object_pairs_hook=one_of_each)
        return read
    except (ValueError, RecursionError):
        pass
    try:
        found = ast.literal_eval(value.strip())
        return found if isinstance(found, list | dict) and json.dumps(found) else value
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return value


def is_messages(value: Json) -> TypeGuard[list[Json]]:
    """Tell whether a value is a list of messages, whatever its names."""
    items = [decoded(item) for item in value] if isinstance(value, list) and value else []
    return bool(items) and all(isinstance(item, dict) and _role_in(item) for item in items)


def role_of(name: Json) -> Json:
    """Return the role that a name means; a name that means none comes back."""
    if not isinstance(name, str):
        return name
    return _ROLES.get(name.strip().casefold().replace(" ", "_").replace("-", "_"), name)


def _role_in(message: Mapping[str, Json]) -> str | None:
    return next(
        (name for name in ("role", *_ROLE_NAMES) if isinstance(message.get(name), str)), None
    )


def _message(value: Json) -> Json:
    if not isinstance(value, dict):
        return value
    value = {name: item for name, item in value.items() if item is not None or name == "content"}
    named = _role_in(value)
    if named is None:
        return value
    said = next((name for name in ("content", *_CONTENT_NAMES) if name in value), "content")
    role = role_of(value[named])
    rest = {name: item for name, item in value.items() if name not in (named, said)}
    message = {"role": role, "content": text_of(value.get(said)), **rest}
    if role == "assistant" and "weight" not in message:
        for name in _LEARNED_NAMES:
            if name in message and message[name] in (0, 1):
                message["weight"] = int(message.pop(name) == 1)
    if role == CALLS:
        calls = [*_calls(message["content"]), *_listed(rest.pop("tool_calls", []))]
        return {"role": "assistant", "content": "", **rest, "tool_calls": calls}
    if isinstance(called := message.get("function_call"), dict) and role == "assistant":
        message.pop("function_call")
        message = {**message, "content": message["content"] or "", "tool_calls": [_call(called)]}
    if message["content"] is None and not message.get("tool_calls"):
        message.pop("content")  # as a table's null: "no content" is what is said of it
    return message


def text_of(content: Json) -> Json:
    """Return the text of a content that is one text in parts; other contents as they are."""
    if isinstance(content, dict) and isinstance(content.get("parts"), list):
        content = content["parts"]
    if isinstance(content, list) and content:
        texts = [part.get("text") for part in content if _is_text_part(part)]
        if len(texts) == len(content):
            return "".join(map(str, texts))
    return content


def _is_text_part(part: Json) -> TypeGuard[Mapping[str, Json]]:
    if not isinstance(part, dict) or not isinstance(part.get("text"), str):
        return False
    return part.get("type") in _TEXT_PARTS or part.keys() == {"text"}


def _calls(text: Json) -> list[Json]:
    value = decoded(text)
    calls = value if isinstance(value, list) else [value]
    found = [call for call in calls if isinstance(call, dict) and _name_of(call)]
    if not calls or len(found) < len(calls):
        expected = 'JSON such as {"name": "…", "arguments": {…}}'
        raise Wrong(f"a call of a tool that is {shown(text)}", expected)
    return [_call(call) for call in found]


def _name_of(call: Mapping[str, Json]) -> Json:
    function = call.get("function", call)
    return function.get("name") if isinstance(function, dict) else None


def _call(value: JsonObject) -> JsonObject:
    """Return OpenAI's form of a call."""
    if isinstance(value.get("function"), dict):
        return value
    arguments = value.get("arguments", value.get("parameters", {}))
    return {"type": "function", "function": {"name": value.get("name"), "arguments": arguments}}


def _joined(messages: list[Json]) -> list[Json]:
    """Put a call that follows the assistant's own text, or another call, into that message."""
    found: list[Json] = []
    for message in messages:
        last = found[-1] if found else None
        if _is_assistant(last) and _is_call(message) and not message["content"]:
            calls = [*_listed(last.get("tool_calls")), *_listed(message["tool_calls"])]
            found[-1] = {**last, "tool_calls": calls}
        else:
            found.append(message)
    return found


def _listed(calls: Json) -> Sequence[Json]:
    """Return calls as a list; what is none stands in it, for the check of calls to name."""
    return calls if isinstance(calls, list) else [calls] if calls else []


def _is_assistant(message: Json) -> TypeGuard[Mapping[str, Json]]:
    return isinstance(message, dict) and message.get("role") == "assistant"


def _is_call(message: Json) -> TypeGuard[Mapping[str, Json]]:
    return _is_assistant(message) and bool(message.get("tool_calls"))


def without_open_question(messages: list[Json]) -> list[Json]:
    """Return the messages up to the last answer, where questions follow it that have none."""
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    spoken = [role for role in roles if role not in ("system", "developer")]
    if not spoken or spoken[0] == "assistant" or spoken[-1] != "user" or "assistant" not in spoken:
        return messages  # that the assistant begins and the user ends may be swapped roles
    return messages[: max(at for at, role in enumerate(roles) if role == "assistant") + 1]


def texts_of(messages: Json) -> Iterator[tuple[Json, Json]]:
    """Yield (role, content) of a list of messages, for comparing two."""
    for message in messages if isinstance(messages, list) else []:
        if isinstance(message, dict):
            yield message.get("role"), message.get("content")
