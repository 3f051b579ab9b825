"""Compares the tokenizer and chat template that a trainer saved beside an adapter with the base's.

They are never used: the base's own are served. A file that cannot be read counts as absent.
"""

from __future__ import annotations

import json
from pathlib import Path

from training.models.base_model import BaseModel
from whet.json_types import Json, JsonObject

_SHOWN = 5  # tokens in a sentence
_MAX_BYTES = 1 << 26  # the tokenizer.json of a vocabulary of a quarter million tokens has 35 MB


def tokenizer_notices(folder: Path, base: BaseModel) -> list[str]:
    """Says when the adapter was probably trained with another template or other tokens."""
    notices = []
    template = _template(folder)
    if template is not None and template.strip() != str(base.tokenizer.chat_template).strip():
        notices.append(
            f"The chat template beside the adapter is not the one of {base.name}. If it was "
            "trained with that one, its answers will be worse than in training: put "
            "chat_template.jinja into the base's folder, or train it with the base's."
        )
    if (folder / "tokenizer.json").is_file() or (folder / "added_tokens.json").is_file():
        known = base.tokenizer.get_vocab()
        first = min(known.values(), default=0)
        new = [token for token in added_tokens(folder, first) if token not in known]
        if new:
            names = ", ".join(repr(token) for token in new[:_SHOWN])
            more = " and more" if len(new) > _SHOWN else ""
            notices.append(
                f"The tokenizer beside the adapter knows tokens that {base.name} has not: "
                f"{names}{more}. The base reads them as ordinary text."
            )
    return notices


def _template(folder: Path) -> str | None:
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except (OSError, ValueError):
        template = _object(folder / "tokenizer_config.json").get("chat_template")
        return template if isinstance(template, str) else None


def _object(path: Path) -> JsonObject:
    try:
        if path.stat().st_size > _MAX_BYTES:
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def added_tokens(folder: Path, first_id: int) -> list[str]:
    """Tokens with ids from `first_id` on that were added to the tokenizer beside an adapter."""
    listed = _object(folder / "tokenizer.json").get("added_tokens")
    pairs: list[tuple[Json, Json]] = [
        (item.get("content"), item.get("id"))
        for item in (listed if isinstance(listed, list) else [])
        if isinstance(item, dict)
    ]
    pairs += _object(folder / "added_tokens.json").items()
    found = {
        number: token
        for token, number in pairs
        if isinstance(token, str) and isinstance(number, int) and number >= first_id
    }
    return [found[number] for number in sorted(found)]
