"""Training rows in every documented form: question, answer, instructions."""

from __future__ import annotations

from typing import Any

import pytest

from feedback.conversations import question, row_answer, row_frame, row_question, training_row


def test_a_short_last_turn_keeps_what_it_refers_to() -> None:
    said = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "Return it?"},
        {"role": "assistant", "content": "Shall I?"},
        {"role": "user", "content": "yes"},
    ]
    assert question(said) == "Return it?\nShall I?\nyes"


@pytest.mark.parametrize(
    ("row", "asked", "answered", "frame"),
    [
        (
            {
                "messages": [
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": "q"},
                    {"role": "assistant", "content": "a"},
                ],
                "context": "c",
            },
            "q",
            "a",
            "s\nc",
        ),
        ({"prompt": "q", "completion": "a"}, "q", "a", ""),
        (
            {"messages": [{"role": "user", "content": "q"}], "chosen": "a", "rejected": "b"},
            "q",
            "a",
            "",
        ),
        (
            {"prompt": "q", "chosen": "a", "rejected": "b", "context": [{"text": "c"}]},
            "q",
            "a",
            "c",
        ),
    ],
)
def test_rows_in_every_documented_format_have_a_question_and_an_answer(
    row: dict[str, Any], asked: str, answered: str, frame: str
) -> None:
    assert (row_question(row), row_answer(row), row_frame(row)) == (asked, answered, frame)


def test_a_training_row_has_the_conversation_and_names_nobody() -> None:
    row = training_row(
        example_id="exm_1",
        messages=[{"role": "user", "content": "q"}],
        answer="a",
        context=["c"],
        checks=["a"],
    )
    assert row == {
        "id": "exm_1",
        "origin": "review",
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        "context": ["c"],
        "checks": ["a"],
    }
