"""No part repeats another, neither by a copy nor by a conversation, and a row keeps its part."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from examples.zenith.scenario import judging_rows, training_examples
from examples.zenith.world import old_world
from tests.loop.desk import CAKES
from tests.loop.desk import rows as bakery
from training.data.datasets import PARTS, Dataset, Shares
from training.data.leaks import LargeLossError, find_leaks, without_leaks
from training.data.rows import Row, read_lines
from training.data.similar import clusters, twins
from training.data.split import split
from whet.errors import InputError
from whet.store import digest_json

SHARES = Shares(0.1, 0.1)
WORDS = [
    "please",
    "tell",
    "whether",
    "warranty",
    "covers",
    "broken",
    "display",
    "kettle",
    "radio",
    "when",
    "somebody",
    "dropped",
    "it",
    "onto",
    "kitchen",
    "floor",
    "during",
    "last",
    "winter",
    "evening",
    "party",
    "upstairs",
]


def _rows(*objects: dict[str, Any]) -> list[Row]:
    reading = read_lines(json.dumps(each).encode() for each in objects)
    assert not reading.bad
    return reading.rows


def _row(question: str, answer: str = "It is covered.", **fields: Any) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ],
        **fields,
    }


def _parts(rows: list[Row], shares: Shares = SHARES, **options: Any) -> dict[str, str]:
    return {
        row.digest: part
        for part, members in split(rows, shares, **options).parts.items()
        for row in members
    }


# --- what is near ---------------------------------------------------------------------------------------------------


def test_templated_rows_about_other_things_are_not_near() -> None:
    """The Zenith scenario and the bakery: sentences from a few templates that differ in a product,
    a fault or a number.
    """
    train, judging = _rows(*training_examples(old_world(), 500, 1)), _rows(*judging_rows(150, 1))
    assert find_leaks(train, judging) == []
    assert clusters(train) == list(range(len(train)))
    cakes = _rows(*bakery(150, CAKES, 1))
    assert find_leaks(cakes[:100], cakes[100:]) == []


def test_a_copy_with_other_case_and_punctuation_and_one_word_in_twenty_is_near() -> None:
    rng = random.Random(0)
    originals = [
        row for row in _rows(*judging_rows(150, 1)) if len(row.messages[0]["content"].split()) >= 20
    ]
    copies = []
    for row in originals:
        asked = row.messages[0]["content"].split()
        free = [
            place
            for place, word in enumerate(asked)
            if word.isalpha() and word.lower() not in row.answer.lower()
        ]
        asked[rng.choice(free)] = "rather"
        copies.append(_row("  ".join(asked).upper() + " !!", row.answer.upper()))
    assert len(originals) > 20
    assert len(twins(_rows(*copies), originals)) == len(copies)


@pytest.mark.parametrize(
    ("question", "answer", "leaks"),
    [
        (" ".join(WORDS), "Another answer.", True),  # the same question, whatever the answer
        # One word of twenty-one
        (" ".join(WORDS).replace("kettle", "radio"), "It is covered.", True),
        (
            " ".join(WORDS)
            .replace("kettle", "radio")
            .replace("winter", "summer")
            .replace("party", "meal"),
            "It is covered.",
            False,
        ),
        (" ".join(WORDS) + " 12", "It is covered.", False),  # another number is another question
        ("Something else?", "It is covered.", False),
    ],
)
def test_what_a_test_row_gives_away(question: str, answer: str, leaks: bool) -> None:
    assert bool(find_leaks(_rows(_row(question, answer)), _rows(_row(" ".join(WORDS))))) == leaks


def test_a_word_that_question_and_answer_change_together_is_what_the_row_is_about() -> None:
    one, other = " ".join(WORDS), " ".join(WORDS).replace("kettle", "toaster")
    said = (
        "Thank you for asking, the {} comes with our usual promise and somebody will surely help"
        " you with it very soon indeed, so do write."
    )
    assert (
        find_leaks(
            _rows(_row(one, said.format("kettle"))), _rows(_row(other, said.format("toaster")))
        )
        == []
    )
    assert find_leaks(
        _rows(_row(one, said.format("kettle"))), _rows(_row(other, said.format("kettle")))
    )


@pytest.mark.parametrize(
    ("train", "test", "why"),
    [
        (_row("a?", group="c1"), _row("b?", group="c1"), "the same conversation"),
        (_row("A  ?"), _row("a?"), "the same question"),
        (
            _row("a?", id="x", origin="synthetic", parent="t1"),
            _row("b?", id="t1"),
            "made from the same row",
        ),
        (
            {"messages": [*_row("a?")["messages"], *_row("b?")["messages"]]},
            _row("a?"),
            "the same conversation",
        ),
        (
            _row("a?"),
            {"messages": [*_row("a?")["messages"], *_row("b?")["messages"]]},
            "the same conversation",
        ),
    ],
)
def test_a_leak_says_why(train: dict[str, Any], test: dict[str, Any], why: str) -> None:
    (leak,) = find_leaks(_rows(train), _rows(test))
    assert leak.why == why and "line 1" in str(leak)


def test_rows_of_one_user_repeat_each_other_only_on_request() -> None:
    train, test = _rows(_row("a?", user="u1")), _rows(_row("b?", user="u1"))
    assert find_leaks(train, test) == []
    (leak,) = find_leaks(train, test, by_user=True)
    assert leak.why == "the same user"


def test_leaks_are_dropped_from_the_test_rows_first() -> None:
    train = _rows(*[_row(f"What of {word}?", f"It is {word}.") for word in WORDS])
    test = _rows(
        *[_row(f"what  of {word}", f"Covered: {word}.") for word in WORDS[:2]],
        *[_row(f"Why {word} {word}?", word) for word in WORDS],
    )
    kept, leaks = without_leaks(Dataset("x", "0" * 64, "", train, [], test), drop=False)
    assert len(kept.train) == len(train), "no training row is lost"
    assert [leak.part for leak in leaks] == ["test", "test"] and len(kept.test) == len(test) - 2


def test_a_test_part_that_would_become_too_small_is_kept_where_few_training_rows_repeat_it() -> (
    None
):
    train = _rows(*[_row(f"What of {word}?", f"It is {word}.") for word in WORDS])
    test = _rows(
        _row(f"what of {WORDS[0]}", "Covered."),
        *[_row(f"Why {word} {word}?", word) for word in WORDS[:9]],
    )
    kept, leaks = without_leaks(Dataset("x", "0" * 64, "", train, [], test), drop=False)
    assert (
        len(kept.test) == 10
        and [leak.row.line for leak in leaks] == [1]
        and leaks[0].part == "train"
    )


def test_a_large_loss_is_refused_with_the_list_or_accepted_on_request() -> None:
    train, test = (
        _rows(_row("a?"), _row("b?"), _row("c?", group="g")),
        _rows(_row("A?"), _row("d?", group="g"), _row("e f g?")),
    )
    dataset = Dataset("x", "0" * 64, "", train, [], test)
    with pytest.raises(
        LargeLossError,
        match=(
            r"2 of 3 test rows \(67 %\).*\n.*line 1 .*the same question.*\n.*line 2 .*the same"
            r" conversation.*--drop-leaks"
        ),
    ):
        without_leaks(dataset, drop=False)
    kept, leaks = without_leaks(dataset, drop=True)
    assert [row.line for row in kept.test] == [3] and len(leaks) == 2 and len(kept.train) == 3
    with pytest.raises(InputError, match="Every test row"):
        without_leaks(replace(dataset, train=train[:1], test=test[:1]), drop=True)
    with pytest.raises(InputError, match="synthetic"):
        without_leaks(replace(dataset, test=_rows(_row("z?", origin="synthetic"))), drop=True)


# --- where a row goes ------------------------------------------------------------------------------------------------

_SEEDS = st.integers(0, 10_000)
# Each makes a whole set of rows
_FEW = settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate])


def _drawn(seed: int, count: int = 40) -> list[Row]:
    """Short questions of few words, so that copies and near copies come about; some rows have
    users, some tasks.
    """
    rng = random.Random(seed)
    return _rows(
        *[
            _row(
                " ".join(rng.choices(WORDS[:6], k=3)),
                task=rng.choice([None, "a", "b"]),
                user=rng.choice([None, f"u{rng.randrange(20)}"]),
            )
            for _ in range(count)
        ]
    )


@given(
    _SEEDS,
    _SEEDS,
    st.lists(st.sampled_from(["auto", "pattern", "question", "user"]), min_size=3, max_size=3),
)
@example(105, 4592, ["auto", "auto", "auto"])  # by pattern, then by user
@_FEW
def test_a_row_is_in_its_part_or_held_back_but_never_moves_whatever_is_added(
    first: int, more: int, hold_out: list[str]
) -> None:
    rows, parent, was = _drawn(first), None, {}
    for way in hold_out:
        made = split(rows, SHARES, parent=parent, hold_out=way)
        now_in = {
            (row.digest, row.user): part for part, members in made.parts.items() for row in members
        }
        assert {row: part for row, part in was.items() if now_in.get(row, part) != part} == {}
        rows, parent, was = [*_drawn(more), *rows], made.assigned, {**was, **now_in}
        more += 1


@given(_SEEDS)
@_FEW
def test_no_part_of_a_split_knows_another(seed: int) -> None:
    made = split(_drawn(seed), Shares(0.2, 0.2))
    assert find_leaks(made.parts["train"], [*made.parts["test"], *made.parts["validation"]]) == []
    assert find_leaks(made.parts["validation"], made.parts["test"]) == []
    assert sum(map(len, made.parts.values())) + len(made.dropped) == 40, (
        "a row is in a part or listed"
    )
    assert made.dropped, "these rows are made so that some have to be"


def test_without_a_parent_the_hash_alone_decides_for_large_sets() -> None:
    few = _rows(*[_row(f"Question {number}?") for number in range(300)])
    many = _rows(*[_row(f"Question {number}?") for number in range(900)])
    before, after = _parts(few), _parts(many)
    assert all(after[digest] == part for digest, part in before.items())


def test_every_task_has_held_out_rows() -> None:
    rows = _rows(
        *[
            _row(f"{task} question {number}?", task=task)
            for task, count in (("big", 300), ("small", 6), ("tiny", 3))
            for number in range(count)
        ]
    )
    made = split(rows, SHARES)
    assert (
        {row.task for row in made.parts["test"]}
        == {"big", "small", "tiny"}
        == {row.task for row in made.parts["train"]}
    )


def test_by_time_holds_out_the_newest_and_a_parent_still_binds() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    dated = [
        _row(f"Question {day}?", at=(start + timedelta(days=day)).isoformat()) for day in range(100)
    ]
    made = split(_rows(*dated[:50]), SHARES, by_time="at")
    assert [row.line for row in made.parts["test"]] == [*range(41, 51)], "a tenth, and at least 10"
    assert [row.line for row in made.parts["validation"]] == [40]
    later = split(_rows(*dated), SHARES, by_time="at", parent=made.assigned)
    assert {row.line for row in later.parts["test"]} == {*range(41, 51), *range(91, 101)}
    with pytest.raises(InputError, match="1 rows have no time in 'at'"):
        split(_rows(*dated, _row("When?")), SHARES, by_time="at")
    with pytest.raises(InputError, match="1 rows have no time in 'at'"):
        split(_rows(*dated, _row("When?", at=10**400)), SHARES, by_time="at")


def test_synthetic_rows_are_for_training_alone_and_not_of_held_out_rows() -> None:
    rows = [_row(f"Question {number}?", id=f"r{number}") for number in range(200)]
    made = [
        _row(
            f"Question {number}, reworded at random, yes?",
            id=f"s{number}",
            origin="synthetic",
            parent=f"r{number}",
        )
        for number in range(200)
    ]
    parts = split(_rows(*rows, *made), SHARES).parts
    held_out = {row.id for part in ("test", "validation") for row in parts[part]}
    assert all(row.origin == "seed" for part in ("test", "validation") for row in parts[part])
    assert not held_out & {row.parent for row in parts["train"]} and held_out


def test_a_test_row_that_repeats_a_training_row_is_dropped_and_listed() -> None:
    rows = [_row(f"Question {number}?") for number in range(400)]
    before = split(_rows(*rows), SHARES)
    known = before.parts["test"][0]
    copy = {**known.raw, "id": None, "group": "another"}
    in_train = {**before.assigned, digest_json(["group", "another"]): "train"}
    made = split(_rows(*rows, copy), SHARES, parent=in_train)
    (leak,) = made.dropped
    assert (leak.part, leak.row.line, leak.other.line) == ("test", known.line, 401)
    assert len(made.parts["train"]) == len(before.parts["train"]) + 1


def test_a_group_that_a_part_borrowed_goes_back_unless_a_parent_keeps_it() -> None:
    few = [
        _row(f"Question about the topic {word}?")
        for word in ("alpha", "beta", "gamma", "delta", "epsilon")
    ]
    more = [*few, *[_row(f"Another matter of {number}?") for number in range(60)]]
    before = split(_rows(*few), SHARES)
    assert before.borrowed == {"validation": 1} and [len(before.parts[part]) for part in PARTS] == [
        2,
        1,
        2,
    ]
    was = {row.digest: part for part, members in before.parts.items() for row in members}
    kept = _parts(_rows(*more), parent=before.assigned)
    assert all(kept[digest] == part for digest, part in was.items())
    after = split(_rows(*more), SHARES)
    assert "validation" not in after.borrowed and any(
        _parts(_rows(*more))[digest] != part for digest, part in was.items()
    )
