"""Paired intervals of a measure, and the verdict that they allow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist, fmean, stdev

from scipy.special import stdtrit

from training.evaluation.gate import interval
from training.store.evaluation_types import Comparison, Measure

CONFIDENCE = 0.975  # of each bound: the two make a 95 % interval
MIN_ROWS = 10  # fewer pairs say nothing, as in the gate
# rows: below it a two-sided sign test cannot reach 5 %, even where all of them point the same way
MIN_DIFFERING = 6
NEGLIGIBLE = "no practical difference"
# Of a share (a twentieth of a point), of a perplexity or a length: shown as 0.000
_NOTICEABLE = 0.0005
BETTER, WORSE, SAME, UNKNOWN = "better", "worse", "the same", "not enough data to tell"


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
) -> Comparison:
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

    return float(stdtrit(max(count - 1, 2), CONFIDENCE))


def paired_means(name: str, better: str, values: Mapping[str, Sequence[float]]) -> Measure:
    """A measure that is a mean over rows, from each side's values in one order of rows; the first
    side is compared with the others.
    """
    ours, *others = values
    count = len(values[ours])
    against: dict[str, Comparison] = {}
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
