"""Answers of a model to held-out rows, and which rows it is asked."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from training.data.datasets import REGRESSION, Dataset
from training.data.rows import Row
from training.data.scoring import Score
from training.data.shapes import text_of
from training.store.evaluation_types import AnswerJson, Turn

# Held-out rows answered per group: with 150 pairs a difference of 5 points shows, and two models
# answer three groups in half a minute on two cores.
MAX_ROWS = 150


@dataclass(frozen=True, slots=True)
class Answer:
    """One generated answer."""

    text: str
    tokens: int
    stopped: bool  # ended by an end-of-turn token, not by the limit
    score: Score

    def as_json(self) -> AnswerJson:
        """Return the answer as it is stored."""
        score = self.score
        return {
            "text": self.text,
            "tokens": self.tokens,
            "stopped": self.stopped,
            "score": {"correct": score.correct, "f1": score.f1},
        }


@dataclass(frozen=True)
class Questions:
    """The rows of an evaluation by group; a row may stand in two groups and is answered once.

    `old`: held-out rows that came from files. `new`: held-out rows that came from reviews.
    `regression`: every reviewed row, those that are not learned among them.
    """

    groups: dict[str, list[Row]]
    available: dict[str, int]  # rows before sampling
    texts: list[Row] = field(default_factory=list)  # held-out plain texts: read, not answered

    @property
    def held_out(self) -> list[Row]:
        return [*self.groups["old"], *self.groups["new"]]

    @property
    def rows(self) -> list[Row]:
        return list({row.id: row for rows in self.groups.values() for row in rows}.values())


def questions(dataset: Dataset, limit: int = MAX_ROWS) -> Questions:
    """Choose the rows to judge by; a row that is there several times is asked once.

    A held-out group above the limit is sampled, with a seed that follows from the dataset; no
    reviewed row is left out.
    """
    different = {(row.digest, row.prompt_digest): row for row in reversed(dataset.test)}
    kept = {id(row) for row in different.values()}
    test = [row for row in dataset.test if id(row) in kept]
    groups = {
        "old": [row for row in test if row.origin == "seed" and not row.is_text],
        "new": [row for row in test if row.origin == "review" and not row.is_text],
        REGRESSION: dataset.reviewed,
    }
    pick = random.Random(dataset.digest)
    sampled = {
        name: rows if len(rows) <= limit or name == REGRESSION else pick.sample(rows, limit)
        for name, rows in groups.items()
    }
    texts = [row for row in dataset.test if row.is_text]
    available = {name: len(rows) for name, rows in groups.items()}
    if texts:
        available["text"] = len(texts)
    return Questions(
        sampled, available, texts if len(texts) <= limit else pick.sample(texts, limit)
    )


def asked_messages(row: Row) -> list[Turn]:
    """The row's messages before its answer, as they are stored beside answers."""
    return [{"role": message["role"], "content": text_of(message)} for message in row.messages[:-1]]


@dataclass(frozen=True, slots=True)
class NllSum:
    """What a reference answer costs a model: negative log-likelihood of its tokens, end-of-turn
    token included.
    """

    nats: float
    tokens: int


@dataclass(frozen=True)
class Side:
    """What one model did with the rows."""

    answers: Mapping[str, Answer]  # row id → answer
    # Row id → cost of the reference; may be empty
    nats: Mapping[str, NllSum] = field(default_factory=dict)
