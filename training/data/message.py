"""Messages of a conversation that has been checked, as rows hold and chat templates get them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NotRequired, TypedDict, cast

from whet.json_types import Json, JsonObject
from whet.rag_prompt import insert_passages


class Message(TypedDict):
    """One turn in OpenAI's form; further fields that a template may read stay in it."""

    role: str  # one of `training.data.shapes.ROLES`
    content: str  # "" for a call without words
    name: NotRequired[Json]
    tool_calls: NotRequired[Json]  # as the row has them; `training.data.tools` reads them
    tool_call_id: NotRequired[Json]
    weight: NotRequired[Json]  # OpenAI's: 0 keeps an answer out of the loss


Messages = list[Message]


def with_content(message: Message, content: str) -> Message:
    """Return the message with another text."""
    changed = message.copy()
    changed["content"] = content
    return changed


def written(messages: Iterable[Message]) -> list[JsonObject]:
    """Return messages as the plain objects that a row holds."""
    return [cast(JsonObject, message.copy()) for message in messages]


def with_passages(messages: Sequence[Message], passages: Sequence[str]) -> Messages:
    """Return the messages with passages in their system message, as the gateway inserts them."""
    plain = [cast("dict[str, object]", message) for message in messages]
    return cast(Messages, insert_passages(plain, passages))
