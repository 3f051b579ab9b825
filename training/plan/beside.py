"""Train a model beside the run's own."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from training.loop.loss import Loss
from training.loop.trainer import Step, train
from training.plan.prepare import Prepared


def train_beside(
    model: nn.Module,
    prepared: Prepared,
    *,
    pad_id: int,
    loss_of: Loss,
    on_step: Callable[[Step], None],
) -> None:
    """Train a model beside the run's own, with its recipe: no validation, no checkpoints."""
    train(
        model,
        prepared.train,
        [],
        prepared.recipe,
        pad_id=pad_id,
        loss_of=loss_of,
        on_step=on_step,
        variants=prepared.variants,
    )
