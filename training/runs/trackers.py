"""Who follows a run: TensorBoard always, in the run's folder; Weights & Biases and MLflow where the
settings name them.

A tracker that fails while the run goes on is left out from then on: a curve is not worth an
adapter. One that is asked for and not installed is said before the first step. A run that goes on
from a checkpoint stays one run, and what a killed attempt had not handed over is told again from
the checkpoint.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from training.loop.checkpoint import LoopState
from training.loop.trainer import Step
from training.machine.disk_space import translate_disk_full
from training.optional import MLFLOW, WANDB
from training.plan.prepare import Prepared
from training.plan.tracker import Tracker
from training.store.evaluation_types import Metrics
from training.store.runs import Run
from whet.context import Context
from whet.lazy import load
from whet.urls import mask_secrets

log = logging.getLogger(__name__)


class TensorBoardTracker:
    name = "TensorBoard"
    errors: tuple[type[Exception], ...] = (OSError,)
    seen = 0

    def __init__(self, folder: Path) -> None:
        # A killed attempt's file lacks its last seconds and may have steps that are taken again, so
        # all is told anew. `purge_step` says so to a TensorBoard that has read it.
        shutil.rmtree(folder, ignore_errors=True)
        with translate_disk_full(folder, "TensorBoard's file"):
            self._writer: Any = SummaryWriter(str(folder), purge_step=1)

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, *, failed: bool) -> None:
        self._writer.close()


class Trackers:
    """All trackers of one attempt at a run; a context manager that closes them, as failed when it
    is left by an error.
    """

    def __init__(
        self,
        context: Context,
        run: Run,
        prepared: Prepared,
        folder: Path,
        earlier: LoopState | None = None,
    ) -> None:
        """`earlier`: where the run goes on from."""
        settings = context.settings
        self._uri = settings.mlflow_tracking_uri
        config = {
            **prepared.recipe.as_json(),
            "dataset": prepared.dataset.digest,
            "base": prepared.base.digest,
        }
        self._open: list[Tracker] = [TensorBoardTracker(folder / "tensorboard")]
        if settings.wandb_project:
            self._open.append(load(WANDB)(settings.wandb_project, run, config, folder))
        if settings.mlflow_tracking_uri:
            self._open.append(load(MLFLOW)(settings.mlflow_tracking_uri, run, config))
        self._checks = len(earlier.validation) if earlier else 0
        if earlier:
            self._tell_again(earlier)

    def step(self, step: Step) -> None:
        """After each step: loss, learning rate, speed, and the validation loss when there is a new
        one.
        """
        values = {"loss": step.loss, "learning_rate": step.rate, "tokens_per_s": step.tokens_per_s}
        if len(step.validation) > self._checks:
            self._checks = len(step.validation)
            values["validation_loss"] = step.validation[-1][1]
        self._log(step.step, values)

    def judged(self, steps: int, metrics: Metrics) -> None:
        """After the evaluation, at the last step: what candidate and comparison have of each group
        of held-out rows, `judged/<group>/<which>`.
        """
        shares = {
            f"judged/{group}/{which}": value
            for group, found in metrics.items()
            for which, value in (
                ("candidate", found.get("candidate")),
                ("against", found.get("against")),
                ("difference", found.get("difference")),
            )
        }
        self._log(steps, {name: value for name, value in shares.items() if value is not None})

    def _tell_again(self, state: LoopState) -> None:
        validation = {int(step): loss for step, loss in state.validation}
        for at, loss, _, rate in state.history:
            step = int(at)
            values = {
                "loss": loss,
                "learning_rate": rate,
                **({"validation_loss": validation[step]} if step in validation else {}),
            }
            self._log(step, values, again=True)

    def _log(self, step: int, values: dict[str, float], *, again: bool = False) -> None:
        for tracker in list(self._open):
            if again and step <= tracker.seen:
                continue
            try:
                tracker.log(step, values)
            except tracker.errors as error:
                log.warning("%s no longer follows the run: %s", tracker.name, self._text(error))
                self._open.remove(tracker)

    def _text(self, error: Exception) -> str:
        """A tracker's error without the password of its server's URL."""
        return mask_secrets(str(error), self._uri)

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for tracker in self._open:
            try:
                tracker.close(failed=error is not None)
            except tracker.errors as refused:
                log.warning("%s was not closed: %s", tracker.name, self._text(refused))
