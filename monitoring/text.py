"""Have the words changed? Offline, without a model, and for texts as short as one question.

- *Domain classifier*: a naive Bayes classifier learns on some folds to tell reference from window
  and is judged on the
  rest (mean AUC). Under "no change" labels are exchangeable between users, so relabelling whole
  users and refitting
  gives the null; folds never split a user. The p-value is read from a Student curve through that
  null, which
  resolves smaller values than counting relabellings could.
  Source: Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests".
- *Novelty*: the share of a text's words that a random half of the reference users never used,
  compared between the other
  half and the window.
- *Words*: what rose most, by the log-likelihood ratio (Dunning 1993), counted once per user, so
  that one talkative user
  makes no topic.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.stats import rankdata, t

from monitoring.statistics import Array

FOLDS = 5
RELABELLINGS = 60  # enough to place mean and spread of the null within a tenth of its spread
# Most frequent terms kept: bounds memory at 8,000 x RELABELLINGS x 8 bytes = 4 MB per fold
_VOCABULARY = 8_000
# Texts a term must occur in: rarer ones cannot carry a difference and are most of the noise
_MIN_TEXTS = 3
# Users a word must come from before it is named: a word of one person is personal data, not a topic
_MIN_USERS = 3
_MIN_WORD_SHARE = 0.01
_TEXTS_AT_ONCE = 8192  # questions and answers of two full windows
_SMOOTHING = 1.0
_WORD = re.compile(r"[^\W\d_]+|\d+")
_NO_SPACES = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff\u0e00-\u0e7f]+")


@lru_cache(maxsize=_TEXTS_AT_ONCE)
def words_of(text: str) -> tuple[str, ...]:
    """Lower-case words; numbers become `0`, since an order number is new each time; scripts without
    spaces give character pairs.

    Kept while a run looks at the same texts from several sides; `words_of.cache_clear()` ends that.
    """
    lowered = text.lower()
    found = ["0" if word[0].isdigit() else word for word in _WORD.findall(lowered)]
    if lowered.isascii():
        return tuple(found)
    words: list[str] = []
    for word in found:
        words += (
            [word[i : i + 2] for i in range(max(1, len(word) - 1))]
            if _NO_SPACES.fullmatch(word)
            else [word]
        )
    return tuple(words)


@dataclass(frozen=True, slots=True)
class Word:
    """A word whose share of texts rose."""

    word: str
    reference_share: float
    window_share: float

    @property
    def is_new(self) -> bool:
        return self.reference_share == 0


@dataclass(frozen=True)
class Separation:
    """How well the words tell the two samples apart, and which window rows look newest."""

    auc: float  # 0.5: not at all; 1: perfectly
    p_value: float
    reference_scores: Array  # one per text; higher is more unlike the reference
    window_scores: Array
    usual_score: float  # 95 % of reference texts lie below


def separate(
    reference: Sequence[str], window: Sequence[str], groups: Sequence[str], rng: np.random.Generator
) -> Separation:
    """Compare two samples of texts; `groups` names the user of each text, reference first."""
    texts = [words_of(text) for text in (*reference, *window)]
    matrix = _presence(texts)
    n, total = len(reference), len(texts)
    is_window = np.arange(total) >= n
    users, user_of = np.unique(np.asarray(groups), return_inverse=True)
    # A user present in both samples is two blocks: relabelling then keeps each sample's own repeats
    # together.
    blocks, block_of = np.unique(user_of * 2 + is_window, return_inverse=True)
    block_label = (blocks % 2).astype(bool)
    labels = np.empty((total, RELABELLINGS + 1))
    labels[:, 0] = is_window
    for column in range(1, RELABELLINGS + 1):
        labels[:, column] = rng.permutation(block_label)[block_of]
    fold_of = _folds(len(users), rng)[user_of]
    scores = np.zeros_like(labels)
    aucs = []
    for fold in range(FOLDS):
        held_out = fold_of == fold
        if not held_out.any():
            continue
        scores[held_out] = matrix[held_out] @ _weights(matrix[~held_out], labels[~held_out])
        aucs.append(_auc(scores[held_out], labels[held_out]))
    mean = np.nanmean(np.array(aucs), axis=0)
    null = mean[1:]
    spread = float(null.std(ddof=1)) * np.sqrt(1 + 1 / RELABELLINGS)
    p_value = float(t.sf((mean[0] - null.mean()) / spread, RELABELLINGS - 1)) if spread > 0 else 1.0
    return Separation(
        float(mean[0]),
        p_value,
        scores[:n, 0],
        scores[n:, 0],
        float(np.quantile(scores[:n, 0], 0.95)),
    )


def _folds(n_users: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.permutation(np.arange(n_users) % FOLDS)


def _presence(texts: Sequence[Sequence[str]]) -> csr_matrix:
    """Which terms (words and pairs of neighbouring words) each text has; frequency over both
    samples decides what is kept.
    """
    terms = [set(words) | {f"{a} {b}" for a, b in pairwise(words)} for words in texts]
    counts = Counter(term for present in terms for term in present)
    kept = {
        term: column
        for column, (term, count) in enumerate(counts.most_common(_VOCABULARY))
        if count >= _MIN_TEXTS
    }
    columns = [sorted(kept[term] for term in present if term in kept) for present in terms]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in columns])])
    indices = np.array([column for row in columns for column in row], dtype=np.int64)
    return csr_matrix(
        (np.ones(len(indices)), indices, indptr), shape=(len(texts), max(1, len(kept)))
    )


def _weights(matrix: csr_matrix, labels: Array) -> Array:
    """Log ratio of how often each term occurs in texts labelled window and reference; one column
    per labelling.
    """
    n_window = labels.sum(0)
    in_window = matrix.T @ labels
    in_reference = np.asarray(matrix.sum(0)).reshape(-1, 1) - in_window
    window = (in_window + _SMOOTHING) / (n_window + 2 * _SMOOTHING)
    reference = (in_reference + _SMOOTHING) / (labels.shape[0] - n_window + 2 * _SMOOTHING)
    return np.asarray(np.log(window / reference))


def _auc(scores: Array, labels: Array) -> Array:
    """Area under the ROC curve of each column; NaN where a column has one class only."""
    ranks = rankdata(scores, axis=0)
    positives = labels.sum(0)
    negatives = labels.shape[0] - positives
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(
            ((ranks * labels).sum(0) - positives * (positives + 1) / 2) / (positives * negatives)
        )


def unseen_shares(
    reference: Sequence[str], window: Sequence[str], groups: Sequence[str], rng: np.random.Generator
) -> tuple[Array, NDArray[np.bool_], Array]:
    """Share of unseen words in (held-out reference texts, which reference texts those are, window
    texts).

    "Unseen" means: not used by the random half of the reference's users that makes the vocabulary.
    """
    users, user_of = np.unique(np.asarray(groups[: len(reference)]), return_inverse=True)
    half = rng.permutation(len(users)) < len(users) // 2
    in_vocabulary = half[user_of]
    texts = [words_of(text) for text in (*reference, *window)]
    vocabulary = {word for index in np.flatnonzero(in_vocabulary) for word in texts[index]}
    shares = np.array(
        [
            sum(word not in vocabulary for word in words) / len(words) if words else 0.0
            for words in texts
        ]
    )
    held_out = ~in_vocabulary
    return shares[: len(reference)][held_out], held_out, shares[len(reference) :]


def rising_words(
    reference: Sequence[str], window: Sequence[str], groups: Sequence[str], limit: int = 8
) -> list[Word]:
    """The words whose share of texts rose most surely, most telling first."""
    reference_sets = [set(words_of(text)) for text in reference]
    window_sets = [set(words_of(text)) for text in window]
    before, after = (
        Counter(w for s in reference_sets for w in s),
        Counter(w for s in window_sets for w in s),
    )
    users: dict[str, set[str]] = {}
    for words, group in zip(window_sets, groups[len(reference) :], strict=True):
        for word in words:
            users.setdefault(word, set()).add(group)
    n, m = len(reference), len(window)
    ranked = []
    for word, count in after.items():
        share, usual = count / m, before[word] / n
        if (
            len(word) < 2
            or share < _MIN_WORD_SHARE
            or share <= usual
            or len(users[word]) < _MIN_USERS
        ):
            continue
        ranked.append((_likelihood_ratio(before[word], n, count, m), Word(word, usual, share)))
    ranked.sort(key=lambda item: (-item[0], item[1].word))
    # 10.8: chi-squared at p = 0.001, below it is chance
    return [word for ratio, word in ranked[:limit] if ratio > 10.8]


def _likelihood_ratio(a: int, n: int, b: int, m: int) -> float:
    """Dunning's G2 for a of n against b of m."""

    def part(count: int, size: int) -> float:
        expected = size * (a + b) / (n + m)
        rest, expected_rest = size - count, size - expected
        return (count * float(np.log(count / expected)) if count else 0.0) + (
            rest * float(np.log(rest / expected_rest)) if rest else 0.0
        )

    return 2 * (part(a, n) + part(b, m))


def newest_first(scores: Array, threshold: float) -> list[int]:
    """Indices of scores above the threshold, highest first."""
    return [int(index) for index in np.argsort(-scores, kind="stable") if scores[index] > threshold]
