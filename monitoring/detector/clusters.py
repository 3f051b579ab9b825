"""Fit topics with scikit-learn's k-means: of the first days' questions, or of any vectors."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from monitoring.detector.codebook import Codebook, vectors_of
from monitoring.detector.columns import EMBEDDING, Table
from monitoring.detector.texts import Vectors, WordSpace

_MOST_ROWS = 6_000  # of the first days: k-means places 24 centroids no better with more
_LEAST_ROWS = 200
# Quantile of the usual distances beyond which a question is "unlike earlier ones" in sentences
_FAR = 0.95


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(max(2, clusters), n_init=starts, max_iter=50, random_state=seed).fit(
            vectors
        )
    return np.asarray(fitted.cluster_centers_, dtype=np.float32)
