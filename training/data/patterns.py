"""Find the patterns that questions follow: the same words around another product, place or figure.

A model that has seen "When is the Aurora delivered?" answers "When is the Comet delivered?" easily,
so a test question of a pattern that training has says little about questions in other wordings.

1. Slot words are left out: those with a digit, and those that nearly always stand in the answer too
   (what the row is about; rule 3 of `training/data/similar.py`).
2. What is left of each question is a TF-IDF vector of its words (K. Spärck Jones, "A statistical
   interpretation of term specificity", 1972; smoothed as scikit-learn does).
3. Questions are joined by average-linkage clustering of cosine distances.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from training.data.rows import Row
from training.data.similar import Shape

# Share of the questions with a word whose answers have it too. What a row is about is repeated by
# most answers; the rest is for answers that say "it".
_SLOT_SHARE = 0.7
# Cosine distance at which clusters are joined no more. At 0.6 a greeting or a closing does not make
# another pattern, and two wordings of one matter stay two (tests/training/data/test_patterns.py).
_JOINED_BELOW = 0.6
# Different questions up to which all pairs are compared: 72 MB of distances, some seconds.
_COMPARED = 3_000


class Patterns:
    """The patterns of a set of rows. Rows with the same question words have the same pattern."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._shapes = [Shape(row) for row in rows]

    def __len__(self) -> int:
        return len(set(self.of_rows))

    @cached_property
    def slots(self) -> frozenset[str]:
        """Words that say what a question is about."""
        return slot_words(self._shapes)

    @cached_property
    def _frames(self) -> list[tuple[str, ...]]:
        return [_frame(shape, self.slots) for shape in self._shapes]

    def nearest(self, count: int) -> list[float]:
        """Similarity, 0 to 1, of each row after the first `count` to the nearest of those."""
        known = list(dict.fromkeys(self._frames[:count]))
        some = self._frames[count:]
        if not known or not some:
            return [0.0] * len(some)
        return [float(value) for value in cosine_similarities(some, known).max(axis=1)]

    @cached_property
    def of_rows(self) -> list[int]:
        """The pattern of each row, numbered from 0 in the order in which they appear."""
        frames = self._frames
        different = list(dict.fromkeys(frames))
        joined = _clusters(different) if 1 < len(different) <= _COMPARED else range(len(different))
        number_of: dict[int, int] = {}
        by_frame = {
            frame: number_of.setdefault(int(cluster), len(number_of))
            for frame, cluster in zip(different, joined, strict=True)
        }
        return [by_frame[frame] for frame in frames]


def slot_words(shapes: Sequence[Shape]) -> frozenset[str]:
    """Words that say what a question is about, in small letters."""
    asked: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    for shape in {(shape.question, shape.row.answer): shape for shape in shapes}.values():
        words = shape.question_words.keys()
        asked.update(words)
        answered.update(words & shape.answer_words.keys())
    return frozenset(word for word, count in asked.items() if answered[word] >= _SLOT_SHARE * count)


def _frame(shape: Shape, slots: frozenset[str]) -> tuple[str, ...]:
    """The question's words without slots, sorted; the question itself where nothing is left."""
    kept = sorted(
        word
        for word in shape.question_words
        if word not in slots and not any(letter.isdigit() for letter in word)
    )
    return tuple(kept) or tuple(sorted(shape.question_words))


def _clusters(frames: Sequence[tuple[str, ...]]) -> NDArray[np.int32]:
    """The cluster of each frame, by average linkage of cosine distances."""
    similar = cosine_similarities(frames, frames)
    distances = np.clip(1.0 - similar, 0.0, 1.0)
    np.fill_diagonal(distances, 0.0)
    tree = linkage(squareform(distances, checks=False), method="average")
    return np.asarray(fcluster(tree, _JOINED_BELOW, criterion="distance"))


def cosine_similarities(
    some: Sequence[tuple[str, ...]], others: Sequence[tuple[str, ...]]
) -> NDArray[np.float32]:
    """Cosine of the TF-IDF vectors of each pair, [len(some), len(others)], 0 to 1.

    The document frequencies are those of `others`.
    """
    weights = _idf(others)
    columns: Mapping[str, int] = {word: number for number, word in enumerate(weights)}

    def matrix(frames: Sequence[tuple[str, ...]]) -> NDArray[np.float32]:
        found = np.zeros((len(frames), len(columns)), dtype=np.float32)
        norms = np.zeros(len(frames), dtype=np.float32)
        rarest = max(weights.values(), default=1.0)
        for number, frame in enumerate(frames):
            for word in frame:
                weight = weights.get(word, rarest)  # a word that no other text has
                norms[number] += weight**2
                if word in columns:
                    found[number, columns[word]] = weight
        return np.asarray(found / np.sqrt(np.maximum(norms, 1e-12))[:, None], dtype=np.float32)

    return np.asarray(matrix(some) @ matrix(others).T)


def _idf(frames: Sequence[tuple[str, ...]]) -> dict[str, float]:
    """Smoothed inverse document frequencies, ln((1 + n) / (1 + df)) + 1."""
    documents: dict[str, int] = defaultdict(int)
    for frame in frames:
        for word in set(frame):
            documents[word] += 1
    return {
        word: math.log((1 + len(frames)) / (1 + count)) + 1 for word, count in documents.items()
    }
