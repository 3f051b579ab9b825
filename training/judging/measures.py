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

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist, fmean, stdev
from typing import Any

from training.evaluate import Answer
from training.gate import interval
from training.rows import Row
from training.scoring import normal

CONFIDENCE = 0.975  # of each bound: the two make a 95 % interval
MIN_ROWS = 10  # fewer pairs say nothing, as in the gate
# rows: below it a two-sided sign test cannot reach 5 %, even where all of them point the same way
MIN_DIFFERING = 6
NEGLIGIBLE = "no practical difference"
# Of a share (a twentieth of a point), of a perplexity or a length: shown as 0.000
_NOTICEABLE = 0.0005
BETTER, WORSE, SAME, UNKNOWN = "better", "worse", "the same", "not enough data to tell"
# Rows are labels to choose from, not texts to write, when a few short answers cover them all, each
# often.
_MOST_LABELS, _ROWS_PER_LABEL, _LABEL_WORDS = 20, 4, 8
_WORD = re.compile(r"\w+")
# Levels of JSON in an answer; what is deeper is no data, and a recursive reader may fail on it
_DEEPEST = 100


@dataclass(frozen=True, slots=True)
class NllSum:
    """What a reference answer costs a model: negative log-likelihood of its tokens, end-of-turn
    token included.
    """

    nats: float
    tokens: int


@dataclass(frozen=True)
class Side:
    """What one model did with the rows."""

    answers: Mapping[str, Answer]  # row id → answer
    # Row id → cost of the reference; may be empty
    nats: Mapping[str, NllSum] = field(default_factory=dict)


def measure_rows(rows: Sequence[Row], sides: Mapping[str, Side]) -> list[dict[str, Any]]:
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


def verdict(count: int, differ: int, low: float, high: float, better: str) -> str:
    """In words.

    `differ`: rows on which the two differ. `better`: which direction is good; empty for measures
    where neither is.

    Equal differences make an interval of no width. Where there are enough of them they are a
    verdict all the same: ten rows that are all better by 0.01 are no chance, says a sign test (p =
    0.002).
    """
    if count < MIN_ROWS:
        return UNKNOWN
    if differ == 0:
        return SAME
    if differ < MIN_DIFFERING or low <= 0 <= high:
        return UNKNOWN
    if not better:
        return "higher" if low > 0 else "lower"
    return BETTER if (low > 0) == (better == "higher") else WORSE


def compared(
    count: int, differ: int, difference: float, low: float, high: float, better: str
) -> dict[str, Any]:
    """A difference as it is stored. One that nobody would notice is no verdict, however certain."""
    said = verdict(count, differ, low, high, better)
    if said not in (SAME, UNKNOWN) and abs(difference) < _NOTICEABLE:
        said = NEGLIGIBLE
    return {
        "difference": round(difference, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "differ": differ,
        "verdict": said,
    }


def paired_interval(differences: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of paired differences; (0, 0) where nothing differs."""
    if not any(differences):
        return 0.0, 0.0
    count = len(differences)
    if all(value in (-1.0, 0.0, 1.0) for value in differences):
        # The gate asks for a confidence and takes the normal quantile; this one leads it to
        # Student's.
        return interval([float(value) for value in differences], NormalDist().cdf(_student(count)))
    mean, error = fmean(differences), stdev(differences) / math.sqrt(count) if count > 1 else 0.0
    return mean - _student(count) * error, mean + _student(count) * error


def _student(count: int) -> float:
    """The quantile for so many rows; two have one that no normal quantile can express, and no
    verdict, so they get that of three.
    """
    from scipy.stats import t

    return float(t.ppf(CONFIDENCE, max(count - 1, 2)))


# --- means over rows ------------------------------------------------------------------------------------------------

_Score = Callable[[Row, Answer], float]


def _row_measures(rows: list[Row]) -> list[tuple[str, str, list[Row], _Score]]:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.chrf import CHRF

    rouge, chrf = RougeScorer(["rougeL"], tokenizer=_Words()), CHRF()
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
) -> dict[str, Any]:
    return paired_means(
        name,
        better,
        {
            side: [score(row, found.answers[row.id]) for row in rows]
            for side, found in sides.items()
        },
    )


def paired_means(name: str, better: str, values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """A measure that is a mean over rows, from each side's values in one order of rows; the first
    side is compared with the others.
    """
    ours, *others = values
    count = len(values[ours])
    against = {}
    for other in others:
        differences = [a - b for a, b in zip(values[ours], values[other], strict=True)]
        against[other] = compared(
            count,
            sum(map(bool, differences)),
            sum(differences) / max(count, 1),
            *paired_interval(differences),
            better,
        )
    return {
        "name": name,
        "n": count,
        "better": better,
        "values": {side: round(sum(some) / max(count, 1), 4) for side, some in values.items()},
        "against": against,
    }


def parsed(text: str) -> Any:
    """The value of a text that is strict JSON as a whole; None for anything else (and for `null`,
    which says nothing).

    A name that an object has twice is no JSON here: readers disagree on which one counts. Neither
    is what is nested too deeply.
    """
    try:
        value = json.loads(text, parse_constant=_no_number, object_pairs_hook=_named_once)
    except (ValueError, RecursionError):
        return None
    return None if _too_deep(value) else value


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice in one object")
    return found


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            item
            for one in level
            if isinstance(one, dict | list)
            for item in (one.values() if isinstance(one, dict) else one)
        ]
    return any(isinstance(one, dict | list) for one in level)


def fields_right(reference: str, answer: str) -> float:
    """Share of the reference's fields, nested ones by their path, that the answer has with the same
    value; texts without case and surplus space.
    """
    expected, found = leaves(parsed(reference)), leaves(parsed(answer))
    return (
        sum(found.get(path, _MISSING) == value for path, value in expected.items()) / len(expected)
        if expected
        else float(found == expected)
    )


_MISSING = object()


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> dict[tuple[str | int, ...], Any]:
    """Path → scalar, `{"a": [1, {"b": 2}]}` → `{("a", 0): 1, ("a", 1, "b"): 2}`.

    True and 1 stay different.
    """
    if isinstance(value, dict):
        return {
            at: leaf
            for name, item in value.items()
            for at, leaf in leaves(item, (*path, name)).items()
        }
    if isinstance(value, list):
        return {
            at: leaf
            for number, item in enumerate(value)
            for at, leaf in leaves(item, (*path, number)).items()
        }
    return {path: (type(value) is bool, normal(value) if isinstance(value, str) else value)}


# --- of the corpus --------------------------------------------------------------------------------------------------


def _corpus(
    names: Sequence[str],
    better: str,
    numbers: Mapping[str, Any],
    measure: Callable[[Any], Sequence[float]],
) -> list[dict[str, Any]]:
    """Corpus measures that are taken together, one per name.

    `numbers`: side → what they are made of, one line per row; `measure` takes some of the lines.
    """
    import numpy

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
    against: dict[str, list[dict[str, Any]]] = {}
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


def _bleu(rows: list[Row], sides: Mapping[str, Side]) -> list[dict[str, Any]]:
    """Corpus BLEU (sacrebleu's defaults, 0 to 1), from the n-gram counts of each row.

    None where a side never writes four words in a row: BLEU is then 0 whatever it writes, and two
    such sides would seem equal.
    """
    import numpy
    from sacrebleu.metrics.bleu import BLEU

    scorer = BLEU(effective_order=True)

    def of(side: Side) -> Any:
        each = [scorer.sentence_score(side.answers[row.id].text, [row.answer]) for row in rows]
        return numpy.array([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in each])

    def measure(lines: Any) -> Sequence[float]:
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


def _labels(rows: list[Row], sides: Mapping[str, Side]) -> list[dict[str, Any]]:
    """Accuracy and macro precision, recall and F1 for rows whose answers are few and short; none
    for other rows.
    """
    import numpy

    labels = sorted({normal(row.answer) for row in rows})
    if not (
        2 <= len(labels) <= _MOST_LABELS
        and len(rows) >= _ROWS_PER_LABEL * len(labels)
        and max(len(label.split()) for label in labels) <= _LABEL_WORDS
    ):
        return []
    number = {label: at for at, label in enumerate(labels)}

    def of(side: Side) -> Any:
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


def macro(truth: Any, said: Any, labels: int) -> tuple[float, float, float]:
    """(macro precision, recall, F1) over the labels that occur; label number `labels` stands for
    any other answer.

    Int [n] each. A label that is never said has precision 0, as in scikit-learn with
    zero_division=0.
    """
    import numpy

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
) -> list[dict[str, Any]]:
    """exp of the mean cost of a reference token; compared in nats per token, where differences add
    up. Of the rows whose cost every side knows, none without any.
    """
    import numpy

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
