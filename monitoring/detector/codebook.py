"""Topics as they were in the first days: centroids, and how far a question usually is from the
nearest.

The codebook is fitted once, on days that are not judged and are no history, since a point is always
a little closer to a centroid that it helped to place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from monitoring.detector.columns import EMBEDDING, Floats, Table
from monitoring.detector.texts import Vectors, WordSpace


class StoredCodebook(TypedDict):
    """A codebook as JSON. `weights`: None where the table brings its own vectors."""

    centroids: list[list[float]]
    far: float
    weights: list[float] | None


@dataclass(frozen=True)
class Codebook:
    """`centroids` has shape (topics, dimensions); distances are Euclidean."""

    centroids: Vectors
    far: float  # distance below which 95 % of the first days' questions lie
    space: WordSpace | None  # how texts become vectors; None where the table brings them

    def as_json(self) -> StoredCodebook:
        """Some 300 kB of plain data."""
        weights = None if self.space is None else self.space.weights.tolist()
        return {"centroids": self.centroids.tolist(), "far": self.far, "weights": weights}

    @staticmethod
    def from_json(made: StoredCodebook) -> Codebook:
        space = (
            None
            if made["weights"] is None
            else WordSpace(np.array(made["weights"], dtype=np.float32))
        )
        return Codebook(np.array(made["centroids"], dtype=np.float32), made["far"], space)

    def vectors(self, table: Table) -> Vectors | None:
        return vectors_of(table, self.space)

    def assign(self, vectors: Vectors) -> tuple[NDArray[np.int64], Floats]:
        """(nearest topic, distance to it) of every row; rows with NaN give -1 and NaN."""
        known = np.isfinite(vectors).all(axis=1)
        nearest, distance = np.full(len(vectors), -1, dtype=np.int64), np.full(len(vectors), np.nan)
        if known.any():
            rows = vectors[known].astype(np.float64)
            squares = (
                (rows**2).sum(1)[:, None]
                - 2 * rows @ self.centroids.T.astype(np.float64)
                + (self.centroids.astype(np.float64) ** 2).sum(1)[None, :]
            )
            nearest[known] = squares.argmin(1)
            distance[known] = np.sqrt(np.maximum(squares.min(1), 1e-12))
        return nearest, distance


def vectors_of(table: Table, space: WordSpace | None) -> Vectors | None:
    """The table's embeddings, else those of its prompts in `space`, else None."""
    given = table.get(EMBEDDING)
    if given is not None:
        return given
    prompts = table.get("prompt")
    return None if prompts is None or space is None else space.vectors(list(prompts))
