"""Two-sample tests that are right for clustered, heavy-tailed request logs.

Pure functions of arrays.

Every test takes a design effect (1 for independent rows): the factor by which resemblance within
users inflates the variance. It divides the evidence (Rao and Scott 1984, "On chi-squared tests for
multiway contingency tables").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, fisher_exact, rankdata

Array = NDArray[np.float64]
Direction = Literal["both", "up"]

# Expected events below which the chi-squared approximation is replaced by Fisher's exact test
_SMALL_COUNT = 5


def normal_tail(z: float, direction: Direction) -> float:
    """p-value of a standard normal statistic; `up` counts only evidence that the window is larger."""
    return (
        math.erfc(abs(z) / math.sqrt(2))
        if direction == "both"
        else 0.5 * math.erfc(z / math.sqrt(2))
    )


def design_effect(values: Array, groups: Sequence[str]) -> float:
    """1 + (mean rows per user, weighted by rows, - 1) x intraclass correlation (one-way ANOVA); at
    least 1.

    `values` must be of one sample: a difference between samples is what is being tested, not
    resemblance.
    """
    _, index, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    n, k = len(values), len(sizes)
    if k < 2 or k == n:
        return 1.0
    means = np.bincount(index, values) / sizes
    between = float((sizes * (means - values.mean()) ** 2).sum()) / (k - 1)
    within = float(((values - means[index]) ** 2).sum()) / (n - k)
    n0 = (n - float((sizes**2).sum()) / n) / (k - 1)
    total = between + (n0 - 1) * within
    correlation = max(0.0, (between - within) / total) if total > 0 else 0.0
    return 1 + (float((sizes**2).sum()) / n - 1) * correlation


def mann_whitney(
    reference: Array, window: Array, direction: Direction, effect_of_design: float = 1.0
) -> tuple[float, float]:
    """(p-value, probability that a window value exceeds a reference value, ties half); normal
    approximation with tie correction.
    """
    n, m = len(reference), len(window)
    ranks = rankdata(np.concatenate([reference, window]))
    superiority = float((ranks[n:].sum() - m * (m + 1) / 2) / (n * m))
    _, ties = np.unique(ranks, return_counts=True)
    total = n + m
    variance = (
        total + 1 - float((ties.astype(float) ** 3 - ties).sum()) / (total * (total - 1))
    ) / (12 * n * m)
    if variance <= 0:  # every value is the same
        return 1.0, 0.5
    return (
        normal_tail((superiority - 0.5) / math.sqrt(variance * effect_of_design), direction),
        superiority,
    )


def compare_rates(
    events_reference: int,
    n_reference: int,
    events_window: int,
    n_window: int,
    direction: Direction,
    effect_of_design: float = 1.0,
) -> float:
    """p-value for two shares: chi-squared on one degree of freedom, Fisher's exact test where
    events are few.
    """
    pooled = (events_reference + events_window) / (n_reference + n_window)
    smallest = min(pooled, 1 - pooled) * min(n_reference, n_window) / effect_of_design
    if smallest < _SMALL_COUNT:
        table = [[round(events_window / effect_of_design), round((n_window - events_window) / effect_of_design)],
                 [round(events_reference / effect_of_design), round((n_reference - events_reference) / effect_of_design)]]  # fmt: skip
        return float(
            fisher_exact(
                table, alternative="two-sided" if direction == "both" else "greater"
            ).pvalue
        )
    deviation = math.sqrt(
        pooled * (1 - pooled) * (1 / n_reference + 1 / n_window) * effect_of_design
    )
    return normal_tail(
        (events_window / n_window - events_reference / n_reference) / deviation, direction
    )


def compare_categories(
    counts_reference: Array, counts_window: Array, effect_of_design: float = 1.0
) -> float:
    """p-value of the two-sample chi-squared test; categories expected fewer than five times are
    pooled into one.
    """
    table = np.stack([counts_reference, counts_window]).astype(float)
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    rare = expected.min(0) < _SMALL_COUNT
    if rare.sum() > 1:
        table = np.column_stack([table[:, ~rare], table[:, rare].sum(1)])
    table = table[:, table.sum(0) > 0]
    if table.shape[1] < 2:
        return 1.0
    if table.shape[1] == 2:
        a, b = table
        return compare_rates(
            int(a[0]), int(a.sum()), int(b[0]), int(b.sum()), "both", effect_of_design
        )
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    statistic = float(((table - expected) ** 2 / expected).sum()) / effect_of_design
    return float(chi2.sf(statistic, table.shape[1] - 1))


def block_medians(values: Array, blocks: int) -> Array:
    """Medians of consecutive stretches: what is left of a series whose neighbours share the
    machine's load.
    """
    return np.array(
        [np.median(part) for part in np.array_split(values, min(blocks, len(values))) if len(part)]
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: rejecting those below alpha keeps the chance of any false rejection at
    alpha (Holm 1979).
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def change_point(values: Array, mean_before: float, mean_after: float) -> int:
    """Index of the first value that belongs to the level after the change: where the cumulative sum
    turns (Page 1954).
    """
    middle, sign = (mean_before + mean_after) / 2, 1.0 if mean_after >= mean_before else -1.0
    sums = np.concatenate([[0.0], np.cumsum(sign * (values - middle))])
    return min(int(np.argmin(sums)), len(values) - 1)
