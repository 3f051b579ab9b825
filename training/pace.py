"""How fast this machine takes a run's steps, with one thread and with all: measured before the first step, by computing some of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from training.batches import epoch_batches
from training.encode import Encoded
from training.hands import Hands, hands, shared_by
from training.masters import Masters
from training.methods.pairs import sequences
from training.recipe import Recipe
from training.run.ranks import ALONE
from training.trainer import Loss, batch_loss, recomputing, step_gradients

# So much faster all threads together must be than one, because the engine needs processors too: what it uses at this moment is in the measurement, what it will use is not.
_WORTH = 1.1
_PATIENCE_S = 20.0  # for a step's answers before the first step: a small base writes them whole, of a large one on a processor their pace has to do
_PARTS = 3  # that are timed: of short, middle and long rows. Each is timed once and all count, because the fastest of several is faster than a run will be


def choose_threads(model: Any, rows: list[Encoded], recipe: Recipe, pad_id: int, loss_of: Loss = batch_loss) -> tuple[int, float]:
    """(threads, tokens per second): some of the run's own steps with one thread and with all; on a GPU nothing is chosen."""
    import torch

    if next(model.parameters()).device.type != "cpu":
        return recipe.threads, tokens_per_s(model, rows, recipe, pad_id, loss_of)
    available = max(1, len(os.sched_getaffinity(0)) // recipe.processes)
    choices = [recipe.threads] if recipe.threads else sorted({1, available})
    speeds: dict[int, float] = {}
    for threads in choices:
        torch.set_num_threads(threads)
        speeds[threads] = tokens_per_s(model, rows, replace(recipe, threads=threads), pad_id, loss_of)
    best = choices[-1] if speeds[choices[-1]] > _WORTH * speeds[choices[0]] else choices[0]
    torch.set_num_threads(best)
    return best, speeds[best]


def tokens_per_s(model: Any, rows: list[Encoded], recipe: Recipe, pad_id: int, loss_of: Loss) -> float:
    """Of whole steps: the gradients of what is computed at once, and what a step's update takes. Changes no weight."""
    device = next(model.parameters()).device.type
    at_once = (recipe.micro_batch or recipe.batch_size) * sequences(recipe)
    parts = sorted(epoch_batches(rows, at_once, recipe.seed, 0), key=_tokens)
    timed = [parts[(2 * number + 1) * len(parts) // (2 * _PARTS)] for number in range(_PARTS)]
    masters = Masters(model)
    model.train()
    with hands(shared_by(recipe, device), at_once) as workers, recomputing(model, recipe):

        def compute(part: list[Encoded], workers: Hands = workers) -> None:
            for copy in masters.copies:
                copy.grad = None
            step_gradients(model, masters, part, recipe, pad_id, device, loss_of, ALONE, workers)

        compute(timed[_PARTS // 2])  # the first is slower: kernels are made and memory is taken
        per_token = sum(_seconds(device, compute, part) for part in timed) / sum(map(_tokens, timed))
    optimiser = masters.optimiser(recipe.weight_decay)  # of the copies alone, which are let go

    def update() -> None:
        masters.clip(recipe.clip)
        optimiser.step()

    update()
    tokens_of_a_step = min(recipe.batch_size, len(rows)) * sequences(recipe) * _tokens(rows) / len(rows)
    return 1 / (per_token + _seconds(device, update) / tokens_of_a_step)


@dataclass(frozen=True, slots=True)
class Written:
    """The answers of one step, as the base writes them before it has learned anything."""

    lengths: tuple[int, ...]  # tokens, the end-of-turn token included
    seconds: float


def write(model: Any, rows: list[Encoded], recipe: Recipe, pad_id: int, stop_ids: frozenset[int], limit: int) -> Written:
    """Answers to questions of middle length, drawn as RLHF's policy draws them, each of at most `limit` tokens. One that has no end after `_PATIENCE_S` counts as that long."""
    import torch

    ordered = sorted(rows, key=lambda row: row.prompt_tokens)
    first = max(0, (len(ordered) - recipe.batch_size) // 2)
    some = [row for row in ordered[first : first + recipe.batch_size] for _ in range(recipe.samples)]
    longest, device = max(row.prompt_tokens for row in some), next(model.parameters()).device
    ids = torch.tensor([[pad_id] * (longest - row.prompt_tokens) + list(row.ids[: row.prompt_tokens]) for row in some], device=device)
    mask = torch.tensor([[0] * (longest - row.prompt_tokens) + [1] * row.prompt_tokens for row in some], device=device)
    stops = torch.tensor(sorted(stop_ids), device=device)
    given: dict[str, Any] = {"eos_token_id": sorted(stop_ids), "pad_token_id": pad_id, "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    written: list[Any] = []

    def draw(tokens: int) -> None:
        with torch.no_grad():
            made = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=tokens, max_time=_PATIENCE_S, **given)
        written[:] = [made[:, longest:]]

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(recipe.seed)
        draw(1)  # the first is slower
        seconds = _seconds(device.type, draw, limit)
    ended = torch.isin(written[0], stops)
    lengths = torch.where(ended.any(1), ended.int().argmax(1) + 1, limit).tolist()
    return Written(tuple(lengths), seconds * max(lengths) / written[0].shape[1])


def _tokens(rows: list[Encoded]) -> int:
    return sum(len(row.ids) for row in rows)


def _seconds(device: str, function: Callable[..., None], *given: Any) -> float:
    import torch

    began = time.perf_counter()
    function(*given)
    if device == "cuda":  # which has only been told what to compute
        torch.cuda.synchronize()
    return time.perf_counter() - began
