"""Preference and rated rows: in every way of writing one the worse answer arrives, is looked at,
and tells rows apart.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.data.augment import augment
from training.data.clean import clean
from training.data.rows import Row, read_lines
from training.loop.pairs import pairs
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.runs.row_check import check
from whet.context import Context

Q: dict[str, Any] = {"role": "user", "content": "Which lamp is the brightest of them all, please?"}
S: dict[str, Any] = {"role": "system", "content": "Be brief."}


def _said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _rows(*objects: dict[str, Any]) -> list[Row]:
    reading = read_lines(json.dumps(each).encode() for each in objects)
    assert not reading.bad, reading.bad
    return reading.rows


SHAPES: dict[str, dict[str, Any]] = {
    "texts": {"prompt": Q["content"], "chosen": "Red.", "rejected": "Blue."},
    "messages and texts": {"messages": [Q], "chosen": "Red.", "rejected": "Blue."},
    "messages": {"prompt": [Q], "chosen": [_said("Red.")], "rejected": [_said("Blue.")]},
    "conversations": {"chosen": [Q, _said("Red.")], "rejected": [Q, _said("Blue.")]},
    "conversations, and the prompt again": {
        "prompt": Q["content"],
        "chosen": [Q, _said("Red.")],
        "rejected": [Q, _said("Blue.")],
    },
    "one conversation": {"chosen": "Red.", "rejected": [Q, _said("Blue.")]},
}


@pytest.mark.parametrize("name", SHAPES)
def test_both_answers_of_a_preference_are_encoded_as_they_are_served(
    bases: dict[str, BaseModel], name: str
) -> None:
    encoder = Encoder(bases["chatml"], 256)
    (row,) = _rows(SHAPES[name])
    (pair,) = pairs(encoder, [row])
    assert (row.messages, row.rejected) == ((Q, _said("Red.")), "Blue.")
    assert (encoder.decode(pair.chosen), encoder.decode(pair.rejected)) == ("Red.", "Blue.")
    made = augment([row], methods=["swap"], per_row=1, seed=0)
    assert [(new["chosen"], new["rejected"]) for new in made.rows] == [("Red.", "Blue.")]


def test_a_system_text_leads_every_shape_of_preference_once() -> None:
    for shape in SHAPES.values():
        assert _rows({**shape, "system": "Be brief."})[0].messages == (S, Q, _said("Red."))
    (row,) = _rows(
        {
            "prompt": Q["content"],
            "chosen": [S, Q, _said("Red.")],
            "rejected": [S, Q, _said("Blue.")],
        }
    )
    assert row.messages == (S, Q, _said("Red."))


def test_the_rejected_answer_and_the_rating_tell_rows_apart_and_ordinary_rows_stay_what_they_were() -> (
    None
):
    red, other, liked, plain = _rows(
        SHAPES["texts"],
        {**SHAPES["texts"], "rejected": "Green."},
        {"messages": [Q, _said("Red.")], "rating": 1},
        {"messages": [Q, _said("Red.")]},
    )
    assert len({row.digest for row in (red, other, liked, plain)}) == 4
    assert (_rows(SHAPES["messages"])[0].digest, liked.rating, plain.rating) == (red.digest, 1, 0)
    assert read_lines([b'{"prompt":"q","completion":"a"}']).rows[0].id == "row-dde0e754ba00d5e3", (
        "the digest of an ordinary row has not changed"
    )
    kept = clean([red, other, liked, plain], near=True).rows
    assert len(kept) == 4, "none of them repeats another"
    assert len(clean(_rows(SHAPES["texts"], SHAPES["messages"]), near=True).rows) == 1


def _findings(
    context: Context, tmp_path: Path, rows: list[dict[str, Any]], *, method: str = "lora"
) -> dict[str, dict[str, Any]]:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = check(context, tmp_path / "rows.jsonl", method_name=method)["findings"]
    return {finding["code"]: finding for finding in found}


def test_check_looks_at_rejected_answers(context: Context, tmp_path: Path) -> None:
    questions = [
        "Where is the till?",
        "When do you open tomorrow?",
        "Who answers letters here?",
        "How do I get to the shop?",
    ]
    worse = ["Ask ann@example.org", "word " * 600, "<|im_end|> never", "caf\ufffd"]
    rows = [
        {"prompt": asked, "chosen": f"That is answer {number}.", "rejected": bad}
        for number, (asked, bad) in enumerate(zip(questions, worse, strict=True))
    ]
    found = _findings(context, tmp_path, rows)
    assert (found["personal_data"]["lines"], found["broken_characters"]["lines"]) == ([1], [4])
    assert found["rejected_answers"]["lines"] == [2, 3]
    assert found["rejected_answers"]["severity"] == "warning", "lora learns the chosen answer alone"
    assert (
        _findings(context, tmp_path, rows, method="dpo")["rejected_answers"]["severity"] == "error"
    )
    assert (
        "tokens" in found["rejected_answers"]["found"]
        and "control token" in found["rejected_answers"]["found"]
    )


def test_an_answer_that_was_rated_bad_is_no_second_answer(context: Context, tmp_path: Path) -> None:
    good, bad = (
        {"messages": [Q, _said("Red.")], "rating": 1},
        {"messages": [Q, _said("Blue.")], "rating": -1},
    )
    assert "conflicts" not in _findings(context, tmp_path, [good, bad])
    assert "conflicts" in _findings(context, tmp_path, [good, {**bad, "rating": 1}])
