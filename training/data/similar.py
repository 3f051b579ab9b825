"""When two rows are the same, and when they are nearly so.

MinHash finds candidates (datasketch), an exact rule decides.

Texts are compared as words after Unicode folding, case folding and removal of punctuation. Two rows
are near when

1. the words of their questions (all turns before the answer, instructions apart) overlap by at
  least `NEAR`, and those of their answers too
   (Jaccard of multisets: shared / all; A. Broder, "On the resemblance and containment of
   documents", 1997);
2. they name the same numbers, in question and in answer;
3. no word differs between the questions and between the answers alike. Such a word is what the row
  is about: "My Aurora is loud"
   and "My Comet is loud" are two rows when the answers name Aurora and Comet.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from datasketch import MinHash

from training.data.rows import Row
from training.data.shapes import text_of
from whet.groups import Groups
from whet.store import digest_json

# One word in twenty changed: 19 shared of 21 in all. A word more or less in nine (18 of 20, 9 of
# 10) is another question.
NEAR_SHARED, NEAR_ALL = 19, 21
_PERMUTATIONS = 128
# 16 bands of 8: a pair at 19/21 is missed once in 20,000, and one at 0.5 becomes a candidate in 6
# of 100.
_BANDS, _ROWS_PER_BAND = 16, 8
_MINHASH_SEED = 1
# Members of a bucket that each new one is compared with when rows of one set are grouped. Rows from
# one template fill buckets by the thousand; comparing all of them would take time with the square.
# The nearest in the file are compared.
_COMPARED_PER_BUCKET = 64
_NOT_WORD = re.compile(r"[\W_]+")
_NUMBER = re.compile(r"\d")


def words(text: str) -> list[str]:
    """Words in lower case without punctuation; a text without a single word is one word."""
    return _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).split() or [text]


def text_key(text: str) -> str:
    """Equal for texts of the same words in the same order."""
    return " ".join(words(text))


@dataclass(eq=False)
class Shape:
    """What of a row is compared."""

    row: Row

    @cached_property
    def question_words(self) -> Counter[str]:
        turns = [
            text_of(message)
            for message in self.row.messages[:-1]
            if message["role"] not in ("system", "developer")
        ]
        return Counter(word for turn in turns for word in words(turn))

    @cached_property
    def answer_words(self) -> Counter[str]:
        return Counter(words(self.row.answer))

    @cached_property
    def numbers(self) -> frozenset[str]:
        return frozenset(
            f"{side}{word}"
            for side, found in (("q", self.question_words), ("a", self.answer_words))
            for word in found
            if _NUMBER.search(word)
        )

    @cached_property
    def question(self) -> str:
        """Equal for the same question within the same instructions, turns, documents and tools; of
        a plain text, for the same words.
        """
        before = [
            [message["role"], text_key(text_of(message))] for message in self.row.messages[:-1]
        ]
        if self.row.is_text:
            return digest_json([self.row.kind, text_key(self.row.answer)])
        return digest_json(
            [before, [text_key(passage) for passage in self.row.context], *self.row.tools]
        )

    @cached_property
    def bag(self) -> str:
        """Equal for rows of the same words in any order, question and answer apart."""
        return digest_json([sorted(self.question_words.items()), sorted(self.answer_words.items())])

    @cached_property
    def opinion(self) -> tuple[int, str]:
        """What people thought of the answer, and the one they liked less: rows that differ in it
        teach different things.
        """
        return self.row.rating, text_key(self.row.rejected) if self.row.rejected else ""

    @cached_property
    def turns(self) -> tuple[str, ...]:
        """Keys of the conversation up to and with each answer: one conversation that is cut at
        several turns shares them.
        """
        found, so_far = [], []
        for message in self.row.messages:
            so_far.append([message["role"], text_key(text_of(message))])
            if message["role"] == "assistant":
                found.append(digest_json(so_far))
        return tuple(found)


def overlap(one: Counter[str], other: Counter[str]) -> bool:
    """Whether two multisets of words overlap by at least 19/21."""
    sizes = one.total() + other.total()
    # shared / (sizes - shared) >= 19/21  <=>  40 shared >= 19 sizes; the smaller set bounds what
    # can be shared.
    if (NEAR_SHARED + NEAR_ALL) * min(one.total(), other.total()) < NEAR_SHARED * sizes:
        return False
    return (NEAR_SHARED + NEAR_ALL) * sum(
        min(count, other[word]) for word, count in one.items()
    ) >= NEAR_SHARED * sizes


def near(one: Shape, other: Shape) -> bool:
    """Whether two rows are nearly the same, by the three rules above."""
    if (
        one.numbers != other.numbers
        or not overlap(one.question_words, other.question_words)
        or not overlap(one.answer_words, other.answer_words)
    ):
        return False
    return not any(
        (this.question_words.keys() - that.question_words.keys())
        & (this.answer_words.keys() - that.answer_words.keys())
        for this, that in ((one, other), (other, one))
    )


class Buckets:
    """Candidates for `near` among many rows: rows that share a band of their MinHash."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)

    def bands(self, shapes: Sequence[Shape]) -> Iterator[list[tuple[int, bytes]]]:
        """The bands of each row.

        All MinHashes share one set of permutations, which follows from a fixed seed.
        """

        features = (
            [
                f"{side}{word}#{n}".encode()
                for side, found in _sides(shape)
                for word, count in found.items()
                for n in range(count)
            ]
            for shape in shapes
        )
        for hashed in MinHash.generator(features, num_perm=_PERMUTATIONS, seed=_MINHASH_SEED):
            values: Any = hashed.hashvalues
            yield [
                (band, values[band * _ROWS_PER_BAND : (band + 1) * _ROWS_PER_BAND].tobytes())
                for band in range(_BANDS)
            ]

    def add(self, position: int, bands: list[tuple[int, bytes]]) -> None:
        for band in bands:
            self._buckets[band].append(position)

    def candidates(self, bands: list[tuple[int, bytes]], newest: int | None = None) -> set[int]:
        """Positions added before that share a band; of each bucket at most the `newest`."""
        return {
            position
            for band in bands
            if band in self._buckets
            for position in self._buckets[band][-newest if newest else 0 :]
        }


def _sides(shape: Shape) -> tuple[tuple[str, Counter[str]], tuple[str, Counter[str]]]:
    return ("q", shape.question_words), ("a", shape.answer_words)


def clusters(rows: Sequence[Row]) -> list[int]:
    """For every row the index of the first row of its cluster of near-duplicates (transitively);
    its own when it has none before it.
    """
    shapes = [Shape(row) for row in rows]
    found = Groups(len(rows))
    first_of: dict[tuple[str, tuple[int, str]], int] = {}
    # The same words fold first, so that the search sees each text once
    for position, shape in enumerate(shapes):
        found.join(position, first_of.setdefault((shape.bag, shape.opinion), position))
    distinct = sorted(first_of.values())
    buckets = Buckets()
    for position, bands in zip(
        distinct, buckets.bands([shapes[position] for position in distinct]), strict=True
    ):
        for earlier in sorted(buckets.candidates(bands, _COMPARED_PER_BUCKET)):
            same = (
                found.first(earlier) == found.first(position)
                or shapes[earlier].opinion != shapes[position].opinion
            )
            if not same and near(shapes[earlier], shapes[position]):
                found.join(earlier, position)
        buckets.add(position, bands)
    return found.firsts()


def twins(rows: Sequence[Row], among: Sequence[Row]) -> dict[int, int]:
    """Index of a row -> index of a row of `among` that is nearly the same.

    Every candidate is compared.
    """
    others, shapes = [Shape(row) for row in among], [Shape(row) for row in rows]
    buckets = Buckets()
    by_bag: dict[str, int] = {}
    for position, (shape, bands) in enumerate(zip(others, buckets.bands(others), strict=True)):
        buckets.add(position, bands)
        by_bag.setdefault(shape.bag, position)
    found: dict[int, int] = {}
    for position, (shape, bands) in enumerate(zip(shapes, buckets.bands(shapes), strict=True)):
        twin = by_bag.get(shape.bag)
        if twin is None:
            twin = next(
                (
                    other
                    for other in sorted(buckets.candidates(bands))
                    if near(shape, others[other])
                ),
                None,
            )
        if twin is not None:
            found[position] = twin
    return found
