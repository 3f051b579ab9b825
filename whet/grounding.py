"""How retrieved passages enter a conversation: one form, so that what is trained on is what is served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_LEAD = "Use this information:"


def with_context(messages: list[dict[str, Any]], passages: Sequence[str]) -> list[dict[str, Any]]:
    """The messages with the passages in the system message: appended to a first one that exists, else as a new first one.

    Without passages the messages come back as they are.
    """
    texts = [passage.strip() for passage in passages if passage.strip()]
    if not texts:
        return messages
    block = "\n".join([_LEAD, *(f"[{number}] {text}" for number, text in enumerate(texts, start=1))])
    first = messages[0] if messages else None
    if first is not None and first.get("role") in ("system", "developer") and isinstance(first.get("content"), str):
        return [{**first, "content": f"{first['content']}\n\n{block}".strip()}, *messages[1:]]
    return [{"role": "system", "content": block}, *messages]
