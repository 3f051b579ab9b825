"""What of an answer stands in the passages that it was given with: word runs and numbers, by words.

A run of words that answer and passage share, and a number or identifier that both have, are marked
on both sides. That shows what an answer may have used; whether the model read it there, no overlap
can tell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

LEAST_RUN = 3  # words; shorter runs are found in any two texts of one subject
_MOST_PLACES = 20  # of one beginning in a passage that are compared: repeated texts have thousands
# Beyond so many words of one text the rest is left unmarked: nobody reads marks that far.
MOST_WORDS = 20_000
# A word with its inner punctuation (`2.5`, `max_connections`, `it's`), or a citation mark `[1]`.
_TOKEN = re.compile(r"\[\d{1,3}(?:\s*[,;]\s*\d{1,3})*\]|\w+(?:[.,:/'’-]\w+)*")
_HAS_DIGIT = re.compile(r"\d")
# Words that join others: a run of nothing else says nothing about where it comes from.
_JOINING = frozenset((
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "can", "do", "for", "from", "has",
    "have", "if", "in", "is", "it", "its", "no", "not", "of", "on", "or", "so", "that", "the",
    "their", "then", "there", "they", "this", "to", "was", "we", "were", "will", "with", "you",
    "your",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text. `passages`: numbers of the passages, from 1, that it is shared with."""

    text: str
    passages: tuple[int, ...] = ()

    @property
    def is_shared(self) -> bool:
        """Whether it is marked."""
        return bool(self.passages)


@dataclass(frozen=True, slots=True)
class Overlap:
    """The answer and its passages in pieces; the pieces of a text joined are the text."""

    answer: list[Piece] = field(default_factory=list)
    passages: list[list[Piece]] = field(default_factory=list)
    share: float | None = None  # as `overlap_share`
    shares: list[float] = field(default_factory=list)  # the same for each passage alone


class _Word(NamedTuple):
    key: str  # what is compared
    start: int
    end: int
    is_mark: bool  # a citation, which is no word of the answer


def find_overlap(answer: str, passages: Sequence[str]) -> Overlap:
    """Find what the answer shares with each passage."""
    words = _words(answer)
    marked: list[set[int]] = [set() for _ in words]
    shown: list[list[Piece]] = []
    shares: list[float] = []
    counted = [at for at, word in enumerate(words) if not word.is_mark]
    for number, passage in enumerate(passages, start=1):
        others = _words(passage)
        in_answer, in_passage = _shared(words, others)
        for at in in_answer:
            marked[at].add(number)
        both = [{number} if at in in_passage else set() for at in range(len(others))]
        shown.append(_pieces(passage, others, both))
        shares.append(len(in_answer) / len(counted) if counted else 0.0)
    share = _share(words, {at for at, numbers in enumerate(marked) if numbers}, passages)
    return Overlap(_pieces(answer, words, marked), shown, share, shares)


def overlap_share(answer: str, passages: Sequence[str]) -> float | None:
    """Return the share of the answer's words that `find_overlap` marks, 0 to 1.

    None where there are no passages, or the answer has no words.
    """
    words = _words(answer)
    marked: set[int] = set()
    for passage in passages:
        marked |= _shared(words, _words(passage))[0]
    return _share(words, marked, passages)


def _share(words: Sequence[_Word], marked: set[int], passages: Sequence[str]) -> float | None:
    counted = [at for at, word in enumerate(words) if not word.is_mark]
    if not counted or not passages:
        return None
    return sum(at in marked for at in counted) / len(counted)


def _words(text: str) -> list[_Word]:
    found: list[_Word] = []
    for match in _TOKEN.finditer(text):
        if len(found) == MOST_WORDS:
            break
        text_of = match.group()
        found.append(_Word(text_of.casefold(), *match.span(), text_of[0] == "["))
    return found


def _shared(words: Sequence[_Word], others: Sequence[_Word]) -> tuple[set[int], set[int]]:
    """Return the positions in `words` and in `others` that are shared."""
    first: set[int] = set()
    second: set[int] = set()
    for at, other_at, length in _runs(words, others):
        first.update(range(at, at + length))
        second.update(range(other_at, other_at + length))
    telling: dict[str, list[int]] = {}
    for at, word in enumerate(words):
        if _tells(word):
            telling.setdefault(word.key, []).append(at)
    for at, word in enumerate(others):
        if word.key in telling and not word.is_mark:
            second.add(at)
            first.update(telling[word.key])
    return first, second


def _runs(words: Sequence[_Word], others: Sequence[_Word]) -> list[tuple[int, int, int]]:
    """Return (position, position in `others`, length) of the longest common runs from each place."""
    own = _keys(words)
    starts: dict[tuple[str, ...], list[int]] = {key: [] for key in own}
    for at, key in enumerate(_keys(others)):
        places = starts.get(key)
        if places is not None and len(places) < _MOST_PLACES:
            places.append(at)
    found: list[tuple[int, int, int]] = []
    at = 0
    while at < len(own):
        candidates = starts[own[at]]
        best = max(
            ((_length(words, at, others, other), -other) for other in candidates), default=None
        )
        if best is None or _is_joining(words[at : at + best[0]]):
            at += 1
            continue
        found.append((at, -best[1], best[0]))
        at += best[0]
    return found


def _keys(words: Sequence[_Word]) -> list[tuple[str, ...]]:
    """Return what begins at each place: the keys of `LEAST_RUN` words."""
    keys = [word.key for word in words]
    return list(zip(*(keys[shift:] for shift in range(LEAST_RUN)), strict=False))


def _length(words: Sequence[_Word], at: int, others: Sequence[_Word], other: int) -> int:
    length = 0
    while (
        at + length < len(words)
        and other + length < len(others)
        and words[at + length].key == others[other + length].key
    ):
        length += 1
    return length


def _is_joining(words: Sequence[_Word]) -> bool:
    """Tell whether a run has fewer than two words that say something, or holds a citation."""
    told = [word for word in words if word.key not in _JOINING and not word.is_mark]
    return len(told) < 2


def _tells(word: _Word) -> bool:
    """Tell whether a word alone shows where it comes from: a number, a code, an identifier.

    A single digit does not: lists are numbered with them.
    """
    is_number = bool(_HAS_DIGIT.search(word.key)) and len(word.key) > 1
    return not word.is_mark and (is_number or "_" in word.key.strip("_"))


def _pieces(text: str, words: Sequence[_Word], marked: Sequence[set[int]]) -> list[Piece]:
    """Join neighbouring words of the same passages, with what stands between them."""
    pieces: list[Piece] = []
    at = 0
    position = 0
    while position < len(words):
        numbers = marked[position]
        if not numbers:
            position += 1
            continue
        last = position
        while last + 1 < len(words) and marked[last + 1] == numbers:
            last += 1
        if words[position].start > at:
            pieces.append(Piece(text[at : words[position].start]))
        pieces.append(Piece(text[words[position].start : words[last].end], tuple(sorted(numbers))))
        at, position = words[last].end, last + 1
    if at < len(text):
        pieces.append(Piece(text[at:]))
    return pieces
