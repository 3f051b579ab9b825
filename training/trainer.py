"""The training loop: LoRA on a frozen base, on one CPU or GPU.

Three things make it fast on a small machine without changing what is computed: rows of similar length share a batch, the output
head runs only at positions whose next token is learned, and the adapter computes in the base's dtype while a float32 copy of it
takes the updates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from training.batches import IGNORED, Batch, collate, endless, epoch_batches
from training.encode import Encoded
from training.recipe import Recipe
from whet.errors import TrainingError

_FLOOR = 0.02  # share of the peak rate at which the schedule ends: the last steps still learn, and no longer wander
_BETAS = (0.9, 0.99)  # the second is below the usual 0.999, which forgets too slowly for runs of 100 to 500 steps
# Nats by which the loss may end above where it began: each learned token is then e times less likely than before training, and no run
# comes back from there.
_DIVERGED = 1.0
_WINDOW = 20  # steps over which divergence is judged


@dataclass(frozen=True, slots=True)
class Step:
    """What the caller is told after each step."""

    step: int  # from 1
    steps: int
    loss: float  # mean over the learned tokens of the batch
    tokens_per_s: float
    eta_s: float
    seconds: float  # since the loop began


@dataclass(frozen=True)
class Trained:
    """How a run went."""

    steps: int
    tokens: int
    trained_tokens: int
    seconds: float
    first_loss: float  # mean of the first epoch's first tenth of steps
    last_loss: float  # mean of the last tenth of all steps
    validation: list[tuple[int, float]] = field(default_factory=list)  # (step, loss)
    best_step: int = 0  # whose weights were kept

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


class Cancelled(Exception):
    """Raised by the caller's `on_step` to stop the run."""


def total_steps(rows: int, recipe: Recipe) -> int:
    """Optimiser steps of a run."""
    return max(1, math.ceil(recipe.epochs * math.ceil(rows / recipe.batch_size)))


def rate_at(step: int, steps: int, recipe: Recipe) -> float:
    """Learning rate of a step (counted from 0): linear warm-up, then the schedule."""
    warm = max(1, round(recipe.warmup * steps))
    if step < warm:
        return recipe.learning_rate * (step + 1) / warm
    if recipe.schedule == "constant":
        return recipe.learning_rate
    done = (step - warm) / max(1, steps - warm)
    fall = 1 - done if recipe.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return recipe.learning_rate * (_FLOOR + (1 - _FLOOR) * fall)


def train(
    model: Any,
    rows: list[Encoded],
    validation: list[Encoded],
    recipe: Recipe,
    *,
    pad_id: int,
    on_step: Callable[[Step], None],
    clock: Callable[[], float] = time.monotonic,
) -> Trained:
    """Train the adapter of a PEFT model in place; with validation rows, its best weights (once an epoch) are what remains.

    Raises TrainingError that names the cause when the loss is not a number or runs away.
    """
    import torch

    device = next(model.parameters()).device.type
    torch.manual_seed(recipe.seed)
    masters = _Masters(model)
    optimiser = torch.optim.AdamW(masters.copies, lr=recipe.learning_rate, betas=_BETAS, weight_decay=recipe.weight_decay, foreach=True)
    steps, per_epoch = total_steps(len(rows), recipe), math.ceil(len(rows) / recipe.batch_size)
    losses: list[float] = []
    tokens = trained_tokens = 0
    checkpoints = _Checkpoints(masters)
    model.train()
    began = clock()
    for step, some in zip(range(steps), endless(rows, recipe.batch_size, recipe.seed), strict=False):
        batch = collate(some, pad_id, device)
        loss = batch_loss(model, batch)
        loss.backward()
        norm = masters.take_gradients(recipe.clip)
        losses.append(float(loss.detach()))
        watch(losses, float(norm), step + 1, recipe)
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, steps, recipe)
        optimiser.step()
        masters.give_back()
        tokens, trained_tokens = tokens + batch.tokens, trained_tokens + batch.trained
        seconds = clock() - began
        on_step(Step(step + 1, steps, losses[-1], tokens / max(seconds, 1e-9), seconds / (step + 1) * (steps - step - 1), seconds))
        if validation and ((step + 1) % per_epoch == 0 or step + 1 == steps):
            checkpoints.offer(step + 1, mean_loss(model, validation, recipe, pad_id))
    checkpoints.restore()
    model.eval()
    tenth = max(1, steps // 10)
    return Trained(
        steps,
        tokens,
        trained_tokens,
        clock() - began,
        sum(losses[:tenth]) / tenth,
        sum(losses[-tenth:]) / len(losses[-tenth:]),
        checkpoints.losses,
        checkpoints.best_step or steps,
    )


def batch_loss(model: Any, batch: Batch) -> Any:
    """Mean cross-entropy over the learned tokens, each weighted by its row."""
    import torch

    logits = model(input_ids=batch.ids, logits_to_keep=batch.columns, use_cache=False).logits
    each = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch.targets.flatten(), ignore_index=IGNORED, reduction="none")
    weights = ((batch.targets != IGNORED) * batch.weights[:, None]).flatten()
    return (each * weights).sum() / weights.sum()


def mean_loss(model: Any, rows: list[Encoded], recipe: Recipe, pad_id: int) -> float:
    """Loss over some rows without training on them."""
    import torch

    device = next(model.parameters()).device.type
    was_training = model.training
    model.eval()
    total = count = 0.0
    with torch.no_grad():
        for some in epoch_batches(rows, recipe.batch_size, 0, 0):
            batch = collate(some, pad_id, device)
            total += float(batch_loss(model, batch)) * batch.trained
            count += batch.trained
    model.train(was_training)
    return total / max(count, 1)


class _Masters:
    """The adapter's parameters in the compute dtype, and the float32 copies that the optimiser sees.

    In bfloat16 alone an update smaller than 1/256 of a weight is lost; in float32 alone every layer casts its input up and down.
    """

    def __init__(self, model: Any) -> None:
        import torch

        self._torch = torch
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.copies = [parameter.detach().to(torch.float32).clone().requires_grad_(True) for parameter in self.parameters]

    def take_gradients(self, clip: float) -> Any:
        """Move the gradients over; returns their norm before clipping."""
        for parameter, copy in zip(self.parameters, self.copies, strict=True):
            copy.grad = None if parameter.grad is None else parameter.grad.to(self._torch.float32)
            parameter.grad = None
        return self._torch.nn.utils.clip_grad_norm_(self.copies, clip, foreach=True)

    def give_back(self) -> None:
        with self._torch.no_grad():
            self._torch._foreach_copy_(self.parameters, self.copies)


class _Checkpoints:
    """Keeps the weights with the lowest validation loss."""

    def __init__(self, masters: _Masters) -> None:
        self._masters = masters
        self._best: list[Any] | None = None
        self.losses: list[tuple[int, float]] = []
        self.best_step = 0

    def offer(self, step: int, loss: float) -> None:
        self.losses.append((step, loss))
        if loss <= min(value for _, value in self.losses):
            self._best = [copy.detach().clone() for copy in self._masters.copies]
            self.best_step = step

    def restore(self) -> None:
        if self._best is not None:
            for copy, best in zip(self._masters.copies, self._best, strict=True):
                copy.data.copy_(best)
            self._masters.give_back()


def watch(losses: list[float], norm: float, step: int, recipe: Recipe) -> None:
    """Raises TrainingError when the newest loss or gradient norm is no number, or when the losses have run away."""
    if not (math.isfinite(losses[-1]) and math.isfinite(norm)):
        what = "loss" if not math.isfinite(losses[-1]) else "gradient"
        raise TrainingError(
            f"The {what} stopped being a number at step {step} (learning rate {recipe.learning_rate:g}, {recipe.dtype}).",
            hint="Lower the learning rate, or train with dtype float32.",
        )
    if len(losses) >= 3 * _WINDOW:
        begin, now = sum(losses[:_WINDOW]) / _WINDOW, sum(losses[-_WINDOW:]) / _WINDOW
        if now > begin + _DIVERGED:
            raise TrainingError(
                f"The run diverged: the loss rose from {begin:.2f} to {now:.2f} by step {step}.",
                hint=f"Lower the learning rate (it was {recipe.learning_rate:g}).",
            )
