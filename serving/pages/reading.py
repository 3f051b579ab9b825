"""A logged request as turns of a conversation: pure functions of the stored JSON, whatever a client sent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Turn:
    """Who said what. `note` says what cannot be shown as text (a picture, a tool call)."""

    role: str
    text: str
    note: str = ""


def turns(request: Any, response: Any, response_text: str | None) -> list[Turn]:
    """The whole exchange, the answer last."""
    return asked(request) + answered(response, response_text)


def asked(request: Any) -> list[Turn]:
    if not isinstance(request, dict):
        return []
    if isinstance(request.get("messages"), list):
        return [_message(message) for message in request["messages"] if isinstance(message, dict)]
    found = [Turn("system", _text(request["instructions"])[0])] if isinstance(request.get("instructions"), str) else []
    for name in ("prompt", "input"):
        value = request.get(name)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return found + [_message(message) for message in value if isinstance(message, dict)]
        if value is not None:
            return [*found, Turn("user", *_text(value))]
    return found


def answered(response: Any, response_text: str | None) -> list[Turn]:
    if isinstance(response, dict) and (response.get("tool_calls") or response.get("content")):
        return [_message({"role": "assistant"} | response)]
    return [Turn("assistant", response_text)] if response_text else []


def question(request: Any) -> str:
    """The last thing the user said: what a row of a list shows."""
    said = [turn.text for turn in asked(request) if turn.role == "user" and turn.text]
    return said[-1] if said else ""


def _message(message: dict[str, Any]) -> Turn:
    text, note = _text(message.get("content"))
    calls = message.get("tool_calls")
    if isinstance(calls, list) and calls:
        note = "\n".join(filter(None, [note, *(_call(call) for call in calls)]))
    return Turn(str(message.get("role") or "user"), text, note)


def _call(call: Any) -> str:
    function = call.get("function") if isinstance(call, dict) else None
    return f"calls {function.get('name')}({function.get('arguments')})" if isinstance(function, dict) else "calls a tool"


def _text(content: Any) -> tuple[str, str]:
    """(text, what else was there). Content is a string, parts, token ids, or nothing."""
    if content is None:
        return "", ""
    if isinstance(content, str):
        return content, ""
    if isinstance(content, list):
        if all(isinstance(part, int) for part in content):
            return "", f"{len(content)} token ids"
        texts = [
            part if isinstance(part, str) else str(part.get("text", ""))
            for part in content
            if isinstance(part, str) or (isinstance(part, dict) and "text" in part)
        ]
        others = [str(part.get("type", "part")) for part in content if isinstance(part, dict) and "text" not in part]
        return "\n".join(texts), ", ".join(others)
    return json.dumps(content, ensure_ascii=False), ""
