"""How fast this machine takes a run's steps, with one thread and with all: measured before the
first step, by computing some of it.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, cast

import torch
from torch import nn

from training.loop.batches import epoch_batches
from training.loop.loss import Loss, batch_loss, noisy_embeddings, recomputing
from training.loop.master_weights import MasterWeights
from training.loop.pairs import sequences
from training.loop.ranks import SINGLE_PROCESS
from training.loop.row_threads import RowThreadPool, row_thread_count, row_thread_pool
from training.loop.step_gradients import step_gradients
from training.models.encoded import Encoded
from training.recipes.recipe import Recipe

# So much faster all threads together must be than one, because the engine needs processors too:
# what it uses at this moment is in the measurement, what it will use is not.
_WORTH = 1.1
# For answers before the first step: a small base writes them whole, of a large one on a processor
# their pace has to do
_PATIENCE_S = 20.0
# That are timed: of short, middle and long rows. Each is timed once and all count, because the
# fastest of several is faster than a run will be
_PARTS = 3
# A machine that others use as well changes its speed by a third within seconds. So, where measuring
# took no longer than this, it is done once more and in the other order, by which what is measured
# first and what comes after meet the same machine.
_TWICE_WITHIN_S = 5.0
# What measuring may take before the first step: this share of what the run will take by the first
# part that was timed. A run of ten steps on a larger base would otherwise be measured for longer
# than it lasts. Up to two seconds nobody waits for.
_SHARE_OF_RUN, _UNNOTICED_S = 0.05, 2.0
_FEW = 16  # tokens, by which the pace of writing is known
# Steps whose answers are: a step is as long as its longest, and of one step alone that is anything
# between half and all of what it may be
_WRITTEN = 3


def choose_threads(
    model: nn.Module,
    rows: list[Encoded],
    recipe: Recipe,
    pad_id: int,
    loss_of: Loss = batch_loss,
    writing: Callable[[], float] = lambda: 0.0,
) -> tuple[int, float]:
    """(threads, tokens per second): some of the run's own steps with one thread and with all; on a
    GPU nothing is chosen.

    `writing`: seconds that the answers of a step take now, where a step writes some. A second
    thread can be worth it to learn and not to write.

    Where a full measurement would take more than `_SHARE_OF_RUN` of the run, each choice is timed
    on one part; where that is too much as well, all threads are taken unmeasured.
    """

    if next(model.parameters()).device.type != "cpu":
        return recipe.threads, tokens_per_s(model, rows, recipe, pad_id, loss_of)
    available = max(1, len(os.sched_getaffinity(0)) // recipe.processes)
    choices = [recipe.threads] if recipe.threads else sorted({1, available})
    torch.set_num_threads(choices[-1])
    began = time.perf_counter()
    first = tokens_per_s(model, rows, replace(recipe, threads=choices[-1]), pad_id, loss_of, 0)
    parts = affordable_parts(
        time.perf_counter() - began, run_tokens(rows, recipe) / first, len(choices)
    )
    if not parts:
        return choices[-1], first
    # Seconds of a token, each time that it was measured
    learning: dict[int, list[float]] = {threads: [] for threads in choices}
    writes: dict[int, list[float]] = {threads: [] for threads in choices}
    began = time.perf_counter()
    for order in (choices, choices[::-1]):
        for threads in order:
            torch.set_num_threads(threads)
            speed = tokens_per_s(
                model, rows, replace(recipe, threads=threads), pad_id, loss_of, parts
            )
            learning[threads].append(1 / speed)
            if len(choices) > 1:
                writes[threads].append(writing())
        if parts < _PARTS or time.perf_counter() - began > _TWICE_WITHIN_S:
            break
    tokens = _tokens_of_a_step(rows, recipe)
    seconds = {
        threads: fmean(learning[threads]) * tokens + fmean(writes[threads] or [0.0])
        for threads in choices
    }
    best = choices[-1] if seconds[choices[0]] > _WORTH * seconds[choices[-1]] else choices[0]
    torch.set_num_threads(best)
    return best, 1 / fmean(learning[best])


def affordable_parts(pass_s: float, run_s: float, choices: int) -> int:
    """Return how many parts may be timed for each choice of threads: `_PARTS`, 1 or 0.

    `pass_s`: seconds that one part took, `run_s`: what the run will take at that speed. Each choice
    computes one part more than are timed, to warm up.
    """
    left = max(_UNNOTICED_S, _SHARE_OF_RUN * run_s) - pass_s
    return next((parts for parts in (_PARTS, 1) if choices * (1 + parts) * pass_s <= left), 0)


def run_tokens(rows: list[Encoded], recipe: Recipe) -> float:
    """Return the tokens that a run over `rows` computes, padding not counted."""
    return _tokens(rows) * sequences(recipe) * recipe.epochs


def tokens_per_s(
    model: nn.Module,
    rows: list[Encoded],
    recipe: Recipe,
    pad_id: int,
    loss_of: Loss,
    parts: int = _PARTS,
) -> float:
    """Of whole steps: the gradients of what is computed at once, and what a step's update takes.

    `parts` are timed after a first one, which is slower, because kernels are made and memory is
    taken; with 0 that one has to do. Changes no weight.
    """
    device = next(model.parameters()).device.type
    at_once = (recipe.micro_batch or recipe.batch_size) * sequences(recipe)
    batches = sorted(epoch_batches(rows, at_once, recipe.seed, 0), key=_tokens)
    middle = batches[len(batches) // 2]
    timed = [batches[(2 * at + 1) * len(batches) // (2 * parts)] for at in range(parts)]
    masters = MasterWeights(model)
    model.train()
    with (
        row_thread_pool(row_thread_count(recipe, device), at_once) as workers,
        recomputing(model, recipe),
        noisy_embeddings(model, recipe),
    ):

        def compute(part: list[Encoded], workers: RowThreadPool = workers) -> None:
            for copy in masters.copies:
                copy.grad = None
            step_gradients(
                model, masters, part, recipe, pad_id, device, loss_of, SINGLE_PROCESS, workers
            )

        per_token = _seconds(device, compute, middle) / _tokens(middle)
        if timed:
            seconds = sum(_seconds(device, compute, part) for part in timed)
            per_token = seconds / sum(map(_tokens, timed))
    # Of the copies alone, which are let go.
    optimiser = masters.optimiser(recipe.weight_decay, recipe.loraplus_lr_ratio)

    def update() -> None:
        masters.clip(recipe.clip)
        optimiser.step()

    update()
    return 1 / (per_token + _seconds(device, update) / _tokens_of_a_step(rows, recipe))


@dataclass(frozen=True, slots=True)
class Written:
    """The answers of some steps, as the base writes them before it has learned anything."""

    lengths: tuple[tuple[int, ...], ...]  # of each step's: tokens, the end-of-turn token included
    seconds: float  # that those of one step take


def write(
    model: nn.Module,
    rows: list[Encoded],
    recipe: Recipe,
    pad_id: int,
    stop_ids: frozenset[int],
    limit: int,
) -> Written:
    """The answers of some of the run's steps, drawn as RLHF's policy draws them, each of at most
    `limit` tokens. One that has no end after `_PATIENCE_S` counts as that long.
    """
    with _draws(model, recipe, pad_id, stop_ids) as draw:
        draw(_questions(rows, recipe, 0), 1, _PATIENCE_S)  # the first is slower
        lengths, seconds, began = [], 0.0, time.perf_counter()
        for number in range(_WRITTEN):
            spent = time.perf_counter() - began
            if spent > _PATIENCE_S / 2:  # what is left might cut the next ones
                break
            answers, took = draw(_questions(rows, recipe, number), limit, _PATIENCE_S - spent)
            lengths.append(answers)
            seconds += took
    return Written(tuple(lengths), seconds / len(lengths))


def writing_seconds(
    model: nn.Module,
    rows: list[Encoded],
    recipe: Recipe,
    pad_id: int,
    stop_ids: frozenset[int],
    limit: int,
) -> float:
    """What a step's answers take if one is as long as it may be, by the pace of the first `_FEW`
    tokens.
    """
    with _draws(model, recipe, pad_id, stop_ids) as draw:
        some = _questions(rows, recipe, 0)
        draw(some, 1, _PATIENCE_S)
        answers, seconds = draw(some, min(_FEW, limit), _PATIENCE_S)
    return seconds / max(answers) * limit


def _questions(rows: list[Encoded], recipe: Recipe, number: int) -> list[Encoded]:
    """The rows of a step like those of the run."""
    return random.Random(recipe.seed + number).sample(rows, min(recipe.batch_size, len(rows)))


# (rows, most tokens, most seconds) → (lengths of their answers, seconds)
_Draw = Callable[[list[Encoded], int, float], tuple[tuple[int, ...], float]]


@contextmanager
def _draws(
    model: nn.Module, recipe: Recipe, pad_id: int, stop_ids: frozenset[int]
) -> Iterator[_Draw]:
    """Writes as RLHF's policy does. What is drawn at random elsewhere stays as it would be."""

    device = next(model.parameters()).device
    stops = torch.tensor(sorted(stop_ids), device=device)
    given: dict[str, Any] = {
        "eos_token_id": sorted(stop_ids),
        "pad_token_id": pad_id,
        "do_sample": True,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
    }

    def draw(some: list[Encoded], tokens: int, patience: float) -> tuple[tuple[int, ...], float]:
        some = [row for row in some for _ in range(recipe.samples)]
        longest = max(row.prompt_tokens for row in some)
        ids = torch.tensor(
            [
                [pad_id] * (longest - row.prompt_tokens) + list(row.ids[: row.prompt_tokens])
                for row in some
            ],
            device=device,
        )
        mask = torch.tensor(
            [[0] * (longest - row.prompt_tokens) + [1] * row.prompt_tokens for row in some],
            device=device,
        )
        began = time.perf_counter()
        with torch.no_grad():
            made = cast(Any, model).generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=tokens,
                max_time=patience,
                **given,
            )[:, longest:]
        ended = torch.isin(made, stops)
        lengths = torch.where(ended.any(1), ended.int().argmax(1) + 1, tokens).tolist()
        return tuple(lengths), (time.perf_counter() - began) * max(lengths) / made.shape[1]

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(recipe.seed)
        yield draw


def _tokens_of_a_step(rows: list[Encoded], recipe: Recipe) -> float:
    return min(recipe.batch_size, len(rows)) * sequences(recipe) * _tokens(rows) / len(rows)


def _tokens(rows: list[Encoded]) -> int:
    return sum(len(row.ids) for row in rows)


def _seconds(device: str, function: Callable[..., None], *given: object) -> float:
    began = time.perf_counter()
    function(*given)
    if device == "cuda":  # which has only been told what to compute
        torch.cuda.synchronize()
    return time.perf_counter() - began
