"""Passages that say otherwise: one fact, the same in passage and answer, and nowhere the old one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from training.data.counterfactual import Counterfactual, key_facts, make_counterfactual, manner_of
from training.data.counterfactual_mix import MOST_OF_A_ROW, mix_counterfactuals
from training.data.passages import retrieves, with_passages
from training.data.rows import Row, read_lines


def _row(question: str, answer: str, *context: str, **more: Any) -> Row:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    raw = {"messages": messages, "context": list(context), **more}
    found = read_lines([json.dumps(raw).encode()])
    assert not found.bad, found.bad
    return found.rows[0]


def _made(row: Row, seed: str = "s") -> Counterfactual:
    found = make_counterfactual(row, seed)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kind", "passage", "answer", "fact"),
    [
        ("number", "Warranty of the Umbra: 36 months.", "It is 36 months.", "36"),
        ("number", "A parcel of 20kg costs more.", "Up to 20kg.", "20"),
        ("number", "The fee is 1,250.50 euros.", "You pay 1,250.50 euros.", "1,250.50"),
        ("date", "Closed since 2026-03-01.", "It closed on 2026-03-01.", "2026-03-01"),
        ("date", "It opens on 4 May 2027.", "On 4 May 2027.", "4 May 2027"),
        ("date", "It opens on May 4, 2027.", "On May 4, 2027.", "May 4, 2027"),
        ("time", "Doors open at 18:30.", "At 18:30.", "18:30"),
        ("code", "Fill in form L17.", "Please use form L17.", "L17"),
        ("code", "The part is AB-204.", "You need AB-204.", "AB-204"),
        ("day", "We close on Tuesday.", "Not on Tuesday.", "Tuesday"),
        ("word", "It takes three weeks.", "About three weeks.", "three"),
        ("name", "Ask for Mira Holm there.", "Please ask for Mira Holm.", "Mira Holm"),
    ],
)
def test_a_fact_of_each_kind_is_replaced_in_passage_and_answer(
    kind: str, passage: str, answer: str, fact: str
) -> None:
    row = _row("What about it?", answer, passage, checks=[fact])
    case = _made(row)
    assert (case.fact.kind, case.fact.text) == (kind, fact)
    assert case.replacement != fact and len(case.replacement.split()) == len(fact.split())
    assert fact not in case.row.context[0] and case.replacement in case.row.context[0]
    assert case.row.answer == answer.replace(fact, case.replacement)
    assert case.row.checks == (case.replacement,)
    assert case.follows(case.row.answer) and not case.keeps(case.row.answer)
    assert case.keeps(answer) and not case.follows(answer)


@pytest.mark.parametrize(
    ("reason", "row"),
    [
        ("no passage", _row("How long?", "It is 24 months.")),
        ("not in the passage", _row("How long?", "It is 24 months.", "No word about it.")),
        ("in the question", _row("Are 24 months right?", "Yes, 24 months.", "24 months")),
        ("part of another number", _row("How long?", "It is 24 months.", "It is 124 months.")),
        ("a citation", _row("How long?", "As long as you like [1].", "As long as 1 wants.")),
        (
            "compared with a figure of the question",
            _row("It is 30 months old.", "24 months, yours is 30 months old.", "24 months"),
        ),
        ("a sum", _row("Both?", "That is 7 and 9, so 16.", "One is 7, the other 9.")),
    ],
)
def test_what_is_no_fact_of_the_passage_alone_is_left_as_it_is(reason: str, row: Row) -> None:
    assert key_facts(row) == [] and make_counterfactual(row, "s") is None, reason


def test_the_value_is_replaced_everywhere_and_is_new_to_the_row() -> None:
    passages = ("The Umbra: 24 months.", "Also 24 months, not 42; see 24.5 and 124.")
    row = _row("How long is it?", "It is 24 months.", *passages)
    for seed in map(str, range(200)):
        case = _made(row, seed)
        texts = " ".join(case.row.context)
        assert "24 " not in texts.replace("124", "") and "24.5" in texts and "124" in texts
        assert case.replacement not in ("24", "42")


def test_the_same_seed_makes_the_same_and_another_one_another() -> None:
    row = _row("How long?", "It is 240 months.", "240 months")
    assert _made(row, "a") == _made(row, "a")
    assert len({_made(row, str(seed)).replacement for seed in range(20)}) > 10


def test_the_house_name_of_every_answer_is_manner_and_no_fact() -> None:
    rows = [
        _row(
            f"Question {n}?",
            f"Welcome to Leafio. It takes {n + 11} days.",
            f"Leafio: {n + 11} days",
        )
        for n in range(12)
    ]
    manner = manner_of(rows)
    assert manner == {"leafio"}
    assert [fact.text for fact in key_facts(rows[0], manner)] == ["11"]


def test_rows_that_are_mixed_in_are_a_share_of_each_pass_and_differ_between_passes() -> None:
    rows = [
        _row(f"How long is {n}?", f"{100 + n} days.", f"{n}: {100 + n} days") for n in range(40)
    ]
    made = mix_counterfactuals(rows, 0.2, 3, seed=1)
    assert [len(some) for some in made.passes] == [10, 10, 10]  # 10 of 50
    assert len({row.id for row in made.passes[0]}) == 10
    assert made.passes[0] != made.passes[1]
    assert made == mix_counterfactuals(rows, 0.2, 3, seed=1)
    assert {row.origin for row in made.passes[0]} == {"synthetic"}
    assert "10 rows whose passages say otherwise are trained beside 40 rows" in made.notice


def test_few_rows_with_passages_give_as_many_as_they_can() -> None:
    rows = [_row(f"How long is {n}?", f"{100 + n} days.") for n in range(39)]
    rows.append(_row("How long is 39?", "139 days.", "39: 139 days"))
    made = mix_counterfactuals(rows, 0.2, 1, seed=1)
    assert made.count == MOST_OF_A_ROW and "That share would be 10." in made.notice
    none = mix_counterfactuals(rows[:39], 0.2, 1, seed=1)
    assert none.count == 0 and "adds no row" in none.notice


def test_rows_without_passages_are_given_those_of_the_collection() -> None:
    texts = [f"The {name} takes {days} days." for name, days in (("Umbra", 31), ("Lumen", 45))]
    rows = [_row("How long for the Lumen?", "It takes 45 days."), _row("Hello?", "Hello.")]
    found = with_passages(rows, texts)
    assert [row.context[0] for row in found] == ["The Lumen takes 45 days."]


@pytest.mark.parametrize(
    ("with_context", "without", "by_default", "expected"),
    [(0, 100, False, False), (4, 96, False, False), (5, 95, False, True), (0, 9, True, True)],
)
def test_an_alias_retrieves_by_default_or_where_one_row_in_twenty_has_passages(
    with_context: int, without: int, by_default: bool, expected: bool
) -> None:
    rows = [_row("?", "a", "b")] * with_context + [_row("?", "a")] * without
    assert retrieves(rows, by_default=by_default) is expected
