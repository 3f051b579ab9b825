"""The object of a row as a conversation: the formats in which people write one, and what is wrong
where it is none of them.

A row has one format. What a second one beside it says must be the same, since only one of the two
is learned and nobody would know which.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

from training.data.message import Message, Messages
from training.data.tools import calls_in, calls_of
from training.data.wrong import Wrong, kind_of, shown
from whet.json_types import Json, JsonObject

ROLES = ("system", "developer", "user", "assistant", "tool")
_LEADING = ("system", "developer")
TEXT = "text"  # field and kind of a row for continued pre-training
# What a plain text has not
_OF_AN_ANSWER = ("system", "context", "checks", "train", "tools", "rating", "label")
_SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "system": "system",
    "tool": "tool",
}
# Fields of one format or another
_FORMATS = ("messages", "conversations", "prompt", "instruction", "input", "completion", "output")
_HOLD_MESSAGES = ("messages", "conversations", "prompt", "completion", "chosen", "rejected")
_MESSAGE_FIELDS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "weight"})


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a row says. `messages` ends with the answer to learn."""

    messages: Messages
    kind: str  # messages | prompt | instruction | preference | text
    rejected: str = ""  # the worse answer of a preference


def conversation(raw: JsonObject) -> Conversation:
    """Raises Wrong for an object that is none of the formats, or two of them that differ."""
    if "chosen" in raw or "rejected" in raw:
        found, own = _preference(raw), {"messages" if "messages" in raw else "prompt"}
    elif "messages" in raw:
        found, own = (
            Conversation(_with_system(raw, _messages(raw["messages"])), "messages"),
            {"messages"},
        )
    elif "conversations" in raw:
        found, own = (
            Conversation(
                _with_system(raw, _messages(_from_sharegpt(raw["conversations"]), "conversations")),
                "messages",
            ),
            {"conversations"},
        )
    elif "instruction" in raw or "output" in raw:
        asked = "\n\n".join(
            [text_in(raw, "instruction"), *([text_in(raw, "input")] if raw.get("input") else [])]
        )
        turns: Messages = [{"role": "user", "content": asked}, _answer(text_in(raw, "output"))]
        found, own = (
            Conversation(_with_system(raw, turns), "instruction"),
            {"instruction", "input", "output"},
        )
    elif "prompt" in raw or "completion" in raw:
        answer, before = _answered(raw, "completion")
        found = Conversation(
            _with_system(raw, [*_one_question(before, _stated(raw)), answer]), "prompt"
        )
        own = {"prompt", "completion"}
    elif TEXT in raw:
        return _plain_text(raw)
    else:
        names = ", ".join(sorted(map(str, raw))[:6]) or "none"
        expected = (
            "'messages', or 'prompt' and 'completion', or 'instruction' and 'output', or "
            "'messages', 'chosen' and 'rejected', or 'text' (other names: "
            "--columns prompt=NAME,completion=NAME)"
        )
        raise Wrong(f"the fields {names}", expected)
    _refuse_another(raw, own, found)
    return found


def is_visible(text: str) -> bool:
    """Whether there is anything to read: zero-width and control characters are not, and `strip`
    leaves them.
    """
    return any(unicodedata.category(character)[0] not in "ZC" for character in text)


def require_question(messages: Sequence[Message]) -> None:
    """Raises Wrong when nobody asks what the last message answers, when it says nothing that can be
    seen, or when two answers follow each other.
    """
    asked = [message for message in messages[:-1] if message["role"] in ("user", "tool")]
    users = [message for message in asked if message["role"] == "user"]
    if not is_visible(messages[-1]["content"]) and not calls_in(messages[-1]):
        raise Wrong("an answer without a visible character", "the answer to learn")
    if not any(is_visible(message["content"]) for message in users[-1:] or asked):
        found = "an empty question" if asked else "an answer that nobody asked for"
        raise Wrong(
            f"{found}: no text of a user before the last message",
            "a message of the role user (or tool) before the answer",
        )
    for position, (one, following) in enumerate(pairwise(messages), start=1):
        if one["role"] == following["role"] == "assistant":
            raise Wrong(
                f"messages {position} and {position + 1} are both of the assistant",
                "what was said in between, or one message of both texts",
            )


def unknown_message_fields(raw: JsonObject) -> set[str]:
    """Fields of messages without a meaning here, as `messages[].weight`."""
    return {
        f"{place}[].{name}"
        for place in _HOLD_MESSAGES
        for message in _listed(raw.get(place))
        for name in message.keys() - _known(message)
    }


def _known(message: Mapping[str, Json]) -> frozenset[str]:
    return _MESSAGE_FIELDS | {"from", "value"} if "from" in message else _MESSAGE_FIELDS


def _listed(value: Json) -> Iterator[Mapping[str, Json]]:
    yield from (item for item in value if isinstance(item, dict)) if isinstance(value, list) else ()


def _preference(raw: JsonObject) -> Conversation:
    """Both answers may carry the question; then it has to be the same one."""
    (chosen, before), (rejected, other) = _answered(raw, "chosen"), _answered(raw, "rejected")
    if calls_in(chosen) or calls_in(rejected):
        raise Wrong(
            "a call of a tool in 'chosen' or 'rejected'",
            "answers in words: calls are learned from 'messages', not from preferences",
        )
    if before and other and _texts(before) != _texts(other):
        raise Wrong(
            "'chosen' and 'rejected' with different messages before the answer",
            "two answers to the same question",
        )
    if chosen["content"].strip() == rejected["content"].strip():
        raise Wrong(
            "a 'rejected' that is the same as 'chosen'", "two answers, one better than the other"
        )
    messages = [*_one_question(before or other, _stated(raw)), _answer(chosen["content"])]
    return Conversation(_with_system(raw, messages), "preference", rejected["content"])


def _answered(raw: JsonObject, name: str) -> tuple[Message, Messages]:
    """(the answer, the messages before it): an answer may be a text, or a list of messages that
    ends with it.
    """
    value = raw.get(name)
    if not isinstance(value, list):
        return _answer(text_in(raw, name)), []
    *before, answer = _messages(value, name, alone="messages" in raw or "prompt" in raw)
    return answer, before


def _plain_text(raw: JsonObject) -> Conversation:
    """A text to learn as it is. Raises Wrong for fields that only say something of an answer."""
    beside = [name for name in _OF_AN_ANSWER if raw.get(name)]
    if "label" in raw:
        beside = ["label"]
    if beside:
        fields = ", ".join(map(repr, beside))
        raise Wrong(
            f"{fields} beside 'text', which is learned as it is, without a question and an answer",
            "the text alone, or 'prompt' and 'completion'",
        )
    text = text_in(raw, TEXT)
    if not is_visible(text):
        raise Wrong("a text without a visible character", "the text to learn")
    return Conversation([_answer(text)], TEXT)


def _stated(raw: JsonObject) -> Messages:
    """The question that stands on its own: messages, or a prompt as text or messages.

    Empty where there is none.
    """
    if "messages" in raw:
        return _messages(raw["messages"], question=True)
    if isinstance(raw.get("prompt"), list):
        return _messages(raw["prompt"], "prompt", question=True)
    if raw.get("prompt") or not any(
        isinstance(raw.get(name), list) for name in ("chosen", "rejected", "completion")
    ):
        return [{"role": "user", "content": text_in(raw, "prompt")}]
    return []


def _one_question(before: Messages, stated: Messages) -> Messages:
    """The question out of the answer's messages and out of the field for it: where both are there,
    one ends with the other, and the longer is taken.
    """
    longer, shorter = (before, stated) if len(before) > len(stated) else (stated, before)
    if shorter and _texts(longer)[-len(shorter) :] != _texts(shorter):
        raise Wrong(
            "another question beside the one that the answer's messages begin with",
            "the same question, or only one of the two",
        )
    return longer


def _texts(messages: Messages) -> list[tuple[str, str]]:
    return [(message["role"], message["content"].strip()) for message in messages]


def _with_system(raw: JsonObject, messages: Messages) -> Messages:
    """The messages after the text of `system`, which every format may have."""
    if not raw.get("system"):
        return messages
    if messages[0]["role"] in _LEADING:
        raise Wrong(
            f"'system' beside a message of the role {messages[0]['role']}", "one of the two"
        )
    return [{"role": "system", "content": text_in(raw, "system")}, *messages]


def _refuse_another(raw: JsonObject, own: set[str], found: Conversation) -> None:
    """A second format that says the same passes: published sets repeat the question in `prompt`
    beside `messages`.
    """
    *before, answer = found.messages
    asked = {message["content"].strip() for message in before if message["role"] == "user"}
    for name in _FORMATS:
        value = raw.get(name)
        said = {answer["content"].strip()} if name in ("completion", "output") else asked
        if name not in own and value and not (isinstance(value, str) and value.strip() in said):
            fields = ", ".join(
                repr(field) for field in (*sorted(own), "chosen", "rejected") if raw.get(field)
            )
            raise Wrong(
                f"{name!r} beside {fields}", "one format in a row, or the same text in both"
            )


def _from_sharegpt(value: Json) -> Json:
    """ShareGPT's {"from", "value"} as {"role", "content"}; what is not of that form is left for the
    check of messages to name.
    """
    if not isinstance(value, list):
        return value
    return [
        {"role": _SHAREGPT_ROLES.get(str(turn["from"]), turn["from"]), "content": turn.get("value")}
        if isinstance(turn, dict) and "from" in turn
        else turn
        for turn in value
    ]


def _answer(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _messages(
    value: Json, name: str = "messages", *, question: bool = False, alone: bool = False
) -> Messages:
    """Checked messages that end with an answer (which may stand `alone`, where the question is
    elsewhere), or, for a `question`, with anything else.
    """
    if not isinstance(value, list) or not value:
        raise Wrong(f"{name!r} is {kind_of(value)}", "a list of at least one message")
    messages = [_message(position, message) for position, message in enumerate(value, start=1)]
    last = messages[-1]
    if question:
        if last["role"] == "assistant":
            raise Wrong(
                f"{name!r} ends with an assistant message beside an answer",
                "the conversation up to the question",
            )
    elif last["role"] == "user" and messages[0]["role"] == "assistant":
        raise Wrong(
            f"the first message of {name!r} is the assistant's and the last the user's",
            "the answer last; if the two roles are swapped, swap them back",
        )
    elif last["role"] != "assistant":
        raise Wrong(
            f"the last message of {name!r} has the role {last['role']!r}",
            "'assistant': the answer to learn",
        )
    elif not last["content"].strip() and not calls_in(last):
        raise Wrong("the last assistant message has no text", "the answer to learn")
    elif len(messages) == 1 and not alone:
        raise Wrong("an answer without a question", "at least one message before the last")
    return messages


def _message(position: int, value: Json) -> Message:
    if not isinstance(value, dict):
        raise Wrong(
            f"message {position} is {kind_of(value)}", 'an object with "role" and "content"'
        )
    role = value.get("role")
    if role not in ROLES:
        raise Wrong(f"message {position} has the role {shown(role)}", f"one of {', '.join(ROLES)}")
    content = value.get("content")
    if isinstance(content, list):
        content = "".join(_part(position, part) for part in content)
    if content is None and (role == "tool" or (role == "assistant" and value.get("tool_calls"))):
        content = ""  # a call without words, or a tool that gave nothing back
    if not isinstance(content, str):
        raise Wrong(f"the content of message {position} is {kind_of(content)}", "a text")
    # Checked above: what is left is further fields, which stay as they are.
    return cast(Message, {**value, "content": content})


def _part(position: int, part: Json) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise Wrong(
        f"message {position} has a part that is not text",
        'parts of the form {"type": "text", "text": "…"}',
    )


def text_in(raw: JsonObject, name: str) -> str:
    """The text of a field. Raises Wrong where there is none."""
    value = raw.get(name)
    if isinstance(value, str) and value.strip():
        return value
    found = (
        f"no field {name!r}"
        if name not in raw
        else f"an empty {name!r}"
        if isinstance(value, str)
        else f"{name!r} is {kind_of(value)}"
    )
    raise Wrong(found, f"a text in {name!r}")


def text_of(message: Message) -> str:
    """Return what a message says as one text: its words and the calls it makes."""
    return "\n".join(filter(None, [str(message["content"]), *map(str, calls_of(message))]))
