"""How retrieved passages enter a conversation: one format for gateway, training and evaluation.

A passage is a text. `format_passage` makes it of a found passage, with a line that says where it
comes from; a training row's `context` may hold any text. `insert_passages` numbers them, so that
the model can cite `[1]`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from whet.conversation import text_of
from whet.json_types import Json

_LEAD = "Use this information:"
# Where a line begins like a new passage; a model takes other line separators for "\n".
_NUMBER = re.compile(r"(?:^|(?<=[\r\v\f\x85\u2028\u2029]))(?=\s*\[\s*\d+\s*\])", re.MULTILINE)
_SYSTEM_ROLES = ("system", "developer")
_LINE_LENGTH = 300  # characters of title, section or address: longer ones are no names


def format_passage(passage: Mapping[str, Json]) -> str:
    """Return the text of a hit under a line with its `title`, `section` and `address`.

    The line quotes: `From "Returns > Deadlines" (shop/returns.md):`. A line of the text that
    begins like the next passage (`[2]`) is marked with `> `, so that no document can pass itself
    off as another. A passage that has nothing but `text` is returned unchanged.
    """
    title, section, address = (_line(passage.get(name)) for name in ("title", "section", "address"))
    text = str(passage.get("text") or "").strip()
    if not (title or section or address):
        return text
    if f"{section} > ".startswith(f"{title} > "):
        title = ""  # the headings begin with the title already
    name = " > ".join(part for part in (title, section) if part).replace('"', "'")
    source = " ".join(filter(None, [name and f'"{name}"', address and f"({address})"]))
    return f"From {source}:\n{_NUMBER.sub('> ', text)}"


def insert_passages(
    messages: list[dict[str, Any]], passages: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the conversation with `passages` at the end of its system message.

    The first message takes them when it is a system or developer message; otherwise a system
    message is put before it. Without passages the same list is returned.
    """
    texts = [passage.strip() for passage in passages if passage.strip()]
    if not texts:
        return messages
    block = "\n".join(
        [_LEAD, *(f"[{number}] {text}" for number, text in enumerate(texts, start=1))]
    )
    first = messages[0] if messages else None
    if first is None or first.get("role") not in _SYSTEM_ROLES:
        return [{"role": "system", "content": block}, *messages]
    # Templates take one system message; most take its content as one text alone.
    content = f"{text_of(first.get('content'))}\n\n{block}".strip()
    return [{**first, "content": content}, *messages[1:]]


def insert_into_request(request: Mapping[str, Any], passages: Sequence[str]) -> dict[str, Any]:
    """Return the JSON of a chat or Responses request with `passages` in its system message.

    The instructions of a Responses request are its system message; without them, a system message
    that its `input` begins with.
    """
    if "messages" in request:
        return {**request, "messages": insert_passages(list(request["messages"]), passages)}
    items = request.get("input")
    first = items[0] if isinstance(items, list) and items else None
    if not request.get("instructions") and _is_system(first):
        assert isinstance(items, list) and isinstance(first, dict)
        return {**request, "input": [*insert_passages([first], passages), *items[1:]]}
    given = request.get("instructions")
    system = [{"role": "system", "content": given}] if given else []
    found = insert_passages(system, passages)
    return {**request, "instructions": found[0]["content"] if found else given}


def _is_system(item: Any) -> bool:
    if not isinstance(item, Mapping):
        return False
    return item.get("type", "message") == "message" and item.get("role") in _SYSTEM_ROLES


def _line(value: Any) -> str:
    return " ".join(str(value or "").split())[:_LINE_LENGTH].strip()
