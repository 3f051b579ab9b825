"""Measures of answers against their references, by what the rows are, each with a paired interval. Pure functions of text and numbers.

Row-wise measures (right, exact, chrF, ROUGE-L, fields, …) are means over rows; their intervals are the gate's (`training.gate.interval`).
Corpus measures (BLEU, macro precision, recall and F1, perplexity) are no means of rows: rows are drawn again with replacement, the same
draw for both sides, and the measure is taken of each draw (Efron's paired bootstrap; for BLEU as in Koehn, EMNLP 2004).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.evaluate import Answer
from training.gate import interval
from training.rows import Row
from training.scoring import normal

CONFIDENCE = 0.975  # of each bound: the two make a 95 % interval
MIN_ROWS = 10  # fewer pairs say nothing, as in the gate
BETTER, WORSE, SAME, UNKNOWN = "better", "worse", "the same", "not enough data to tell"
_RESAMPLES = 1000
_SEED = 0
# Rows are labels to choose from, not texts to write, when a few short answers cover them all, each often.
_MOST_LABELS, _ROWS_PER_LABEL, _LABEL_WORDS = 20, 4, 8
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Nats:
    """What a reference answer costs a model: negative log-likelihood of its tokens, end-of-turn token included."""

    nats: float
    tokens: int


@dataclass(frozen=True)
class Side:
    """What one model did with the rows."""

    answers: Mapping[str, Answer]  # row id → answer
    nats: Mapping[str, Nats] = field(default_factory=dict)  # row id → cost of the reference; may be empty


def measure_rows(rows: Sequence[Row], sides: Mapping[str, Side]) -> list[dict[str, Any]]:
    """Every measure that fits the rows. The first side is the candidate; it is compared with each other one.

    Each: `{"name", "n", "better": "higher" | "lower" | "", "values": {side: number}, "against": {side: {"difference", "low", "high", "verdict"}}}`;
    differences are candidate less other, with a 95 % interval. Rows that a side did not answer are left out for all.
    """
    rows = [row for row in rows if all(row.id in side.answers for side in sides.values())]
    if not rows:
        return []
    found = [_row_wise(name, better, some, sides, score) for name, better, some, score in _row_measures(rows)]
    found += [*_bleu(rows, sides), *_labels(rows, sides)]
    if all(row.id in side.nats for row in rows for side in sides.values()):
        found.append(perplexity(rows, sides))
    return found


def verdict(count: int, low: float, high: float, better: str) -> str:
    """In words. `better`: which direction is good; empty for measures where neither is."""
    if count < MIN_ROWS:
        return UNKNOWN
    if low == high == 0:
        return SAME  # of every row, or of every draw: nothing differs
    if low <= 0 <= high:
        return UNKNOWN
    if not better:
        return "higher" if low > 0 else "lower"
    return BETTER if (low > 0) == (better == "higher") else WORSE


def compared(count: int, difference: float, low: float, high: float, better: str) -> dict[str, Any]:
    """A difference as it is stored."""
    return {"difference": round(difference, 4), "low": round(low, 4), "high": round(high, 4), "verdict": verdict(count, low, high, better)}


# --- means over rows ------------------------------------------------------------------------------------------------

_Score = Callable[[Row, Answer], float]


def _row_measures(rows: list[Row]) -> list[tuple[str, str, list[Row], _Score]]:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.chrf import CHRF

    rouge, chrf = RougeScorer(["rougeL"], tokenizer=_Words()), CHRF()
    objects = [row for row in rows if isinstance(parsed(row.answer), dict | list)]
    found: list[tuple[str, str, list[Row], _Score]] = [
        ("right", "higher", rows, lambda row, answer: answer.score.correct),
        ("exact match", "higher", rows, lambda row, answer: float(normal(answer.text) == normal(row.answer))),
        ("word overlap", "higher", rows, lambda row, answer: answer.score.f1),
        ("chrF", "higher", rows, lambda row, answer: chrf.sentence_score(answer.text, [row.answer]).score / 100),
        ("ROUGE-L", "higher", rows, lambda row, answer: rouge.score(row.answer, answer.text)["rougeL"].fmeasure),
        ("stopped by itself", "higher", rows, lambda row, answer: float(answer.stopped)),
        ("tokens", "", rows, lambda row, answer: float(answer.tokens)),
    ]
    if objects:
        found += [
            ("valid JSON", "higher", objects, lambda row, answer: float(parsed(answer.text) is not None)),
            ("fields right", "higher", objects, lambda row, answer: fields_right(row.answer, answer.text)),
        ]
    return found


class _Words:
    """rouge-score's own tokenizer drops every letter that is not a to z; this one keeps words of all scripts."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.casefold())


def _row_wise(name: str, better: str, rows: list[Row], sides: Mapping[str, Side], score: _Score) -> dict[str, Any]:
    return paired_means(name, better, {side: [score(row, found.answers[row.id]) for row in rows] for side, found in sides.items()})


def paired_means(name: str, better: str, values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """A measure that is a mean over rows, from each side's values in one order of rows; the first side is compared with the others."""
    ours, *others = values
    count = len(values[ours])
    against = {}
    for other in others:
        differences = [a - b for a, b in zip(values[ours], values[other], strict=True)]
        low, high = interval(differences, CONFIDENCE) if any(differences) else (0.0, 0.0)
        against[other] = compared(count, sum(differences) / max(count, 1), low, high, better)
    return {
        "name": name,
        "n": count,
        "better": better,
        "values": {side: round(sum(some) / max(count, 1), 4) for side, some in values.items()},
        "against": against,
    }


def parsed(text: str) -> Any:
    """The value of a text that is strict JSON as a whole; None for anything else (and for `null`, which says nothing)."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def fields_right(reference: str, answer: str) -> float:
    """Share of the reference's fields, nested ones by their path, that the answer has with the same value; texts without case and surplus space."""
    expected, found = leaves(parsed(reference)), leaves(parsed(answer))
    return sum(found.get(path, _MISSING) == value for path, value in expected.items()) / len(expected) if expected else float(found == expected)


_MISSING = object()


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Path → scalar, `{"a": [1, {"b": 2}]}` → `{".a[0]": 1, ".a[1].b": 2}`. True and 1 stay different."""
    if isinstance(value, dict):
        return {at: leaf for name, item in value.items() for at, leaf in leaves(item, f"{path}.{name}").items()}
    if isinstance(value, list):
        return {at: leaf for number, item in enumerate(value) for at, leaf in leaves(item, f"{path}[{number}]").items()}
    return {path: (type(value) is bool, normal(value) if isinstance(value, str) else value)}


# --- of the corpus --------------------------------------------------------------------------------------------------


def _corpus(names: Sequence[str], count: int, better: str, by_side: Mapping[str, Callable[[Any], Sequence[float]]]) -> list[dict[str, Any]]:
    """Corpus measures that are taken together; each function takes the numbers of the drawn rows (int [count]) and gives one value per name."""
    import numpy

    everything, draw = numpy.arange(count), numpy.random.default_rng(_SEED)
    draws = [draw.integers(0, count, count) for _ in range(_RESAMPLES)]
    values = {side: measure(everything) for side, measure in by_side.items()}
    ours, *others = by_side
    resampled = {side: numpy.array([measure(some) for some in draws]) for side, measure in by_side.items()}
    found = []
    for which, name in enumerate(names):
        against = {}
        for other in others:
            low, high = numpy.quantile(resampled[ours][:, which] - resampled[other][:, which], [1 - CONFIDENCE, CONFIDENCE])
            against[other] = compared(count, values[ours][which] - values[other][which], float(low), float(high), better)
        shown = {side: round(value[which], 4) for side, value in values.items()}
        found.append({"name": name, "n": count, "better": better, "values": shown, "against": against})
    return found


def _bleu(rows: list[Row], sides: Mapping[str, Side]) -> list[dict[str, Any]]:
    """Corpus BLEU (sacrebleu's defaults, 0 to 1), from the n-gram counts of each row."""
    import numpy
    from sacrebleu.metrics.bleu import BLEU

    scorer = BLEU(effective_order=True)

    def of(side: Side) -> Callable[[Any], Sequence[float]]:
        each = [scorer.sentence_score(side.answers[row.id].text, [row.answer]) for row in rows]
        counts = numpy.array([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in each])

        def measure(drawn: Any) -> Sequence[float]:
            total = counts[drawn].sum(0).tolist()
            return (float(BLEU.compute_bleu(total[:4], total[4:8], total[8], total[9], smooth_method="exp").score) / 100,)

        return measure

    return _corpus(("BLEU",), len(rows), "higher", {name: of(side) for name, side in sides.items()})


def _labels(rows: list[Row], sides: Mapping[str, Side]) -> list[dict[str, Any]]:
    """Accuracy and macro precision, recall and F1 for rows whose answers are few and short; none for other rows."""
    import numpy

    labels = sorted({normal(row.answer) for row in rows})
    if not (2 <= len(labels) <= _MOST_LABELS and len(rows) >= _ROWS_PER_LABEL * len(labels) and max(len(label.split()) for label in labels) <= _LABEL_WORDS):
        return []
    number = {label: at for at, label in enumerate(labels)}
    truth = numpy.array([number[normal(row.answer)] for row in rows])
    said = {name: numpy.array([number.get(normal(side.answers[row.id].text), len(labels)) for row in rows]) for name, side in sides.items()}

    def of(name: str) -> Callable[[Any], Sequence[float]]:
        return lambda drawn: macro(truth[drawn], said[name][drawn], len(labels))

    return _corpus(("accuracy", "macro precision", "macro recall", "macro F1"), len(rows), "higher", {name: of(name) for name in sides})


def macro(truth: Any, said: Any, labels: int) -> tuple[float, float, float, float]:
    """(accuracy, macro precision, recall, F1) over the labels that occur; label number `labels` stands for any other answer.

    Int [n] each. A label that is never said has precision 0, as in scikit-learn with zero_division=0.
    """
    import numpy

    table = numpy.zeros((labels, labels + 1))
    numpy.add.at(table, (truth, said), 1)
    hits, expected, found = table.diagonal(), table.sum(1), table[:, :labels].sum(0)
    present = expected > 0
    precision, recall = hits / numpy.maximum(found, 1), hits / numpy.maximum(expected, 1)
    f1 = 2 * hits / numpy.maximum(expected + found, 1)
    return float(hits.sum() / len(truth)), float(precision[present].mean()), float(recall[present].mean()), float(f1[present].mean())


def perplexity(rows: Sequence[Row], sides: Mapping[str, Side]) -> dict[str, Any]:
    """exp of the mean cost of a reference token, for rows whose cost every side knows; compared in nats per token, where differences add up."""
    import numpy

    def of(side: Side) -> Callable[[Any], Sequence[float]]:
        nats, tokens = (numpy.array([getattr(side.nats[row.id], name) for row in rows], dtype=float) for name in ("nats", "tokens"))
        return lambda drawn: (float(nats[drawn].sum() / max(tokens[drawn].sum(), 1)),)

    (found,) = _corpus(("perplexity of the reference",), len(rows), "lower", {name: of(side) for name, side in sides.items()})
    # A loss of 20 nats is worse than guessing in any vocabulary; beyond it only the number would grow.
    found["values"] = {name: round(math.exp(min(value, 20.0)), 3) for name, value in found["values"].items()}
    return found | {"difference_in": "nats per token"}
