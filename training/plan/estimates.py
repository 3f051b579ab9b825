"""What a run will take, said before its first step and compared with what it took: steps, time,
memory by part, cost.
"""

from __future__ import annotations

import math
import resource
import sys
from pathlib import Path

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from training.loop.batches import PACKED_TOKENS, Batch, collate, pack
from training.loop.loss import Loss, plain, recomputing
from training.loop.pairs import (
    EXTRA_FORWARD_PASSES,
    sequences,
    with_longest_completions,
    work,
    work_of_pairs,
)
from training.loop.row_threads import max_row_threads, row_thread_count
from training.loop.throughput import Written
from training.loop.trainer import Trained
from training.models.encoded import Encoded
from training.plan.prepare import Prepared
from training.recipes.recipe import Recipe
from training.store.table_rows import Estimate, Measured

_FLOAT32 = 4  # bytes
# Times the largest tensor that autograd keeps: on the way back its gradient, the gradient of what
# it came from and one more of that size exist beside it.
_IN_FLIGHT = 3
# Times what torch counts as activations, by bytes of a weight, on a processor: there the heap holds
# 1.2 to 1.8 times as much at its fullest (three shapes in two dtypes, training/RESULTS.md): holes
# between tensors of different batches, and in bfloat16 oneDNN's kernels and packed weights. A GPU's
# peak is torch's own count.
_HEAP = {2: 1.4, 4: 1.3}
# The same of TRL's loops, whose batches are of ever other shapes, and of DPO, KTO and RLHF, whose
# references are computed between what is kept; and besides, what oneDNN's kernels for bfloat16 keep
# in such a loop, by bytes of a weight (three shapes in two dtypes, there too).
_LIBRARY_HEAP = {"dpo": 3.0, "kto": 3.0, "orpo": 2.25, "simpo": 2.25, "rlhf": 3.0}  # simpo: as orpo
_LIBRARY_KERNELS = {2: 150 << 20}
_MOMENTS = 2  # that AdamW keeps of each weight, in float32
# Of a step's time: a loss without gradients, two of the six products of a LoRA layer and two of the
# four of a frozen one, and little besides
_FORWARD = 0.4


def estimate(
    prepared: Prepared,
    tokens_per_s: float,
    memory: dict[str, int],
    price_per_hour: float = 0.0,
    *,
    written: Written | None = None,
) -> Estimate:
    """Plain figures of a prepared run; `memory` as `memory_by_part` gives it, `price_per_hour` in
    any currency (0: not asked).

    `written`: the answers of steps that write some.
    """
    done = (
        work(prepared.recipe, prepared.encoder, prepared.dataset.train, written.lengths)
        if written
        else prepared.work
    )
    tokens = round(done.tokens * prepared.recipe.epochs)
    validated = sum(len(row.ids) for row in prepared.validation) * math.ceil(prepared.recipe.epochs)
    speed = max(tokens_per_s, 1e-9)
    learning = tokens * done.padding / speed + (
        prepared.steps * written.seconds + _rewards_seconds(prepared, speed) if written else 0.0
    )
    seconds = learning + _FORWARD * validated / speed
    found: Estimate = {
        "rows": len(prepared.train),
        "tokens": tokens,
        "trained_tokens": round(done.trained_tokens * prepared.recipe.epochs),
        "steps": prepared.steps,
        "tokens_per_s": round(tokens / max(learning, 1e-9)),
        "seconds": round(seconds, 1),
        "peak_memory_bytes": peak_of(memory),
        "memory": memory,
    }
    if prepared.recipe.refit and prepared.dataset.test:
        # The same passes over all rows, without validation
        rows = len(prepared.train) + len(prepared.dataset.test)
        again = learning * rows / len(prepared.train)
        found["refit_seconds"] = round(again, 1)
        seconds += again
    if price_per_hour:
        found["cost"] = round(seconds / 3600 * price_per_hour, 4)
    return found


def _rewards_seconds(prepared: Prepared, speed: float) -> float:
    """What RLHF's reward model takes, which computes nothing beside its steps: `speed` is that of
    the policy, which does.
    """
    done = work_of_pairs(prepared.recipe, prepared.encoder, prepared.dataset.train)
    return (
        done.tokens
        * done.padding
        * prepared.recipe.epochs
        / (speed * (1 + EXTRA_FORWARD_PASSES["rlhf"] * _FORWARD))
    )


def compared(expected: Estimate, trained: Trained, peak_bytes: int, processes: int = 1) -> Estimate:
    """`expected` with what was measured, and the error of each figure as a share of what was
    measured (0.1: 10 % too high).

    The estimate is of one process; where several did it, their time is noted and nothing compared.
    """
    if processes > 1:
        return {
            **expected,
            "measured": {
                "seconds": round(trained.seconds, 1),
                "tokens_per_s": round(trained.tokens_per_s),
            },
            "error": {},
        }
    # A run that stopped early took less
    done = {
        "seconds": expected["seconds"] * trained.steps / max(1, expected["steps"]),
        "tokens_per_s": expected["tokens_per_s"],
        "peak_memory_bytes": expected["peak_memory_bytes"],
    }
    measured: Measured = {
        "seconds": round(trained.seconds, 1),
        "tokens_per_s": round(trained.tokens_per_s),
        "peak_memory_bytes": peak_bytes,
    }
    return {
        **expected,
        "measured": measured,
        "error": {
            name: round(done[name] / value - 1, 3)
            for name, value in (
                ("seconds", measured["seconds"]),
                ("tokens_per_s", measured["tokens_per_s"]),
                ("peak_memory_bytes", peak_bytes),
            )
            if value
        },
    }


def peak_of(memory: dict[str, int]) -> int:
    """The largest sum of parts that are in memory together while training: activations are gone
    when a checkpoint is written, and all of it when a base that was held in 4 bits is judged in 16.
    """
    lasting = sum(
        size
        for part, size in memory.items()
        if part not in ("activations", "checkpoint", "loading", "judging")
    )
    return max(lasting + max(memory["activations"], memory["checkpoint"]), memory["loading"])


def memory_by_part(
    model: nn.Module,
    rows: list[Encoded],
    recipe: Recipe,
    pad_id: int,
    loss_of: Loss,
    *,
    validated: bool,
) -> dict[str, int]:
    """Bytes of each part of a run on this loaded model.

    Weights are counted, activations measured on one of the longest sequences, multiplied by the
    sequences of a step and by what the heap makes of them. What the process holds besides
    (libraries, rows) is what is resident now, less the weights. `loading`: the peak so far.
    """
    weights = [
        (parameter.numel(), parameter.element_size(), parameter.requires_grad)
        for parameter in model.parameters()
    ]
    base = sum(count * size for count, size, learned in weights if not learned)
    learned = sum(count for count, _, learned in weights if learned)
    compute = sum(count * size for count, size, learned in weights if learned)
    kept = (1 + _MOMENTS + validated) * learned * _FLOAT32
    first = next(model.parameters())
    row_threads = max_row_threads(
        row_thread_count(recipe, first.device.type), recipe.micro_batch or recipe.batch_size
    )
    heap, kernels = (
        _on_a_processor(recipe.method, first.element_size())
        if first.device.type == "cpu"
        else (1.0, 0)
    )
    activations = round(heap * _activations(model, rows, recipe, pad_id, loss_of)) + kernels
    return {
        "process": max(0, resident_bytes() - base - compute),
        "base": base,
        # Weights and each thread's gradients; both in float32, and the best so far
        "adapter": (1 + row_threads) * compute + (2 + validated) * learned * _FLOAT32,
        "optimiser": _MOMENTS * learned * _FLOAT32,
        "activations": activations,
        "checkpoint": kept,
        "loading": peak_memory_bytes(),
    }


def _on_a_processor(method: str, weight_bytes: int) -> tuple[float, int]:
    """(what the heap makes of a byte of activations, bytes that kernels keep besides)."""
    if method in _LIBRARY_HEAP:
        return _LIBRARY_HEAP[method], _LIBRARY_KERNELS.get(weight_bytes, 0)
    return _HEAP.get(weight_bytes, 1.0), 0


def memory_of(model: nn.Module, prepared: Prepared, pad_id: int, loss_of: Loss) -> dict[str, int]:
    """`memory_by_part` of a whole run, with what its method holds besides: a reward model while the
    policy trains; after the training, the base in 16 bits.
    """
    recipe = prepared.recipe
    found = memory_by_part(
        model,
        with_longest_completions(
            [row for rows in (prepared.train, *prepared.variants) for row in rows], recipe
        ),
        recipe,
        pad_id,
        loss_of,
        validated=bool(prepared.validation),
    )
    if recipe.method == "rlhf":
        learned = found["optimiser"] // _MOMENTS  # float32, as a reward model's are
        found["reward model"] = found["base"] + learned
        found["checkpoint"] += learned
    if recipe.method == "qlora":
        found["judging"] = prepared.base.parameters * next(
            each.element_size() for each in model.parameters() if each.is_floating_point()
        )
    return found


def _activations(
    model: nn.Module, rows: list[Encoded], recipe: Recipe, pad_id: int, loss_of: Loss
) -> int:
    """Bytes kept between the forward and the backward pass of the largest part of a step, and what
    the loss needs besides.
    """

    found = 0
    for count, batch in _largest(model, rows, recipe, pad_id):
        with recomputing(model, recipe):
            # On the way back one layer is there whole: as if the first were never given up
            if recipe.gradient_checkpointing:
                first = next(
                    module
                    for module in model.modules()
                    if isinstance(module, GradientCheckpointingLayer)
                )
                first.gradient_checkpointing = False
            kept, loss = _saved(model, batch, loss_of)
        found = max(found, count * (kept + loss))
    return found


def _largest(
    model: nn.Module, rows: list[Encoded], recipe: Recipe, pad_id: int
) -> list[tuple[int, Batch]]:
    """(sequences, one of them) of the rows that may meet in a step and need most: the longest, and
    the longest up to PACKED_TOKENS.

    Beyond that length attention goes block by block and keeps no scores, so a longer row can need
    less.
    """
    device, at_once = next(model.parameters()).device.type, recipe.micro_batch or recipe.batch_size
    answers = sequences(recipe)
    longest = sorted(rows, key=lambda row: -len(row.ids))
    short = [row for row in longest if len(row.ids) <= PACKED_TOKENS]
    if not recipe.packing:
        return [
            (answers * len(some[:at_once]), collate(some[:1], pad_id, device))
            for some in (longest, short)
            if some
        ]
    first: list[Encoded] = []
    for row in short:
        if sum(len(each.ids) for each in [*first, row]) <= PACKED_TOKENS:
            first.append(row)
    found = [
        (len(pack(longest[:at_once], pad_id, device).ids), collate(longest[:1], pad_id, device))
    ]
    return (
        [*found, (len(pack(short[:at_once], pad_id, device).ids), pack(first, pad_id, device))]
        if first
        else found
    )


def _saved(model: nn.Module, batch: Batch, loss_of: Loss) -> tuple[int, int]:
    """(bytes that autograd keeps of a batch, bytes that the way back needs besides: gradients of
    the logits, in float32 and as they are, and of the largest tensor).
    """

    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    was_training = model.training
    model.train()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = loss_of(model, batch)
    found = sum(kept.values())
    del loss
    model.train(was_training)
    logits = batch.targets.numel() * int(plain(model).config.get_text_config().vocab_size)
    return found, logits * (_FLOAT32 + next(model.parameters()).element_size()) + _IN_FLIGHT * max(
        kept.values(), default=0
    )


def resident_bytes() -> int:
    """Memory of this process now; on a GPU, what is allocated there."""

    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    if sys.platform.startswith("linux"):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return peak_memory_bytes()


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far; on a GPU, the largest allocation there."""

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
