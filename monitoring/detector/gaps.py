"""Clusters of questions that find nothing, by what tells them from those that find something."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monitoring.detector.codebook import Codebook
from monitoring.detector.columns import Table
from monitoring.detector.topics import (
    by_likeness,
    by_risen_words,
    name_groups,
    users_of,
)

_MOST = 20  # clusters: a to-do list that somebody can read
_LEAST_ROWS = 5
# Questions that make a cluster, on average: fewer than for topics, since what a few ask is a gap
# too. Those of one subject are joined by their words.
_ROWS_PER_GAP = 15
_LEAST_USERS = 3  # a subject of one person is personal data, and nobody writes a document for it
# Standard errors by which a cluster by likeness is commoner among what found nothing: of twenty
# clusters that are not, one in forty looks so.
_LEAST_RISE = 3.0


@dataclass(frozen=True)
class Gap:
    """One subject without documents. `rows`: places in the table of misses, most typical first."""

    words: list[str]
    rows: list[int]


def find_gaps(missed: Table, answered: Table, codebook: Codebook | None, seed: int) -> list[Gap]:
    """Return the largest clusters of `missed` first; a question that is like no other is in none.

    `answered`: questions of the same time that found something. Groups are those of an incident's
    topics: by the words that missed questions use more often, else by likeness.
    """
    if not len(missed) or not len(answered):
        return []
    found = by_risen_words(
        answered, missed, codebook, seed, rows_per_topic=_ROWS_PER_GAP, most=2 * _MOST
    )
    is_by_words = found is not None
    found = found or by_likeness(answered, missed, codebook, seed)
    if found is None:
        return []
    sizes = np.bincount(found.new_labels[found.new_labels >= 0], minlength=len(found.centres))
    ranks = sizes.astype(float)
    if not is_by_words:
        ranks = np.where(found.rises() >= _LEAST_RISE, ranks, 0.0)
    named = name_groups(found, ranks, missed, {}, _MOST, _LEAST_ROWS)
    gaps = [
        Gap(words, [int(found.new_rows[member]) for member in members])
        for topic, words, members in zip(named.topics, named.words, named.members, strict=True)
        if ranks[topic] > 0
    ]
    owners = users_of(missed)
    return [
        gap for gap in gaps if gap.words and len({owners[row] for row in gap.rows}) >= _LEAST_USERS
    ]
