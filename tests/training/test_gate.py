"""The gate as a table of cases, and the promise of its interval."""

from __future__ import annotations

import random

import pytest

from training.evaluation.gate import (
    FAIL,
    INCONCLUSIVE,
    PASS,
    Pair,
    Thresholds,
    decide,
    interval,
    score_interval,
)


def _pairs(both: int, better: int, worse: int, neither: int = 0) -> list[Pair]:
    cells = [(1, 1)] * both + [(1, 0)] * better + [(0, 1)] * worse + [(0, 0)] * neither
    return [
        Pair(float(ours), float(theirs), float(ours), float(theirs), True) for ours, theirs in cells
    ]


@pytest.mark.parametrize(
    ("case", "old", "verdict", "words"),
    [
        ("plainly better than the base", _pairs(1, 40, 0, 9), PASS, "Better than"),
        ("no better than the base", _pairs(10, 0, 0, 40), FAIL, "No better"),
        ("worse than the base", _pairs(10, 1, 5, 34), FAIL, "No better"),
        ("a base that is perfect cannot be beaten", _pairs(50, 0, 0), FAIL, "No better"),
        (
            "two rows better in fifty is not enough to tell",
            _pairs(20, 3, 1, 26),
            INCONCLUSIVE,
            "too few to tell",
        ),
        ("nine rows say nothing", _pairs(0, 9, 0), INCONCLUSIVE, "Only 9"),
        ("no rows", [], INCONCLUSIVE, "Only 0"),
    ],
)
def test_a_first_version_must_beat_the_base(
    case: str, old: list[Pair], verdict: str, words: str
) -> None:
    decision = decide({"old": old, "new": [], "regression": []}, first=True, against="the base")
    assert (decision.verdict, words in decision.reason) == (verdict, True), f"{case}: {decision}"


@pytest.mark.parametrize(
    ("case", "old", "new", "reviewed", "verdict", "words"),
    [
        (
            "same on old, far better on new, nothing broken",
            _pairs(98, 0, 1, 1),
            _pairs(5, 25, 0),
            _pairs(20, 60, 0),
            PASS,
            "Better on 30 new",
        ),
        (
            "same on everything",
            _pairs(95, 0, 0, 5),
            _pairs(30, 0, 0),
            _pairs(30, 0, 0),
            PASS,
            "Not worse on 100 old",
        ),
        (
            "old skills lost",
            _pairs(60, 0, 30, 10),
            _pairs(5, 25, 0),
            _pairs(20, 60, 0),
            FAIL,
            "Worse on 100 old",
        ),
        (
            "a little worse on old, beyond the margin",
            _pairs(90, 0, 8, 2),
            _pairs(5, 25, 0),
            [],
            FAIL,
            "Worse on 100 old",
        ),
        (
            "too few old rows to tell",
            _pairs(15, 1, 1, 1),
            _pairs(5, 25, 0),
            [],
            INCONCLUSIVE,
            "too few",
        ),
        (
            "new rows answered worse",
            _pairs(98, 0, 0, 2),
            _pairs(5, 0, 20, 5),
            [],
            FAIL,
            "Worse on 30 new",
        ),
        (
            "one of 40 fixed conversations broken",
            _pairs(98, 0, 0, 2),
            [],
            _pairs(39, 10, 1),
            FAIL,
            "39 of 40",
        ),
        (
            "one of 100 fixed conversations broken: a person has to look",
            _pairs(98, 0, 0, 2),
            [],
            _pairs(99, 10, 1),
            INCONCLUSIVE,
            "1 broke",
        ),
        (
            "three of 100 fixed conversations broken",
            _pairs(98, 0, 0, 2),
            [],
            _pairs(97, 10, 3),
            FAIL,
            "3 broke",
        ),
        (
            "nothing was right before, so nothing can break",
            _pairs(98, 0, 0, 2),
            [],
            _pairs(0, 10, 0, 10),
            PASS,
            "none of the 20",
        ),
        (
            "a failure outweighs what cannot be told",
            _pairs(3, 0, 0),
            [],
            _pairs(39, 10, 1),
            FAIL,
            "Only 3",
        ),
        (
            "no old rows: nobody knows",
            [],
            _pairs(5, 25, 0),
            [],
            INCONCLUSIVE,
            "Only 0 held-out old",
        ),
    ],
)
def test_a_successor_keeps_what_works(
    case: str, old: list[Pair], new: list[Pair], reviewed: list[Pair], verdict: str, words: str
) -> None:
    decision = decide(
        {"old": old, "new": new, "regression": reviewed}, first=False, against="support@v1"
    )
    assert (decision.verdict, words in decision.reason) == (verdict, True), f"{case}: {decision}"


def test_what_decided_is_stored_with_it() -> None:
    decision = decide(
        {"old": _pairs(90, 5, 0, 5), "new": [], "regression": []}, first=False, against="a@v1"
    )
    assert decision.metrics["old"] | {"low": 0, "high": 0} == {
        "candidate_low": 0.9002, "candidate_high": 0.9756, "n": 100, "measure": "correct", "candidate": 0.95, "against": 0.9, "difference": 0.05, "low": 0, "high": 0, "candidate_f1": 0.95, "against_f1": 0.9, "broken": 0, "fixed": 5,
    }  # fmt: skip
    assert decision.thresholds["margin"] == Thresholds().margin
    assert decision.metrics["new"]["n"] == 0


def test_the_gate_names_what_failed_and_which_conversations_broke() -> None:
    reviewed = [
        Pair(0.0, 1.0, 0.0, 1.0, True, "c-1"),
        Pair(1.0, 1.0, 1.0, 1.0, True, "c-2"),
        Pair(0.0, 0.0, 0.0, 0.0, True, "c-3"),
    ]
    decision = decide(
        {"old": _pairs(98, 0, 0, 2), "new": [], "regression": reviewed}, first=False, against="a@v1"
    )
    assert (decision.verdict, decision.failed, decision.metrics["regression"]["broken_ids"]) == (
        FAIL,
        ("regression",),
        ["c-1"],
    )
    both = decide(
        {"old": _pairs(60, 0, 30, 10), "new": [], "regression": reviewed},
        first=False,
        against="a@v1",
    )
    assert both.failed == ("old", "regression")


def test_word_overlap_decides_only_where_rows_name_no_checks() -> None:
    close = [Pair(0.0, 0.0, 0.8, 0.1) for _ in range(30)]
    assert decide({"old": close}, first=True, against="the base").verdict == PASS
    checked = [Pair(0.0, 0.0, 0.8, 0.1, True) for _ in range(30)]
    assert decide({"old": checked}, first=True, against="the base").verdict == FAIL


@pytest.mark.parametrize("rows", [20, 50, 200])
def test_the_bounds_hold_as_often_as_they_say(rows: int) -> None:
    """Each one-sided 90 % bound may miss the truth in 10 % of samples; 400 samples allow for chance
    (three standard errors).
    """
    draw, misses_low, misses_high = random.Random(rows), 0, 0
    better, worse = 0.08, 0.05
    for _ in range(400):
        sample = [
            1.0 if (u := draw.random()) < better else -1.0 if u < better + worse else 0.0
            for _ in range(rows)
        ]
        low, high = interval(sample, 0.9)
        misses_low, misses_high = (
            misses_low + (low > better - worse),
            misses_high + (high < better - worse),
        )
    assert max(misses_low, misses_high) / 400 < 0.1 + 3 * (0.1 * 0.9 / 400) ** 0.5


def test_the_bootstrap_is_the_same_every_time() -> None:
    values = [0.1, 0.5, -0.2, 0.3] * 10
    assert interval(values, 0.9) == interval(values, 0.9)


def _answered(groups: list[list[int]]) -> list[Pair]:
    return [
        Pair(float(right), 0.0, 0.0, 0.0, True, pattern=number)
        for number, group in enumerate(groups)
        for right in group
    ]


def test_questions_of_one_pattern_count_as_going_together() -> None:
    alone = score_interval(_answered([[1]] * 40))
    together = score_interval(_answered([[1] * 10] * 4))
    assert alone is not None and together is not None
    assert alone[0] > 0.9 and together[0] < 0.75, "four patterns are no forty questions"
    assert (alone[1], together[1]) == pytest.approx((1.0, 1.0))


def test_a_score_of_parts_or_of_nothing_has_no_interval() -> None:
    assert score_interval([]) is None
    assert score_interval([Pair(0.5, 0.0, 0.5, 0.0)]) is None


@pytest.mark.parametrize("patterns", [3, 6, 12])
def test_the_interval_covers_the_share_that_other_patterns_get(patterns: int) -> None:
    """Patterns differ in how well they are answered; each asks a few questions."""
    rng, covered, rounds = random.Random(patterns), 0, 400
    for _ in range(rounds):
        ease = [rng.betavariate(3.4, 0.6) for _ in range(patterns)]
        found = score_interval(
            _answered([[int(rng.random() < p) for _ in range(rng.randint(2, 7))] for p in ease])
        )
        assert found is not None
        covered += found[0] <= 3.4 / 4 <= found[1]
    assert covered / rounds >= 0.85, "90 % is promised, 85 % asked for"
