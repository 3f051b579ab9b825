"""One signal, two samples: the test that fits its shape, how large the difference is, and a
sentence a person understands.

Each function returns a Comparison. Its `large_enough` is the effect floor: with thousands of rows a
test finds differences that nobody should be woken for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import rankdata

from monitoring.rows import Row
from monitoring.signals import Signal, Value
from monitoring.statistics import (
    Array,
    block_medians,
    change_point,
    compare_categories,
    compare_rates,
    design_effect,
    mann_whitney,
)
from monitoring.text import Word, newest_first, rising_words, separate, unseen_shares

RATE_FLOOR_RELATIVE = 0.25  # a rate must move by a quarter of itself ...
# ... and by this many conversations: a fixed floor in points would hide a doubled rare failure
RATE_FLOOR_EVENTS = 5
# |P(window > reference) - 1/2|: about 0.18 standard deviations of a normal
SUPERIORITY_FLOOR = 0.05
LATENCY_FLOOR = 0.25  # a median must rise by a quarter
# A new topic of share s, told apart perfectly, gives an AUC of 1/2 + s/2: 4 % of the traffic
AUC_FLOOR = 0.02
LATENCY_BLOCKS = 20  # stretches per sample: 20 against 20 medians can reach p = 1e-7
MAX_EXAMPLES = 200
SERIES_STRETCHES = 24  # points per sample in an incident's chart


def _missing(value: Value) -> bool:
    """None, and numbers that are none: a clock that ran backwards must not decide a verdict."""
    return value is None or (isinstance(value, float) and not math.isfinite(value))


@dataclass(frozen=True)
class Sample:
    """One signal's values of one window, missing ones left out, with the rows they came from,
    oldest first.
    """

    rows: list[Row]
    values: list[Value]

    @staticmethod
    def of(rows: Sequence[Row], values: Sequence[Value]) -> Sample:
        pairs = [
            (row, value) for row, value in zip(rows, values, strict=True) if not _missing(value)
        ]
        return Sample([row for row, _ in pairs], [value for _, value in pairs])

    @property
    def groups(self) -> list[str]:
        return [row.group for row in self.rows]

    def numbers(self) -> Array:
        return np.array(self.values, dtype=float)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Comparison:
    """What a test found.

    `reference` and `window` are the numbers a chart shows, `effect` the size the floor is about.
    """

    test: str
    p_value: float
    effect: float
    reference: float
    window: float
    large_enough: bool
    sentence: str
    examples: list[str] = field(default_factory=list)  # interaction ids, most telling first
    words: list[Word] = field(default_factory=list)
    # When the change began inside the window; None: before it, or not locatable
    since_at: int | None = None
    # [instant in ms, mean of a stretch], reference then window: the incident's chart
    series: list[list[float]] = field(default_factory=list)


def compare(
    signal: Signal, reference: Sample, window: Sample, rng: np.random.Generator
) -> Comparison:
    """Compare one signal; both samples must hold at least one value."""
    functions = {"number": _numbers, "rate": _rates, "category": _categories, "latency": _latencies}
    if signal.shape == "words":
        return _words(signal, reference, window, rng)
    if signal.shape == "novelty":
        return _novelty(signal, reference, window, rng)
    return functions[signal.shape](signal, reference, window)


def _pooled_design_effect(pairs: Sequence[tuple[Array, list[str]]]) -> float:
    """Mean design effect of the samples, weighted by their rows."""
    sizes = [len(values) for values, _ in pairs]
    return float(
        np.average([design_effect(values, groups) for values, groups in pairs], weights=sizes)
    )


def _numbers(signal: Signal, reference: Sample, window: Sample) -> Comparison:
    before, after = reference.numbers(), window.numbers()
    # Ranks within each sample: resemblance is judged on the scale the test uses.
    ranks = [
        (rankdata(values), sample.groups)
        for values, sample in ((before, reference), (after, window))
    ]
    p_value, superiority = mann_whitney(before, after, signal.worse, _pooled_design_effect(ranks))
    usual, now = float(np.median(before)), float(np.median(after))
    effect = superiority - 0.5
    up = effect >= 0
    order = np.argsort(-after if up else after, kind="stable")
    edge = np.quantile(before, 0.95 if up else 0.05)
    examples = [window.rows[i].id for i in order if (after[i] > edge if up else after[i] < edge)]
    large = abs(effect) >= SUPERIORITY_FLOOR
    trend = ("up" if up else "down") if large else "as before"
    unit = f" {signal.unit}" if signal.unit else ""
    return Comparison(
        "Mann-Whitney", p_value, effect, usual, now, large,
        f"{_cap(signal.label)} {trend}: median {_number(now)}{unit} of {len(after)} requests, "
        f"baseline {_number(usual)}{unit} of {len(before)}.",
        examples[:MAX_EXAMPLES], since_at=_since(window, after, float(before.mean()), float(after.mean())),
        series=_series(np.median, (reference, before), (window, after)),
    )  # fmt: skip


def _rates(signal: Signal, reference: Sample, window: Sample) -> Comparison:
    before, after = reference.numbers(), window.numbers()
    design = _pooled_design_effect([(before, reference.groups), (after, window.groups)])
    a, n, b, m = int(before.sum()), len(before), int(after.sum()), len(after)
    p_value = compare_rates(a, n, b, m, signal.worse, design)
    large = rate_moved(a / n, b / m, m)
    return Comparison(
        "two-sample chi-squared", p_value, b / m - a / n, a / n, b / m, large,
        f"{_cap(signal.label)} {_percent(b / m)} of {m} requests, baseline {_percent(a / n)} of {n}.",
        [row.id for row, value in reversed(list(zip(window.rows, window.values, strict=True))) if value][:MAX_EXAMPLES] if b / m > a / n else [],
        since_at=_since(window, after, a / n, b / m),
        series=_series(np.mean, (reference, before), (window, after)),
    )  # fmt: skip


def rate_moved(reference: float, window: float, n_window: int) -> bool:
    """The floor for shares: a quarter of the old share, and at least five conversations more or
    fewer.
    """
    difference = abs(window - reference)
    return (
        difference >= RATE_FLOOR_RELATIVE * reference and difference * n_window >= RATE_FLOOR_EVENTS
    )


def _categories(signal: Signal, reference: Sample, window: Sample) -> Comparison:
    before, after = Counter(map(str, reference.values)), Counter(map(str, window.values))
    names = sorted({*before, *after})
    n, m = len(reference), len(window)
    design = float(np.mean([
        _pooled_design_effect([(_is(sample.values, name), sample.groups) for sample in (reference, window)]) for name in names
    ]))  # fmt: skip
    p_value = compare_categories(
        np.array([before[name] for name in names]),
        np.array([after[name] for name in names]),
        design,
    )
    moved = max(names, key=lambda name: (abs(after[name] / m - before[name] / n), after[name]))
    rose = max(names, key=lambda name: (after[name] / m - before[name] / n, after[name]))
    # The numbers charted from run to run: always of the same category
    usual = max(names, key=lambda name: before[name])
    variation = sum(abs(after[name] / m - before[name] / n) for name in names) / 2
    large = (
        any(rate_moved(before[name] / n, after[name] / m, m) for name in names)
        and variation * m >= RATE_FLOOR_EVENTS
    )
    return Comparison(
        "two-sample chi-squared", p_value, variation, before[usual] / n, after[usual] / m, large,
        f"{_cap(signal.label)}: {moved} {_percent(after[moved] / m)} of {m} requests, "
        f"baseline {_percent(before[moved] / n)} of {n}.",
        [row.id for row, value in reversed(list(zip(window.rows, window.values, strict=True))) if value == rose][:MAX_EXAMPLES],
        since_at=_since(window, _is(window.values, moved), before[moved] / n, after[moved] / m),
        series=_series(np.mean, (reference, _is(reference.values, moved)), (window, _is(window.values, moved))),
    )  # fmt: skip


def _latencies(signal: Signal, reference: Sample, window: Sample) -> Comparison:
    before, after = reference.numbers(), window.numbers()
    p_value, _ = mann_whitney(
        block_medians(before, LATENCY_BLOCKS), block_medians(after, LATENCY_BLOCKS), signal.worse
    )
    usual, now = float(np.median(before)), float(np.median(after))
    effect = now / usual - 1 if usual > 0 else 0.0
    return Comparison(
        f"Mann-Whitney on {LATENCY_BLOCKS} stretches", p_value, effect, usual, now, effect >= LATENCY_FLOOR,
        f"{_cap(signal.label)} p50 {_number(now)} {signal.unit} of {len(after)} requests, "
        f"baseline {_number(usual)} {signal.unit} of {len(before)}.",
        since_at=_since(window, np.minimum(after, 4 * now), usual, now),
        series=_series(np.median, (reference, before), (window, after)),
    )  # fmt: skip


def _words(
    signal: Signal, reference: Sample, window: Sample, rng: np.random.Generator
) -> Comparison:
    before, after = [str(v) for v in reference.values], [str(v) for v in window.values]
    groups = [*reference.groups, *window.groups]
    found = separate(before, after, groups, rng)
    words = rising_words(before, after, groups)
    order = newest_first(found.window_scores, found.usual_score)
    beyond = len(order) / len(window)
    scores = (found.window_scores > found.usual_score).astype(float)
    usual_scores = (found.reference_scores > found.usual_score).astype(float)
    return Comparison(
        "domain classifier", found.p_value, found.auc - 0.5, 0.5, found.auc, found.auc - 0.5 >= AUC_FLOOR,
        _words_sentence(signal.label, words, len(window), beyond),
        [window.rows[i].id for i in order][:MAX_EXAMPLES], words, _since(window, scores, 0.05, max(beyond, 0.05)),
        _series(np.mean, (reference, usual_scores), (window, scores)),
    )  # fmt: skip


def _words_sentence(label: str, words: Sequence[Word], n: int, beyond: float) -> str:
    unseen = [word for word in words if word.is_new][:3]
    if unseen:
        return (
            f"{_cap(label)} contain words never seen before: {_list_words(unseen)} of {n} requests."
        )
    if words:
        named = ", ".join(
            f"'{word.word}' in"
            f" {_percent(word.window_share)} ({_percent(word.reference_share)} before)"
            for word in words[:3]
        )
        return f"{_cap(label)} use some words more: {named} of {n} requests."
    return (
        f"{_cap(label)} are worded as before; {_percent(beyond)} of {n} look unusual, 5 % is usual."
    )


def _list_words(words: Sequence[Word]) -> str:
    return ", ".join(f"'{word.word}' in {_percent(word.window_share)}" for word in words)


def _novelty(
    signal: Signal, reference: Sample, window: Sample, rng: np.random.Generator
) -> Comparison:
    texts = [str(v) for v in reference.values], [str(v) for v in window.values]
    before, held_out, after = unseen_shares(*texts, reference.groups, rng)
    groups = [group for group, kept in zip(reference.groups, held_out, strict=True) if kept]
    if not len(before):
        return Comparison(
            "unseen words",
            1.0,
            0.0,
            0.0,
            0.0,
            False,
            f"{_cap(signal.label)}: too few users to tell new words from rare ones.",
        )
    p_value, superiority = mann_whitney(
        before, after, "up", _pooled_design_effect([(before, groups), (after, window.groups)])
    )
    usual, now = float(before.mean()), float(after.mean())
    order = np.argsort(-after, kind="stable")
    words = [
        word for word in rising_words(*texts, [*reference.groups, *window.groups]) if word.is_new
    ]
    named = f" New: {_list_words(words[:3])} of {len(after)} requests." if words else ""
    return Comparison(
        "unseen words", p_value, superiority - 0.5, usual, now, superiority - 0.5 >= AUC_FLOOR,
        f"{_cap(signal.label)}: {_percent(now)} of the words were not used before, {_percent(usual)} is usual.{named}",
        [window.rows[i].id for i in order if after[i] > usual][:MAX_EXAMPLES], words,
        since_at=_since(window, (after > 0).astype(float), float((before > 0).mean()), float((after > 0).mean())),
        series=_series(np.mean, (Sample([row for row, kept in zip(reference.rows, held_out, strict=True) if kept], []), before), (window, after)),
    )  # fmt: skip


def _is(values: Sequence[Value], name: str) -> Array:
    return np.array([str(value) == name for value in values], dtype=float)


def _since(window: Sample, values: Array, mean_before: float, mean_after: float) -> int | None:
    """When the new level began, if that lies inside the window and not at its very start."""
    index = change_point(values, mean_before, mean_after)
    return window.rows[index].created_at if index > len(window) // 20 else None


def _series(middle: Callable[[Array], Any], *samples: tuple[Sample, Array]) -> list[list[float]]:
    """At most SERIES_STRETCHES points per sample, each the mean or median of consecutive rows at
    the time of their middle one.
    """
    points = []
    for sample, values in samples:
        for indices in np.array_split(np.arange(len(values)), min(SERIES_STRETCHES, len(values))):
            points.append(
                [
                    float(sample.rows[int(indices[len(indices) // 2])].created_at),
                    round(float(middle(values[indices])), 6),
                ]
            )
    return points


def _cap(text: str) -> str:
    return text[:1].upper() + text[1:]


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %" if share >= 0.1 or share == 0 else f"{share * 100:.1f} %"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
