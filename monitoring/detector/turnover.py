"""Whether a change is more than other users: the second test that an incident has to pass.

Charts judge days against days. A service whose users come and go moves slowly even when nothing
happens to anybody: in a simulated one that replaces 1 % of its users a day, the share of a rare
language is off by a third after a month. So the difference of the two periods is also measured in
standard errors with *users* as the units, each with all rows of both periods: what the users who
stayed did the same before and after cancels out, and a few new ones weigh what they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from monitoring.detector.columns import Floats
from monitoring.detector.sample import user_codes

_LEAST_USERS = 10


def turnover_z(
    before: Floats,
    after: Floats,
    users_before: NDArray[Any],
    users_after: NDArray[Any],
    weights_before: Floats | None = None,
) -> float | None:
    """Difference of means (after - before) over its user-clustered standard error; None with too
    few users to tell. Arguments as those of `clustered_difference`.
    """
    found = clustered_difference(before, after, users_before, users_after, weights_before)
    if found is None:
        return None
    change = found.after - found.before
    # Where nothing varies within the periods (no event before, all after) the difference speaks for
    # itself.
    return float(np.sign(change)) * np.inf if found.error <= 0 else change / found.error


@dataclass(frozen=True, slots=True)
class Difference:
    """Means of two periods; `error`: standard error of their difference."""

    before: float
    after: float
    error: float


def clustered_difference(
    before: Floats,
    after: Floats,
    users_before: NDArray[Any],
    users_after: NDArray[Any],
    weights_before: Floats | None = None,
) -> Difference | None:
    """Compare the means of two periods; None with too few users to tell.

    Values are one per row, NaN where unknown. `weights_before` gives weekday classes the share that
    they have after. Linearised cluster variance (Liang and Zeger 1986) of the difference, with a
    user's residuals of both periods in one cluster.
    """
    codes = user_codes(np.concatenate([users_before, users_after]))
    codes = np.unique(codes, return_inverse=True)[1]
    weights = np.concatenate(
        [np.ones(len(before)) if weights_before is None else weights_before, np.ones(len(after))]
    )
    values = np.concatenate([before, after])
    late = np.arange(len(values)) >= len(before)
    known = np.isfinite(values) & (weights > 0)
    if (
        len(np.unique(codes[known & late])) < _LEAST_USERS
        or len(np.unique(codes[known & ~late])) < _LEAST_USERS
    ):
        return None
    mean_before, mean_after = (
        float(np.average(values[known & side], weights=weights[known & side]))
        for side in (~late, late)
    )
    residual = np.zeros(len(values))
    for side, mean, sign in ((~late, mean_before, -1.0), (late, mean_after, 1.0)):
        part = known & side
        residual[part] = sign * weights[part] * (values[part] - mean) / weights[part].sum()
    variance = float((np.bincount(codes, residual) ** 2).sum())
    return Difference(mean_before, mean_after, float(np.sqrt(max(0.0, variance))))


def class_weights(quiet_before: NDArray[np.bool_], quiet_after: NDArray[np.bool_]) -> Floats:
    """Weights of the rows before that give both weekday classes the share they have after."""
    share_before, share_after = float(quiet_before.mean()), float(quiet_after.mean())
    if share_before in (0.0, 1.0):
        return np.ones(len(quiet_before))
    return np.where(
        quiet_before, share_after / share_before, (1 - share_after) / (1 - share_before)
    )


def least_z(of_one: float, sides: int) -> float:
    """The z that charts of a signal with `sides` one-sided sums have to exceed, so that any of them
    does as rarely as the two of a single chart.
    """
    return float(norm.isf(norm.sf(of_one) * min(1.0, 2 / sides)))
