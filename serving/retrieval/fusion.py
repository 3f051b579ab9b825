"""Merges the two rankings of a search into one."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


class Fusion(msgspec.Struct, frozen=True, kw_only=True):
    """Weights of the fusion; a collection's `settings` may name its own under `fusion`.

    The defaults are tuned on the questions of `benchmarks/retrieval` that are marked so.
    """

    lexical_weight: float = 0.5
    vector_weight: float = 1.0
    rank_constant: float = 60.0
    # What a document's best passages together add to each of them: a document of which several
    # passages fit is about the question.
    document_weight: float = 0.6


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
    legs = ((lexical, weights.lexical_weight), (vector, weights.vector_weight))
    ranked = [weight / (weights.rank_constant + 1 + np.arange(len(leg))) for leg, weight in legs]
    passages, found = np.unique(np.concatenate([lexical, vector]), return_inverse=True)
    scores: NDArray[np.float64] = np.bincount(found, np.concatenate(ranked)).astype(np.float64)
    scores = scores + weights.document_weight * _document_support(scores, documents[passages])
    order = np.lexsort((passages, -scores))
    return passages[order], scores[order].astype(np.float32)


def _document_support(scores: NDArray[np.float64], documents: IntArray) -> NDArray[np.float64]:
    """Return for each passage the sum of its document's best over their number."""
    order = np.lexsort((-scores, documents))
    names, starts, number = np.unique(documents[order], return_index=True, return_inverse=True)
    place = np.arange(len(order)) - starts[number]
    counted = np.where(place < DOCUMENT_PASSAGES, scores[order], 0.0)
    totals = np.bincount(number, counted, minlength=len(names)) / DOCUMENT_PASSAGES
    support = np.empty(len(scores))
    support[order] = totals[number]
    return support
