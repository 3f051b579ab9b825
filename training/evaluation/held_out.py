"""Describe held-out questions: which patterns they follow, which of these training has, and slices.

A score on questions that follow training patterns says how well the rows were learned, not how well
questions in other wordings will be answered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from training.data.patterns import Patterns
from training.data.rows import Row
from training.data.similar import Shape
from training.evaluation.gate import Pair
from training.store.evaluation_types import GroupMetrics, QuestionFacts, SliceCounts, TaskCounts

# Share of the held-out rows that follow training patterns from which on a warning is due.
_MOSTLY_KNOWN = 0.5
# A slice of fewer rows changes by chance; of more than half the rows it is the whole set.
_SMALLEST_SLICE, _LARGEST_SLICE = 5, 0.5
_SLICES_SHOWN = 8
# Training rows that held-out ones are compared with: the newest file of a large set is enough to
# tell whether patterns are shared, and all pairs are compared.
_COMPARED = 2_000


@dataclass(frozen=True)
class HeldOut:
    """What is known about held-out rows before they are answered. Keys are row ids."""

    patterns: Mapping[str, int] = field(default_factory=dict)
    known: frozenset[str] = frozenset()  # rows whose pattern training rows follow too
    nearest: Mapping[str, float] = field(default_factory=dict)  # similarity to training, 0 to 1
    slices: Mapping[str, frozenset[str]] = field(default_factory=dict)  # slot word -> rows

    def with_cross_validated(self, other: HeldOut) -> HeldOut:
        """This, with what folds say about the rows that they held out."""
        patterns = {row_id: -1 - number for row_id, number in self.patterns.items()}
        known = (self.known - other.patterns.keys()) | other.known
        return HeldOut(
            {**patterns, **other.patterns}, known, {**self.nearest, **other.nearest}, other.slices
        )

    def with_known(self, rows: frozenset[str]) -> HeldOut:
        """This, with rows that were trained before."""
        return replace(self, known=self.known | (rows & self.patterns.keys()))


def describe_held_out(train: Sequence[Row], rows: Sequence[Row]) -> HeldOut:
    """Find the patterns and slices of `rows`, and which patterns `train` has."""
    if not rows:
        return HeldOut()
    asked = (row for row in train if not row.is_text)
    different = list({row.prompt_digest: row for row in asked}.values())[-_COMPARED:]
    found = Patterns([*different, *rows])
    trained, numbers = set(found.of_rows[: len(different)]), found.of_rows[len(different) :]
    nearest = found.nearest(len(different))
    slices: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        shape = Shape(row)
        for word in shape.question_words.keys() & shape.answer_words.keys() & found.slots:
            slices[word].add(row.id)
    return HeldOut(
        {row.id: number for row, number in zip(rows, numbers, strict=True)},
        frozenset(row.id for row, n in zip(rows, numbers, strict=True) if n in trained),
        {row.id: round(value, 3) for row, value in zip(rows, nearest, strict=True)},
        {
            word: frozenset(ids)
            for word, ids in slices.items()
            if _SMALLEST_SLICE <= len(ids) <= _LARGEST_SLICE * len(rows)
        },
    )


def question_facts(rows: Sequence[Row], held_out: HeldOut) -> QuestionFacts:
    """`{"questions", "patterns", "known_patterns", "nearest"}` of a group of rows.

    `known_patterns` is the share of the rows whose pattern training has, `nearest` the median
    similarity to the nearest training question, both 0 to 1.
    """
    if not rows:
        return {}
    return {
        "questions": len({row.prompt_digest for row in rows}),
        "patterns": len({held_out.patterns[row.id] for row in rows}),
        "known_patterns": round(sum(row.id in held_out.known for row in rows) / len(rows), 4),
        "nearest": round(median(held_out.nearest[row.id] for row in rows), 3),
    }


def question_sentence(group: GroupMetrics) -> str:
    """Say how far the score of a group can be trusted for questions in other wordings."""
    if not group.get("questions"):
        return ""
    asked = f"{group['questions']} different questions in {group['patterns']} patterns"
    known = group["known_patterns"]
    interval = _expected(group)
    if known <= _MOSTLY_KNOWN:
        return (
            f"They are {asked}, {100 * (1 - known):.0f} % in patterns that training has"
            f" not{interval}."
        )
    return (
        f"They are {asked}, and {100 * known:.0f} % follow patterns that training has too:"
        " questions in other wordings will be answered worse than this. Hold out whole patterns"
        " (--hold-out pattern), or give rows in other wordings with --test."
    )


def _expected(group: GroupMetrics) -> str:
    low, high = group.get("candidate_low"), group.get("candidate_high")
    if low is None or high is None:
        return ""
    shares = f"{100 * low:.0f} to {100 * high:.0f} %" if high < 1 else f"{100 * low:.0f} % or more"
    return f", so {shares} is to be expected of unseen wordings"


def by_task(pairs: Mapping[str, Pair], rows: Sequence[Row]) -> dict[str, TaskCounts]:
    """`{task: {"n", "candidate", "against"}}` where the rows have more than one task."""
    found: dict[str, list[Pair]] = defaultdict(list)
    for row in rows:
        found[row.task].append(pairs[row.id])
    return {task: _counts(some) for task, some in found.items()} if len(found) > 1 else {}


def worst_slices(pairs: Mapping[str, Pair], held_out: HeldOut) -> list[SliceCounts]:
    """Slices that the candidate answers worse than the other, worst first."""
    found: list[SliceCounts] = [
        {"slice": word, **_counts([pairs[row_id] for row_id in ids if row_id in pairs])}
        for word, ids in held_out.slices.items()
    ]
    worse = [each for each in found if each["candidate"] < each["against"]]
    worse.sort(key=lambda each: (each["candidate"] - each["against"], each["slice"]))
    return worse[:_SLICES_SHOWN]


def _counts(pairs: Sequence[Pair]) -> TaskCounts:
    """Rows, and how many of them each side answers right."""
    return {
        "n": len(pairs),
        "candidate": round(sum(pair.candidate for pair in pairs), 2),
        "against": round(sum(pair.against for pair in pairs), 2),
    }
