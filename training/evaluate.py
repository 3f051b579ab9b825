"""Answers of a model to held-out rows, as the engine would give them at temperature 0, and their
scores.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from training.batches import filled, in_parts
from training.datasets import Dataset
from training.encode import Encoder
from training.gate import REGRESSION
from training.row_threads import compute_threads, row_thread_pool
from training.rows import Row
from training.scoring import Score, score, score_calls

# Held-out rows answered per group: with 150 pairs a difference of 5 points shows, and two models
# answer three groups in half a minute on two cores.
MAX_ROWS = 150
# Answers generated together: as many as their prompts fit into so many tokens, so that a small base
# takes few rounds and a long prompt little memory.
_BATCH_TOKENS = 16_384
_BATCH_ROWS = 128  # beyond this a CPU gains nothing
# Rows that make a thread of their own worth it: each goes through the whole model's Python for
# every token, and Python runs one thread at a time. Ten rows took 1.4 s of processor time in one
# batch and 2.0 s in two.
_ROWS_A_THREAD = 16
# An answer may be longer than the longest reference by half and this much, before it counts as
# endless
_SPARE_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Answer:
    """One generated answer."""

    text: str
    tokens: int
    stopped: bool  # ended by an end-of-turn token, not by the limit
    score: Score


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


def answer_rows(
    model: Any,
    encoder: Encoder,
    rows: list[Row],
    *,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Answer]:
    """Row id → greedy answer.

    `on_batch` is told (rows answered, rows in all) and may raise to stop.
    """
    if not rows:
        return {}
    prompts = {row.id: encoder.prompt_ids(row) for row in rows}
    limit = answer_limit(max(encoder.answer_tokens(row) for row in rows))

    def written(some: list[Row]) -> list[list[int]]:
        room = max(1, encoder.max_length - max(len(prompts[row.id]) for row in some))
        return greedy(
            model, [prompts[row.id] for row in some], encoder.base.stop_ids, min(limit, room)
        )

    answers: dict[str, Answer] = {}
    with row_thread_pool(compute_threads(model), len(rows) // _ROWS_A_THREAD) as workers:
        for at_once in in_parts(_batches(rows, prompts, workers.count), workers.count):
            for some, written_ids in zip(at_once, workers.map(written, at_once), strict=True):
                for row, ids in zip(some, written_ids, strict=True):
                    stopped = bool(ids) and ids[-1] in encoder.base.stop_ids
                    answers[row.id] = _scored(encoder, row, ids, stopped=stopped)
            on_batch(len(answers), len(rows))
    return answers


def _scored(encoder: Encoder, row: Row, ids: list[int], *, stopped: bool) -> Answer:
    """The answer with its score; of a call the control tokens that mark it belong to its text."""
    written = ids[:-1] if stopped else ids
    if row.calls:
        text = encoder.decode_whole(written)
        return Answer(text, len(ids), stopped, score_calls(row, encoder.rendered_answer(row), text))
    text = encoder.decode(written)
    return Answer(text, len(ids), stopped, score(row, text))


def answer_limit(longest: int) -> int:
    """Tokens after which an answer counts as endless, given the longest reference."""
    return longest + longest // 2 + _SPARE_TOKENS


def _batches(rows: list[Row], prompts: dict[str, list[int]], threads: int) -> list[list[Row]]:
    """The rows by the length of their prompts, in batches of which `threads` fit into memory
    together.
    """
    ordered = sorted(rows, key=lambda row: len(prompts[row.id]))
    most = min(_BATCH_ROWS, math.ceil(len(rows) / threads))

    def fits(batch: list[Row], row: Row) -> bool:  # the last one of a batch is the widest
        return (
            len(batch) < most and (len(batch) + 1) * len(prompts[row.id]) * threads <= _BATCH_TOKENS
        )

    return filled(ordered, fits)


def greedy(
    model: Any, prompts: list[list[int]], stop_ids: frozenset[int], limit: int
) -> list[list[int]]:
    """The most probable continuation of each prompt, up to `limit` tokens, its end-of-turn token
    included.

    Prompts are padded on the left and share a key-value cache; rows that are finished leave the
    batch.
    """
    import torch
    from transformers import DynamicCache

    device = next(model.parameters()).device
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor(
        [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device
    )
    positions = (mask.cumsum(1) - 1).clamp_(min=0)
    stops = torch.tensor(sorted(stop_ids), device=device)
    answers: list[list[int]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        for _ in range(limit):
            logits = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
            token = logits[:, -1].argmax(-1)
            for row, value in zip(alive, token.tolist(), strict=True):
                answers[row].append(value)
            going = (~torch.isin(token, stops)).nonzero().squeeze(1)
            if len(going) == 0:
                break
            if len(going) < len(alive):
                cache.batch_select_indices(going)
                mask, positions, token = mask[going], positions[going], token[going]
                alive = [alive[number] for number in going.tolist()]
            ids = token[:, None]
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            positions = positions[:, -1:] + 1
    return answers
