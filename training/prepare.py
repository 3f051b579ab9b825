"""Everything that can be known and refused before the first step: rows to tokens, recipe to figures, time and memory."""

from __future__ import annotations

import os
import resource
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from training.base_model import BaseModel, compute_dtype
from training.batches import collate
from training.datasets import Dataset
from training.encode import Encoded, Encoder
from training.recipe import PRODUCTION, Recipe, check_servable, resolved
from training.rows import BadLine
from training.trainer import batch_loss, total_steps
from whet.context import Context
from whet.database import reading
from whet.errors import InputError
from whet.registry import Adapter, current_rollouts, find_adapter

# A second thread must be this much faster than one to be used: it is taken from the engine beside us.
_WORTH = 1.15


@dataclass(frozen=True)
class Prepared:
    """A run that may start."""

    alias: str
    dataset: Dataset
    recipe: Recipe
    base: BaseModel
    encoder: Encoder
    train: list[Encoded]
    validation: list[Encoded]
    left_out: list[BadLine]
    start_adapter: Adapter | None  # whose weights the run starts from
    notices: list[str]

    @property
    def tokens_per_epoch(self) -> int:
        return sum(len(row.ids) for row in self.train)

    @property
    def steps(self) -> int:
        return total_steps(len(self.train), self.recipe)


def prepare(context: Context, alias: str, dataset: Dataset, recipe: Recipe, base: BaseModel, *, skip_bad: bool = False) -> Prepared:
    """Encode the rows and settle the recipe. Raises InputError or ConfigurationError with what is wrong, before anything is loaded."""
    check_servable(recipe, context.settings.engine_max_lora_rank)
    room = min(base.max_positions, context.settings.engine_max_model_len)
    parameters = count_parameters(base)
    start, no_start = _start_adapter(context, alias, recipe, base)
    recipe = replace(recipe, init_from=start.digest if start else "")
    recipe = replace(resolved(recipe, parameters=parameters, max_length=room), dtype=compute_dtype(recipe.dtype))
    encoder = Encoder(base, recipe.max_length)
    left_out: list[BadLine] = []
    parts: dict[str, list[Encoded]] = {}
    kept: dict[str, Any] = {}
    for part in ("train", "validation", "test"):
        parts[part], kept[part], bad = encoder.encode_all(dataset.part(part))
        left_out += bad
    if left_out and not skip_bad:
        shown = "\n".join(f"  {bad}" for bad in left_out[:20])
        raise InputError(f"{len(left_out)} rows cannot be learned from with this base:\n{shown}", hint="Correct them, or leave them out with --skip-bad.")
    if not parts["train"]:
        raise InputError("No row is left to train on.", hint="`whet data check` says why each row was refused.")
    dataset = replace(dataset, **kept)
    return Prepared(alias, dataset, recipe, base, encoder, parts["train"], parts["validation"], left_out, start, [*no_start, *_notices(dataset)])


def count_parameters(base: BaseModel) -> int:
    """Weights of the base, from the headers of its files."""
    from math import prod

    from safetensors import safe_open

    total = 0
    for file in base.folder.glob("*.safetensors"):
        with safe_open(str(file), framework="pt") as tensors:
            total += sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return total


def _start_adapter(context: Context, alias: str, recipe: Recipe, base: BaseModel) -> tuple[Adapter | None, list[str]]:
    """(the adapter to go on from, why there is none although one was wished for). A named version has to fit; `production` is a wish."""
    from training.adapter_store import require_base

    if not recipe.init_from:
        return None, []
    with reading(context.database) as connection:
        if recipe.init_from == PRODUCTION:
            return _live_adapter(connection, alias, recipe, base)
        adapter = find_adapter(connection, recipe.init_from)
    require_base(adapter, base.digest, base.name)
    if adapter.rank != recipe.rank:
        raise InputError(
            f"{adapter.label} has rank {adapter.rank}, the recipe {recipe.rank}; a run continues with the rank it starts from.",
            hint=f"Use --rank {adapter.rank}, or start without init_from.",
        )
    return adapter, []


def _live_adapter(connection: Connection, alias: str, recipe: Recipe, base: BaseModel) -> tuple[Adapter | None, list[str]]:
    rollout = current_rollouts(connection).get(alias)
    if rollout is None or rollout.stable_digest is None:
        return None, [f"Nothing is live under {alias}, so the run starts from nothing."]
    adapter = find_adapter(connection, rollout.stable_digest)
    unfit = [
        (adapter.base_digest != base.digest, "belongs to another base"),
        (adapter.rank != recipe.rank, f"has rank {adapter.rank}, the recipe {recipe.rank}"),
        (adapter.run_id is None, "was imported"),
    ]
    reason = next((words for wrong, words in unfit if wrong), "")
    return (None, [f"{adapter.label} {reason}, so the run starts from nothing."]) if reason else (adapter, [])


def _notices(dataset: Dataset) -> list[str]:
    rows = [row for part in (dataset.train, dataset.validation, dataset.test) for row in part]
    preferences = sum(row.kind == "preference" for row in rows)
    found = []
    if preferences:
        found.append(f"{preferences} rows are preferences: this method learns their chosen answers and does not look at the rejected ones.")
    trained = {row.prompt_digest for row in dataset.train}
    leaked = sum(row.prompt_digest in trained for row in dataset.test if row.origin == "seed")
    if leaked:
        found.append(f"{leaked} test rows ask a question that is also trained on: their scores say little.")
    return found


def choose_threads(model: Any, rows: list[Encoded], recipe: Recipe, pad_id: int) -> tuple[int, float]:
    """(threads, tokens per second): a step of the run's own size is timed with one thread and with all; on a GPU nothing is chosen."""
    import torch

    if next(model.parameters()).device.type != "cpu":
        return recipe.threads, _speed(model, rows, recipe, pad_id)
    available = len(os.sched_getaffinity(0))
    choices = [recipe.threads] if recipe.threads else sorted({1, available})
    speeds: dict[int, float] = {}
    for threads in choices:
        torch.set_num_threads(threads)
        speeds[threads] = _speed(model, rows, recipe, pad_id)
    best = choices[0]
    if speeds[choices[-1]] > _WORTH * speeds[best]:
        best = choices[-1]
    torch.set_num_threads(best)
    return best, speeds[best]


def _speed(model: Any, rows: list[Encoded], recipe: Recipe, pad_id: int) -> float:
    """Tokens per second of forward and backward, the better of two after one to warm up. Changes no weight."""
    device = next(model.parameters()).device.type
    middle = sorted(rows, key=lambda row: len(row.ids))
    first = max(0, (len(middle) - recipe.batch_size) // 2)
    batch = collate(middle[first : first + recipe.batch_size], pad_id, device)
    best = float("inf")
    model.train()
    for attempt in range(3):
        began = time.perf_counter()
        batch_loss(model, batch).backward()
        model.zero_grad(set_to_none=True)
        if attempt:
            best = min(best, time.perf_counter() - began)
    return batch.tokens / best


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far; on a GPU, the largest allocation there."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def estimate(prepared: Prepared, tokens_per_s: float) -> dict[str, Any]:
    """What the run is expected to take: stored with it, and compared with what it took."""
    tokens = round(prepared.tokens_per_epoch * prepared.recipe.epochs)
    return {
        "rows": len(prepared.train),
        "tokens": tokens,
        "trained_tokens": round(sum(row.trained_tokens for row in prepared.train) * prepared.recipe.epochs),
        "steps": prepared.steps,
        "tokens_per_s": round(tokens_per_s),
        "seconds": round(tokens / max(tokens_per_s, 1e-9), 1),
        "peak_memory_bytes": peak_memory_bytes(),
    }
