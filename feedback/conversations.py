"""Training rows: the question, the answer and the instructions of one, and how one is made from a
conversation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from whet.conversation import Message, ToolCall, text_of, tool_calls_of
from whet.rag_prompt import format_passage


def question(messages: Sequence[Mapping[str, Any]]) -> str:
    """What was asked: every turn but the system's, so that a short last turn ("yes, please") keeps
    what it refers to.
    """
    asked = [
        _said(message) for message in messages if message.get("role") not in ("system", "developer")
    ]
    return "\n".join(asked)


def _said(message: Mapping[str, Any]) -> str:
    """The words of a message and the calls of tools in it."""
    calls = [f"{call.name}({call.arguments})" for call in tool_calls_of(message)]
    return "\n".join([*filter(None, [text_of(message.get("content"))]), *calls])


def row_frame(row: Mapping[str, Any]) -> str:
    """What the question is asked within: system messages, retrieved text and the tools there are."""
    tools = json.dumps(row["tools"], ensure_ascii=False, sort_keys=True) if row.get("tools") else ""
    instructions = [
        text_of(m.get("content"))
        for m in row.get("messages", ())
        if m.get("role") in ("system", "developer")
    ]
    return "\n".join([*instructions, text_of(row.get("context")), tools]).strip()


def row_question(row: Mapping[str, Any]) -> str:
    """The question of a training row in any of the documented formats: everything before the last
    assistant turn.

    A plain text, which nobody asks for, stands for itself: otherwise all of them were one question.
    """
    if "messages" not in row:
        return str(row.get("prompt", row.get("text", "")))
    messages = list(row["messages"])
    if messages and messages[-1].get("role") == "assistant" and "chosen" not in row:
        messages.pop()
    return question(messages)


def row_answer(row: Mapping[str, Any]) -> str:
    if "chosen" in row:
        return text_of(row["chosen"])
    return _said(row["messages"][-1]) if "messages" in row else str(row.get("completion", ""))


def is_call(row: Mapping[str, Any]) -> bool:
    """Whether the answer of a training row calls tools."""
    return bool(row.get("messages")) and bool(tool_calls_of(row["messages"][-1]))


# What a training row may hold; a conversation with other turns cannot become one.
TRAINABLE_ROLES = ("system", "developer", "user", "assistant", "tool")


def training_row(
    *,
    example_id: str,
    messages: Sequence[Mapping[str, Any]],
    answer: str,
    calls: Sequence[ToolCall] = (),
    tools: Sequence[Mapping[str, Any]] = (),
    context: Sequence[str] = (),
    checks: Sequence[str] = (),
) -> dict[str, Any]:
    """One row in the documented JSONL format. The end user's name stays out of it."""
    learned = Message("assistant", answer, tool_calls=tuple(calls)).as_chat()
    row: dict[str, Any] = {
        "id": example_id,
        "origin": "review",
        "messages": [*map(dict, messages), learned],
    }
    if tools:
        row["tools"] = list(map(dict, tools))
    if context:
        row["context"] = list(context)
    if checks:
        row["checks"] = list(checks)
    return row


def retrieved_texts(retrieved: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """Return the passages that the answer was given with, as they stood in the prompt."""
    return [format_passage(passage) for passage in retrieved or [] if passage.get("text")]
