"""What every embedder offers: texts in, unit vectors out, and who it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from whet.errors import InputError, WhetError

FloatArray = NDArray[np.float32]


class EmbedderError(WhetError):
    """An embedder cannot be loaded, or does not answer as one."""

    code = "embedder"
    status = 502


class TextTooLongError(InputError):
    """A text has more tokens than the embedder reads; the end would be lost silently."""

    code = "text_too_long"


class Embedder(Protocol):
    """A model that maps texts to vectors of length one, whose dot product is their similarity."""

    identity: str  # name, hash of the weights, arithmetic, pooling and prefixes
    dimension: int
    max_tokens: int  # of one text, special tokens included

    def embed_passages(self, texts: Sequence[str]) -> FloatArray:
        """Return one row per text. Raises TextTooLongError for a text longer than `max_tokens`."""
        ...

    def embed_query(self, text: str) -> FloatArray:
        """Return one vector. A longer text is read in windows whose vectors are averaged."""
        ...

    def count_tokens(self, text: str) -> int:
        """Return how many of `max_tokens` the text takes, special tokens and prefix included."""
        ...


def require_fitting(counts: Sequence[int], max_tokens: int) -> None:
    """Raise TextTooLongError for the first count above `max_tokens`."""
    for position, count in enumerate(counts):
        if count > max_tokens:
            raise TextTooLongError(
                f"Text {position + 1} has {count} tokens; the embedder reads {max_tokens}.",
                hint="Split it, or set WHET_EMBEDDER to one that reads more.",
            )


def normalise(vectors: FloatArray) -> FloatArray:
    """Scale each row to length one; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)
