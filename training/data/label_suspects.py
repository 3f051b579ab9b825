"""Labels that are probably wrong, by confident learning (cleanlab) on a TF-IDF classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
from cleanlab.filter import find_label_issues
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from training.data.labels import Suspect, label
from training.data.rows import Row

_FOLDS = 5
# Of the way from guessing to always right, the mean share of each label's rows that the classifier
# must get right before it may accuse anybody. Labels that do not follow from the text (a coin's, a
# star rating's) are guessed, and each wrong guess would be an accusation.
_BETTER_THAN_GUESSING = 0.5
# By which the expected label's probability must exceed the given one's: accusations should be few
# and right
_EXPECTED_LEAD = 0.5


def suspects_of_task(rows: Sequence[Row]) -> list[Suspect]:
    """Find the rows of one task whose label is probably wrong; each label has several rows."""
    names = sorted(set(map(label, rows)))
    given = numpy.array([names.index(label(row)) for row in rows])
    asked = [" ".join(str(message["content"]) for message in row.messages[:-1]) for row in rows]
    model: Any = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), max_features=50_000),
        LogisticRegression(C=10, max_iter=300, class_weight="balanced"),
    )
    chances = cross_val_predict(
        model,
        asked,
        given,
        cv=StratifiedKFold(_FOLDS, shuffle=True, random_state=0),
        method="predict_proba",
    )
    best = chances.argmax(axis=1)
    right = numpy.mean([(best[given == number] == number).mean() for number in range(len(names))])
    if right < 1 / len(names) + _BETTER_THAN_GUESSING * (1 - 1 / len(names)):
        return []
    wrong = find_label_issues(given, chances, n_jobs=1)
    lead = chances[numpy.arange(len(rows)), best] - chances[numpy.arange(len(rows)), given]
    return [
        Suspect(rows[position], names[best[position]])
        for position in numpy.flatnonzero(wrong)
        if lead[position] >= _EXPECTED_LEAD
    ]
