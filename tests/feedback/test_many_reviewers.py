"""Twenty reviewers at once on 500 items, each looked at by two: nothing is lost or overwritten,
nobody judges one item twice, and agreement is what one counts by hand.

They contest edits, close laptops without giving anything back, are killed before a commit, undo and
decide again. What each was told to have been kept is the ledger that the database is held against.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import sqrt

import pytest
from sqlalchemy import select, update

from feedback import claims, opinion_store, queue
from feedback.queue import Decision
from tests.feedback.world import ALIAS, CLAIM_MS, NOW, queued
from whet.context import Context
from whet.database import reading, writing
from whet.errors import ConflictError, NotFoundError
from whet.tables import examples, review_items, review_opinions, reviews

REVIEWERS, ITEMS, GOLD = 20, 500, 25
_CLOSED, _KILLED, _UNDONE, _CONTESTED = 0.04, 0.04, 0.06, 0.10  # shares of the decisions


class _KilledError(Exception):
    """The process ended before its transaction did."""


class _Clock:
    """Time that passes by decisions, so that a claim of somebody who left runs out."""

    def __init__(self) -> None:
        self._lock, self._now = threading.Lock(), NOW

    def tick(self) -> int:
        with self._lock:
            self._now += CLAIM_MS // 40
            return self._now


@dataclass
class _Ledger:
    """What reviewers were told: item → (reviewer, decision, answer) that stands."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    kept: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    opinions: dict[tuple[str, str], bool] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    overwritten: list[str] = field(default_factory=list)

    def keep(self, item: str, reviewer: str, decision: str, answer: str) -> None:
        with self.lock:
            before = self.kept.get(item, (reviewer, decision, answer))
            if before != (
                reviewer,
                decision,
                answer,
            ):  # said again by the same person: one decision
                self.overwritten.append(item)
            self.kept[item] = (reviewer, decision, answer)

    def drop(self, item: str) -> None:
        with self.lock:
            del self.kept[item]


def _kill(context: Context, item: str, reviewer: str, now: int) -> None:
    """Write as a decision does, and end before the commit."""
    with pytest.raises(_KilledError), writing(context.database) as connection:
        connection.execute(
            update(review_items)
            .where(review_items.c.id == item)
            .values(state="done", claimed_by=reviewer, claimed_until=now)
        )
        raise _KilledError


def _decide(
    context: Context, ledger: _Ledger, rng: random.Random, item: str, reviewer: str, now: int
) -> None:
    decision = rng.choices(("approve", "edit", "reject"), (5, 3, 2))[0]
    answer = f"{reviewer} says {rng.random():.9f}" if decision == "edit" else ""
    said = Decision(decision, answer or None)
    try:
        outcome = queue.decide(context.database, item, reviewer, said, now=now)
    except ConflictError:
        ledger.refused[decision] += 1
        return
    ledger.keep(item, reviewer, outcome.decision, answer)
    again = queue.decide(context.database, item, reviewer, said, now=now)  # sent twice
    assert again.review_id == outcome.review_id, "one decision was kept as two"
    if rng.random() < _UNDONE:
        ledger.drop(item)
        queue.undo(context.database, outcome.review_id, reviewer, claim_ms=CLAIM_MS, now=now)
        claims.release(context.database, {item: None}, reviewer)


def _review(
    context: Context, ledger: _Ledger, clock: _Clock, items: list[str], reviewer: str, seed: int
) -> None:
    rng = random.Random(seed)
    while True:
        now = clock.tick()
        item = claims.next_item(context.database, reviewer, claim_ms=CLAIM_MS, now=now)
        if item is None:
            with reading(context.database) as connection:
                left = connection.execute(
                    select(review_items.c.id).where(review_items.c.state == "waiting").limit(1)
                ).first()
            if left is None:
                return
            continue  # somebody who left holds it: time passes
        chance = rng.random()
        if chance < _CLOSED:
            continue  # the laptop is closed: the claim runs out
        if chance < _CLOSED + _KILLED:
            _kill(context, item, reviewer, now)
            continue
        if chance < _CLOSED + _KILLED + _CONTESTED:
            item = rng.choice(items)  # opened by a link, whoever holds it
        _decide(context, ledger, rng, item, reviewer, now)


def _give_opinions(context: Context, ledger: _Ledger, reviewer: str, seed: int) -> None:
    rng = random.Random(seed)
    while True:
        with reading(context.database) as connection:
            item = opinion_store.next_for_second_opinion(connection, reviewer, percent=100)
        if item is None:
            return
        is_right = rng.random() < 0.6
        try:
            opinion_store.save_opinion(
                context.database, item, reviewer, is_right=is_right, labels=[], seconds=1.0, now=NOW
            )
        except (ConflictError, NotFoundError):
            ledger.refused["opinion"] += 1
            continue
        with ledger.lock:
            assert (item, reviewer) not in ledger.opinions, "somebody judged an item twice"
            ledger.opinions[item, reviewer] = is_right


def _all_at_once(work: Callable[..., None], arguments: Sequence[tuple[object, ...]]) -> None:
    with ThreadPoolExecutor(len(arguments)) as pool:
        for done in [pool.submit(work, *given) for given in arguments]:
            done.result(timeout=900)


def _by_hand(pairs: list[tuple[bool, bool]]) -> tuple[int, float, float, float, float]:
    """(agreed, share, Wilson's bounds, kappa), counted and not computed as the product does."""
    n = len(pairs)
    agreed = sum(1 for first, second in pairs if first is second)
    share, z = agreed / n, 1.959964
    root = z * sqrt((share * (1 - share) + z * z / (4 * n)) / n)
    low, high = ((share + z * z / (2 * n) + sign * root) / (1 + z * z / n) for sign in (-1, 1))
    yes_first, yes_second = (sum(pair[side] for pair in pairs) / n for side in (0, 1))
    chance = yes_first * yes_second + (1 - yes_first) * (1 - yes_second)
    return agreed, share, low, high, (share - chance) / (1 - chance)


@pytest.mark.slow
def test_twenty_reviewers_lose_nothing_and_overwrite_nobody(sqlite_context: Context) -> None:
    context = sqlite_context
    items = queued(context, ITEMS)
    ledger, clock = _Ledger(), _Clock()
    names = [f"reviewer-{number}" for number in range(REVIEWERS)]
    _all_at_once(
        _review, [(context, ledger, clock, items, name, seed) for seed, name in enumerate(names)]
    )
    assert ledger.overwritten == [], "a decision that stood was written over"
    with reading(context.database) as connection:
        standing = {
            row.item_id: (row.reviewer, row.decision, row)
            for row in connection.execute(select(reviews).where(reviews.c.standing.is_not(None)))
        }
        kept = {
            row.review_id: row.row
            for row in connection.execute(select(examples).where(examples.c.withdrawn_at.is_(None)))
        }
    assert {item: found[:2] for item, found in standing.items()} == {
        item: found[:2] for item, found in ledger.kept.items()
    }, "what reviewers were told is not what stands"
    assert set(standing) == set(items), "an item was lost"
    for item, (_, decision, answer) in ledger.kept.items():
        row = standing[item][2]
        assert (row.id in kept) is (decision != "reject")
        assert decision != "edit" or row.answer == answer, "an edit was replaced by another one"
    assert ledger.refused["edit"] > 0, "nobody contested anything: the test shows nothing"

    gold = sorted(items)[:GOLD]
    for item in gold:
        opinion_store.mark_gold(context.database, item, actor="operator", now=NOW)
    _all_at_once(
        _give_opinions, [(context, ledger, name, 100 + seed) for seed, name in enumerate(names)]
    )
    _check_figures(context, ledger, set(gold))


def _check_figures(context: Context, ledger: _Ledger, gold: set[str]) -> None:
    with reading(context.database) as connection:
        stored = {
            (row.item_id, row.reviewer): row.is_right
            for row in connection.execute(select(review_opinions))
        }
        agreement = opinion_store.load_agreement(connection)[ALIAS]
        accuracy = opinion_store.load_gold_accuracy(connection)
    assert stored == ledger.opinions, "an opinion was lost or changed"
    assert all(ledger.kept[item][0] != reviewer for item, reviewer in stored), (
        "a decision of one's own"
    )
    seen = Counter(item for item, _ in stored)
    assert set(seen) == set(ledger.kept), "an item had no second opinion"
    pairs = [
        (ledger.kept[item][1] == "approve", is_right)
        for (item, _), is_right in ledger.opinions.items()
        if item not in gold
    ]
    agreed, share, low, high, kappa = _by_hand(pairs)
    assert (agreement.agreed, agreement.n) == (agreed, len(pairs))
    assert agreement.share == pytest.approx(share)
    assert agreement.interval == pytest.approx((low, high))
    assert agreement.kappa == pytest.approx(kappa)
    for reviewer in {name for item, name in stored if item in gold}:
        own = [
            (ledger.kept[item][1] == "approve", is_right)
            for (item, name), is_right in ledger.opinions.items()
            if name == reviewer and item in gold
        ]
        found = accuracy[reviewer]
        assert (found.agreed, found.n) == (sum(a is b for a, b in own), len(own))
