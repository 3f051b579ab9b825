"""A logged request as turns for a page: text, and a note on what cannot be shown as text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from whet.conversation import (
    Message,
    answer_of,
    history,
    last_question,
    other_parts_of,
    plain_text_of,
)

CONTINUED = "The client gave the beginning of this answer: “{given}”"


@dataclass(frozen=True)
class Turn:
    """Who said what. `note` says what is not text: a picture, a tool call, whose result it is.

    `message` is what a page shows of it, and `remark` what no message holds.
    """

    role: str
    text: str
    note: str = ""
    message: Message = field(default=Message("user"), compare=False)
    remark: str = field(default="", compare=False)


def turns(request: Any, response: Any, response_text: str | None) -> list[Turn]:
    """The whole exchange, the answer last."""
    return asked(request) + answered(request, response, response_text)


def asked(request: Any) -> list[Turn]:
    """What was said before the answer."""
    return [_turn(message) for message in history(request)]


def answered(request: Any, response: Any, response_text: str | None) -> list[Turn]:
    """The answer as one turn, with a beginning that the client gave; none where there is none."""
    answer = answer_of(request, response, response_text)
    if not answer.text and not answer.tool_calls:
        return []
    given = [CONTINUED.format(given=answer.given)] if answer.given else []
    calls = [f"calls {call.name}({call.arguments})" for call in answer.tool_calls]
    message = Message("assistant", answer.text, answer.tool_calls)
    return [Turn("assistant", answer.text, "\n".join([*given, *calls]), message, "\n".join(given))]


def answer_line(request: Any, response: Any, response_text: str | None) -> str:
    """The answer as a row of a list shows it: its text, or the tools that it calls."""
    return "".join(turn.text or turn.note for turn in answered(request, response, response_text))


def question(request: Any) -> str:
    """The last thing the user said: what a row of a list shows."""
    return last_question(request)


def _turn(message: Message) -> Turn:
    notes = other_parts_of(message.parts)
    if message.role == "tool":
        result = f"result of {message.name}" if message.name else "result"
        call_id = f" ({message.tool_call_id})" if message.tool_call_id else ""
        notes.insert(0, result + call_id)
    for call in message.tool_calls:
        call_id = f" ({call.id})" if call.id else ""
        notes.append(f"calls {call.name}({call.arguments}){call_id}")
    return Turn(message.role, plain_text_of(message.parts), "\n".join(notes), message)
