"""Does an engine make the tokens of a conversation that training made of it?

Log-probabilities cannot show it: the engine is asked for those with token ids. So a version's card
records what the trainer's template and tokenizer make of one conversation and of one plain text
(`training/models/fingerprint.py`), and the engine is asked for both. Where the conversation differs and
the plain text does not, the chat template is another one; where the text differs too, the
tokenizer. Pure functions of plain data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_TOKENIZER = "its tokenizer is another one. Start it with that of the base's folder (--tokenizer)."
_TEMPLATE = (
    "it makes the same of a plain text, so its chat template is another one. Start it with that of "
    "the base's folder (--chat-template)."
)
_EITHER = (
    "it uses another chat template or tokenizer. Start it with those of the base's folder "
    "(--chat-template, --tokenizer)."
)


def compare_tokens(
    label: str,
    fingerprint: Mapping[str, Any],
    conversation: Sequence[int] | None,
    text: Sequence[int] | None,
) -> str | None:
    """Return why the engine's template or tokenizer is not that of the training; "" where it is.

    `conversation` and `text` are the engine's tokens of the fingerprint's; None where it does not
    say. None is returned where the template could not be compared.
    """
    asked, plain = ((fingerprint.get(name) or {}).get("token_ids") for name in ("asked", "text"))
    text_difference = None
    if plain is not None and text is not None:
        text_difference = _first_difference(text, plain)
    if text_difference:
        return (
            f"The engine turns a text into other tokens than {label} was trained with "
            f"({text_difference}): {_TOKENIZER}"
        )
    if asked is None or conversation is None:
        return None
    difference = _first_difference(conversation, asked)
    if not difference:
        return ""
    cause = _EITHER if text_difference is None else _TEMPLATE
    return (
        f"The engine turns a conversation into other tokens than {label} was trained with "
        f"({difference}): {cause}"
    )


def _first_difference(made: Sequence[int], expected: Sequence[int]) -> str:
    """Say where two lists of tokens part; "" for equal ones."""
    if list(made) == list(expected):
        return ""
    first = next(
        (at for at, (one, other) in enumerate(zip(made, expected, strict=False)) if one != other),
        min(len(made), len(expected)),
    )
    return f"{len(made)} where {len(expected)} are expected, other ones from token {first} on"
