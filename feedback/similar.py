"""When two questions are the same, and when they are nearly so. Plain text in, groups out; no I/O.

The same: equal after Unicode folding, case folding and removal of punctuation and surplus space.
Nearly the same: the sets of three-word sequences overlap by at least `NEAR` (Jaccard: shared /
all).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from whet.groups import Groups
from whet.store import digest_bytes

# 0.9: one changed word separates questions of fewer than 60 words. That is on purpose: in a support
# question the one word is the product, and another product has another answer. Copies with a
# changed greeting or typo still fall together.
NEAR = 0.9
_SHINGLE_WORDS = 3
_NOT_WORD = re.compile(r"[\W_]+")


def normalise(text: str) -> str:
    """Words in lower case, one space between them; digits stay, since they change answers."""
    return _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def question_key(text: str) -> str:
    """16 hexadecimal characters that equal questions share.

    Text without a single word is compared as it is.
    """
    return digest_bytes((normalise(text) or text).encode("utf-8", "surrogatepass"))[:16]


def shingles(text: str) -> frozenset[str]:
    """Sequences of three words; a shorter text is one sequence."""
    words = normalise(text).split()
    if len(words) < _SHINGLE_WORDS:
        return frozenset([" ".join(words) or text])
    return frozenset(
        " ".join(words[i : i + _SHINGLE_WORDS]) for i in range(len(words) - _SHINGLE_WORDS + 1)
    )


def near_pairs(sets: Sequence[frozenset[str]], near: float = NEAR) -> Iterator[tuple[int, int]]:
    """Index pairs (earlier, later) of sets that overlap by at least `near`, exactly.

    Prefix filter: two sets that overlap by `near` must share one of their few rarest members, so
    only those are indexed. That is exact, needs no random hashing, and stays fast on texts made
    from a few templates.
    """
    frequency = Counter(member for members in sets for member in members)
    index: dict[str, list[int]] = defaultdict(list)
    for later, members in enumerate(sets):
        rarest = sorted(members, key=lambda member: (frequency[member], member))
        prefix = rarest[: len(members) - int(near * len(members) - 1e-9)]
        for earlier in sorted({earlier for member in prefix for earlier in index[member]}):
            shared = len(members & sets[earlier])
            if shared >= near * (len(members) + len(sets[earlier]) - shared):
                yield earlier, later
        for member in prefix:
            index[member].append(later)


def groups(
    texts: Sequence[str], frames: Sequence[str] | None = None, near: float = NEAR
) -> list[int]:
    """For every text the index of the first text of its group (near-duplicates, transitively).

    `frames` (one per text) keeps apart equal questions asked within different instructions or
    documents: only texts of the same frame can be near-duplicates.
    """
    frames = frames or [""] * len(texts)
    found = Groups(len(texts))
    first_of: dict[tuple[str, str], int] = {}
    # Exact copies fold first, so that the pair search sees each text once
    for position, text in enumerate(texts):
        found.join(position, first_of.setdefault((frames[position], question_key(text)), position))
    distinct = sorted(first_of.values())
    sets = [
        frozenset(f"{frames[position]} {member}" for member in shingles(texts[position]))
        for position in distinct
    ]
    for earlier, later in near_pairs(sets, near):
        found.join(distinct[earlier], distinct[later])
    return found.firsts()
