"""Find a learning rate by a range test (L. N. Smith, "Cyclical learning rates for training neural
networks", 2015): the rate rises exponentially from step to step, and the loss says where it learns
fastest and where it diverges."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from torch import nn

from training.loop.batches import endless
from training.loop.loss import Loss, noisy_embeddings, recomputing
from training.loop.master_weights import MasterWeights, set_rate
from training.loop.ranks import SINGLE_PROCESS
from training.loop.row_threads import row_thread_count, row_thread_pool
from training.loop.step_gradients import step_gradients
from training.models.encoded import Encoded
from training.recipes.methods import METHODS
from training.recipes.recipe import Recipe
from whet.errors import InputError, TrainingError

STEPS, FEWEST_STEPS = 100, 20  # of a test: the rate rises by 12 % a step, or by 80 % at least
# Times the rate that would be chosen by size: from one that learns nothing to one that diverges.
_SPAN = (1e-3, 100.0)
_HIGHEST = 0.5  # above it a recipe takes none
_SMOOTHING = 0.9  # of the moving average: ten steps, a tenth of the test
# NllSum by which the smoothed loss may be above its lowest: the same as stops a run.
_DIVERGED = 1.0
_SKIPPED = 5  # steps at the start, where the moving average is of few
_LEAST_FALL = 0.02  # share of the loss; less is what batches differ by


@dataclass(frozen=True, slots=True)
class RangePoint:
    """One step of the test."""

    rate: float
    loss: float  # mean over the learned tokens of the batch, in nats
    smoothed: float


class PointJson(TypedDict):
    """A `RangePoint`."""

    rate: float
    loss: float
    smoothed: float


class RangeJson(TypedDict):
    """A `RangeTest`."""

    points: list[PointJson]
    suggestion: float | None
    lowest_at: float | None
    stopped: str


@dataclass(frozen=True)
class RangeTest:
    """What a range test found; the rates are None where the loss fell at no rate."""

    points: list[RangePoint]
    suggestion: float | None  # where the smoothed loss falls most steeply
    lowest_at: float | None  # rate of the lowest smoothed loss, which is too high to train at
    stopped: str  # "end", "diverged" or "time"

    def as_json(self) -> RangeJson:
        return {
            "points": [
                {"rate": point.rate, "loss": point.loss, "smoothed": point.smoothed}
                for point in self.points
            ],
            "suggestion": self.suggestion,
            "lowest_at": self.lowest_at,
            "stopped": self.stopped,
        }


def require_testable(recipe: Recipe) -> None:
    """Raise InputError for a method that our own loop does not train alone."""
    method = METHODS[recipe.method]
    if not method.own_loop or "teacher" in method.reads:
        raise InputError(
            "A learning-rate range test trains in Whet's own loop on rows with answers; the method "
            f"{method.name} needs more than that.",
            hint="Test with lora: the rate of a preference method is a tenth of what it finds.",
        )
    if recipe.processes > 1:
        raise InputError(
            "A learning-rate range test runs in one process.",
            hint="Leave processes out of the recipe, and use it with the rate that is found.",
        )


def steps_within(limit_s: float, step_s: float) -> int:
    """Return the steps of a test that ends within `limit_s`, where one takes `step_s`.

    Raises InputError where too few fit.
    """
    steps = min(STEPS, int(limit_s / max(step_s, 1e-9)))
    if steps < FEWEST_STEPS:
        raise InputError(
            f"A step takes {step_s:.1f} s here, so {limit_s / 60:g} minutes have room for {steps} "
            f"steps; a range test needs at least {FEWEST_STEPS}.",
            hint=(
                f"Give it --minutes {math.ceil(FEWEST_STEPS * step_s / 60)}, or a smaller "
                "--batch-size."
            ),
        )
    return steps


def rates(recipe: Recipe, steps: int) -> list[float]:
    """Return the rate of each step, around the recipe's own, in equal steps of its logarithm."""
    low, high = (min(share * recipe.learning_rate, _HIGHEST) for share in _SPAN)
    return [low * (high / low) ** (number / (steps - 1)) for number in range(steps)]


def run_range_test(
    model: nn.Module,
    rows: list[Encoded],
    recipe: Recipe,
    *,
    pad_id: int,
    loss_of: Loss,
    steps: int = STEPS,
    limit_s: float = math.inf,
    on_step: Callable[[int, RangePoint], None] = lambda step, point: None,
    clock: Callable[[], float] = time.monotonic,
) -> RangeTest:
    """Train a model, which is of no use afterwards, at rising rates until the loss diverges.

    `on_step` is told the step, from 1, and may raise to stop. The test ends early when the loss has
    diverged or `limit_s` seconds have passed.
    """
    device = next(model.parameters()).device.type
    masters = MasterWeights(model)
    optimiser = masters.optimiser(recipe.weight_decay, recipe.loraplus_lr_ratio)
    batches = endless([rows], recipe.batch_size, recipe.seed)
    points: list[RangePoint] = []
    stopped, began = "end", clock()
    model.train()
    at_once = recipe.micro_batch or recipe.batch_size
    with (
        row_thread_pool(row_thread_count(recipe, device), at_once) as workers,
        recomputing(model, recipe),
        noisy_embeddings(model, recipe),
    ):
        for rate, batch in zip(rates(recipe, steps), batches, strict=False):
            loss, _, _ = step_gradients(
                model, masters, batch, recipe, pad_id, device, loss_of, SINGLE_PROCESS, workers
            )
            norm = float(masters.clip(recipe.clip))
            points.append(RangePoint(rate, loss, _smoothed(points, loss)))
            on_step(len(points), points[-1])
            if not math.isfinite(norm) or has_diverged(points):
                stopped = "diverged"
                break
            if clock() - began > limit_s:
                stopped = "time"
                break
            set_rate(optimiser, rate)
            optimiser.step()
            masters.copy_to_model()
    finite = [point for point in points if math.isfinite(point.smoothed)]
    if not finite:
        raise TrainingError(
            "The loss is no number at the first step.",
            hint="Nothing was learned yet, so it is not the rate: look at the base's weights.",
        )
    return RangeTest(finite, *suggest(finite), stopped)


def has_diverged(points: Sequence[RangePoint]) -> bool:
    """Tell whether the newest smoothed loss is no number, or far above the lowest one."""
    newest = points[-1].smoothed
    return not math.isfinite(newest) or newest > min(point.smoothed for point in points) + _DIVERGED


def suggest(points: Sequence[RangePoint]) -> tuple[float | None, float | None]:
    """Return (rate at which the smoothed loss falls most steeply, rate at which it is lowest).

    The slope is that over the logarithm of the rate, before the lowest point. (None, None) where
    the loss fell by less than batches differ by.
    """
    losses = [point.smoothed for point in points]
    if len(points) <= _SKIPPED + 2:
        return None, None
    lowest = min(range(_SKIPPED, len(points)), key=lambda at: losses[at])
    highest = max(losses[: lowest + 1])
    if highest - losses[lowest] < _LEAST_FALL * highest:
        return None, None
    inner = range(_SKIPPED, max(lowest, _SKIPPED + 1))
    steepest = min(inner, key=lambda at: losses[at + 1] - losses[at - 1])
    return points[steepest].rate, points[lowest].rate


def _smoothed(points: Sequence[RangePoint], loss: float) -> float:
    """Return the exponential moving average with a loss added, corrected for its few first steps."""
    count = len(points)
    before = points[-1].smoothed * (1 - _SMOOTHING**count) if points else 0.0
    total = _SMOOTHING * before + (1 - _SMOOTHING) * loss
    return total / (1 - _SMOOTHING ** (count + 1))
