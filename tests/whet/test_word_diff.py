"""The word diff holds both texts to the letter, and finds a small change in a text of any length."""

from __future__ import annotations

import random
import time

import pytest

from whet.word_diff import word_diff


def texts_of(pieces: list[tuple[str, str]]) -> tuple[str, str]:
    return (
        "".join(text for kind, text in pieces if kind != "added"),
        "".join(text for kind, text in pieces if kind != "removed"),
    )


def test_a_word_diff_contains_both_texts_to_the_letter() -> None:
    before, after = "The term  is 24 months.\nBye", "The new term  is 36 months.\nBye!"
    pieces = word_diff(before, after)
    assert texts_of(pieces) == (before, after)
    assert ("removed", "24") in pieces and ("added", "36") in pieces
    assert word_diff("a " * 5000, "b") == [("removed", "a " * 5000), ("added", "b")]
    chance = random.Random(7)
    for _ in range(300):
        one, two = (
            " ".join(chance.choice("abcde") for _ in range(chance.randrange(40))) for _ in range(2)
        )
        assert texts_of(word_diff(one, two)) == (one, two)


@pytest.mark.parametrize("vocabulary", [300, 1_000_000])
def test_a_small_change_of_a_long_text_stays_small(vocabulary: int) -> None:
    chance = random.Random(vocabulary)
    words = [f"w{chance.randrange(vocabulary)}" for _ in range(20_000)]
    changed = [*words]
    changed[5], changed[10_000] = "first", "second"
    del changed[15_000]
    started = time.perf_counter()
    pieces = word_diff(" ".join(words), " ".join(changed))
    assert time.perf_counter() - started < 5
    assert texts_of(pieces) == (" ".join(words), " ".join(changed))
    assert sum(len(text) for kind, text in pieces if kind != "same") < 100
