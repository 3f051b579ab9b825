"""Two samples without a history: what can be said in the first six weeks, as information and with
its error rate.

One random row of each user, tests for two samples, Holm's correction over all signals, and the
floors of the daily detector. What changes from day to day by itself (latency) cannot be told from a
change without a history, so it is compared by days, or by stretches of rows within one, and even
then a busy week may be called one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from monitoring.detector.clusters import cluster_centres
from monitoring.detector.codebook import Codebook, vectors_of
from monitoring.detector.columns import Floats, Table
from monitoring.detector.daily import Chart
from monitoring.detector.effects import effect_of
from monitoring.detector.sample import capped
from monitoring.detector.signals import OF_USERS, DailySignal, categories_of, numbers_of, signals_of
from monitoring.detector.texts import WordSpace
from monitoring.statistics import (
    block_medians,
    compare_categories,
    compare_rates,
    holm,
    mann_whitney,
)

ALPHA = 0.03  # chance of any false finding in one comparison, over all signals
_LEAST = 20  # values of a signal on each side
_STRETCHES = 20
_LEAST_DAYS = 5  # on each side, from which latencies are compared by days
_TOPICS = 32
_TOPIC_ROWS = 3_000  # of each side


@dataclass(frozen=True, slots=True)
class Finding:
    """A signal that differs between two samples."""

    signal: str
    adjusted_p: float
    before: float
    now: float
    sentence: str


@dataclass(frozen=True)
class Comparison:
    """`rows`: users on each side.

    `tests`: signals that had enough values. `alpha`: chance of any false finding.
    """

    findings: list[Finding]
    rows: tuple[int, int]
    tests: int
    alpha: float


def compare_two(before: Table, after: Table, *, alpha: float = ALPHA, seed: int = 0) -> Comparison:
    """Compare two samples of conversations; users of both sides are taken out of the larger one's
    way by drawing one row of each.

    Raises nothing for odd data: a signal without enough values is left out, and `tests` says how
    many were compared.
    """
    rng = np.random.default_rng([seed, 4])
    has_users = "user" in before and "user" in after
    first, second = (
        table.take(capped(table.get("user"), len(table), 1, rng)) for table in (before, after)
    )
    found: list[tuple[DailySignal, float, float, float, bool, str]] = []
    for signal in signals_of(set(first.columns) & set(second.columns)):
        if not has_users and signal.name in OF_USERS:
            continue
        made = _compare(signal, first, second, seed)
        if made is not None:
            found.append((signal, *made))
    adjusted = holm([item[1] for item in found])
    findings = [
        Finding(signal.name, p, was, now, sentence)
        for (signal, _, was, now, large, sentence), p in zip(found, adjusted, strict=True)
        if p < alpha and large
    ]  # fmt: skip
    return Comparison(
        sorted(findings, key=lambda one: one.adjusted_p),
        (len(first), len(second)),
        len(found),
        alpha,
    )


# p-value, level before, level now, large enough, sentence
_Made = tuple[float, float, float, bool, str]


def _compare(signal: DailySignal, before: Table, after: Table, seed: int) -> _Made | None:
    if signal.shape == "novelty":
        return None  # its centroids would have to come from one side, which is then closer to them
    if signal.shape == "topics":
        return _topics(signal, before, after, seed)
    if signal.shape == "category":
        return _categories(signal, categories_of(signal, before), categories_of(signal, after))
    was, now = numbers_of(signal, before), numbers_of(signal, after)
    if was is None or now is None:
        return None
    was, now = was[np.isfinite(was)], now[np.isfinite(now)]
    if min(len(was), len(now)) < _LEAST:
        return None
    if signal.shape == "rate":
        direction = signal.worse
        p = compare_rates(int(was.sum()), len(was), int(now.sum()), len(now), direction)
        return _said(signal, "", p, float(was.mean()), float(now.mean()), len(now))
    if signal.shape == "latency" and "day" in before and "day" in after:
        per_day = [_medians_by_day(table, numbers_of(signal, table)) for table in (before, after)]
        if min(map(len, per_day)) >= _LEAST_DAYS:
            p, _ = mann_whitney(per_day[0], per_day[1], signal.worse)
            return _said(signal, "p50", p, float(np.median(was)), float(np.median(now)), len(now))
    if signal.shape == "latency":
        p, _ = mann_whitney(
            block_medians(was, _STRETCHES), block_medians(now, _STRETCHES), signal.worse
        )
        return _said(signal, "p50", p, float(np.median(was)), float(np.median(now)), len(now))
    p, _ = mann_whitney(was, now, signal.worse)
    return _said(signal, "", p, _middle(signal, was), _middle(signal, now), len(now))


def _medians_by_day(table: Table, values: Floats | None) -> Floats:
    """One median per day: rows of a day share its load, and twenty of them are one piece of
    evidence.
    """
    if values is None:
        return np.array([])
    known, days = np.isfinite(values), table.columns["day"]
    return np.array([np.median(values[known & (days == day)]) for day in np.unique(days[known])])


def _middle(signal: DailySignal, values: Floats) -> float:
    return float(
        np.exp(np.log(np.maximum(values, 1e-6)).mean())
        if signal.shape == "positive"
        else values.mean()
    )


def _said(signal: DailySignal, part: str, p: float, was: float, now: float, n: int) -> _Made:
    effect = effect_of(
        signal, Chart(signal.name, part), was, now, values=n, rows_per_day=0.0, since=0
    )
    return (
        p,
        was,
        now,
        effect.large,
        effect.sentence.replace(" since 1970-01-01", " in the last week"),
    )


def _categories(
    signal: DailySignal, before: NDArray[Any] | None, after: NDArray[Any] | None
) -> _Made | None:
    if before is None or after is None:
        return None
    was, now = (
        Counter(value for value in values if value is not None) for values in (before, after)
    )
    if min(was.total(), now.total()) < _LEAST:
        return None
    names = sorted({*was, *now})
    p = compare_categories(
        np.array([was[name] for name in names]), np.array([now[name] for name in names])
    )
    moved = max(
        names, key=lambda name: (abs(now[name] / now.total() - was[name] / was.total()), name)
    )
    return _said(signal, moved, p, was[moved] / was.total(), now[moved] / now.total(), now.total())


def _topics(signal: DailySignal, before: Table, after: Table, seed: int) -> _Made | None:
    """K-means on both sides together, which cannot know whose a row is, then chi-squared on the
    shares.
    """
    rng = np.random.default_rng([seed, 5])
    before, after = (
        table.take(np.sort(rng.choice(len(table), min(len(table), _TOPIC_ROWS), replace=False)))
        for table in (before, after)
    )
    prompts = (
        [*before.columns["prompt"], *after.columns["prompt"]]
        if "prompt" in before and "prompt" in after
        else None
    )
    space = WordSpace.learned(prompts) if prompts is not None else None
    first, second = vectors_of(before, space), vectors_of(after, space)
    if first is None or second is None:
        return None
    first, second = first[np.isfinite(first).all(1)], second[np.isfinite(second).all(1)]
    # Five of each topic expected on the smaller side, as the chi-squared approximation asks.
    topics = min(_TOPICS, min(len(first), len(second)) // 10)
    if topics < 2:
        return None
    labels = Codebook(
        cluster_centres(np.concatenate([first, second]), topics, seed, starts=1), 0.0, None
    ).assign(np.concatenate([first, second]))[0]
    was, now = (
        np.bincount(labels[: len(first)], minlength=topics),
        np.bincount(labels[len(first) :], minlength=topics),
    )
    shares: tuple[Floats, Floats] = (was / len(first), now / len(second))
    moved = int(np.argmax(np.abs(shares[1] - shares[0])))
    return _said(
        signal,
        str(moved),
        compare_categories(was.astype(float), now.astype(float)),
        float(shares[0][moved]),
        float(shares[1][moved]),
        len(second),
    )


def least_detectable(n: int, alpha: float, tests: int) -> float:
    """Shift of a mean, in standard deviations, found with 80 % power by two samples of `n` users:
    what silence does not exclude.
    """
    return float((norm.isf(alpha / tests / 2) + norm.ppf(0.8)) * np.sqrt(2 / n))
