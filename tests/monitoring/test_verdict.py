"""Verdicts: quiet stays quiet at every size, real changes are found and named, nothing is guessed
from too little.
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from monitoring.rows import Row
from monitoring.signals import SIGNALS
from monitoring.verdict import Rules, Verdict, judge
from tests.monitoring.build import rows


def _drifted(verdict: Verdict) -> set[str]:
    return {finding.signal.name for finding in verdict.findings if finding.state == "drift"}


def _false_alarms(
    pairs: int, n_reference: int, n_window: int, rules: Rules | None = None, **world: int | bool
) -> int:
    found = 0
    for seed in range(pairs):
        reference = rows(n_reference, 2 * seed, **world)
        window = rows(n_window, 2 * seed + 1, **world)
        found += judge(reference, window, rules).state == "drift"
    return found


@pytest.mark.seconds
def test_of_200_pairs_of_the_same_traffic_hardly_any_is_called_drift() -> None:
    """1 % is promised; more than 6 of 200 would come by chance once in 250 such tests."""
    assert _false_alarms(200, 60, 60) <= 6


@pytest.mark.seconds
def test_a_large_reference_and_a_small_window_stay_quiet() -> None:
    assert _false_alarms(8, 1000, 50) <= 1


@pytest.mark.seconds
def test_busy_users_with_habits_of_their_own_are_not_drift() -> None:
    """Fifty users, each with favourite products and phrases: tests that take rows for independent
    alarm on most pairs.
    """
    assert _false_alarms(30, 150, 150, users=50, habits=True) <= 2


def test_a_new_word_in_30_percent_of_questions_is_found_and_named() -> None:
    verdict = judge(rows(400, 1), rows(400, 2, new_words=0.3))
    assert verdict.state == "drift"
    assert verdict.kinds == ["questions"]
    assert "never seen before: 'aurora' in 3" in verdict.summary
    assert "of 400 requests" in verdict.summary


def test_a_new_topic_of_8_percent_is_found_at_2000_conversations() -> None:
    verdict = judge(rows(2000, 1), rows(2000, 2, new_words=0.08))
    assert verdict.kinds == ["questions"]
    (words,) = [
        finding for finding in verdict.findings if finding.signal.name == "question_novelty"
    ]
    examples = words.comparison.examples[:50]
    asked = {row.id: row.question for row in rows(2000, 2, new_words=0.08)}
    assert sum("aurora" in asked[one] for one in examples) / len(examples) > 0.9


def test_a_doubled_refusal_rate_is_found_at_2000_conversations() -> None:
    verdict = judge(rows(2000, 1, refusals=0.03), rows(2000, 2, refusals=0.06))
    assert "refusal" in _drifted(verdict)
    assert verdict.kinds == ["answers"]


def test_falling_ratings_are_found_while_questions_stay_the_same_and_rising_ones_are_no_alarm() -> (
    None
):
    happy, unhappy = rows(600, 1, unhappy=0.1), rows(600, 2, unhappy=0.45)
    verdict = judge(happy, unhappy)
    assert verdict.kinds == ["quality"]
    assert verdict.summary.startswith("Ratings fell.")
    assert judge(unhappy, happy).state == "no_drift"


def test_slower_answers_are_found_and_faster_ones_are_no_alarm() -> None:
    assert judge(rows(300, 1), rows(300, 2, slower=1.6)).kinds == ["service"]
    assert judge(rows(300, 1, slower=1.6), rows(300, 2)).state == "no_drift"


def test_the_beginning_of_a_change_inside_the_window_is_located() -> None:
    window = rows(150, 2) + [
        replace(row, created_at=row.created_at + 150_000, id=row.id + "b")
        for row in rows(150, 3, new_words=0.8)
    ]
    verdict = judge(rows(300, 1), window)
    since = next(finding.comparison.since_at for finding in verdict.drifted("questions"))
    position = [row.created_at for row in window].index(since)
    assert 145 <= position <= 160


def test_the_same_data_give_the_same_verdict_and_the_global_generators_are_untouched() -> None:
    np.random.seed(5)
    random.seed(5)
    expected = np.random.get_state()[1].copy(), random.getstate()
    first, second = (judge(rows(120, 1), rows(120, 2, new_words=0.2)) for _ in range(2))
    assert [finding.record() for finding in first.findings] == [
        finding.record() for finding in second.findings
    ]
    assert (np.random.get_state()[1] == expected[0]).all()
    assert random.getstate() == expected[1]


def test_samples_that_are_too_small_or_overlap_get_no_verdict() -> None:
    some = rows(100, 1)
    assert judge(some[:30], some[30:]).state == "not_enough_data"
    overlapping = judge(some, some)
    assert overlapping.state == "not_enough_data"
    assert "in both samples" in overlapping.summary


def _odd(n: int, seed: int, **changes: object) -> list[Row]:
    return [replace(row, **changes) for row in rows(n, seed)]


@pytest.mark.parametrize(
    "changes",
    [
        {"question": "", "answer": ""},
        {"question": "?!", "answer": "…"},
        {
            "prompt_tokens": None,
            "completion_tokens": None,
            "ttft_ms": None,
            "duration_ms": None,
            "finish_reason": None,
            "rating": None,
        },
        {"prompt_tokens": 0, "completion_tokens": 0, "ttft_ms": 0.0, "duration_ms": 0.0},
        {"ttft_ms": float("nan"), "duration_ms": float("inf")},
        {"question": "x", "answer": "y"},
        {"question": "\x00\ud83d \u202e", "answer": "a" * 5000},
        {"end_user": "one"},
    ],
)
def test_odd_values_in_either_sample_never_break_a_verdict(changes: dict) -> None:
    for reference, window in (
        (rows(60, 1), _odd(60, 2, **changes)),
        (_odd(60, 1, **changes), rows(60, 2)),
        (_odd(60, 1, **changes), _odd(60, 2, **changes)),
    ):
        verdict = judge(reference, window)
        assert {finding.signal.name for finding in verdict.findings} == {
            signal.name for signal in SIGNALS if not signal.is_optional
        }, "rows that asked for no passages have no signals of retrieval"
        for finding in verdict.findings:
            assert finding.sentence
    assert judge(_odd(60, 1, **changes), _odd(60, 2, **changes)).state == "no_drift"
