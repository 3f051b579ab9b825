"""The training loop: LoRA on a frozen base, on one CPU or GPU, or by several processes that each
take a share of every step.

Four things make it fast on a small machine without changing what is computed: rows of similar
length share a batch, the output head runs only at positions whose next token is learned, the
adapter computes in the base's dtype while a float32 copy of it takes the updates, and each
processor takes rows of its own. Everything that the next step depends on can be kept after any
step, and the loop goes on from it to the bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict, cast

import torch
from torch import nn

from training.loop.batches import Batch, collate, endless, in_parts, pack
from training.loop.checkpoint import Checkpoints, LoopState, Snapshot, restore_random
from training.loop.diagnostics import (
    check_divergence,
    explain_early_stop,
    explain_memorisation,
    explain_plateau,
    require_finite,
)
from training.loop.loss import (
    Loss,
    batch_loss,
    batch_weight,
    mean_loss,
    noisy_embeddings,
    recomputing,
    share_of_rows,
)
from training.loop.master_weights import BestCheckpoint, MasterWeights, set_rate
from training.loop.ranks import SINGLE_PROCESS, Ranks
from training.loop.row_threads import (
    RowThreadPool,
    row_thread_count,
    row_thread_pool,
)
from training.loop.samples import Sampler
from training.models.encoded import Encoded
from training.recipes.methods import ANSWERS, METHODS
from training.recipes.recipe import Recipe

# Share of the peak rate at which the schedule ends: the last steps still learn, and no longer
# wander
FLOOR = 0.02
# Steps' worth of rows whose loss before the first step is what divergence is judged against; costs
# as much time as a step and a half
_SAMPLED = 4

# Between the seeds of two steps at which a run was taken up again: more than there are processes
_SEEDS_APART = 1_000_003


@dataclass(frozen=True, slots=True)
class Step:
    """What the caller is told after each step."""

    step: int  # from 1
    steps: int
    loss: float  # mean over the learned tokens of the batch
    tokens_per_s: float
    eta_s: float
    seconds: float  # in the loop, over all attempts at the run
    rate: float = 0.0  # learning rate of this step
    validation: tuple[tuple[int, float], ...] = ()  # (step, loss) of every check so far
    signs: tuple[str, ...] = ()  # of trouble, so far
    samples: tuple[list[Any], ...] = ()  # [step, answers] of each sampling so far


@dataclass(frozen=True)
class Trained:
    """How a run went."""

    steps: int  # taken; fewer than planned when the run was stopped early
    tokens: int
    trained_tokens: int
    seconds: float  # with those of what RLHF learns from, its reward model
    first_loss: float  # mean of the first epoch's first tenth of steps
    last_loss: float  # mean of the last tenth of all steps
    validation: list[tuple[int, float]] = field(default_factory=list)  # (step, loss)
    best_step: int = 0  # whose weights were kept
    signs: list[str] = field(default_factory=list)  # of trouble, one sentence each
    samples: list[list[Any]] = field(default_factory=list)  # [step, answers] of each sampling
    sampling_seconds: float = 0.0  # beside `seconds`

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


class Loop(TypedDict):
    """What surrounds a run's loop; `train` has the meaning of each."""

    pad_id: int
    loss_of: Loss
    on_step: Callable[[Step], None]
    checkpoints: Checkpoints
    resume: Snapshot | None
    sampler: NotRequired[Sampler | None]


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
    return recipe.learning_rate * (FLOOR + (1 - FLOOR) * fall)


def train(
    model: nn.Module,
    rows: list[Encoded],
    validation: list[Encoded],
    recipe: Recipe,
    *,
    pad_id: int,
    on_step: Callable[[Step], None],
    loss_of: Loss | None = None,
    checkpoints: Checkpoints | None = None,
    resume: Snapshot | None = None,
    ranks: Ranks = SINGLE_PROCESS,
    clock: Callable[[], float] = time.monotonic,
    variants: Sequence[list[Encoded]] = (),
    sampler: Sampler | None = None,
) -> Trained:
    """Train in place whatever requires gradients; with validation rows, the best weights (checked
    once an epoch) are what remains.

    `loss_of` is what is minimised and validated by; without it the cross-entropy of the learned
    tokens. With several `ranks`, each of which calls this with the same arguments and its share of
    the same model, the steps are those of one process; only dropout draws otherwise.

    `variants` are the same rows in other words, one list for each pass after the first; then `rows`
    again. `sampler` answers questions every so many steps; its time is counted apart and changes no
    weight.

    `checkpoints` keeps the state as the loop goes; from `resume`, one of them, the loop goes on to
    the same bits (on a CPU) as if it had never stopped. Raises TrainingError that names the cause
    when the loss is not a number or runs away, or when a checkpoint cannot be written.
    """

    is_likelihood = METHODS[recipe.method].rows == ANSWERS
    loss_of = loss_of or batch_loss
    device = next(model.parameters()).device.type
    # The rows differ, so what dropout leaves out must not be the same
    torch.manual_seed(recipe.seed + ranks.rank)
    masters = MasterWeights(model)
    optimiser = masters.optimiser(recipe.weight_decay, recipe.loraplus_lr_ratio)
    best = BestCheckpoint(masters)
    state = LoopState()
    if resume is not None:
        state = resume.state
        masters.load(resume.tensors, optimiser)
        best.load(resume.tensors, state)
        if ranks.first:
            restore_random(resume.tensors, cast(Any, resume.tensors["random.python"]))
        else:  # a checkpoint holds the random sources of the process that wrote it
            torch.manual_seed(recipe.seed + ranks.rank + _SEEDS_APART * state.step)
    steps, per_epoch = total_steps(len(rows), recipe), math.ceil(len(rows) / recipe.batch_size)
    losses = state.losses
    with (
        row_thread_pool(
            row_thread_count(recipe, device), recipe.micro_batch or recipe.batch_size
        ) as workers,
        recomputing(model, recipe),
        noisy_embeddings(model, recipe),
    ):
        if resume is None:
            state.before = require_finite(
                mean_loss(
                    model,
                    _spread(rows, _SAMPLED * recipe.batch_size),
                    recipe,
                    pad_id,
                    loss_of,
                    ranks,
                    workers,
                ),
                "loss",
                0,
                recipe,
            )
        model.train()
        began, before = clock(), state.seconds
        for some in endless([rows, *variants], recipe.batch_size, recipe.seed, first=state.step):
            if state.step >= steps or state.stopped:
                break
            loss, tokens, learned = step_gradients(
                model, masters, some, recipe, pad_id, device, loss_of, ranks, workers
            )
            norm = masters.clip(recipe.clip)
            rate = rate_at(state.step, steps, recipe)
            state.step += 1
            state.seconds = before + _elapsed(clock, began, ranks)
            state.history.append([state.step, loss, state.seconds, rate])
            losses.append(loss)
            check_divergence(losses, float(norm), state.step, recipe, state.before)
            set_rate(optimiser, rate)
            optimiser.step()
            masters.copy_to_model()
            state.tokens, state.trained_tokens = (
                state.tokens + tokens,
                state.trained_tokens + learned,
            )
            epoch_ends = state.step % per_epoch == 0 or state.step == steps
            if validation and epoch_ends:
                best.update(
                    state,
                    require_finite(
                        mean_loss(model, validation, recipe, pad_id, loss_of, ranks, workers),
                        "loss on held-out rows",
                        state.step,
                        recipe,
                    ),
                )
                _note(
                    state, explain_early_stop(state.validation, losses, recipe.patience), stop=True
                )
            if is_likelihood:
                _note(state, explain_memorisation(losses, per_epoch, steps), stop=True)
            if state.step == max(1, steps // 2):
                _note(state, explain_plateau(losses, steps, state.before), stop=False)
            state.seconds = before + _elapsed(clock, began, ranks)
            if sampler is not None:
                began += sampler.sample(model, state, steps, clock)
            on_step(_told(state, steps, loss, rate))
            if checkpoints is not None and (
                checkpoints.due(state.seconds, epoch_ends=epoch_ends)
                or state.step == steps
                or state.stopped
            ):
                checkpoints.write(state, {**masters.tensors(optimiser), **best.tensors()})
    best.restore()
    model.eval()
    return Trained(
        state.step,
        state.tokens,
        state.trained_tokens,
        state.seconds,
        *state.first_and_last(),
        [(int(step), loss) for step, loss in state.validation],
        state.best_step or state.step,
        state.signs,
        state.samples,
        state.sampling,
    )


def _spread(rows: list[Encoded], count: int) -> list[Encoded]:
    """So many of the rows, from all of the list: the first ones may be those that the weights it
    starts from have learned already.
    """
    return (
        rows
        if len(rows) <= count
        else [rows[number * len(rows) // count] for number in range(count)]
    )


def _elapsed(clock: Callable[[], float], began: float, ranks: Ranks) -> float:
    """Seconds by the clock of rank 0: whether a checkpoint is due has to be the same in every
    process, because all of them put it together.
    """
    return ranks.sum(clock() - began if ranks.first else 0.0)[0]


def _note(state: LoopState, sign: str, *, stop: bool) -> None:
    if sign:
        state.signs.append(sign)
        state.stopped = state.stopped or stop


def _told(state: LoopState, steps: int, loss: float, rate: float) -> Step:
    seconds, left = state.seconds, 0 if state.stopped else steps - state.step
    validation = tuple((int(step), value) for step, value in state.validation)
    return Step(
        state.step,
        steps,
        loss,
        state.tokens / max(seconds, 1e-9),
        seconds / state.step * left,
        seconds,
        rate,
        validation,
        tuple(state.signs),
        tuple(state.samples),
    )


def step_gradients(
    model: nn.Module,
    masters: MasterWeights,
    some: list[Encoded],
    recipe: Recipe,
    pad_id: int,
    device: str,
    loss_of: Loss,
    ranks: Ranks,
    workers: RowThreadPool,
) -> tuple[float, int, int]:
    """(loss, tokens, learned tokens) of one step's rows, of which each process computes
    `micro_batch` at a time; the gradients are summed in the masters.
    """
    together = pack if recipe.packing else collate
    parts = in_parts(some, recipe.micro_batch * ranks.size or len(some))
    at_once = [
        [share_of_rows(rows, together, pad_id, device, ranks) for rows in workers.split_rows(part)]
        for part in parts
    ]
    batches = [batch for shares in at_once for batch in shares]
    total = ranks.sum(sum(map(batch_weight, batches)))[0]

    def compute(batch: Batch) -> tuple[float, list[torch.Tensor | None]]:
        weight = batch_weight(batch)
        part = loss_of(model, batch) * (1.0 if weight == total else weight / total)
        return float(part.detach()), masters.gradients(part, sharded=ranks.size > 1)

    loss = 0.0
    for shares in at_once:
        for part, gradients in workers.map(compute, shares):
            masters.add(gradients)
            loss += part
    loss, tokens, learned = ranks.sum(
        loss, sum(batch.tokens for batch in batches), sum(batch.trained for batch in batches)
    )
    return loss, int(tokens), int(learned)
