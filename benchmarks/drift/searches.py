"""Searches of the simulated services: each question has a document, and scores are cosines.

The scores are assumed, not measured: of the size that cosines of a small sentence embedder such as
all-MiniLM-L6-v2 have for a question with its document, without it, and of another subject.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
DOCUMENTS_PER_TOPIC = 10
# Mean and standard deviation of the best cosine: with its document, without it, of another subject.
FOUND, LOST, FOREIGN = (0.62, 0.12), (0.42, 0.10), (0.25, 0.08)
_OF_USERS = 0.03  # of these: how tersely somebody asks
_GAP = 0.03  # mean of the gap between the first two, exponential
_DAILY = 0.004  # standard deviation of what a day does to all scores
_MIN_SCORE = 0.2  # of the alias: below, the search is empty
_FAILED = 0.002


@dataclass
class Searches:
    """The collection behind a service. `lost`: share of its documents that is gone."""

    seed: int
    topics: int  # that have documents
    lost: float = 0.0
    random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng([self.seed, 19])
        self.order = self.random.permutation(self.topics * DOCUMENTS_PER_TOPIC)

    def columns(self, topic: NDArray[np.int64], style: Floats) -> dict[str, NDArray[Any]]:
        """Columns of the searches of a day. `style`: of each question's user, normal."""
        r, n = self.random, len(topic)
        document = topic * DOCUMENTS_PER_TOPIC + r.integers(DOCUMENTS_PER_TOPIC, size=n)
        gone = self.order[: round(self.lost * len(self.order))]
        kinds = np.where(topic >= self.topics, 2, np.isin(document, gone).astype(int))
        means, spreads = (
            np.array(values)[kinds] for values in zip(FOUND, LOST, FOREIGN, strict=True)
        )
        score = means + spreads * r.normal(size=n) + _OF_USERS * style + r.normal(0, _DAILY)
        failed, empty = r.random(n) < _FAILED, score < _MIN_SCORE
        has_hits = ~failed & ~empty
        return {
            "collection": np.full(n, "manual", dtype=object),
            "documents": np.full(n, f"state-{self.lost:g}", dtype=object),
            "retrieval_score": np.where(has_hits, np.clip(score, 0, 1), np.nan),
            "retrieval_gap": np.where(has_hits, r.exponential(_GAP, n), np.nan),
            "retrieval_empty": np.where(failed, np.nan, empty),
            "retrieval_failed": failed.astype(float),
            "retrieval_ms": np.exp(1.6 + r.normal(0, 0.06) + r.normal(0, 0.4, n)),
            "context_overlap": np.where(has_hits, r.beta(4, 6, n), np.nan),
        }
