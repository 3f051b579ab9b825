"""Rows whose answers are labels: which they are, how evenly they come, and which are probably wrong.

A task is classification-like when few different short answers make up nearly all of its rows. Suspected label errors are those of
confident learning (C. Northcutt, L. Jiang, I. Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021) as cleanlab
computes them, on the out-of-fold probabilities of a logistic regression on TF-IDF.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.rows import Row

_LONGEST_LABEL = 5  # words
_MOST_LABELS = 50  # different ones in a task
_ROWS_PER_LABEL = 10  # on average: fewer, and the answers are short texts, not labels
_LOPSIDED = 10  # the most frequent label or task is this many times as frequent as the rarest
_FOLDS = 5
_FEWEST_FOR_SUSPICION = 60  # rows of a task: below it a classifier knows too little to accuse
_FEWEST_OF_LABEL = _FOLDS  # rows, so that each fold has one
_MOST_FOR_SUSPICION = 20_000  # rows of a task that a classifier is trained on; of more, the first
_EXPECTED_LEAD = 0.5  # by which the expected label's probability must exceed the given one's: accusations should be few and right


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row with a label that the others speak against."""

    row: Row
    expected: str


def label(row: Row) -> str:
    return " ".join(row.answer.casefold().split())


def label_tasks(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Task -> its rows, for tasks whose answers are labels."""
    by_task: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_task[row.task].append(row)
    return {task: members for task, members in by_task.items() if _are_labels(Counter(map(label, members)))}


def _are_labels(counts: Counter[str]) -> bool:
    short = all(len(text.split()) <= _LONGEST_LABEL for text in counts)
    return short and 1 < len(counts) <= _MOST_LABELS and counts.total() >= _ROWS_PER_LABEL * len(counts)


def counts(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Task -> label -> rows."""
    return {task or "(no task)": dict(Counter(map(label, members)).most_common()) for task, members in label_tasks(rows).items()}


def imbalances(rows: Sequence[Row]) -> dict[str, tuple[str, int, str, int]]:
    """What is unevenly spread -> (most frequent, its rows, rarest, its rows)."""
    spread = {f"labels of {task}": found for task, found in counts(rows).items()}
    tasks = Counter(row.task or "(no task)" for row in rows)
    if len(tasks) > 1:
        spread["tasks"] = dict(tasks.most_common())
    found = {}
    for name, members in spread.items():
        (many, most), (few, least) = max(members.items(), key=lambda item: item[1]), min(members.items(), key=lambda item: item[1])
        if most >= _LOPSIDED * least:
            found[name] = (many, most, few, least)
    return found


def suspects(rows: Sequence[Row]) -> list[Suspect]:
    """Rows whose label is probably wrong, in order of their lines."""
    found = [suspect for members in label_tasks(rows).values() for suspect in _suspects(members[:_MOST_FOR_SUSPICION])]
    return sorted(found, key=lambda suspect: suspect.row.line)


def _suspects(rows: Sequence[Row]) -> list[Suspect]:
    frequent = {name for name, count in Counter(map(label, rows)).items() if count >= _FEWEST_OF_LABEL}
    rows = [row for row in rows if label(row) in frequent]
    if len(rows) < _FEWEST_FOR_SUSPICION or len(frequent) < 2:
        return []
    import numpy
    from cleanlab.filter import find_label_issues
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    names = sorted(frequent)
    given = numpy.array([names.index(label(row)) for row in rows])
    asked = [" ".join(str(message["content"]) for message in row.messages[:-1]) for row in rows]
    model: Any = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), max_features=50_000), LogisticRegression(C=10, max_iter=300, class_weight="balanced")
    )
    chances = cross_val_predict(model, asked, given, cv=StratifiedKFold(_FOLDS, shuffle=True, random_state=0), method="predict_proba")
    wrong = find_label_issues(given, chances, n_jobs=1)
    best = chances.argmax(axis=1)
    lead = chances[numpy.arange(len(rows)), best] - chances[numpy.arange(len(rows)), given]
    return [Suspect(rows[position], names[best[position]]) for position in numpy.flatnonzero(wrong) if lead[position] >= _EXPECTED_LEAD]
