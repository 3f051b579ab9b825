"""Full fine-tuning: every weight of the base, in our own loop."""

from __future__ import annotations

from torch import nn

from training.methods.loop import loss, merged, rows, run
from training.plan.prepare import Prepared

__all__ = ["build", "candidate", "loss", "rows", "run"]

candidate = merged


def build(prepared: Prepared) -> nn.Module:
    """The base itself; tied embeddings stay one parameter."""
    return prepared.base.load_model(prepared.recipe.dtype).requires_grad_(True)
