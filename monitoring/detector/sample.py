"""The daily sample: a few rows of each user, so that nobody's day is the statistic."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring.detector.columns import Table

Index = NDArray[np.int64]


def capped(users: NDArray[Any] | None, rows: int, limit: int, rng: np.random.Generator) -> Index:
    """Positions of at most `limit` random rows of each user, ascending.

    A row without a user stands for a user of its own.
    """
    if users is None:
        return np.arange(rows)
    codes = user_codes(users)
    order = np.lexsort((rng.random(rows), codes))
    sorted_codes = codes[order]
    first = np.r_[True, sorted_codes[1:] != sorted_codes[:-1]]
    starts = np.flatnonzero(first)
    rank = np.arange(rows) - np.repeat(starts, np.diff(np.r_[starts, rows]))
    return np.sort(order[rank < limit])


def user_codes(users: NDArray[Any]) -> Index:
    """An integer per user; rows without one get integers of their own."""
    if users.dtype != object:
        return np.unique(users, return_inverse=True)[1].astype(np.int64)
    seen: dict[Any, int] = {}
    return np.fromiter(
        (
            seen.setdefault(user, len(seen)) if user is not None else -1 - row
            for row, user in enumerate(users)
        ),
        dtype=np.int64,
        count=len(users),
    )


def sample_of_day(table: Table, limit: int, least: int, seed: int, day: int) -> Table:
    """The capped sample of one day.

    Where it would hold fewer than `least` rows (a service of a few people) the cap is doubled until
    it does not.
    """
    rows = len(table)
    users = table.get("user")
    index = capped(users, rows, limit, np.random.default_rng([seed, day]))
    while len(index) < min(least, rows):
        limit *= 2
        index = capped(users, rows, limit, np.random.default_rng([seed, day]))
    return table.take(index)
