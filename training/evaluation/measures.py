"""Measures of answers against their references, by what the rows are, each with a paired interval.

Pure functions of text and numbers.

Row-wise measures (right, exact, accuracy, chrF, ROUGE-L, fields, …) are means over rows: Agresti
and Min's interval (the gate's) for right-or-wrong values, Student's for others. Corpus measures
(BLEU, macro precision, recall and F1, perplexity) are no means of rows: their standard error is the
jackknife's (Efron and Tibshirani 1993, chapter 11), each row left out once, of both sides. All take
Student's quantile: percentiles of a bootstrap, which it replaces, told 8 to 12 of a hundred equal
versions apart at 10 rows, where 5 were promised.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from training.data.rows import Row
from training.data.scoring import normal
from training.evaluation.answers import Answer, Side
from training.evaluation.intervals import _student, compared, paired_means
from training.evaluation.json_answers import fields_right, parsed
from training.optional import ROUGE
from training.store.evaluation_types import Comparison, Measure
from whet.lazy import load

# Rows are labels to choose from, not texts to write, when a few short answers cover them all, each
# often.
_MOST_LABELS, _ROWS_PER_LABEL, _LABEL_WORDS = 20, 4, 8
_WORD = re.compile(r"\w+")

Counts = NDArray[numpy.int64]  # one line per row
Numbers = TypeVar("Numbers", NDArray[numpy.int64], NDArray[numpy.float64])


def measure_rows(rows: Sequence[Row], sides: Mapping[str, Side]) -> list[Measure]:
    """Every measure that fits the rows.

    The first side is the candidate; it is compared with each other one.

    Each: `{"name", "n", "better": "higher" | "lower" | "", "values": {side: number}, "against": {side: {"difference", "low", "high", "differ", "verdict"}}}`;
    differences are candidate less other, with a 95 % interval; `differ` is the number of rows on
    which the two differ. Rows that a side did not answer are left out for all.
    """
    rows = [row for row in rows if all(row.id in side.answers for side in sides.values())]
    if not rows:
        return []
    found = [
        _row_wise(name, better, some, sides, score)
        for name, better, some, score in _row_measures(rows)
    ]
    words = [row for row in rows if not row.calls]
    corpus = [*_bleu(words, sides), *_labels(words, sides)] if words else []
    return [*found, *corpus, *perplexity(rows, sides)]


# --- means over rows ------------------------------------------------------------------------------------------------

_Score = Callable[[Row, Answer], float]


def _row_measures(rows: list[Row]) -> list[tuple[str, str, list[Row], _Score]]:
    rouge, chrf = load(ROUGE)(["rougeL"], tokenizer=_Words()), CHRF()
    words, calls = [row for row in rows if not row.calls], [row for row in rows if row.calls]
    objects = [row for row in words if isinstance(parsed(row.answer), dict | list)]
    found: list[tuple[str, str, list[Row], _Score]] = [
        ("right", "higher", rows, lambda row, answer: answer.score.correct)
    ]
    if words:
        found += [
            (
                "exact match",
                "higher",
                words,
                lambda row, answer: float(normal(answer.text) == normal(row.answer)),
            ),
            ("word overlap", "higher", words, lambda row, answer: answer.score.f1),
            (
                "chrF",
                "higher",
                words,
                lambda row, answer: chrf.sentence_score(answer.text, [row.answer]).score / 100,
            ),
            (
                "ROUGE-L",
                "higher",
                words,
                lambda row, answer: rouge.score(row.answer, answer.text)["rougeL"].fmeasure,
            ),
        ]
    if calls:
        found += [
            ("calls right", "higher", calls, lambda row, answer: answer.score.correct),
            ("names and arguments", "higher", calls, lambda row, answer: answer.score.f1),
        ]
    found += [
        ("stopped by itself", "higher", rows, lambda row, answer: float(answer.stopped)),
        ("tokens", "", rows, lambda row, answer: float(answer.tokens)),
    ]
    if objects:
        found += [
            (
                "valid JSON",
                "higher",
                objects,
                lambda row, answer: float(parsed(answer.text) is not None),
            ),
            (
                "fields right",
                "higher",
                objects,
                lambda row, answer: fields_right(row.answer, answer.text),
            ),
        ]
    return found


class _Words:
    """rouge-score's own tokenizer drops every letter that is not a to z; this one keeps words of
    all scripts.
    """

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.casefold())


def _row_wise(
    name: str, better: str, rows: list[Row], sides: Mapping[str, Side], score: _Score
) -> Measure:
    return paired_means(
        name,
        better,
        {
            side: [score(row, found.answers[row.id]) for row in rows]
            for side, found in sides.items()
        },
    )


# --- of the corpus --------------------------------------------------------------------------------------------------


def _corpus(
    names: Sequence[str],
    better: str,
    numbers: Mapping[str, Numbers],
    measure: Callable[[Numbers], Sequence[float]],
) -> list[Measure]:
    """Corpus measures that are taken together, one per name.

    `numbers`: side → what they are made of, one line per row; `measure` takes some of the lines.
    """

    ours, *others = numbers
    count = len(numbers[ours])
    values = {side: numpy.array(measure(lines)) for side, lines in numbers.items()}
    # Each row left out once; of a single row nothing is left.
    without = {
        side: numpy.array(
            [measure(numpy.delete(lines, row, 0)) for row in range(count) if count > 1]
        )
        for side, lines in numbers.items()
    }
    against: dict[str, list[Comparison]] = {}
    for other in others:
        differ = int((numbers[ours] != numbers[other]).any(1).sum())
        difference, each = values[ours] - values[other], without[ours] - without[other]
        # The jackknife's variance is (n - 1) times this one; n times, because rows weigh unequally
        # and a few heavy ones are fewer rows than they seem.
        reach = (
            _student(count) * numpy.sqrt(count * each.var(0))
            if count > 1
            else numpy.zeros_like(difference)
        )
        bounds = zip(
            difference.tolist(),
            (difference - reach).tolist(),
            (difference + reach).tolist(),
            strict=True,
        )
        against[other] = [compared(count, differ, *some, better) for some in bounds]
    return [
        {
            "name": name,
            "n": count,
            "better": better,
            "values": {side: round(float(value[which]), 4) for side, value in values.items()},
            "against": {other: found[which] for other, found in against.items()},
        }
        for which, name in enumerate(names)
    ]


def _bleu(rows: list[Row], sides: Mapping[str, Side]) -> list[Measure]:
    """Corpus BLEU (sacrebleu's defaults, 0 to 1), from the n-gram counts of each row.

    None where a side never writes four words in a row: BLEU is then 0 whatever it writes, and two
    such sides would seem equal.
    """

    scorer = BLEU(effective_order=True)

    def of(side: Side) -> Counts:
        each = [scorer.sentence_score(side.answers[row.id].text, [row.answer]) for row in rows]
        return numpy.array([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in each])

    def measure(lines: Counts) -> Sequence[float]:
        total = lines.sum(0).tolist()
        return (
            float(
                BLEU.compute_bleu(
                    total[:4], total[4:8], total[8], total[9], smooth_method="exp"
                ).score
            )
            / 100,
        )

    numbers = {name: of(side) for name, side in sides.items()}
    return (
        _corpus(("BLEU",), "higher", numbers, measure)
        if all(lines[:, 7].any() for lines in numbers.values())
        else []
    )


def _labels(rows: list[Row], sides: Mapping[str, Side]) -> list[Measure]:
    """Accuracy and macro precision, recall and F1 for rows whose answers are few and short; none
    for other rows.
    """

    labels = sorted({normal(row.answer) for row in rows})
    if not (
        2 <= len(labels) <= _MOST_LABELS
        and len(rows) >= _ROWS_PER_LABEL * len(labels)
        and max(len(label.split()) for label in labels) <= _LABEL_WORDS
    ):
        return []
    number = {label: at for at, label in enumerate(labels)}

    def of(side: Side) -> Counts:
        return numpy.array(
            [
                (
                    number[normal(row.answer)],
                    number.get(normal(side.answers[row.id].text), len(labels)),
                )
                for row in rows
            ]
        )

    numbers = {name: of(side) for name, side in sides.items()}
    accuracy = paired_means(
        "accuracy",
        "higher",
        {
            name: (lines[:, 0] == lines[:, 1]).astype(float).tolist()
            for name, lines in numbers.items()
        },
    )
    names = ("macro precision", "macro recall", "macro F1")
    return [
        accuracy,
        *_corpus(
            names, "higher", numbers, lambda lines: macro(lines[:, 0], lines[:, 1], len(labels))
        ),
    ]


def macro(truth: Counts, said: Counts, labels: int) -> tuple[float, float, float]:
    """(macro precision, recall, F1) over the labels that occur; label number `labels` stands for
    any other answer.

    Int [n] each. A label that is never said has precision 0, as in scikit-learn with
    zero_division=0.
    """

    table = numpy.zeros((labels, labels + 1))
    numpy.add.at(table, (truth, said), 1)
    hits, expected, found = table.diagonal(), table.sum(1), table[:, :labels].sum(0)
    present = expected > 0
    precision, recall = hits / numpy.maximum(found, 1), hits / numpy.maximum(expected, 1)
    f1 = 2 * hits / numpy.maximum(expected + found, 1)
    return (
        float(precision[present].mean()),
        float(recall[present].mean()),
        float(f1[present].mean()),
    )


def perplexity(
    rows: Sequence[Row], sides: Mapping[str, Side], name: str = "perplexity of the reference"
) -> list[Measure]:
    """exp of the mean cost of a reference token; compared in nats per token, where differences add
    up. Of the rows whose cost every side knows, none without any.
    """

    known = [row for row in rows if all(row.id in side.nats for side in sides.values())]
    if not known:
        return []
    numbers = {
        side: numpy.array(
            [(some.nats[row.id].nats, some.nats[row.id].tokens) for row in known], dtype=float
        )
        for side, some in sides.items()
    }
    (found,) = _corpus(
        (name,),
        "lower",
        numbers,
        lambda lines: (float(lines[:, 0].sum() / max(lines[:, 1].sum(), 1)),),
    )
    # A loss of 20 nats is worse than guessing in any vocabulary; beyond it only the number would
    # grow.
    found["values"] = {
        side: round(math.exp(min(value, 20.0)), 3) for side, value in found["values"].items()
    }
    return [found | {"difference_in": "nats per token"}]
