"""Rows whose answers are labels: which they are, how evenly they come, and which are probably
wrong.

A task is classification-like when most of its answers are short and few of these differ; rows of it
with a longer answer are left aside. Suspected label errors are those of confident learning (C.
Northcutt, L. Jiang, I. Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels",
2021) as cleanlab computes them, on the out-of-fold probabilities of a logistic regression on
TF-IDF.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from training.data.rows import Row
from training.optional import LABEL_SUSPECTS
from whet.lazy import load

_LONGEST_LABEL = 5  # words
_MOST_LABELS = 50  # different ones in a task
_ROWS_PER_LABEL = 10  # on average: fewer, and the answers are short texts, not labels
# What a spreadsheet or a table's library writes where there is nothing, and what people write who
# mean to come back: no labels.
STAND_INS = frozenset(
    {
        "nan",
        "null",
        "undefined",
        "todo",
        "tbd",
        "...",
        "…",
        "#n/a",
        "#ref!",
        "#value!",
        "#name?",
        "#div/0!",
        "#num!",
        "#null!",
    }
)
# Of a task's rows have short answers: one slip, or free answers without a task beside the labels,
# must not hide them all
_MOSTLY = 0.5
_LOPSIDED = 10  # the most frequent label or task is this many times as frequent as the rarest
_FEWEST_FOR_SUSPICION = 60  # rows of a task: below it a classifier knows too little to accuse
_FEWEST_OF_LABEL = 5  # rows, so that each fold has one
_MOST_FOR_SUSPICION = 20_000  # rows of a task that a classifier is trained on; of more, the first


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row with a label that the others speak against."""

    row: Row
    expected: str


def label(row: Row) -> str:
    """The answer as a label: without case, surplus space, and a full stop at its end."""
    return " ".join(row.answer.casefold().split()).rstrip(".!")


def label_tasks(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Task -> its rows with a short answer, for tasks whose answers are labels."""
    by_task: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_task[row.task].append(row)
    short = {
        task: [row for row in members if _may_be_label(row)] for task, members in by_task.items()
    }
    return {
        task: short[task]
        for task, members in by_task.items()
        if _are_labels(Counter(map(label, short[task])), len(members))
    }


def _may_be_label(row: Row) -> bool:
    if row.calls or row.is_text:
        return False
    return (
        len(label(row).split()) <= _LONGEST_LABEL and row.answer.strip().casefold() not in STAND_INS
    )


def _are_labels(counts: Counter[str], of_rows: int) -> bool:
    return 1 < len(counts) <= _MOST_LABELS and counts.total() >= max(
        _ROWS_PER_LABEL * len(counts), _MOSTLY * of_rows
    )


def counts(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Task -> label -> rows."""
    return {
        task or "(no task)": dict(Counter(map(label, members)).most_common())
        for task, members in label_tasks(rows).items()
    }


def spellings(rows: Sequence[Row]) -> list[dict[str, list[Row]]]:
    """Way of writing it -> rows, for each label of a task that is written in several ways; the most
    frequent way first.
    """
    found: list[dict[str, list[Row]]] = []
    for members in label_tasks(rows).values():
        ways: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
        for row in members:
            ways[label(row)][row.answer.strip()].append(row)
        found += [
            dict(sorted(written.items(), key=lambda way: -len(way[1])))
            for written in ways.values()
            if len(written) > 1
        ]
    return found


def imbalances(rows: Sequence[Row]) -> dict[str, tuple[str, int, str, int]]:
    """What is unevenly spread -> (most frequent, its rows, rarest, its rows)."""
    spread = {f"labels of {task}": found for task, found in counts(rows).items()}
    tasks = Counter(row.task or "(no task)" for row in rows)
    if len(tasks) > 1:
        spread["tasks"] = dict(tasks.most_common())
    found = {}
    for name, members in spread.items():
        (many, most), (few, least) = (
            max(members.items(), key=lambda item: item[1]),
            min(members.items(), key=lambda item: item[1]),
        )
        if most >= _LOPSIDED * least:
            found[name] = (many, most, few, least)
    return found


def monotonies(rows: Sequence[Row]) -> dict[str, tuple[str, int]]:
    """Task in which all answers are one -> (that answer, rows)."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        answers[row.task][label(row)] += 1
    return {
        task or "(no task)": next(iter(found.items()))
        for task, found in answers.items()
        if len(found) == 1 and found.total() >= _ROWS_PER_LABEL
    }


def suspects(rows: Sequence[Row]) -> list[Suspect]:
    """Rows whose label is probably wrong, in order of their lines."""
    found = [
        suspect
        for members in label_tasks(rows).values()
        if (classified := _classifiable(members[:_MOST_FOR_SUSPICION]))
        for suspect in load(LABEL_SUSPECTS)(classified)
    ]
    return sorted(found, key=lambda suspect: suspect.row.line)


def _classifiable(rows: Sequence[Row]) -> list[Row]:
    """Return a task's rows with frequent labels; none where a classifier would know too little."""
    counts = Counter(map(label, rows))
    frequent = {name for name, count in counts.items() if count >= _FEWEST_OF_LABEL}
    found = [row for row in rows if label(row) in frequent]
    return found if len(found) >= _FEWEST_FOR_SUSPICION and len(frequent) > 1 else []
