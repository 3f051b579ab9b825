"""Kinds of requests: what stands for people in tables that do not say who asked.

One busy person has an application and a language, so that what they bring is in one kind of
requests, while what happens to everybody is in all of them. With kinds as the units of the second
test, their rows are one piece of evidence instead of hundreds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring.detector.clusters import cluster_centres
from monitoring.detector.codebook import Codebook
from monitoring.detector.columns import Table
from monitoring.detector.daily import Chart
from monitoring.detector.sample import user_codes
from monitoring.detector.signals import signal_of
from monitoring.detector.slices import slice_columns

# Effective kinds (as many of equal size) from which they can tell one person from everybody.
_LEAST_KINDS = 4
# A share of what is asked that rises evenly in n kinds is at most root n standard errors from its
# level, and in a part of them at most the root of that many: nine of 16 kinds have to carry it.
# What all requests have (a length, a refusal) has no such bound.
_SPREAD = 0.75
# Groups of topics. One person asks mostly about one or two subjects, which have several of the 24
# topics.
_SUBJECTS = 6
_LANGUAGES = ("language", "answer_language")
_SHARES = ("category", "topics", "novelty")  # shapes that are shares of what is asked
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Kinds:
    """Number of the kind of each row of two periods, and how many kinds of equal size they are."""

    before: Codes
    after: Codes
    effective: float
    is_share: bool  # whether the chart is a share of what is asked

    def least_z(self, of_users: float) -> float:
        """Return the z that a change has to exceed by kinds, where `of_users` is that of users."""
        return min(of_users, _SPREAD * self.effective**0.5) if self.is_share else of_users


def kinds_of_requests(
    chart: Chart, before: Table, after: Table, codebook: Codebook | None
) -> Kinds | None:
    """The kinds by route, slices and language.

    None where users are known, and where too few kinds can be told apart. More Spanish cannot be
    spread over languages, nor a route's change over routes; there the subject stands for them.
    """
    if "user" in before and "user" in after:
        return None
    columns = [*slice_columns(after.columns), "language"]
    if chart.signal in _LANGUAGES:
        columns.remove("language")
    parts = [
        user_codes(np.concatenate([before.columns[name], after.columns[name]]))
        for name in columns
        if name in before and name in after
    ]
    if chart.signal in _LANGUAGES or chart.slice:
        parts += _subjects(before, after, codebook)
    if not parts:
        return None
    kinds = np.unique(np.column_stack(parts), axis=0, return_inverse=True)[1].ravel()
    was_in, is_in = kinds[: len(before)], kinds[len(before) :]
    # Of the period that has more: a person of a quarter of the rows leaves few in the other.
    effective = max(_effective(was_in), _effective(is_in))
    is_share = signal_of(chart.signal).shape in _SHARES
    return Kinds(was_in, is_in, effective, is_share) if effective >= _LEAST_KINDS else None


def _effective(kinds: Codes) -> float:
    """Number of kinds of equal size that are as uneven as these (Kish's effective number)."""
    sizes = np.bincount(kinds).astype(float)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _subjects(before: Table, after: Table, codebook: Codebook | None) -> list[NDArray[Any]]:
    """Group of topics of each row; nothing where questions have no vectors."""
    if codebook is None or len(codebook.centroids) <= _SUBJECTS:
        return []
    vectors = [codebook.vectors(table) for table in (before, after)]
    if any(one is None for one in vectors):
        return []
    centres = cluster_centres(codebook.centroids, _SUBJECTS, 0)
    group = Codebook(centres, 0.0, None).assign(codebook.centroids)[0]
    topics = np.concatenate([codebook.assign(one)[0] for one in vectors if one is not None])
    return [np.where(topics < 0, -1, group[topics])]
