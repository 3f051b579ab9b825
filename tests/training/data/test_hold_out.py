"""What is held out asks in other words than training, and costs no row."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from benchmarks.training.shops import TOPICS, shop
from training.data.datasets import Shares, default_shares
from training.data.hold_out import choose_hold_out
from training.data.patterns import Patterns
from training.data.repeats import merge_repeats
from training.data.rows import Row, read_lines
from training.data.split import split
from whet.errors import InputError

SHARES = Shares(0.0, 0.1)


def _rows(objects: list[dict[str, Any]]) -> list[Row]:
    reading = read_lines(json.dumps(each).encode() for each in objects)
    assert not reading.bad
    return reading.rows


def _wording(question: str) -> str:
    """The wording that the shop made a question of."""
    known = [
        wording
        for topic in TOPICS
        for wording in topic.wordings
        if all(part.strip(" ?.").lower() in question.lower() for part in wording.split("{p}"))
    ]
    return max(known, key=len)


@pytest.mark.parametrize("seed", range(1, 6))
def test_patterns_are_the_wordings_that_questions_were_made_of(seed: int) -> None:
    rows = _rows(shop(seed).rows)
    pairs = Counter(
        zip(
            Patterns(rows).of_rows,
            (_wording(row.messages[-2]["content"]) for row in rows),
            strict=True,
        )
    )
    wordings = {wording for _, wording in pairs}
    whole = sum(max(n for (_, w), n in pairs.items() if w == wording) for wording in wordings)
    assert whole / len(rows) > 0.97, "the rows of one wording are in one pattern"
    assert len({pattern for pattern, _ in pairs}) >= 0.65 * len(wordings), "wordings are kept apart"


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_shop_with_users_who_repeat_each_other_loses_no_row(seed: int) -> None:
    rows = _rows(shop(seed).rows)
    made = split(rows, default_shares(len(rows), separate_test=False))
    train, test = made.parts["train"], made.parts["test"]
    assert len(train) + len(test) == len(rows) and made.dropped == []
    assert made.hold_out == "pattern" and "--hold-out user" in made.why
    asked = {_wording(row.messages[-2]["content"]) for row in train}
    unseen = [row for row in test if _wording(row.messages[-2]["content"]) not in asked]
    assert len(unseen) > 0.9 * len(test), "test questions are worded as no training question is"
    taught = {row.answer for row in train}
    assert sum(row.answer not in taught for row in test) <= 0.05 * len(test), "and can be answered"
    assert len({row.prompt_digest for row in test}) >= 15, "enough different questions"


def test_users_are_held_out_where_they_do_not_repeat_each_other() -> None:
    words = ("alpha", "beta", "gamma", "delta", "kappa", "sigma", "omega", "theta")
    rows = _rows(
        [
            {
                "prompt": f"{one} {other} {one} {another}",
                "completion": f"{one} it is, {number}",
                "user": f"u{number % 40}",
            }
            for number, (one, other, another) in enumerate(
                (one, other, another) for one in words for other in words for another in words[:5]
            )
        ]
    )
    own = [{**row.raw, "prompt": f"{row.raw['prompt']} {row.user}x{row.line}"} for row in rows]
    made = split(_rows(own), SHARES, hold_out="user")
    held_out = {row.user for row in made.parts["test"]}
    assert held_out and not held_out & {row.user for row in made.parts["train"]}


def test_auto_holds_out_users_whose_questions_are_their_own() -> None:
    own = [
        {
            "prompt": f"{chr(97 + n)}{chr(98 + n)}{chr(99 + n)} please?",
            "completion": "Yes.",
            "user": f"u{n}",
        }
        for n in range(20)
    ]
    assert choose_hold_out(_rows(own), "auto")[0] == "user"
    shared = [{**each, "user": f"v{n}"} for n, each in enumerate(own)]
    assert choose_hold_out(_rows([*own, *shared]), "auto")[0] == "pattern"


@pytest.mark.parametrize("choice", ["nonsense", "user", "time"])
def test_a_choice_that_cannot_be_followed_says_what_to_do(choice: str) -> None:
    with pytest.raises(InputError, match="--hold-out"):
        choose_hold_out(_rows([{"prompt": "a?", "completion": "b"}]), choice)


@pytest.mark.parametrize(("count", "least"), [(12, 1), (30, 10), (60, 10), (99, 10)])
def test_from_thirty_questions_on_the_gate_has_its_ten(count: int, least: int) -> None:
    different = list({row["prompt"]: row for row in shop(3).rows}.values())[:count]
    made = split(_rows(different), default_shares(count, separate_test=False))
    assert len(made.parts["test"]) >= least
    assert len(made.parts["train"]) >= count // 2


def test_a_new_question_of_a_held_out_pattern_joins_it() -> None:
    known = shop(2).rows
    before = split(_rows(known), SHARES)
    held_out = {_wording(row.messages[-2]["content"]) for row in before.parts["test"]}
    fresh = [
        {"prompt": f"Excuse me, {wording.format(p='Newnew')}", "completion": "The Newnew has it."}
        for wording in sorted(held_out)
    ]
    after = split(_rows([*known, *fresh]), SHARES, parent=before.assigned)
    assert {row.messages[-2]["content"] for row in after.parts["test"]} >= {
        each["prompt"] for each in fresh
    }


def test_exact_repeats_are_kept_weighted_or_removed() -> None:
    rows = _rows([{"prompt": "a?", "completion": "b"}] * 3 + [{"prompt": "c?", "completion": "d"}])
    kept, text = merge_repeats(rows, "keep")
    assert len(kept) == 4 and text == ""
    weighted, _ = merge_repeats(rows, "weight")
    assert [row.weight for row in weighted] == [3.0, 1.0] and weighted[0].raw["weight"] == 3.0
    removed, text = merge_repeats(rows, "remove")
    assert [row.weight for row in removed] == [1.0, 1.0] and "2 exact repeats are removed" in text
    with pytest.raises(InputError, match="--repeats"):
        merge_repeats(rows, "nonsense")
