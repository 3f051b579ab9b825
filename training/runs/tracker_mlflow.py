"""MLflow as a follower of runs; loaded where the settings name a server."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from training.plan.tracker import tracker_refused
from training.store.runs import Run

_TAG = "whet.run"  # by which a later attempt finds its MLflow run


class MlflowTracker:
    name = "MLflow"

    def __init__(self, uri: str, run: Run, config: Mapping[str, object]) -> None:
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
            raise tracker_refused(self.name, error, "Check WHET_MLFLOW_TRACKING_URI", uri) from None

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")
