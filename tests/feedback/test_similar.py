"""Sameness of questions: the quick search must find exactly what comparing all pairs finds."""

from __future__ import annotations

import random
import time

import pytest

from feedback.similar import NEAR, groups, near_pairs, question_key, shingles


@pytest.mark.parametrize(("a", "b", "same"), [("Where is it?", "  where IS it", True), ("ﬁne", "fine", True), ("24 months", "36 months", False), ("?!", "?!", True), ("?!", "!?", False), ("", " ", False)])  # fmt: skip
def test_sameness_ignores_case_space_and_punctuation_but_not_digits(
    a: str, b: str, same: bool
) -> None:
    assert (question_key(a) == question_key(b)) is same


def test_the_pair_search_is_exact() -> None:
    noise = random.Random(3)
    words = [f"w{n}" for n in range(40)]
    texts = [" ".join(noise.choice(words) for _ in range(noise.randint(1, 60))) for _ in range(60)]
    texts += [
        " ".join("other" if noise.random() < 0.01 else word for word in text.split())
        for text in texts
    ]
    sets = [shingles(text) for text in texts]
    for near in (0.5, 0.8, NEAR, 1.0):
        expected = {
            (i, j)
            for j in range(len(sets))
            for i in range(j)
            if len(sets[i] & sets[j]) >= near * len(sets[i] | sets[j])
        }
        assert set(near_pairs(sets, near)) == expected


def test_another_product_is_another_question_and_a_typo_in_a_long_one_is_not() -> None:
    short = [
        "How long is the warranty of the Aurora 2?",
        "How long is the warranty of the Aurora 3?",
    ]
    assert groups(short) == [0, 1]
    long = " ".join(f"word{n}" for n in range(80))
    assert groups([long, long.replace("word79", "wort79"), long.replace("word40", "x")]) == [
        0,
        0,
        0,
    ]


def test_frames_keep_equal_questions_apart() -> None:
    assert groups(
        ["what is the term", "what is the term", "what is the term"], ["a", "b", "a"]
    ) == [0, 1, 0]


def test_ten_thousand_templated_questions_take_seconds() -> None:
    noise = random.Random(5)
    texts = [
        f"Hello, my {noise.choice('abcdef')} device number {noise.randint(1, 5000)} does not start"
        f" since {noise.randint(1, 30)} days, what shall I do now?"
        for _ in range(10_000)
    ]
    start = time.perf_counter()
    found = groups(texts)
    assert time.perf_counter() - start < 20
    assert len(set(found)) > 8000
