"""Which seed rows teach what reviewers have since corrected. Pure: texts in, reasons out.

When a policy changes, the rows that taught the old policy are still in the seed, and a model
trained on both learns neither. The corrections say which rows those are. A correction is a *claim*
replaced: within an answer about a subject ("Pulsar") the words "is 12 months" became "is 24
months". A seed row about the same subject that still makes the old claim is outdated, unless
somebody who reviewed that subject let the claim stand.

The rule, for a subject word `s` and an old claim `c` (the replaced words with one word on either
side):

    outdated(s, c)  iff  replaced(s, c) >= MIN_SUPPORT + min(MAX_DOUBT, confirmed before)
                    and  replaced(s, c) >= MIN_SHARE * reviewed(s)
                    and  confirmed(s, c) == 0

where `replaced` counts corrections about `s` that replaced `c`, and, among the reviewed rows about
`s` since the first of those corrections, `reviewed` counts all and `confirmed` those whose final
answer contains `c`. What was confirmed before the first correction does not count against it, since
the policy may have changed in between, also more than once; but it asks for more evidence, one
correction for each, up to MAX_DOUBT. A word is a subject when it stands in both the question and
the final answer, is no number, and is rare among the seed rows: it tells rows apart. Of several
subjects with one claim, those whose corrections are all among another's are dropped: the other
explains them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

MIN_SUPPORT = 2  # one correction may be one reviewer's slip
MAX_DOUBT = 3  # five corrections in a row outweigh any number of earlier confirmations
MIN_SHARE = 0.5  # a claim that most reviews of the subject left alone is not what changed about it
# A word in more than a third of the seed rows says nothing about which row is meant
MAX_RARITY = 0.34
_WORD = re.compile(r"[^\W_]+(?:[-'][^\W_]+)*")
# Stands before the first and after the last word, so that every claim has two neighbours
_EDGE = "\0"


@dataclass(frozen=True, slots=True)
class Reviewed:
    """One reviewed row: what was asked, what the model said (None where it was approved as it was),
    what is right.
    """

    id: str
    question: str
    rejected: str | None
    answer: str
    at: int  # when it was reviewed


@dataclass(frozen=True, slots=True)
class Outdated:
    """A claim about a subject that people replaced, with the corrections that say so."""

    subject: str
    claim: tuple[str, ...]
    corrections: tuple[str, ...]
    since: int  # when the first of them was made

    @property
    def why(self) -> str:
        words = " ".join(word for word in self.claim if word != _EDGE)
        return (
            f"says “{words}” about “{self.subject}”, which {len(self.corrections)} corrections"
            " replaced"
        )


def words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def outdated_claims(
    seed: Sequence[tuple[str, str]], reviewed: Sequence[Reviewed]
) -> list[Outdated]:
    """Claims that the corrections in `reviewed` made outdated.

    `seed` is (question, answer) of every seed row.
    """
    frequency = Counter(
        word for question, answer in seed for word in {*words(question), *words(answer)}
    )
    rare = {
        word
        for word, count in frequency.items()
        if count <= MAX_RARITY * len(seed) and not word.isdigit()
    }
    about: dict[str, list[Reviewed]] = defaultdict(list)
    for row in reviewed:
        for subject in set(words(row.question)) & set(words(row.answer)) & rare:
            about[subject].append(row)
    found = []
    for subject, rows in sorted(about.items()):
        replaced: dict[tuple[str, ...], list[Reviewed]] = defaultdict(list)
        for row in rows:
            for claim in {*_replaced(row)}:
                replaced[claim].append(row)
        for claim, corrections in sorted(replaced.items()):
            since = min(row.at for row in corrections)
            later = [row for row in rows if row.at >= since]
            confirmed = [row.at >= since for row in rows if _contains(_framed(row.answer), claim)]
            needed = max(MIN_SUPPORT + min(MAX_DOUBT, len(confirmed)), MIN_SHARE * len(later))
            if not any(confirmed) and len(corrections) >= needed:
                found.append(
                    Outdated(subject, claim, tuple(sorted(row.id for row in corrections)), since)
                )
    return [one for one in found if not any(_explains(other, one) for other in found)]


def _explains(other: Outdated, one: Outdated) -> bool:
    return other.claim == one.claim and set(other.corrections) > set(one.corrections)


def judge(question: str, answer: str, claims: Sequence[Outdated]) -> Outdated | None:
    """The first claim that makes this row outdated, or None."""
    mentioned, framed = {*words(question), *words(answer)}, _framed(answer)
    return next(
        (
            claim
            for claim in claims
            if claim.subject in mentioned and _contains(framed, claim.claim)
        ),
        None,
    )


def _framed(text: str) -> list[str]:
    return [_EDGE, *words(text), _EDGE]


def _replaced(row: Reviewed) -> Iterator[tuple[str, ...]]:
    """What the correction took out of the answer, each with its neighbours.

    Pure insertions replace nothing.
    """
    if row.rejected is None:
        return
    before, after = _framed(row.rejected), _framed(row.answer)
    for kind, start, end, _, _ in SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes():
        if kind in ("replace", "delete"):
            yield tuple(before[max(0, start - 1) : end + 1])


def _contains(haystack: Sequence[str], needle: Sequence[str]) -> bool:
    first, size = needle[0], len(needle)
    return any(
        haystack[i] == first and tuple(haystack[i : i + size]) == tuple(needle)
        for i in range(len(haystack) - size + 1)
    )
