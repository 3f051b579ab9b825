"""Conversations of two periods in groups: what people ask about, and which of it rose.

Two ways to the groups. *By risen words*, where vectors are those of words and questions changed:
words that more users say since the change than before span a space of their own, in which only
questions that hold some of them have a place. In the space of all words a new topic would be
scattered over the ways of asking, which share more words than its questions do. *By likeness*:
k-means on the vectors as they are, which does not know which row is when.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring.detector.clusters import cluster_centres
from monitoring.detector.codebook import Codebook, vectors_of
from monitoring.detector.columns import Floats, Table
from monitoring.detector.texts import Vectors, WordSpace, characteristic_words, risen_words
from whet.records.monitoring import TopicRecord

MOST = 3  # topics that are named
LEAST_ROWS = 10  # conversations of a topic after the change
_COMMON_WORDS = 2  # that two groups of one subject share at least
_EXAMPLES = 5
_ROWS_PER_TOPIC = 40  # rows that make a topic, on average
_TOPICS = (6, 32)
_ROWS_PER_RISEN_TOPIC = (
    100  # fewer make three topics of one: its questions share a subject, and not always a word
)
_RISEN_TOPICS = (1, 12)
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Clusters:
    """Conversations of both periods that have a vector, each with the number of its group; -1 is in
    no group.
    """

    centres: Vectors
    old_rows: Labels  # of the table before the change, those that are meant by the labels
    new_rows: Labels
    old_labels: Labels
    new_labels: Labels
    new_vectors: Vectors  # of `new_rows`; NaN outside all groups
    words: Collection[str] | None = None  # that made the groups, where words did

    def rises(self) -> Floats:
        """How surely the share of each group rose, in standard errors of two independent samples: a
        ranking, not a test.
        """
        was, now = (
            np.bincount(labels[labels >= 0], minlength=len(self.centres))
            for labels in (self.old_labels, self.new_labels)
        )
        old, new = len(self.old_labels), len(self.new_labels)
        pooled = (was + now) / (old + new)
        error = np.sqrt(np.maximum(pooled * (1 - pooled), 1e-9) * (1 / old + 1 / new))
        return np.asarray((now / new - was / old) / error)


def by_risen_words(
    before: Table,
    after: Table,
    codebook: Codebook | None,
    seed: int,
    *,
    rows_per_topic: int = _ROWS_PER_RISEN_TOPIC,
    most: int = _RISEN_TOPICS[1],
) -> Clusters | None:
    """None where the table brings its vectors, where texts are gone, and where no words rose in
    enough conversations.
    """
    if (
        (codebook is not None and codebook.space is None)
        or "prompt" not in before
        or "prompt" not in after
    ):
        return None
    rows = tuple(
        np.array(
            [index for index, text in enumerate(table.columns["prompt"]) if text], dtype=np.int64
        )
        for table in (before, after)
    )
    if not len(rows[0]) or not len(rows[1]):
        return None
    before, after = before.take(rows[0]), after.take(rows[1])
    texts = list(before.columns["prompt"]), list(after.columns["prompt"])
    words = risen_words(texts[0], users_of(before), texts[1], users_of(after))
    space = WordSpace.of(words)
    first, second = space.vectors(texts[0]), space.vectors(texts[1])
    placed = first[_known(first)], second[_known(second)]
    if len(placed[1]) < LEAST_ROWS:
        return None
    pooled = np.concatenate(placed)
    wanted = int(np.clip(len(pooled) // rows_per_topic, _RISEN_TOPICS[0], most))
    centres = (
        cluster_centres(pooled, wanted, seed) if wanted > 1 else pooled.mean(axis=0, keepdims=True)
    )
    return Clusters(
        centres, rows[0], rows[1], _labels(centres, first), _labels(centres, second), second, words
    )


def by_likeness(
    before: Table, after: Table, codebook: Codebook | None, seed: int
) -> Clusters | None:
    """Groups of both periods together, since a new topic has no place among the old; None where
    there are no vectors or too few.
    """
    space = codebook.space if codebook else None
    if space is None and "prompt" in after:
        space = WordSpace.learned([*before.columns.get("prompt", []), *after.columns["prompt"]])
    first, second = vectors_of(before, space), vectors_of(after, space)
    if first is None or second is None:
        return None
    rows = np.flatnonzero(_known(first)), np.flatnonzero(_known(second))
    pooled = np.concatenate([first[rows[0]], second[rows[1]]])
    if (
        len(pooled) < 2 * _ROWS_PER_TOPIC or not len(rows[0]) or not len(rows[1])
    ):  # texts can be gone from the log
        return None
    centres = cluster_centres(pooled, int(np.clip(len(pooled) // _ROWS_PER_TOPIC, *_TOPICS)), seed)
    return Clusters(
        centres,
        rows[0],
        rows[1],
        _labels(centres, first[rows[0]]),
        _labels(centres, second[rows[1]]),
        second[rows[1]],
    )


@dataclass(frozen=True)
class NamedGroups:
    """Some groups after those of one subject were joined; lists of one length, in order of rank."""

    clusters: Clusters
    topics: list[int]
    words: list[list[str]]
    members: list[Labels]  # places among `clusters.new_rows`, nearest to the centre first
    carried: dict[int, float]


def name_groups(
    found: Clusters,
    ranks: Floats,
    after: Table,
    carried: Mapping[int, float],
    most: int = MOST,
    least: int = LEAST_ROWS,
) -> NamedGroups:
    """Return the first `most` groups by rank that have `least` conversations after the change.

    `after` is the table that the clusters were made of. One subject often comes as several groups,
    so the words of twice as many are compared.
    """
    after = after.take(found.new_rows)
    names, prompts = users_of(after), after.get("prompt")
    candidates = _first(found, ranks, 2 * most, least)
    first_words = _words(found, candidates, prompts, names)
    found, carried = _joined(found, _of_one_subject(candidates, first_words), carried)
    chosen = _first(found, ranks, most, least)
    members = []
    for topic in chosen:
        own = np.flatnonzero(found.new_labels == topic)
        distance = ((found.new_vectors[own] - found.centres[topic]) ** 2).sum(1)
        members.append(own[np.argsort(distance, kind="stable")])
    return NamedGroups(found, chosen, _words(found, chosen, prompts, names), members, carried)


def described(
    found: Clusters, ranks: Floats, after: Table, carried: Mapping[int, float]
) -> list[TopicRecord]:
    """Describe the first `MOST` groups by rank: words, shares, conversations.

    `carried` is the share of a change that is in each group, where known. Groups of one subject are
    told as one.
    """
    named = name_groups(found, ranks, after, carried)
    after = after.take(found.new_rows)
    made = []
    for topic, words, members in zip(named.topics, named.words, named.members, strict=True):
        old, new = named.clusters.old_labels, named.clusters.new_labels
        made.append(
            TopicRecord(
                words=words,
                share_before=round(float((old == topic).mean()), 4),
                share_now=round(float((new == topic).mean()), 4),
                examples=one_per_user(members, users_of(after), after.columns["id"], _EXAMPLES),
                **_carried(named.carried.get(topic)),
            )
        )
    return made


def _carried(share: float | None) -> dict[str, float]:
    return {} if share is None else {"share_of_change": round(share, 3)}


def _first(found: Clusters, ranks: Floats, count: int, least: int) -> list[int]:
    """The first `count` groups by rank that have enough conversations after the change."""
    order = (int(topic) for topic in np.argsort(-ranks, kind="stable"))
    enough = [topic for topic in order if (found.new_labels == topic).sum() >= least]
    return enough[:count]


def _of_one_subject(topics: Sequence[int], words: Sequence[Sequence[str]]) -> dict[int, int]:
    """Topic → the first topic before it that shares half of the words of one of the two."""
    joined: dict[int, int] = {}
    for position, topic in enumerate(topics):
        for other in range(position):
            common = len(set(words[position]) & set(words[other]))
            least = min(len(words[position]), len(words[other]))
            if common >= _COMMON_WORDS and 2 * common >= least:
                joined[topic] = joined.get(topics[other], topics[other])
                break
    return joined


def _joined(
    found: Clusters, joined: Mapping[int, int], carried: Mapping[int, float]
) -> tuple[Clusters, dict[int, float]]:
    """The clusters, and what each carries of a change, with some put into others."""
    target = np.arange(len(found.centres))
    shares = dict(carried)
    for topic, other in joined.items():
        target[topic] = other
        if topic in shares:
            shares[other] = shares.get(other, 0.0) + shares.pop(topic)
    old, new = (
        np.where(labels >= 0, target[labels], labels)
        for labels in (found.old_labels, found.new_labels)
    )
    return replace(found, old_labels=old, new_labels=new), shares


def users_of(table: Table) -> list[str]:
    """The user of each row; a row without one is a user of its own."""
    owners = table.columns.get("user", table.columns["id"])
    return [
        str(name if owner is None else owner)
        for owner, name in zip(owners, table.columns["id"], strict=True)
    ]


def _words(
    found: Clusters, chosen: Sequence[int], prompts: Any, names: Sequence[str]
) -> list[list[str]]:
    if prompts is None:
        return [[] for _ in chosen]
    rest = ~np.isin(found.new_labels, chosen)
    groups = [
        np.flatnonzero(mask) for mask in (*(found.new_labels == topic for topic in chosen), rest)
    ]
    of_groups = (
        [[prompts[i] for i in group] for group in groups],
        [[names[i] for i in group] for group in groups],
    )
    return characteristic_words(*of_groups, among=found.words)[: len(chosen)]


def _known(vectors: Vectors) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(vectors).all(axis=1))


def _labels(centres: Vectors, vectors: Vectors) -> Labels:
    return Codebook(centres, 0.0, None).assign(vectors)[0]


def one_per_user(order: Labels, names: Sequence[str], ids: NDArray[Any], limit: int) -> list[str]:
    """The first conversations of different users: five of one person show that person."""
    chosen: dict[str, str] = {}
    for index in order:
        chosen.setdefault(names[index], str(ids[index]))
        if len(chosen) == limit:
            break
    return list(chosen.values())
