"""Weights & Biases as a follower of runs; loaded where the settings name a project."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import wandb

from training.plan.tracker import tracker_refused
from training.store.runs import Run


class WandbTracker:
    name = "Weights & Biases"

    def __init__(self, project: str, run: Run, config: Mapping[str, object], folder: Path) -> None:
        self.errors: tuple[type[Exception], ...] = (OSError, wandb.errors.Error)
        folder.mkdir(parents=True, exist_ok=True)
        # The same id at each attempt: a run that goes on from a checkpoint stays one run there too.
        try:
            self._run = wandb.init(
                project=project,
                id=run.id,
                name=f"{run.alias} {run.id}",
                config=dict(config),
                dir=str(folder),
                resume="allow",
            )
            self.seen = self._run.step - 1  # `step` is the first that it would take
        except self.errors as error:
            raise tracker_refused(
                self.name, error, "Log in with WANDB_API_KEY, or set WANDB_MODE=offline"
            ) from error

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
