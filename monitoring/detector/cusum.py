"""Cumulative sums (Page 1954, "Continuous inspection schemes"), and the threshold that gives a
wanted rate of false alarms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.special import ndtr
from scipy.stats import norm

from monitoring.detector.columns import Floats
from monitoring.detector.slices import IN_SLICES, SLICE_SHARE

_STATES = 120  # of the Markov chain: the run length is then exact to a per cent
_DISTANCE = np.arange(_STATES)[None, :] - np.arange(_STATES)[:, None]  # from state to state
_HIGHEST = 40.0
USUAL_SPREAD = 1.0
_BLOCK = 7  # days summed to see whether neighbouring days lean to the same side
# Weeks that the usual spread weighs beside what was measured. Weeks, not charts: the languages of
# one week move together.
_PRIOR_WEEKS = 8
_QUANTILE = 0.9
_LATEST = 3  # days that say how large a change is now


@dataclass(frozen=True, slots=True)
class Cusum:
    """Two one-sided sums; `up_since` and `down_since` are the first days of their excursions, None
    at zero.
    """

    up: float = 0.0
    down: float = 0.0
    up_since: int | None = None
    down_since: int | None = None

    def step(self, z: float, day: int, slack: float, most: float) -> Cusum:
        """The sums after a day.

        `most` bounds them, so that a change that is too small to report fades in finite time.
        """
        up, down = (
            min(most, max(0.0, self.up + z - slack)),
            min(most, max(0.0, self.down - z - slack)),
        )
        return Cusum(up, down, _since(up, self.up_since, day), _since(down, self.down_since, day))

    def without_fall(self) -> Cusum:
        return replace(self, down=0.0, down_since=None)

    @property
    def since(self) -> int | None:
        """First day of the larger excursion."""
        return self.up_since if self.up >= self.down else self.down_since


def _since(total: float, since: int | None, day: int) -> int | None:
    return None if total <= 0 else day if since is None else since


def run_length(threshold: float, slack: float, spread: float) -> float:
    """Mean number of days until a one-sided CUSUM of independent N(0, `spread`²) values crosses
    `threshold`.

    Markov chain approximation (Brook and Evans 1972, "An approach to the probability distribution
    of CUSUM run length").
    """
    width = 2 * threshold / (2 * _STATES - 1)
    # Probability of falling below the upper edge of a state, by its distance from the one before.
    distances = np.arange(-_STATES, _STATES)
    below = ndtr(((distances + 0.5) * width + slack) / spread)
    upper, lower = below[_DISTANCE + _STATES], below[_DISTANCE + _STATES - 1]
    lower[:, 0] = 0.0  # whatever falls below zero is at zero
    matrix = np.eye(_STATES) - (upper - lower)
    return float(np.linalg.solve(matrix, np.ones(_STATES))[0])


@lru_cache(maxsize=4096)
def threshold_for(days: float, slack: float, spread: float) -> float:
    """The threshold h of a one-sided CUSUM whose mean time between false alarms is `days`."""
    low, high = 0.1, _HIGHEST
    for _ in range(20):  # to 0.00004
        middle = (low + high) / 2
        if run_length(middle, slack, spread) < days:
            low = middle
        else:
            high = middle
    return round(high, 2)


def run_lengths(sides: Mapping[str, int], target: float) -> dict[str, int]:
    """Return the mean days between false alarms that one sum of each group of charts may have.

    `sides` are the one-sided sums of each group (`Chart.group`), `target` false alarms per 100 days
    over all signals. Every signal may raise the same share of them, and within a signal every sum:
    a language signal of twelve charts is then not twelve times as loud as the refusal rate. Charts
    of slices together have `SLICE_SHARE` of their signal's, and the whole traffic has the rest.
    """
    signals = {name.removesuffix(IN_SLICES) for name in sides}
    share = target / max(1, len(signals))
    return {
        name: round(100 * number / (share * _part_of_budget(name, sides)))
        for name, number in sides.items()
    }


def _part_of_budget(group: str, sides: Mapping[str, int]) -> float:
    if group.endswith(IN_SLICES):
        return SLICE_SHARE
    return 1 - SLICE_SHARE if f"{group}{IN_SLICES}" in sides else 1.0


def change_begin(z: Floats, up: bool) -> int:
    """Position in an excursion where the change began: the last low of a CUSUM whose slack is half
    the size now seen.

    The excursion itself begins where its sum left zero, with the small slack that finds small
    changes; chance often lifts it some days before a larger change.
    """
    signed = z if up else -z
    size = float(signed[-_LATEST:].mean())
    sums = np.concatenate([[0.0], np.cumsum(signed - size / 2)])
    return int(np.flatnonzero(sums[:-1] == sums[:-1].min())[-1])


def measured_spread(blocks: Floats, weeks: int, usual: float = USUAL_SPREAD) -> float:
    """Standard deviation of daily z as the CUSUM feels it, from sums over weeks divided by the root
    of their days, of one chart or of several.

    1 where days are independent; more where neighbouring days lean to the same side, because users
    are exchanged slowly or a level wanders. Read from the 90 % quantile, so that real changes in
    the history count little, and drawn towards `usual` where there are few weeks.
    """
    if not len(blocks):
        return usual
    found = float(np.quantile(np.abs(blocks), _QUANTILE) / norm.ppf((1 + _QUANTILE) / 2))
    weight = weeks / (weeks + _PRIOR_WEEKS)
    return float(np.sqrt(weight * found**2 + (1 - weight) * usual**2))
