"""kill -9 of the real child under the real worker: the next attempt goes on where the last one was,
and makes the version of an undisturbed run.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.run.small import killed_at
from tests.training.test_worker import Office, _office, children_of, one_whole_adapter, training_at
from training.loop.run_folders import run_folder
from training.plan.reporter import Reporter
from training.runs import child_run
from training.store import runs
from whet.clock import now_ms
from whet.tables import adapters

# Some hundred steps, to be hit in the middle
_RECIPE = {
    "rank": 4,
    "epochs": 12.0,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "threads": 1,
    "dtype": "float32",
}


@pytest.fixture
def offices(tmp_path: Path, base_folder: Path) -> Iterator[tuple[Office, Office]]:
    made = [
        _office(f"sqlite:///{tmp_path / name}.db", tmp_path / name, base_folder)
        for name in ("killed", "undisturbed")
    ]
    yield made[0], made[1]
    for office in made:
        office.close()


# Starts four processes that import torch; test_worker.py kills children in the normal run
@pytest.mark.slow
def test_a_child_killed_twice_makes_the_version_that_an_undisturbed_one_makes(
    offices: tuple[Office, Office],
) -> None:
    killed, undisturbed = offices
    killed.environment["WHET_CHECKPOINT_INTERVAL_S"] = "0"
    for office in offices:
        office.ask(_RECIPE)
    worker = killed.hire()
    reached = 0
    for attempt in (1, 2):
        row = killed.wait_for(f"attempt {attempt} trains", training_at(reached + 5, attempt))
        assert attempt == 1 or row.curve[0][0] == 1, "the curve of the attempt before stays"
        reached = row.progress["step"]
        os.kill(children_of(worker.pid)[0], signal.SIGKILL)
    done = killed.wait_for("the end", lambda row: row.state != runs.RUNNING)
    assert (done.state, done.attempt) == (runs.SUCCEEDED, 3), done.error
    assert one_whole_adapter(killed) and [point[0] for point in done.curve] == list(
        range(1, done.progress["steps"] + 1)
    )
    assert not (run_folder(killed.context, done.id) / "checkpoints").exists()
    undisturbed.hire()
    undisturbed.wait_for("the end", lambda row: row.state == runs.SUCCEEDED)
    assert killed.rows(adapters)[0].digest == undisturbed.rows(adapters)[0].digest, (
        "the killed run made another version"
    )


def test_the_next_attempt_of_a_request_goes_on_with_what_the_first_one_chose(
    offices: tuple[Office, Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child's own code, killed by SIGKILL in a copy of this process; the second attempt must
    not choose rate or dtype anew.
    """
    import torch

    torch.set_num_threads(1)
    office = offices[0]
    for name, value in office.environment.items():
        if name.startswith("WHET_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("WHET_CHECKPOINT_INTERVAL_S", "0")
    request = office.ask({**_RECIPE, "epochs": 2.0, "learning_rate": 0.0})
    values = {
        "alias": "support",
        "dataset_digest": "d",
        "base_digest": "",
        "recipe": {},
        "estimate": {},
    }
    run = runs.start(office.context, worker="w", now=now_ms(), request_id=request, **values)
    office.context.database.dispose()  # a copy of this process must not share its connections

    def told(attempt: int) -> dict[str, Any]:
        return {
            "run": run.id,
            "attempt": attempt,
            "alias": "support",
            "started_at": run.started_at,
            "request": request,
        }

    killed_at(7, lambda: child_run.run(told(1)))
    assert office.run().state == runs.RUNNING
    second = runs.reclaim(office.context, run.id, worker="w2", now=now_ms())
    # As if a choice came out otherwise now
    monkeypatch.setattr("training.recipes.recipe_choices._LEARNING_RATES", ((float("inf"), 1e-4),))
    steps: list[int] = []
    real_step = Reporter.step
    monkeypatch.setattr(
        Reporter, "step", lambda self, at: (steps.append(at.step), real_step(self, at))[1]
    )
    child_run.run(told(second.attempt))
    done = office.run()
    assert (done.state, done.attempt) == (runs.SUCCEEDED, 2), done.error
    assert 6 <= steps[0] <= 8 and done.recipe["learning_rate"] == 2e-3 and one_whole_adapter(office)
