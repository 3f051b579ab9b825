"""Who follows a run: TensorBoard always; Weights & Biases and MLflow, the real packages, where they
are asked for.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from sqlalchemy import update

from tests.training.test_commands import Shell
from tests.training.tiny import facts, write_rows
from whet.context import open_context
from whet.database import writing
from whet.settings import load_settings
from whet.tables import training_runs

_QUICK = ("--rank", "4", "--epochs", "3", "--lr", "5e-3", "--threads", "1", "--seed", "3")


@pytest.fixture
def shell(tmp_path: Path, base_folder: Path) -> Shell:
    return Shell(tmp_path / "home", base_folder)


@pytest.fixture
def rows(tmp_path: Path) -> str:
    return str(write_rows(tmp_path / "rows.jsonl", facts(60)))


def test_tensorboard_gets_loss_rate_and_validation_at_their_steps(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from training.runs.trackers import TensorBoardTracker

    writer = TensorBoardTracker(tmp_path)
    for step in (1, 2, 3):
        writer.log(
            step,
            {
                "loss": 1.0 / step,
                "learning_rate": 1e-3,
                **({"validation_loss": 0.5} if step == 3 else {}),
            },
        )
    writer.close(failed=False)
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    assert [event.step for event in found.Scalars("loss")] == [1, 2, 3] and [
        event.step for event in found.Scalars("validation_loss")
    ] == [3]


@pytest.mark.parametrize(
    ("name", "module"), [("WHET_WANDB_PROJECT", "wandb"), ("WHET_MLFLOW_TRACKING_URI", "mlflow")]
)
def test_a_tracker_that_is_asked_for_and_not_installed_is_said_first(
    shell: Shell, rows: str, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    monkeypatch.setattr("training.plan.tracker.find_spec", lambda wanted: None)
    shell._environment[name] = "somewhere"
    said = shell.refused("train", "run", rows, *_QUICK)
    assert (
        f"{name} is set, but the package {module!r} is not installed." in said
        and "make setup-trackers" in said
    )
    assert shell.json("train", "list") == []


def test_a_tracker_that_fails_on_the_way_is_left_out_and_the_run_goes_on() -> None:
    from training.loop.trainer import Step
    from training.runs.trackers import Trackers

    class Broken:
        name, errors = "Broken", (OSError,)
        calls = 0

        def log(self, step: int, values: dict[str, float]) -> None:
            self.calls += 1
            raise OSError("no route")

        def close(self, *, failed: bool) -> None:
            raise AssertionError("it was left out")

    broken, trackers = Broken(), Trackers.__new__(Trackers)
    trackers._open, trackers._checks, trackers._uri = [broken], 0, ""
    with trackers:
        for number in (1, 2):
            trackers.step(Step(number, 2, 1.0, 1.0, 1.0, 1.0))
    assert broken.calls == 1


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("mlflow") is None or find_spec("wandb") is None,
    reason="They are not installed: make setup-trackers",
)
def test_weights_and_biases_and_mlflow_see_one_run_with_its_curve_and_its_judgement_although_it_was_killed(
    shell: Shell, rows: str, tmp_path: Path, base_folder: Path
) -> None:
    from mlflow import MlflowClient

    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    followed = {
        "WHET_WANDB_PROJECT": "whet", "WANDB_MODE": "offline", "WANDB_CACHE_DIR": str(tmp_path / "cache"), "WHET_MLFLOW_TRACKING_URI": store,
        "WHET_CHECKPOINT_INTERVAL_S": "0",
    }  # fmt: skip
    killed = shell.in_a_process(
        "train", "run", rows, "--json", *_QUICK, before=_DIES_AT_NINE, **followed
    )
    assert killed.returncode == -9, killed.stderr
    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("support")
    (left,) = client.search_runs([experiment.experiment_id])
    assert left.info.status == "RUNNING", "the kill left it open"

    context = open_context(load_settings(home=tmp_path / "home", base_model=str(base_folder)))
    with writing(context.database) as connection:
        # As if its process had been silent for long
        connection.execute(update(training_runs).values(heartbeat_at=1))
    context.close()
    resumed = shell.in_a_process(
        "train", "resume", left.data.tags["whet.run"], "--json", **followed
    )
    assert resumed.returncode == 0, resumed.stderr
    made = json.loads(resumed.stdout)  # which neither of them writes into

    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.status, run.info.run_name) == (
        left.info.run_id,
        "FINISHED",
        made["run"],
    )
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert sorted({each.step for each in losses}) == list(
        range(1, shell.json("train", "show", made["run"])["progress"]["steps"] + 1)
    ), "a step is missing from the curve"
    assert run.data.params["rank"] == "4" and run.data.metrics[
        "judged/all/candidate"
    ] == pytest.approx(made["metrics"]["all"]["candidate"])

    files = sorted(
        (tmp_path / "home" / "runs" / made["run"] / "wandb").glob(
            f"offline-run-*-{made['run']}/*.wandb"
        )
    )
    assert len(files) == 2, "each attempt has a file, of the same id"
    whole = files[1].read_bytes()
    assert b"judged/all/candidate" in whole and all(
        f"{point.value}".encode() in whole for point in losses
    ), "what the killed attempt kept to itself is told again"


_DIES_AT_NINE = """
import os, signal
from training.runs.trackers import Trackers
real = Trackers.step
def told(self, at):
    real(self, at)
    if at.step == 9:
        os.kill(os.getpid(), signal.SIGKILL)
Trackers.step = told"""
