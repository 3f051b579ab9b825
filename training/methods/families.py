"""What a family of methods offers, and the module of each."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol, Unpack, cast

from torch import nn

from training.loop.loss import Loss
from training.loop.trainer import Loop, Trained
from training.plan.prepare import Prepared
from training.plan.reporter import Reporter
from training.recipes.methods import Method
from whet.context import Context


class Family(Protocol):
    """What a module of this package offers. `model` is what `build` returned."""

    def build(self, prepared: Prepared) -> nn.Module:
        """The base, loaded, with what is learned requiring gradients."""

    def rows(
        self, context: Context, prepared: Prepared, reporter: Reporter, folder: Path
    ) -> Prepared:
        """The rows to learn from, where the method makes its own; `folder` is the run's, for what
        the next attempt need not make again.
        """

    def loss(self, prepared: Prepared) -> Loss:
        """What our own loop minimises, and what the speed of every method is measured with."""

    def run(
        self, model: nn.Module, prepared: Prepared, reporter: Reporter, **loop: Unpack[Loop]
    ) -> Trained:
        """Train in place, from the checkpoint that is given on.

        Raises TrainingError, trainer.Cancelled.
        """

    def candidate(self, model: nn.Module, prepared: Prepared) -> nn.Module:
        """What is judged and kept: for ADAPTER a PEFT model of the 16-bit base, for MODEL the
        merged model, for FOLDER one with `save_pretrained`.
        """


def family(method: Method) -> Family:
    """The module that trains it; imports torch."""
    return cast(Family, importlib.import_module(f"training.methods.{method.module}"))
