"""The lexical leg: BM25 of bm25s over terms of our own analysis, as arrays in files.

score(q, p) = sum over terms t of idf(t) · tf / (tf + K1 · (1 - B + B · length / mean length)), with
idf(t) = ln(1 + (N - n_t + 0.5) / (n_t + 0.5)). Robertson, Zaragoza: The Probabilistic Relevance
Framework (2009). A word of the headings counts as `HEADING_WEIGHT` words of the text. bm25s
computes the scores when the index is built; a search adds arrays.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

import bm25s
import numpy as np
from numpy.typing import NDArray

from serving.retrieval.stop_words import without_stop_words
from serving.retrieval.text_analysis import terms_of

K1 = 1.2
B = 0.75
HEADING_WEIGHT = 3  # of 1, 2 and 3 the best on the questions for tuning (benchmarks/retrieval)
# A term that more passages have than this share says next to nothing and costs the most.
_COMMON_SHARE = 0.25
_COMMON_FROM = 1000  # passages; in a small collection every term is cheap
_FOLDER = "lexical"

FloatArray = NDArray[np.float32]


class LexicalBuilder:
    """Collects passages and writes the index."""

    def __init__(self) -> None:
        self._vocabulary: dict[str, int] = {}
        self._passages: list[array[int]] = []

    def add(self, heading: str, text: str, language: str) -> None:
        """Add the next passage."""
        languages = (language,) if language else ()
        terms = terms_of(heading, languages) * HEADING_WEIGHT + terms_of(text, languages)
        known = self._vocabulary
        self._passages.append(array("i", [known.setdefault(term, len(known)) for term in terms]))

    def write(self, folder: Path) -> None:
        """Write the index's files into `folder`; none when no passage has a term."""
        if not self._vocabulary:
            return
        index = bm25s.BM25(k1=K1, b=B, method="lucene", backend="numpy")
        index.index((self._passages, self._vocabulary), show_progress=False)
        index.save(folder / _FOLDER, show_progress=False)


class LexicalIndex:
    """The written index, mapped into memory."""

    def __init__(self, folder: Path, passages: int) -> None:
        self._passages = passages
        self._index: bm25s.BM25 | None = None
        self._vocabulary: dict[str, int] = {}
        self._starts = np.zeros(1, np.int64)
        if (folder / _FOLDER).is_dir():
            self._index = bm25s.BM25.load(folder / _FOLDER, mmap=True)
            self._vocabulary = self._index.vocab_dict
            self._starts = np.array(self._index.scores["indptr"])

    def score(self, query: str, languages: Sequence[str]) -> FloatArray:
        """Return each passage's share, 0 to 1, of what a passage of these words alone would get."""
        question = without_stop_words(query, languages)
        wanted = list(dict.fromkeys(terms_of(question, languages)))
        frequencies = {term: self._document_frequency(term) for term in wanted}
        total = _idf(np.array([*frequencies.values()]), self._passages).sum()
        terms = self._worth_adding(frequencies)
        if self._index is None or not terms:
            return np.zeros(self._passages, np.float32)
        numbers = [self._vocabulary[term] for term in terms]
        scores = self._index.get_scores_from_ids(numbers) / np.float32(total)
        return np.asarray(scores, np.float32)

    def _worth_adding(self, frequencies: dict[str, int]) -> list[str]:
        known = [term for term, frequency in frequencies.items() if frequency]
        limit = max(self._passages * _COMMON_SHARE, _COMMON_FROM)
        return [term for term in known if frequencies[term] <= limit] or known

    def _document_frequency(self, term: str) -> int:
        number = self._vocabulary.get(term)
        return 0 if number is None else int(self._starts[number + 1] - self._starts[number])


def _idf(document_frequency: NDArray[np.int64], passages: int) -> FloatArray:
    found = np.log1p((passages - document_frequency + 0.5) / (document_frequency + 0.5))
    return np.asarray(found, np.float32)
