"""Rows and answers for the tests of judging, made of question and answer texts."""

from __future__ import annotations

import json
from typing import Any

from training.data.rows import Row, read_lines
from training.data.scoring import score
from training.evaluation.answers import Answer, NllSum, Side


def rows_of(answers: list[str], **fields: Any) -> list[Row]:
    """One row per reference answer."""
    return read_lines(
        json.dumps({"prompt": f"question {number}", "completion": text, **fields}).encode()
        for number, text in enumerate(answers)
    ).rows


def answered(row: Row, text: str, *, stopped: bool = True) -> Answer:
    return Answer(text, len(text.split()) + 1, stopped, score(row, text))


def side(rows: list[Row], said: list[str], nats: float | None = None) -> Side:
    """A model that said these texts, one per row, and to which every reference token costs `nats`."""
    costs = {} if nats is None else {row.id: NllSum(nats * 5, 5) for row in rows}
    return Side({row.id: answered(row, text) for row, text in zip(rows, said, strict=True)}, costs)


def named(measures: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {measure["name"]: measure for measure in measures}
