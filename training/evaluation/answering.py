"""Answers of a model to held-out rows, as the engine would give them at temperature 0, and their
scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from training.data.rows import Row
from training.data.scoring import score, score_calls
from training.evaluation.answers import Answer
from training.loop.batches import filled, in_parts
from training.loop.generation import answer_limit, greedy
from training.loop.row_threads import compute_threads, row_thread_pool
from training.models.encode import Encoder

# Answers generated together: as many as their prompts fit into so many tokens, so that a small base
# takes few rounds and a long prompt little memory.
_BATCH_TOKENS = 16_384
_BATCH_ROWS = 128  # beyond this a CPU gains nothing
# Rows that make a thread of their own worth it: each goes through the whole model's Python for
# every token, and Python runs one thread at a time. Ten rows took 1.4 s of processor time in one
# batch and 2.0 s in two.
_ROWS_A_THREAD = 16


def answer_rows(
    model: nn.Module,
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
