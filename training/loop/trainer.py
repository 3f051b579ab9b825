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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict, cast

import torch
from torch import nn

from training.loop.batches import endless
from training.loop.checkpoint import (
    Checkpoints,
    LoopState,
    RandomState,
    Snapshot,
    restore_random,
)
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
    mean_loss,
    noisy_embeddings,
    recomputing,
)
from training.loop.master_weights import BestCheckpoint, MasterWeights, set_rate
from training.loop.ranks import SINGLE_PROCESS, Ranks
from training.loop.row_threads import (
    RowThreadPool,
    row_thread_count,
    row_thread_pool,
)
from training.loop.samples import Sampler
from training.loop.step_gradients import step_gradients
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

    torch.manual_seed(recipe.seed + ranks.rank)  # what dropout leaves out differs with the rows
    minimised = loss_of or batch_loss
    training = _Training(model, rows, validation, recipe, pad_id, minimised, ranks, clock)
    if resume is not None:
        training.resume(resume)
    state, steps = training.state, training.steps
    device = next(model.parameters()).device.type
    with _surroundings(model, recipe, device) as workers:
        if resume is None:
            state.before = training.loss_before(workers)
        model.train()
        training.start_clock()
        for some in endless([rows, *variants], recipe.batch_size, recipe.seed, first=state.step):
            if state.step >= steps or state.stopped:
                break
            loss, rate = training.step(some, device, workers)
            epoch_ends = training.ends_epoch()
            training.look_for_trouble(workers, validate=epoch_ends)
            if sampler is not None:
                training.began += sampler.sample(model, state, steps, clock)
            on_step(_told(state, steps, loss, rate))
            if checkpoints is not None:
                training.keep(checkpoints, epoch_ends=epoch_ends)
    training.best.restore()
    model.eval()
    return training.result()


@contextmanager
def _surroundings(model: nn.Module, recipe: Recipe, device: str) -> Iterator[RowThreadPool]:
    """Row threads, recomputing and noise, as the recipe asks for them."""
    threads = row_thread_count(recipe, device)
    with (
        row_thread_pool(threads, recipe.micro_batch or recipe.batch_size) as workers,
        recomputing(model, recipe),
        noisy_embeddings(model, recipe),
    ):
        yield workers


class _Training:
    """What the steps of one run share: weights, optimiser, state, clock."""

    def __init__(
        self,
        model: nn.Module,
        rows: list[Encoded],
        validation: list[Encoded],
        recipe: Recipe,
        pad_id: int,
        loss_of: Loss,
        ranks: Ranks,
        clock: Callable[[], float],
    ) -> None:
        self._model, self._rows, self._validation = model, rows, validation
        self._recipe, self._pad_id, self._loss_of = recipe, pad_id, loss_of
        self._ranks, self._clock = ranks, clock
        self._masters = MasterWeights(model)
        self._optimiser = self._masters.optimiser(recipe.weight_decay, recipe.loraplus_lr_ratio)
        self.best = BestCheckpoint(self._masters)
        self.state = LoopState()
        self.steps = total_steps(len(rows), recipe)
        self._per_epoch = math.ceil(len(rows) / recipe.batch_size)
        self.began = self._before = 0.0
        self._losses: list[float] = []  # of all steps so far

    def resume(self, snapshot: Snapshot) -> None:
        """Put weights, optimiser, state and random sources where they were."""
        self.state = snapshot.state
        self._masters.load(snapshot.tensors, self._optimiser)
        self.best.load(snapshot.tensors, self.state)
        if self._ranks.first:
            restore_random(snapshot.tensors, cast(RandomState, snapshot.tensors["random.python"]))
        else:  # a checkpoint holds the random sources of the process that wrote it
            torch.manual_seed(self._recipe.seed + self._ranks.rank + _SEEDS_APART * self.state.step)

    def loss_before(self, workers: RowThreadPool) -> float:
        """Return the loss that the weights begin with, on a sample of the rows."""
        sample = _spread(self._rows, _SAMPLED * self._recipe.batch_size)
        return require_finite(self._mean_loss(sample, workers), "loss", 0, self._recipe)

    def start_clock(self) -> None:
        """Count seconds from here, beside those of earlier attempts."""
        self.began, self._before = self._clock(), self.state.seconds
        self._losses = self.state.losses

    def step(self, some: list[Encoded], device: str, workers: RowThreadPool) -> tuple[float, float]:
        """Take a step on some rows; returns (loss, learning rate)."""
        state, recipe, masters = self.state, self._recipe, self._masters
        loss, tokens, learned = step_gradients(
            self._model,
            masters,
            some,
            recipe,
            self._pad_id,
            device,
            self._loss_of,
            self._ranks,
            workers,
        )
        norm = masters.clip(recipe.clip)
        rate = rate_at(state.step, self.steps, recipe)
        state.step += 1
        state.seconds = self._seconds()
        state.history.append([state.step, loss, state.seconds, rate])
        self._losses.append(loss)
        check_divergence(self._losses, float(norm), state.step, recipe, state.before)
        set_rate(self._optimiser, rate)
        self._optimiser.step()
        masters.copy_to_model()
        state.tokens, state.trained_tokens = state.tokens + tokens, state.trained_tokens + learned
        return loss, rate

    def ends_epoch(self) -> bool:
        """Whether the step that was taken is the last of an epoch, or of all."""
        return self.state.step % self._per_epoch == 0 or self.state.step == self.steps

    def look_for_trouble(self, workers: RowThreadPool, *, validate: bool) -> None:
        """Validate where it is due, and note what is wrong with the run or ends it."""
        state, losses = self.state, self._losses
        if self._validation and validate:
            found = self._mean_loss(self._validation, workers)
            self.best.update(
                state, require_finite(found, "loss on held-out rows", state.step, self._recipe)
            )
            sign = explain_early_stop(state.validation, losses, self._recipe.patience)
            _note(state, sign, stop=True)
        if METHODS[self._recipe.method].rows == ANSWERS:
            _note(state, explain_memorisation(losses, self._per_epoch, self.steps), stop=True)
        if state.step == max(1, self.steps // 2):
            _note(state, explain_plateau(losses, self.steps, state.before), stop=False)
        state.seconds = self._seconds()

    def keep(self, checkpoints: Checkpoints, *, epoch_ends: bool) -> None:
        """Write a checkpoint where one is due."""
        state = self.state
        is_over = state.step == self.steps or state.stopped
        if checkpoints.due(state.seconds, epoch_ends=epoch_ends) or is_over:
            tensors = {**self._masters.tensors(self._optimiser), **self.best.tensors()}
            checkpoints.write(state, tensors)

    def result(self) -> Trained:
        """Return how the run went."""
        state = self.state
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

    def _mean_loss(self, rows: list[Encoded], workers: RowThreadPool) -> float:
        return mean_loss(
            self._model, rows, self._recipe, self._pad_id, self._loss_of, self._ranks, workers
        )

    def _seconds(self) -> float:
        return self._before + _elapsed(self._clock, self.began, self._ranks)


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
