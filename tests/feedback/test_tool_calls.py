"""A reviewed answer that is a call of a tool: approved to the letter, edited as JSON, learned."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from feedback import datasets, queue
from feedback.assembly import Example, assemble
from feedback.calls import editable_calls, read_calls
from feedback.conversations import row_answer, row_question
from feedback.queue import Decision
from tests.feedback.test_acceptance import (
    ASKED,
    CALL,
    HIDDEN_CALL,
    assert_undecided,
    decide,
    responses_items,
    reviewer,
    row_of,
    waiting,
)
from tests.feedback.world import ALIAS, NOW, seed_dataset
from tests.training.tiny import build_base
from tests.training.tool_templates import HERMES
from training.data.rows import read_lines
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.encoded import Encoded
from whet.cli import app
from whet.context import Context
from whet.conversation import ToolCall
from whet.database import reading
from whet.errors import ConflictError, InputError
from whet.store import canonical_json
from whet.tables import reviews

__all__ = ["reviewer"]

SCHEMA = {"type": "object", "properties": {"part": {"type": "string"}}}
FUNCTION = {"name": "stock", "description": "Pieces in stock.", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}
OTHER = [{"name": "stock", "arguments": {"part": "fan", "many": 2}}]
ROUTES = {
    "chat": (
        {"messages": [ASKED], "tools": [TOOL]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
    ),
    "responses": (
        {"input": [ASKED], "tools": [{"type": "function", **FUNCTION}, {"type": "web_search"}]},
        {"output": [responses_items()[1]]},
    ),
}


def _called(context: Context, route: str = "chat", **over: Any) -> str:
    request, response = ROUTES[route]
    found = {"request": request, "response": response, "response_text": None, **over}
    return waiting(context, route=route, **found)


@pytest.mark.parametrize("route", ROUTES)
def test_an_approved_call_is_kept_to_the_letter_with_its_tools(
    context: Context, route: str
) -> None:
    row = row_of(context, decide(context, _called(context, route), Decision("approve")))
    answer = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert row["messages"] == [ASKED, answer] and row["tools"] == [TOOL]
    read = read_lines([canonical_json(row)])
    assert not read.bad and str(read.rows[0].calls[0]) == 'stock({"part": "lamp <b>"})'


def test_training_learns_the_reviewed_call(context: Context, tmp_path: Path) -> None:
    seed_dataset(context)
    decide(context, _called(context), Decision("approve"))
    version = datasets.build(context, ALIAS, actor="ada", now=NOW)
    rows = [json.loads(line) for line in _lines(context, version.path)]
    (row,) = read_lines([canonical_json(row) for row in rows if row["origin"] == "review"]).rows
    folder = build_base(tmp_path / "base", template=HERMES, eos="<|im_end|>", layers=1)
    encoder = Encoder(BaseModel(folder, "x"), 512)
    encoded = encoder.encode(row)
    assert isinstance(encoded, Encoded)
    pairs = zip(encoded.ids, encoded.trained, strict=True)
    learned = encoder.decode_whole([token for token, kept in pairs if kept])
    assert '"arguments": {"part": "lamp <b>"}' in learned and learned.endswith("<|im_end|>")
    assert "Pieces in stock." in encoder.decode_whole(list(encoded.ids))


def _lines(context: Context, path: str) -> list[bytes]:
    parts = (context.store.read_bytes(f"{path}/{part}.jsonl") for part in ("train", "test"))
    return [line for part in parts for line in part.split(b"\n") if line]


def test_an_answer_in_words_keeps_the_tools_that_it_could_have_called(context: Context) -> None:
    request = {"messages": [ASKED], "tools": [TOOL]}
    item = waiting(context, request=request, answer="12 lamps.")
    assert row_of(context, decide(context, item, Decision("approve")))["tools"] == [TOOL]


def test_edited_arguments_are_learned_and_the_old_ones_kept_aside(context: Context) -> None:
    item = _called(context)
    outcome = decide(context, item, Decision("edit", "", tool_calls=OTHER))
    row = row_of(context, outcome)
    (call,) = row["messages"][-1]["tool_calls"]
    assert call["id"] == "c1" and json.loads(call["function"]["arguments"]) == OTHER[0]["arguments"]
    assert "lamp <b>" in row[queue.REPLACED] and outcome.decision == "edit"
    assert decide(context, item, Decision("edit", "", tool_calls=OTHER)) == outcome, "sent twice"
    with pytest.raises(ConflictError):
        decide(context, item, Decision("edit", "", tool_calls=[{"name": "f", "arguments": {}}]))


def test_the_same_call_in_other_words_of_json_is_an_approval(context: Context) -> None:
    same = [{"name": "stock", "arguments": '{ "part" : "lamp \\u003cb>" }'}]
    outcome = decide(context, _called(context), Decision("edit", "", tool_calls=same))
    assert outcome.decision == "approve"
    assert row_of(context, outcome)["messages"][-1]["tool_calls"] == [CALL]


def test_a_call_may_become_words_and_words_a_call(context: Context) -> None:
    row = row_of(context, decide(context, _called(context), Decision("edit", "12 lamps.")))
    assert row["messages"][-1] == {"role": "assistant", "content": "12 lamps."}
    item = waiting(context, request={"messages": [ASKED]}, answer="I do not know.")
    row = row_of(context, decide(context, item, Decision("edit", "", tool_calls=OTHER)))
    assert row["messages"][-1]["tool_calls"][0]["function"]["name"] == "stock"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (Decision("edit", "", tool_calls=[]), "the text is empty"),
        (Decision("edit", "", tool_calls=["stock"]), "Call 1 of a tool has no name"),
        (Decision("edit", "", tool_calls=[{"name": " "}]), "Call 1 of a tool has no name"),
        (Decision("edit", "", tool_calls=[{"name": "f", "arguments": [1]}]), "no JSON object"),
        (Decision("edit", "", tool_calls=[{"name": "f", "arguments": "{a"}]), "no JSON object"),
        (Decision("edit", "", tool_calls=[{"name": "f"}] * 21), "at most 20"),
        (Decision("edit", "", tool_calls=[{"name": "\ud800"}]), "cannot be stored"),
        (Decision("edit", "", tool_calls=[HIDDEN_CALL]), "control token <|end|>"),
        (Decision("approve", "", tool_calls=OTHER), "approving would throw the change away"),
        (Decision("approve", "words"), "approving would throw the change away"),
        (Decision("approve", checks=("lamp",)), "compared by its name and arguments"),
    ],
)
def test_what_would_teach_a_wrong_call_is_refused_and_nothing_is_written(
    context: Context, said: Decision, found: str
) -> None:
    with pytest.raises(InputError, match=found.replace("|", r"\|")):
        decide(context, _called(context), said)
    assert_undecided(context)


def test_a_call_whose_arguments_are_no_object_has_to_be_corrected(context: Context) -> None:
    broken = {**CALL, "function": {"name": "stock", "arguments": '{"part": "la'}}
    response = {"role": "assistant", "content": None, "tool_calls": [broken]}
    item = _called(context, response=response)
    with pytest.raises(InputError, match="no JSON object"):
        decide(context, item, Decision("approve"))
    assert decide(context, item, Decision("edit", "", tool_calls=OTHER)).decision == "edit"


def test_a_call_that_was_cut_is_approved_only_knowingly(context: Context) -> None:
    item = _called(context, finish_reason="length")
    with pytest.raises(InputError, match="token limit"):
        decide(context, item, Decision("approve"))
    assert decide(context, item, Decision("approve", accept_cut=True)).decision == "approve"


def test_the_page_shows_the_call_as_json_and_keeps_what_was_typed(
    context: Context, reviewer: Any
) -> None:
    item = _called(context)
    page = unescape(reviewer.get(f"/review/item/{item}").text)
    assert "Calls the tool" in page and '"part": "lamp <b>"' in page and "data-calls" in page
    assert "calls stock" in reviewer.get("/review/list").text
    wrong = {"decision": "edit", "answer": "", "tool_calls": '[{"name": "stock", ]'}
    refused = reviewer.post(f"/review/item/{item}", data=wrong)
    text = unescape(refused.text)
    assert refused.status_code == 400
    assert "not valid JSON" in text and '[{"name": "stock", ]' in text
    assert_undecided(context)
    right = json.dumps(OTHER)
    form = {"decision": "edit", "answer": "", "tool_calls": right}
    reviewer.post(f"/review/item/{item}", data=form)
    with reading(context.database) as connection:
        assert connection.execute(select(reviews.c.decision)).scalar_one() == "edit"
    shown = unescape(reviewer.get(f"/review/item/{item}").text)
    assert '"fan"' in shown, "the decision shows what was changed"


def test_the_form_without_javascript_approves_a_call_to_the_letter(
    context: Context, reviewer: Any
) -> None:
    item = _called(context)
    shown = editable_calls([ToolCall("c1", "stock", CALL["function"]["arguments"])])  # type: ignore[index]
    form = {"decision": "approve", "answer": "", "tool_calls": shown.replace("\n", "\r\n")}
    assert reviewer.post(f"/review/item/{item}", data=form).status_code in (200, 303)
    with reading(context.database) as connection:
        assert connection.execute(select(reviews.c.decision)).scalar_one() == "approve"


def test_the_interface_and_the_command_take_calls(context: Context, reviewer: Any) -> None:
    item = _called(context)
    assert reviewer.get("/api/review/next").json()["item"]["tool_calls"] == [CALL]
    body = {"decision": "edit", "answer": "", "tool_calls": OTHER}
    assert reviewer.post(f"/api/review/{item}", json=body).json()["decision"] == "edit"


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_field_is_no_call(text: str) -> None:
    assert read_calls(text) == []


def _example(number: int, arguments: str, question: str = "How many?", **over: Any) -> Example:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    answer = {"role": "assistant", "content": "", "tool_calls": [call]}
    row = {"messages": [{"role": "user", "content": question}, answer], **over}
    return Example(f"exm_{number}", row, None, number)


def test_calls_count_in_questions_and_answers_and_make_no_claims() -> None:
    first = _example(1, '{"part": "lamp"}').row
    assert row_answer(first) == 'f({"part": "lamp"})'
    history = [
        *first["messages"],
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "Three."},
    ]
    assert 'f({"part": "lamp"})' in row_question({"messages": history})
    some = [_example(1, "{}"), _example(2, "{}", tools=[TOOL]), _example(3, '{"a": 1}')]
    built = assemble({"train": []}, some, {})
    assert sorted(built.example_ids) == ["exm_2", "exm_3"], "other tools are another question"


def test_plain_texts_among_the_seed_rows_are_rows_of_their_own() -> None:
    texts = [
        {"id": f"t{n}", "text": f"Part {n} of the manual is about lamp {n}."} for n in range(9)
    ]
    built = assemble({"train": texts[:6], "test": texts[6:]}, [_example(1, "{}")], {})
    assert [row["id"] for row in built.rows["train"]][:6] == [f"t{n}" for n in range(6)]
    assert not built.left_out


def test_the_command_line_takes_calls_as_json(tmp_path: Path) -> None:
    arguments = ["review", "decide", "rev_1", "edit", "--tool-calls", "[{"]
    result = CliRunner().invoke(app, arguments, env={"WHET_HOME": str(tmp_path)})
    assert isinstance(result.exception, InputError) and "not valid JSON" in str(result.exception)
