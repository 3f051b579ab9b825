"""The difference of two texts by words, for any length; the review page's `diff_worker.js` makes
the same.

Short pieces are compared by difflib. Long ones are divided at words that occur once in both, in
the order of both (patience diff, Bram Cohen), or at runs of words where no word does.
"""

from __future__ import annotations

import difflib
import re
from bisect import bisect_left
from collections.abc import Sequence

_WORDS = re.compile(r"\s+|[^\s]+")
_SHORT = 2000  # pieces of both texts together that difflib compares in some milliseconds
_RUN = 8  # words that are looked at together where single words repeat: two lines of code

Piece = tuple[str, str]


def word_diff(before: str, after: str) -> list[Piece]:
    """[(`same` | `removed` | `added`, text)], by words; joined without `removed` it is `after`,
    without `added` `before`.
    """
    joined: list[Piece] = []
    for kind, text in _compare(_WORDS.findall(before), _WORDS.findall(after)):
        if joined and joined[-1][0] == kind:
            joined[-1] = (kind, joined[-1][1] + text)
        else:
            joined.append((kind, text))
    return joined


def _compare(old: Sequence[str], new: Sequence[str]) -> list[Piece]:
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    same_tail = old[len(old) - tail :] if tail else []
    pieces = _pieces("same", old[:head])
    pieces += _divide(old[head : len(old) - tail], new[head : len(new) - tail])
    return pieces + _pieces("same", same_tail)


def _common(old: Sequence[str], new: Sequence[str]) -> int:
    """Count the words that both begin with."""
    count = 0
    for a, b in zip(old, new, strict=False):
        if a != b:
            break
        count += 1
    return count


def _divide(old: Sequence[str], new: Sequence[str]) -> list[Piece]:
    if not old or not new:
        return _pieces("removed", old) + _pieces("added", new)
    if len(old) + len(new) <= _SHORT:
        return _short(old, new)
    anchors = _anchors(old, new, 1) or _anchors(old, new, _RUN)
    if not anchors:
        return _pieces("removed", old) + _pieces("added", new)
    pieces: list[Piece] = []
    i = j = 0
    for a, b in anchors:
        if a >= i and b >= j:
            pieces += _compare(old[i:a], new[j:b])
            pieces.append(("same", old[a]))
            i, j = a + 1, b + 1
    return pieces + _compare(old[i:], new[j:])


def _anchors(old: Sequence[str], new: Sequence[str], run: int) -> list[tuple[int, int]]:
    """(place in `old`, in `new`) of runs that occur once in each: the longest chain in both orders.

    The chain is found by patience sorting.
    """
    in_old, in_new = _once(old, run), _once(new, run)
    pairs = [(place, in_new[words]) for words, place in in_old.items() if words in in_new]
    ends: list[int] = []  # lowest place in `new` that a chain of each length ends with
    owners: list[int] = []  # which pair that is
    before: list[int] = []
    for index, (_, place) in enumerate(pairs):
        at = bisect_left(ends, place)
        before.append(owners[at - 1] if at else -1)
        ends[at : at + 1], owners[at : at + 1] = [place], [index]
    chain, index = [], owners[-1] if owners else -1
    while index >= 0:
        chain.append(pairs[index])
        index = before[index]
    return chain[::-1]


def _once(words: Sequence[str], run: int) -> dict[tuple[str, ...], int]:
    places: dict[tuple[str, ...], int] = {}
    for place in range(len(words) - run + 1):
        key = tuple(words[place : place + run])
        places[key] = -1 if key in places else place
    return {key: place for key, place in places.items() if place >= 0}


def _short(old: Sequence[str], new: Sequence[str]) -> list[Piece]:
    pieces: list[Piece] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            pieces += _pieces("same", old[a:b])
        else:
            pieces += _pieces("removed", old[a:b]) + _pieces("added", new[c:d])
    return pieces


def _pieces(kind: str, words: Sequence[str]) -> list[Piece]:
    return [(kind, "".join(words))] if words else []
