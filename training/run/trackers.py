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
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from training.run.faults import translate_disk_full
from whet.context import Context
from whet.errors import ConfigurationError
from whet.urls import mask_secrets

if TYPE_CHECKING:
    from training.prepare import Prepared
    from training.run.checkpoint import LoopState
    from training.runs import Run
    from training.trainer import Step

log = logging.getLogger(__name__)

_TAG = "whet.run"  # by which a later attempt finds its MLflow run


class Tracker(Protocol):
    """One place that shows curves.

    `errors` are the exceptions of a place that cannot be reached or written, `seen` is the last
    step that it has of earlier attempts.
    """

    name: str
    errors: tuple[type[Exception], ...]
    seen: int

    def log(self, step: int, values: dict[str, float]) -> None: ...

    def close(self, *, failed: bool) -> None: ...


class _TensorBoard:
    name = "TensorBoard"
    errors: tuple[type[Exception], ...] = (OSError,)
    seen = 0

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

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


class _WeightsAndBiases:
    name = "Weights & Biases"

    def __init__(self, project: str, run: Run, config: dict[str, Any], folder: Path) -> None:
        import wandb

        self.errors: tuple[type[Exception], ...] = (OSError, wandb.errors.Error)
        folder.mkdir(parents=True, exist_ok=True)
        # The same id at each attempt: a run that goes on from a checkpoint stays one run there too.
        try:
            self._run = wandb.init(
                project=project,
                id=run.id,
                name=f"{run.alias} {run.id}",
                config=config,
                dir=str(folder),
                resume="allow",
            )
            self.seen = self._run.step - 1  # `step` is the first that it would take
        except self.errors as error:
            raise _refused(
                self.name, error, "Log in with WANDB_API_KEY, or set WANDB_MODE=offline"
            ) from error

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _MLflow:
    name = "MLflow"

    def __init__(self, uri: str, run: Run, config: dict[str, Any]) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self.errors: tuple[type[Exception], ...] = (OSError, MlflowException)
        try:
            self._client = MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(run.alias)
            experiment = found.experiment_id if found else self._client.create_experiment(run.alias)
            earlier = self._client.search_runs(
                [experiment], filter_string=f"tags.`{_TAG}` = '{run.id}'", max_results=1
            )
            self.seen = 0
            if earlier:
                self._run = earlier[0].info.run_id
                self._client.update_run(self._run, status="RUNNING")
                self.seen = max(
                    (point.step for point in self._client.get_metric_history(self._run, "loss")),
                    default=0,
                )
            else:
                self._run = self._client.create_run(
                    experiment, run_name=run.id, tags={_TAG: run.id}
                ).info.run_id
                for name, value in config.items():
                    self._client.log_param(self._run, name, value)
        except self.errors as error:
            raise _refused(self.name, error, "Check WHET_MLFLOW_TRACKING_URI", uri) from None

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")


def _refused(name: str, error: Exception, hint: str, url: str = "") -> ConfigurationError:
    """`url`: whose password the error's text may hold."""
    problem = mask_secrets(str(error), url).splitlines()[0] if str(error) else type(error).__name__
    return ConfigurationError(
        f"{name} cannot follow the run: {problem}.", hint=f"{hint}, or turn it off."
    )


def require_installed(wandb_project: str, mlflow_tracking_uri: str) -> None:
    """Raises ConfigurationError for a tracker that the settings name and that is not installed."""
    for wanted, module, setting in (
        (wandb_project, "wandb", "WHET_WANDB_PROJECT"),
        (mlflow_tracking_uri, "mlflow", "WHET_MLFLOW_TRACKING_URI"),
    ):
        if wanted and find_spec(module) is None:
            raise ConfigurationError(
                f"{setting} is set, but the package {module!r} is not installed.",
                hint=(
                    "`make setup-trackers` installs it, or pip install 'whet[trackers]'; or leave"
                    f" {setting} empty."
                ),
            )


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
        self._open: list[Tracker] = [_TensorBoard(folder / "tensorboard")]
        if settings.wandb_project:
            self._open.append(_WeightsAndBiases(settings.wandb_project, run, config, folder))
        if settings.mlflow_tracking_uri:
            self._open.append(_MLflow(settings.mlflow_tracking_uri, run, config))
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

    def judged(self, steps: int, metrics: dict[str, Any]) -> None:
        """After the evaluation, at the last step: what candidate and comparison have of each group
        of held-out rows, `judged/<group>/<which>`.
        """
        shares = {
            f"judged/{group}/{which}": found.get(which)
            for group, found in metrics.items()
            for which in ("candidate", "against", "difference")
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
