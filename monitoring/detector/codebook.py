"""Topics as they were in the first days: centroids, and how far a question usually is from the
nearest.

The codebook is fitted once, on days that are not judged and are no history, since a point is always
a little closer to a centroid that it helped to place.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring.detector.table import EMBEDDING, Floats, Table
from monitoring.detector.texts import Vectors, WordSpace

_MOST_ROWS = 6_000  # of the first days: k-means places 24 centroids no better with more
_LEAST_ROWS = 200
# Quantile of the usual distances beyond which a question is "unlike earlier ones" in sentences
_FAR = 0.95


@dataclass(frozen=True)
class Codebook:
    """`centroids` has shape (topics, dimensions); distances are Euclidean."""

    centroids: Vectors
    far: float  # distance below which 95 % of the first days' questions lie
    space: WordSpace | None  # how texts become vectors; None where the table brings them

    def as_json(self) -> dict[str, Any]:
        """Some 300 kB of plain data."""
        weights = None if self.space is None else self.space.weights.tolist()
        return {"centroids": self.centroids.tolist(), "far": self.far, "weights": weights}

    @staticmethod
    def from_json(made: dict[str, Any]) -> Codebook:
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


def fit_codebook(first_days: Table, topics: int, seed: int) -> Codebook | None:
    """K-means on the questions of the first days (k-means++, three starts); None where there are
    too few of them.
    """
    rng = np.random.default_rng([seed, 1])
    if len(first_days) > _MOST_ROWS:
        first_days = first_days.take(
            np.sort(rng.choice(len(first_days), _MOST_ROWS, replace=False))
        )
    prompts = first_days.get("prompt")
    space = (
        WordSpace.learned(list(prompts))
        if EMBEDDING not in first_days and prompts is not None
        else None
    )
    vectors = vectors_of(first_days, space)
    if vectors is None:
        return None
    known = vectors[np.isfinite(vectors).all(axis=1)]
    if len(known) < _LEAST_ROWS:
        return None
    made = Codebook(cluster_centres(known, min(topics, len(known) // 20), seed), 0.0, space)
    return Codebook(made.centroids, float(np.quantile(made.assign(known)[1], _FAR)), space)


def cluster_centres(vectors: Vectors, clusters: int, seed: int, starts: int = 3) -> Vectors:
    """K-means++ centroids, the best of `starts`.

    Fewer different questions than clusters give centroids that are the same, which harms nothing.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(max(2, clusters), n_init=starts, max_iter=50, random_state=seed).fit(
            vectors
        )
    return np.asarray(fitted.cluster_centers_, dtype=np.float32)
