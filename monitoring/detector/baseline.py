"""What is usual for a chart, and how far a day is from it. Pure functions of arrays.

A day is modelled as level of its segment + offset of its weekday class + noise. A segment begins
with a declared change: its level is learned anew, while spread and weekday offset are kept from
before. Centres and spreads are winsorised, so that a holiday or an outage in the history neither
moves the level nor hides the next change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr

from monitoring.detector.columns import Floats

# Robust standard deviations kept; a normal loses 2 % of its spread, which _WINSORISED gives back
_WINSOR = 2.5
_WINSORISED = 0.979
_MAD_TO_SD = 1.4826
_LEAST_OF_CLASS = 4  # days of a weekday class from which its offset is learned
# Of the standard error of independent rows: users who come back make a spread a little smaller,
# never much
_LEAST_SPREAD = 0.7
# Log volume of a weekday against the others, below which it is of the quiet class: 22 % fewer
# requests
_QUIET = -0.25
_WEEKEND = frozenset({5, 6})
_WEEK = 7
WEEKDAY_SHIFT = 3  # 1970-01-01 was a Thursday; (day + shift) % 7 is 0 on Mondays


@dataclass(frozen=True)
class History:
    """Earlier days of one chart, oldest first; arrays of one length."""

    values: Floats  # on the chart's scale
    errors: Floats  # standard errors if rows were independent
    levels: Floats  # as people are told
    counts: Floats  # values behind each day
    quiet: NDArray[np.bool_]  # of the quiet weekday class
    segment: NDArray[np.int64]  # number of each day's segment
    today: int  # number of today's segment

    @property
    def current(self) -> NDArray[np.bool_]:
        return np.asarray(self.segment == self.today)


@dataclass(frozen=True)
class Usual:
    """What a chart is like on a busy (index 0) and on a quiet (index 1) day."""

    level: tuple[float, float]
    told: tuple[float, float]  # levels for sentences
    days: tuple[int, int]  # of the current segment, that the levels rest on
    spread: float
    error: float  # the standard error that belongs to `spread`
    freedom: int  # degrees of freedom of `spread`


def median(values: Floats) -> float:
    """NumPy's, a tenth of its time on some dozens of values: it is most of what judging costs.

    No NaN, at least one value.
    """
    ordered, half = np.sort(values), len(values) // 2
    return float(ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2)


def winsorised(values: Floats) -> tuple[float, Floats]:
    """(robust mean, values pulled in to 2.5 robust standard deviations around the median)."""
    middle = median(values)
    deviation = median(np.abs(values - middle)) * _MAD_TO_SD or float(values.std())
    kept = np.clip(values, middle - _WINSOR * deviation, middle + _WINSOR * deviation)
    return float(kept.mean()), kept


def usual(history: History, least: int) -> Usual | None:
    """Level and spread of a chart; None with fewer than `least` days, or too few of the current
    segment for a level.
    """
    now = history.current
    if len(history.values) < least or now.sum() < min(5, least):
        return None
    offset, has_offset = _class_offset(history)
    adjusted = history.values - offset * history.quiet
    level, _ = winsorised(adjusted[now])
    residuals, groups = adjusted - level, 1
    for number in np.unique(history.segment[~now]):
        part = history.segment == number
        groups += 1
        # A segment of a few days, as while a template rolls out, has no level to measure a spread
        # from.
        residuals[part] = (
            adjusted[part] - winsorised(adjusted[part])[0]
            if part.sum() >= _LEAST_OF_CLASS
            else np.nan
        )
    measured = np.isfinite(residuals)
    error = median(history.errors)
    # A day of few rows is noisier than others: it tells of the spread only what it would have been
    # with as many.
    noisier = (
        np.sqrt(np.maximum(1.0, (history.errors / error) ** 2))
        if error > 0
        else np.ones_like(residuals)
    )
    _, kept = winsorised((residuals / noisier)[measured])
    freedom = len(kept) - groups - has_offset
    spread = float(np.sqrt((kept**2).sum() / max(1, freedom))) / _WINSORISED
    quiet_days = int((history.quiet & now).sum())
    days = (int(now.sum()) - quiet_days, quiet_days)
    return Usual(
        (level, level + offset),
        _told(history, days),
        days,
        max(spread, _LEAST_SPREAD * error, 1e-9),
        error,
        max(5, freedom),
    )


def _class_offset(history: History) -> tuple[float, int]:
    """(quiet minus busy, 1) learned within the segment that has more days; (0, 0) where a class has
    too few.
    """
    for part in sorted((history.current, ~history.current), key=lambda mask: -int(mask.sum())):
        quiet, busy = history.values[part & history.quiet], history.values[part & ~history.quiet]
        if min(len(quiet), len(busy)) >= _LEAST_OF_CLASS:
            return winsorised(quiet)[0] - winsorised(busy)[0], 1
    return 0.0, 0


def _told(history: History, days: tuple[int, int]) -> tuple[float, float]:
    told = []
    for quiet in (False, True):
        chosen = (
            history.current & (history.quiet == quiet)
            if days[quiet] >= _LEAST_OF_CLASS
            else history.current
        )
        told.append(
            float(np.average(history.levels[chosen], weights=np.maximum(history.counts[chosen], 1)))
        )
    return told[0], told[1]


def z_score(value: float, error: float, quiet: bool, known: Usual, clip: float) -> float:
    """How unusual a day is, as a standard normal value within ±`clip`.

    The spread is estimated, so the ratio follows Student's t and is turned into the normal value of
    the same probability: ten days of history then cost as few false alarms as fifty. A day with
    fewer rows than usual gets the larger spread that all its noise being sampling noise would mean;
    one with more gets no smaller spread, since swings between days stay.
    """
    noisier = max(1.0, error / known.error) if known.error > 0 else 1.0
    days = known.days[quiet] or sum(known.days)
    ratio = (value - known.level[quiet]) / (known.spread * noisier * np.sqrt(1 + 1 / max(1, days)))
    z = -ndtri(stdtr(known.freedom, -abs(ratio)))
    return float(np.sign(ratio) * min(z, clip))


def quiet_weekdays(days: Sequence[int], rows: Sequence[int]) -> frozenset[int]:
    """Weekdays (0 is Monday) of the quiet class, learned from volumes: those 22 % below the others;
    else Saturday and Sunday.

    Learned, because weekends are not Saturday and Sunday everywhere, and some services are busiest
    then. Volumes are taken against the median of the week around them, so that growth is no rhythm.
    """
    if len(days) < 3 * _WEEK:
        return _WEEKEND
    logs = np.log(np.maximum(np.asarray(rows, dtype=float), 1))
    half = _WEEK // 2
    around = np.array([np.median(logs[max(0, i - half) : i + half + 1]) for i in range(len(logs))])
    weekday = np.array([weekday_of(day) for day in days])
    relative = np.array(
        [
            np.median((logs - around)[weekday == w]) if (weekday == w).any() else 0.0
            for w in range(_WEEK)
        ]
    )
    quiet = frozenset(int(w) for w in np.flatnonzero(relative < np.median(relative) + _QUIET))
    return quiet if 0 < len(quiet) <= half else _WEEKEND


def weekday_of(day: int) -> int:
    """0 is Monday."""
    return (day + WEEKDAY_SHIFT) % _WEEK
