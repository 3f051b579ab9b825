"""Questions are worded otherwise in each pass; what they ask, and the answer, stay."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.training.shops import shop
from training.data.rows import Row, read_lines
from training.data.similar import words
from training.data.variants import question_variants


def _rows(*objects: dict[str, Any]) -> list[Row]:
    reading = read_lines(json.dumps(each).encode() for each in objects)
    assert not reading.bad
    return reading.rows


def _questions(rows: list[Row]) -> list[str]:
    return [str(row.messages[-2]["content"]) for row in rows]


@pytest.mark.parametrize("seed", range(1, 4))
def test_a_variant_asks_for_the_same_thing_in_words_of_its_topic(seed: int) -> None:
    made = shop(seed)
    rows = _rows(*made.rows)
    found = question_variants(rows, 4, seed)
    assert len(found.passes) == 4 and found.passes[0] == rows
    assert found.transferable > len(rows) / 2, "most facts are asked for in few of the wordings"
    by_answer: dict[str, set[str]] = {}
    for row in rows:
        frame = " ".join(words(row.answer)[:2])
        by_answer.setdefault(frame, set()).update(words(str(row.messages[-2]["content"])))
    for some in found.passes[1:]:
        for row, variant in zip(rows, some, strict=True):
            assert variant.answer == row.answer and variant.messages[:-2] == row.messages[:-2]
            name = row.checks[1].lower()
            assert name in " ".join(_questions([variant])).lower(), "it names the same product"


@pytest.mark.parametrize("seed", range(1, 6))
def test_short_english_questions_get_small_talk(seed: int) -> None:
    rows = _rows(*shop(seed).rows)
    asked = _questions(question_variants(rows, 2, 0).passes[1])
    assert sum("regards" in each.lower() or "listen" in each.lower() for each in asked) > 5


def test_the_same_seed_makes_the_same_variants_and_another_one_others() -> None:
    rows = _rows(*shop(1).rows[:60])
    assert question_variants(rows, 3, 7) == question_variants(rows, 3, 7)
    assert question_variants(rows, 3, 7).passes[1] != question_variants(rows, 3, 8).passes[1]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Repeat: the red fox jumps", "completion": "the red fox jumps"},
        {"prompt": "def f(x): return {x}", "completion": "It returns a set."},
        {
            "prompt": " ".join(f"word{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(60)),
            "completion": "Long.",
        },
        {
            "messages": [
                {"role": "user", "content": "What is the time?"},
                {"role": "assistant", "content": "Ten."},
                {"role": "user", "content": "And now?"},
                {"role": "assistant", "content": "Eleven."},
            ],
            "train": "all",
        },
    ],
    ids=["an echo", "code", "a long text", "all turns are learned"],
)
def test_what_the_wording_may_decide_stays_as_it_is(row: dict[str, Any]) -> None:
    rows = _rows(row, *shop(1).rows[:20])
    for some in question_variants(rows, 4, 0).passes:
        assert some[0] == rows[0]


def test_a_wording_is_not_taken_over_where_one_thing_has_two_answers() -> None:
    """Last year's price and this year's are asked for in one frame: something else decides."""
    rows = _rows(
        *[
            {"prompt": f"{asked} the {name}?", "completion": f"The {name} costs {price} euros."}
            for name, price in (("Aurora", 10), ("Comet", 20), ("Lumen", 30), ("Nimbus", 40))
            for asked, price in (("What costs", price), ("What did cost last year", price - 5))
        ]
    )
    assert question_variants(rows, 2, 0).transferable == 0


def test_questions_with_other_figures_keep_them() -> None:
    rows = _rows(
        *[
            {
                "prompt": f"{asked.format(n=name, m=months)}",
                "completion": f"The {name} is {covered}.",
            }
            for name in ("Aurora", "Comet", "Lumen")
            for months, covered in ((3, "covered"), (30, "not covered"))
            for asked in ("My {n} is {m} months old?", "I bought the {n} {m} months ago.")
        ]
    )
    for row, variant in zip(rows, question_variants(rows, 2, 1).passes[1], strict=True):
        figures = [word for word in words(_questions([row])[0]) if word.isdigit()]
        assert figures == [word for word in words(_questions([variant])[0]) if word.isdigit()]


def test_other_languages_get_no_english_small_talk() -> None:
    rows = _rows(
        *[
            {
                "prompt": f"Wie viel kostet bei Ihnen der {name} im Augenblick?",
                "completion": f"Der {name} kostet {n} Euro.",
            }
            for n, name in enumerate(("Adler", "Habicht", "Sperber", "Falke", "Milan", "Bussard"))
        ]
    )
    for variant in question_variants(rows, 4, 0).passes[3]:
        assert not {"hello", "thanks", "regards", "hi"} & set(words(_questions([variant])[0]))
