"""Merges the two rankings of a search into one."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


class Fusion(msgspec.Struct, frozen=True, kw_only=True):
    """Weights of the fusion; a collection's `settings` may name its own under `fusion`.

    The defaults are tuned on 70 % of the questions of `benchmarks/retrieval`.
    """

    lexical_weight: float = 1.0
    vector_weight: float = 1.0
    rank_constant: float = 60.0
    # What a document's best passages together add to each of them: a document of which several
    # passages fit is about the question.
    document_weight: float = 0.3


DOCUMENT_PASSAGES = 3  # the best of a document that count


def fuse(
    lexical: IntArray, vector: IntArray, documents: IntArray, weights: Fusion
) -> tuple[IntArray, FloatArray]:
    """Return (passages, fused scores), best first: reciprocal rank fusion with weights.

    score(p) = sum over the legs of weight / (rank_constant + rank), Cormack et al. 2009; to which
    the document's mean over its `DOCUMENT_PASSAGES` best is added. A leg without a passage adds
    nothing for it.

    Args:
        documents: the number of each passage's document.
    """
    scores: dict[int, float] = {}
    for leg, weight in ((lexical, weights.lexical_weight), (vector, weights.vector_weight)):
        for rank, passage in enumerate(leg.tolist(), start=1):
            scores[passage] = scores.get(passage, 0.0) + weight / (weights.rank_constant + rank)
    support = _document_support(scores, documents)
    for passage in scores:
        scores[passage] += weights.document_weight * support[int(documents[passage])]
    order = sorted(scores, key=lambda passage: (-scores[passage], passage))
    return np.asarray(order, np.int64), np.asarray([scores[each] for each in order], np.float32)


def _document_support(scores: dict[int, float], documents: IntArray) -> dict[int, float]:
    best: dict[int, list[float]] = {}
    for passage, score in scores.items():
        best.setdefault(int(documents[passage]), []).append(score)
    return {
        document: sum(sorted(found)[-DOCUMENT_PASSAGES:]) / DOCUMENT_PASSAGES
        for document, found in best.items()
    }
