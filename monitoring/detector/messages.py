"""Prompts and answers as applications log them: texts, or messages of a chat."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from whet.conversation import last_question, plain_text_of

_LOOKED_AT = 100  # cells that tell whether a column holds messages


def plain_texts(column: Any, name: str) -> Any:
    """The column (a pandas Series) with messages replaced by the text that counts.

    Of a `prompt` that is the last message of the user, of an `answer` the last of the assistant.
    """
    if column.dtype != object or not any(map(_is_message, column.dropna().head(_LOOKED_AT))):
        return column
    role = "assistant" if name == "answer" else "user"
    return column.map(lambda value: _text_of(value, role) if _is_message(value) else value)


def _is_message(value: Any) -> bool:
    return isinstance(value, list | dict | np.ndarray) or (
        isinstance(value, str) and value.lstrip()[:2] in ("[{", '{"')
    )


def _text_of(value: Any, role: str) -> str | None:
    """The text of some messages; the value itself where it is other JSON; None for no text."""
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except ValueError:
            return value
    else:
        found = value
    turns = [found] if isinstance(found, Mapping) else list(found)
    if not turns or not all(isinstance(turn, Mapping) and "content" in turn for turn in turns):
        # A JSON document that somebody asked about, or that was asked for.
        return value if isinstance(value, str) else json.dumps(found, default=str)
    if role == "user":
        turns = [{**turn, "content": _listed(turn["content"])} for turn in turns]
        return last_question({"messages": turns}) or None
    texts = [
        plain_text_of(_listed(turn["content"])) for turn in turns if turn.get("role") != "user"
    ]
    return texts[-1] if texts else None


def _listed(content: Any) -> Any:
    """Parquet gives the parts of a message as an array."""
    return content.tolist() if isinstance(content, np.ndarray) else content
