"""Texts as vectors and clusters as words, offline and without a model.

*Random indexing* (Kanerva et al. 2000, "Random indexing of text samples for latent semantic
analysis"): every word has a fixed random direction, a text is the sum of its words' directions,
rare words weighing more, scaled to length 1. Texts with the same words are close, and a word never
seen before still points somewhere, which a space fitted on old texts could not offer. It knows
nothing of meaning: two ways to ask the same thing with other words are far apart. Better vectors
come in through the table's `embedding` column.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from monitoring.text import words_of

Vectors = NDArray[np.float32]
# Two random directions have a cosine of about 1/8: words of one text stay apart well enough
DIMENSIONS = 64
_BUCKETS = 1 << 14  # words share directions rarely below some thousand words
# Standard errors: of a thousand words that did not rise about one passes, and weighs next to
# nothing
_RISEN = 3.0
_LEAST_USERS = 3
# Of a text: what a question is about stands in them, and one pasted file must not cost seconds
_MOST_WORDS = 200


@lru_cache(maxsize=1)
def _directions() -> Vectors:
    """Always the same, so that vectors of different days can be compared."""
    drawn = np.random.default_rng(20_000).standard_normal((_BUCKETS, DIMENSIONS), dtype=np.float32)
    return np.asarray(drawn / np.sqrt(DIMENSIONS), dtype=np.float32)


@lru_cache(maxsize=200_000)
def _bucket(word: str) -> int:
    return zlib.crc32(word.encode("utf-8", "surrogatepass")) % _BUCKETS


class WordSpace:
    """Weights of words (inverse document frequency) learned from some texts, and the vectors of
    any.
    """

    def __init__(self, weights: Vectors) -> None:
        self.weights = weights

    @classmethod
    def learned(cls, texts: Sequence[str | None]) -> WordSpace:
        """The space in which words that many of `texts` hold weigh little."""
        counts = np.zeros(_BUCKETS)
        known = 0
        for text in texts:
            if text:
                known += 1
                counts[list({_bucket(word) for word in words_of(text)[:_MOST_WORDS]})] += 1
        # Words of every text keep a little
        return cls(np.log((1 + known) / (1 + counts)).astype(np.float32) + np.float32(0.1))

    @classmethod
    def of(cls, weights: Mapping[str, float]) -> WordSpace:
        """The space of some words."""
        made = np.zeros(_BUCKETS, dtype=np.float32)
        for word, weight in weights.items():
            made[_bucket(word)] = weight
        return cls(made)

    def vectors(self, texts: Sequence[str | None]) -> Vectors:
        """Shape (texts, DIMENSIONS); NaN for a text without words, or whose words weigh nothing."""
        indices: list[int] = []
        ends = [0]
        for text in texts:
            indices += {_bucket(word) for word in words_of(text)[:_MOST_WORDS]} if text else ()
            ends.append(len(indices))
        columns = np.array(indices, dtype=np.int64)
        matrix = csr_matrix(
            (self.weights[columns], columns, np.array(ends)), shape=(len(texts), _BUCKETS)
        )
        summed = np.asarray(matrix @ _directions())
        length = np.linalg.norm(summed, axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(length > 0, summed / length, np.nan), dtype=np.float32)


def risen_words(
    before: Sequence[str | None],
    before_users: Sequence[str],
    after: Sequence[str | None],
    after_users: Sequence[str],
) -> dict[str, float]:
    """Word → by how many standard errors beyond `_RISEN` the share of users who say it rose.

    Users, not texts: who asks the same all day is no topic, and a word of fewer than `_LEAST_USERS`
    is personal data. A ranking of words, not a test.
    """
    (was, n), (now, m) = _users_by_word(before, before_users), _users_by_word(after, after_users)
    found = {}
    for word, count in now.items():
        pooled = (count + was[word]) / (n + m)
        error = float(np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))) if n else 0.0
        if len(word) > 1 and count >= _LEAST_USERS and error > 0:
            rise = (count / m - was[word] / n) / error
            if rise > _RISEN:
                found[word] = rise - _RISEN
    return found


def _users_by_word(texts: Sequence[str | None], users: Sequence[str]) -> tuple[Counter[str], int]:
    """(how many users say each word, how many users there are)."""
    said = {
        (user, word)
        for text, user in zip(texts, users, strict=True)
        if text
        for word in words_of(text)[:_MOST_WORDS]
    }
    return Counter(word for _, word in said), len({user for user, _ in said})


def characteristic_words(
    clusters: Sequence[Sequence[str | None]],
    users: Sequence[Sequence[str]],
    limit: int = 6,
    among: Collection[str] | None = None,
) -> list[list[str]]:
    """For each cluster of texts its most characteristic words: class-based TF-IDF (Grootendorst
    2022, "BERTopic"). `among`: no other words.

    A word counts once per text and has to come from `_LEAST_USERS` users: a word of one person is
    personal data, not a topic.
    """
    counts = []
    for texts, owners in zip(clusters, users, strict=True):
        seen: dict[str, set[str]] = {}
        counter: Counter[str] = Counter()
        for text, owner in zip(texts, owners, strict=True):
            for word in set(words_of(text)) if text else ():
                if among is not None and word not in among:
                    continue
                counter[word] += 1
                seen.setdefault(word, set()).add(owner)
        counts.append(
            Counter(
                {
                    word: count
                    for word, count in counter.items()
                    if len(seen[word]) >= _LEAST_USERS and len(word) > 1
                }
            )
        )
    overall = Counter[str]()
    for counter in counts:
        overall.update(counter)
    average = sum(overall.values()) / max(1, len(counts))
    named = []
    for counter in counts:
        total = max(1, sum(counter.values()))
        scored = sorted(
            (
                (count / total * float(np.log1p(average / overall[word])), word)
                for word, count in counter.items()
            ),
            key=lambda item: (-item[0], item[1]),
        )
        named.append([word for _, word in scored[:limit]])
    return named
