"""Zenith: disjoint wordings, answers that can be checked, a change that changes what it should."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from examples.zenith import scenario
from examples.zenith.phrases import HELD_OUT_PHRASES, TRAINING_PHRASES
from examples.zenith.world import FAULTS

EXPECTED: dict[str, Any] = {
    "product": "Aurora", "fault": "heat", "age_months": 30, "term_months": 24, "covered": False, "step": "clean the air vents", "channel": "chat",
}  # fmt: skip


def test_training_and_held_out_wordings_share_nothing() -> None:
    train, held = TRAINING_PHRASES, HELD_OUT_PHRASES
    assert not set(train.templates) & set(held.templates)
    assert not set(train.ages) & set(held.ages)
    assert not set(train.openers) & set(held.openers)
    for fault in FAULTS:
        assert not set(train.sayings[fault]) & set(held.sayings[fault])


def test_no_held_out_question_is_a_training_question() -> None:
    trained = {
        row["messages"][0]["content"].lower()
        for row in scenario.training_examples(scenario.old_world(), 500, 1)
    }
    trained |= {row["messages"][0]["content"].lower() for row in scenario.new_examples(300, 2)}
    for kind in ("old", "new", "before"):
        asked = [row["messages"][0]["content"].lower() for row in scenario.held_out(kind, 200, 3)]
        assert len(set(asked)) > 190
        assert not trained & set(asked)


@pytest.mark.parametrize("kind", ["old", "new", "before"])
def test_the_policy_can_be_looked_up_from_every_question_and_its_answer_is_right(kind: str) -> None:
    world = scenario.old_world() if kind == "before" else scenario.new_world()
    for row in scenario.held_out(kind, 300, 5):
        found = scenario.look_up(row["messages"][0]["content"], world)
        assert found == row["expected"]
        result = scenario.score(found, scenario.reference_answer(found))
        assert result.right, result.facts
        assert len(result.facts) >= 5


def test_every_training_row_is_answered_as_its_world_says() -> None:
    world = scenario.old_world()
    for row in scenario.training_examples(world, 500, 1):
        assert [m["role"] for m in row["messages"]] == ["user", "assistant"]
        assert scenario.is_current(row, world)


def test_old_answers_survive_the_change_and_new_ones_do_not() -> None:
    old, new = scenario.old_world(), scenario.new_world()
    for row in scenario.held_out("old", 100, 1):
        assert scenario.look_up(row["messages"][0]["content"], old) == row["expected"]
    for row in scenario.held_out("new", 100, 1):
        assert scenario.look_up(row["messages"][0]["content"], old) != row["expected"]
    outdated = [
        row for row in scenario.training_examples(old, 500, 1) if not scenario.is_current(row, new)
    ]
    assert 100 < len(outdated) < 300


@pytest.mark.parametrize(
    ("fact", "change"),
    [
        ("product", lambda a: a.replace("Aurora", "Lumen")),
        ("term", lambda a: a.replace("24 months,", "18 months,")),
        ("verdict", lambda a: a.replace("not covered", "covered")),
        ("verdict", lambda a: a.replace(", so it is not covered", "")),
        ("step", lambda a: a.replace("clean the air vents", "mail us a picture")),
        (
            "step",
            lambda a: a.replace("clean the air vents", "clean the air vents and mail us a picture"),
        ),
        ("channel", lambda a: a.replace("by chat", "by phone")),
        ("tone", lambda a: a.replace("Keep shining!", "Bye.")),
        ("tone", lambda a: a.replace("gladly", "hello")),
    ],
)
def test_one_wrong_fact_makes_an_answer_wrong(fact: str, change: Callable[[str], str]) -> None:
    answer = scenario.reference_answer(EXPECTED)
    assert scenario.score(EXPECTED, answer).right
    spoiled = change(answer)
    assert spoiled != answer
    result = scenario.score(EXPECTED, spoiled)
    assert not result.right
    assert not result.facts[fact]


def test_rambling_through_all_choices_is_not_right() -> None:
    text = " ".join(
        scenario.reference_answer(row["expected"]) for row in scenario.held_out("before", 40, 1)
    )
    assert not scenario.score(EXPECTED, text).right
    assert not scenario.score(EXPECTED, "").right


def test_a_question_about_something_else_is_not_looked_up() -> None:
    assert scenario.look_up("What is the weather like?", scenario.new_world()) is None
    assert scenario.look_up("My Umbra overheats.", scenario.old_world()) is None


def test_traffic_shifts_to_what_changed_when_asked_to() -> None:
    world = scenario.new_world()
    asked = scenario.traffic(world, Random(1), share_affected=1.0)
    for _ in range(50):
        found = scenario.look_up(next(asked), world)
        product = world.product(found["product"]) if found else None
        assert product is not None and scenario.affected(product)


def test_history_is_ordered_in_the_past_and_right() -> None:
    until = datetime(2026, 3, 1, tzinfo=UTC)
    rows = scenario.history(until, days=3, per_day=20, seed=1)
    assert len(rows) == 60
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)
    assert rows[-1]["at"] <= until
    assert all(scenario.score(row["expected"], row["answer"]).right for row in rows)


def test_written_files_are_the_same_for_the_same_seeds(tmp_path: Path) -> None:
    assert scenario.main(["write", "--out", str(tmp_path / "a")]) == 0
    scenario.write(tmp_path / "b")
    for name in scenario.FILES:
        text = (tmp_path / "a" / name).read_text()
        assert text == (tmp_path / "b" / name).read_text()
        for line in text.splitlines():
            assert json.loads(line)["messages"]
