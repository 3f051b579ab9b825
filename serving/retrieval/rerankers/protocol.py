"""What every reranker offers: a question and passages in, one score for each out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from whet.errors import WhetError


class RerankerError(WhetError):
    """A reranker cannot be loaded, or does not answer as one."""

    code = "reranker"
    status = 502


class Reranker(Protocol):
    """A model that reads question and passage together."""

    def score(self, question: str, passages: Sequence[str]) -> list[float]:
        """Return a score for each passage, higher is better. Raises RerankerError."""
        ...
