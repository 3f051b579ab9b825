"""A row as tokens, with what is learned of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row as tokens."""

    ids: tuple[int, ...]
    trained: tuple[bool, ...]  # per token: does it count in the loss
    prompt_tokens: int  # tokens before the last answer: what the engine is given
    weight: float
    line: int = 0  # of the row that it came from; a long text is several entries of one line

    @property
    def trained_tokens(self) -> int:
        return sum(self.trained)
