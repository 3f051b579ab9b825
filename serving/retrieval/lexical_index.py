"""The lexical leg: BM25 over two fields, heading and text (BM25F), as arrays in files.

score(q, p) = sum over terms t of idf(t) · f / (K1 + f), with f = HEADING_WEIGHT · tf_heading / n_h
+ tf_text / n_t and n = 1 - B + B · length / mean length; idf(t) = ln(1 + (N - n_t + 0.5) /
(n_t + 0.5)). Robertson, Zaragoza: The Probabilistic Relevance Framework (2009). Scores are
computed when the index is built, as bm25s does it: a search adds arrays.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.retrieval.stop_words import without_stop_words
from serving.retrieval.text_analysis import terms_of

K1 = 1.2
B_TEXT = 0.75
B_HEADING = 0.3  # headings differ little in length
HEADING_WEIGHT = 2.0
# A term that more passages have than this share says next to nothing and costs the most.
_COMMON_SHARE = 0.25
_COMMON_FROM = 1000  # passages; in a small collection every term is cheap

FloatArray = NDArray[np.float32]


class LexicalBuilder:
    """Collects passages and writes the index."""

    def __init__(self) -> None:
        self._vocabulary: dict[str, int] = {}
        self._terms, self._passages = array("i"), array("i")
        self._heading_tf, self._text_tf = array("H"), array("H")
        self._heading_lengths, self._text_lengths = array("i"), array("i")

    def add(self, heading: str, text: str, language: str) -> None:
        """Add the next passage."""
        languages = (language,) if language else ()
        in_heading, in_text = terms_of(heading, languages), terms_of(text, languages)
        position = len(self._text_lengths)
        self._heading_lengths.append(len(in_heading))
        self._text_lengths.append(len(in_text))
        headings, texts = Counter(in_heading), Counter(in_text)
        for term in headings.keys() | texts.keys():
            self._terms.append(self._vocabulary.setdefault(term, len(self._vocabulary)))
            self._passages.append(position)
            self._heading_tf.append(min(headings[term], 0xFFFF))
            self._text_tf.append(min(texts[term], 0xFFFF))

    def write(self, folder: Path) -> None:
        """Write the index's files into `folder`."""
        terms = np.frombuffer(self._terms, np.int32) if self._terms else np.zeros(0, np.int32)
        order = np.argsort(terms, kind="stable")
        offsets = np.zeros(len(self._vocabulary) + 1, np.int64)
        np.cumsum(np.bincount(terms, minlength=len(self._vocabulary)), out=offsets[1:])
        postings = np.array(self._passages, np.int32)[order]
        weights = self._weights(offsets, postings, order)
        np.save(folder / "lexical_offsets.npy", offsets)
        np.save(folder / "lexical_postings.npy", postings)
        np.save(folder / "lexical_weights.npy", weights)
        (folder / "lexical_terms.txt").write_text("\n".join(self._vocabulary), encoding="utf-8")

    def _weights(
        self, offsets: NDArray[np.int64], postings: NDArray[np.int32], order: NDArray[np.intp]
    ) -> FloatArray:
        frequency = HEADING_WEIGHT * _normalised(
            self._heading_tf, self._heading_lengths, postings, order, B_HEADING
        ) + _normalised(self._text_tf, self._text_lengths, postings, order, B_TEXT)
        document_frequency = np.diff(offsets)
        idf = _idf(document_frequency, len(self._text_lengths))
        weights = frequency / (K1 + frequency) * np.repeat(idf, document_frequency)
        return np.asarray(weights, np.float32)


def _normalised(
    counts: array[int],
    lengths: array[int],
    postings: NDArray[np.int32],
    order: NDArray[np.intp],
    b: float,
) -> FloatArray:
    length = np.array(lengths, np.float32)
    mean = max(float(length.mean()), 1.0) if len(length) else 1.0
    return np.array(counts, np.float32)[order] / (1 - b + b * length / mean)[postings]


def _idf(document_frequency: NDArray[np.int64], passages: int) -> FloatArray:
    found = np.log1p((passages - document_frequency + 0.5) / (document_frequency + 0.5))
    return np.asarray(found, np.float32)


class LexicalIndex:
    """The written index, mapped into memory."""

    def __init__(self, folder: Path, passages: int) -> None:
        self._passages = passages
        names = (folder / "lexical_terms.txt").read_text(encoding="utf-8")
        terms = names.split("\n") if names else []
        self._vocabulary = {term: number for number, term in enumerate(terms)}
        self._offsets = np.load(folder / "lexical_offsets.npy")
        self._postings = np.load(folder / "lexical_postings.npy", mmap_mode="r")
        self._weights = np.load(folder / "lexical_weights.npy", mmap_mode="r")

    def score(self, query: str, languages: Sequence[str]) -> FloatArray:
        """Return each passage's share, 0 to 1, of what a passage of these words alone would get."""
        scores = np.zeros(self._passages, np.float32)
        question = without_stop_words(query, languages)
        wanted = list(dict.fromkeys(terms_of(question, languages)))
        frequencies = {term: self._document_frequency(term) for term in wanted}
        total = float(_idf(np.array([*frequencies.values(), 0]), self._passages)[:-1].sum())
        for term in self._worth_adding(frequencies):
            number = self._vocabulary[term]
            chosen = slice(self._offsets[number], self._offsets[number + 1])
            scores[self._postings[chosen]] += self._weights[chosen]
        return scores / np.float32(total) if total > 0 else scores

    def _worth_adding(self, frequencies: dict[str, int]) -> list[str]:
        known = [term for term, frequency in frequencies.items() if frequency]
        limit = max(self._passages * _COMMON_SHARE, _COMMON_FROM)
        return [term for term in known if frequencies[term] <= limit] or known

    def _document_frequency(self, term: str) -> int:
        number = self._vocabulary.get(term)
        return 0 if number is None else int(self._offsets[number + 1] - self._offsets[number])
