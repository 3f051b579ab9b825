"""A counter of word pieces for tests: six letters of a word at most are one piece."""

from __future__ import annotations

import re

_PIECES = re.compile(r"\w{1,6}|[^\w\s]")
_SPECIAL_TOKENS = 2  # before and after a text


def count_tokens(text: str) -> int:
    """Return about as many tokens as a word-piece tokenizer."""
    return len(_PIECES.findall(text)) + _SPECIAL_TOKENS
