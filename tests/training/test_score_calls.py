"""A call of a tool is right when its name and arguments are, and the engine would know it as one."""

from __future__ import annotations

import pytest

from tests.training.test_encode_tools import USER, _call, _calling, _row
from training.data.scoring import score, score_calls
from training.data.tools import find_calls
from training.evaluation.answers import Answer, Side
from training.evaluation.measures import measure_rows

ARGUMENTS = {"part": "lamp", "many": 2, "new": True}
HERMES = '<tool_call>\n{"name": "stock", "arguments": %s}\n</tool_call>'
RIGHT = HERMES % '{"part": "lamp", "many": 2, "new": true}'
ROW = _row(USER, _calling(_call(ARGUMENTS)))


@pytest.mark.parametrize(
    ("answer", "correct"),
    [
        (RIGHT, 1),
        (HERMES % '{"new":true,"many":2.0,"part":"lamp"}', 1),
        (
            (
                '<tool_call>{"arguments": {"part": "\\u006camp", "many": 2, "new": true}, "name":'
                ' "stock"}</tool_call>'
            ),
            1,
        ),
        (f"I look it up.\n{RIGHT}", 1),
        (f"<think>\nthe lamp\n</think>\n\n{RIGHT}", 1),
        (HERMES % '{"part": "lamp", "many": 2, "new": 1}', 0),
        (HERMES % '{"part": "Lamp", "many": 2, "new": true}', 0),
        (HERMES % '{"part": "lamp", "many": 2}', 0),
        (HERMES % '{"part": "lamp", "many": 2, "new": true, "old": 1}', 0),
        (RIGHT.replace("stock", "stocks"), 0),
        (f"{RIGHT}\n{RIGHT}", 0),
        (RIGHT.removesuffix("</tool_call>"), 0),
        (RIGHT.removeprefix("<tool_call>"), 0),
        (f"{RIGHT} There you are.", 0),
        ("stock lamp 2 true", 0),
        ("", 0),
        ("{" * 5000, 0),
    ],
)
def test_name_and_arguments_decide_and_not_the_text(answer: str, correct: float) -> None:
    assert score_calls(ROW, RIGHT, answer).correct == correct


def test_what_is_nearly_right_shows() -> None:
    near = score_calls(ROW, RIGHT, HERMES % '{"part": "lamp", "many": 3, "new": true}')
    assert (near.correct, near.f1) == (0.0, 0.75)
    assert score_calls(ROW, RIGHT, "I do not know.").f1 == 0.0


def test_calls_of_one_turn_have_no_order() -> None:
    row = _row(USER, _calling(_call({"part": "lamp"}), _call({"part": "fan"}, number=1)))
    one, two = HERMES % '{"part": "lamp"}', HERMES % '{"part": "fan"}'
    assert score_calls(row, f"{one}\n{two}", f"{two}\n{one}").correct == 1
    assert score_calls(row, f"{one}\n{two}", f"{one}\n{one}").correct == 0


def test_words_beside_a_call_do_not_count() -> None:
    row = _row(USER, _calling(_call({"part": "lamp"}), content="One moment."))
    call = HERMES % '{"part": "lamp"}'
    assert score_calls(row, f"One moment.\n{call}", call).correct == 1


def test_a_form_without_json_is_compared_as_text() -> None:
    rendered = '[stock(part="lamp", many=2, new=true)]'
    assert score_calls(ROW, rendered, f" {rendered}\n").correct == 1
    assert score_calls(ROW, rendered, '[stock(part="fan", many=2, new=true)]').correct == 0


def test_only_objects_that_name_a_function_are_calls() -> None:
    text = 'x {"a": {"name": "f", "arguments": {}}} {"name": 1, "arguments": {}} {"name": "g"}'
    assert [str(found.call) for found in find_calls(text)] == ["f({})"]
    nested = '{"name": "f", "arguments": {"name": "g", "arguments": {}}}'
    assert [found.call.name for found in find_calls(nested)] == ["f"]


def test_measures_of_words_leave_calls_out_and_the_other_way_round() -> None:
    words = _row(USER, {"role": "assistant", "content": "Twelve."}, id="w")
    answers = {
        ROW.id: Answer(RIGHT, 9, True, score_calls(ROW, RIGHT, RIGHT)),
        "w": Answer("Twelve.", 2, True, score(words, "Twelve.")),
    }
    sides = {"candidate": Side(answers), "base": Side(answers)}
    counts = {found["name"]: found["n"] for found in measure_rows([ROW, words], sides)}
    assert (counts["right"], counts["calls right"], counts["exact match"]) == (2, 1, 1)
    assert "exact match" not in {found["name"] for found in measure_rows([ROW], sides)}
