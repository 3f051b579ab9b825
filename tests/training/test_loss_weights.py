"""OpenAI's `weight` of a message decides which answers are in the loss, whatever a step makes of
the row.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from training.data.augment import augment
from training.data.rows import Row, read_lines
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.encoded import Encoded

TURNS = 3


def _row(weights: tuple[int | None, ...], train: str = "last") -> Row:
    messages: list[dict[str, Any]] = []
    for number, weight in enumerate(weights):
        said = {} if weight is None else {"weight": weight}
        messages.append(
            {"role": "user", "content": f"What is the color of part {number} over there?"}
        )
        messages.append({"role": "assistant", "content": f"answer-{number}", **said})
    (row,) = read_lines(
        [json.dumps({"messages": messages, "train": train}).encode()], asked=True
    ).rows
    return row


def _learned(base: BaseModel, row: Row) -> list[int]:
    """Numbers of the answers of which tokens are in the loss."""
    encoder = Encoder(base, 1024)
    encoded = encoder.encode(row)
    assert isinstance(encoded, Encoded)
    text = encoder.decode(
        [token for token, kept in zip(encoded.ids, encoded.trained, strict=True) if kept]
    )
    return [number for number in range(TURNS) if f"answer-{number}" in text]


@pytest.mark.parametrize(
    ("weights", "train", "learned"),
    [
        ((None, None, None), "last", [2]),
        ((None, None, None), "all", [0, 1, 2]),
        ((0, 0, 1), "last", [2]),
        ((1, 0, 1), "last", [0, 2]),
        ((1, 1, 0), "last", [0, 1]),
        ((0, None, None), "all", [1, 2]),
        ((None, 0, None), "last", [2]),
        ((None, None, 0), "all", [0, 1]),
        ((1, None, None), "last", [0, 2]),
    ],
)
def test_weights_decide_which_answers_are_learned(
    base: BaseModel, weights: tuple[int | None, ...], train: str, learned: list[int]
) -> None:
    row = _row(weights, train)
    assert _learned(base, row) == learned
    assert row.answer == f"answer-{learned[-1]}", (
        "what follows the last learned answer teaches nothing"
    )
    (again,) = read_lines([json.dumps(row.raw).encode()]).rows
    assert _learned(base, again) == learned and again.digest == row.digest
    (made,) = augment([row], methods=["swap"], per_row=1, seed=0, held_out=[]).rows
    (new,) = read_lines([json.dumps(made).encode()]).rows
    assert _learned(base, new) == learned, "a row that was made of it"
