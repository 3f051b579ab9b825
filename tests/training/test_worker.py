"""The worker under kill -9, SIGTERM, cancel and company: one run row per request, one adapter,
nothing half done.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from tests.training.tiny import facts
from training.data import datasets as stored_datasets
from training.data.rows import read_lines
from training.data.split import split
from training.loop import run_folders
from training.loop.run_folders import run_folder
from training.store import runs
from whet.clock import now_ms
from whet.context import Context, open_context
from whet.database import reading, writing
from whet.settings import load_settings
from whet.tables import adapters, datasets, evaluations, leases, training_requests, training_runs

_DEADLINE_S = 200  # a loaded machine imports torch in half a minute
# Some seconds of steps, to be hit in the middle
_SLOW = {"rank": 4, "epochs": 15.0, "batch_size": 2, "learning_rate": 1e-3, "threads": 1}
_SHORT = {"rank": 4, "epochs": 1.0, "learning_rate": 1e-3, "threads": 1}


class Office:
    """A home with one training request, and the workers started on it."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.workers: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **os.environ,
            "WHET_HOME": str(context.settings.home),
            "WHET_DATABASE_URL": context.settings.resolved_database_url,
            "WHET_BASE_MODEL": context.settings.base_model,
            "WHET_WORKER_POLL_S": "0.2",
            "OMP_NUM_THREADS": "1",
        }

    def ask(self, recipe: dict[str, Any], rows: int = 60) -> str:
        """What feedback writes: a dataset version and a request for it."""
        read = read_lines([json.dumps(row).encode() for row in facts(rows)]).rows
        made = stored_datasets.save(
            self.context.store, "facts", split(read, stored_datasets.Shares(0.0, 0.2)).parts
        )
        with writing(self.context.database) as connection:
            values = {
                "digest": made.digest,
                "name": "facts",
                "version": 1,
                "path": made.path,
                "rows": made.rows,
                "parents": [],
                "example_ids": [],
                "created_by": "t",
                "created_at": 1,
            }
            connection.execute(insert(datasets).values(**values))
            connection.execute(
                insert(training_requests).values(
                    id="req_1",
                    alias="support",
                    dataset_digest=made.digest,
                    recipe=recipe,
                    reason="test",
                    requested_by="t",
                    created_at=now_ms(),
                )
            )
        return "req_1"

    def hire(self) -> subprocess.Popen[bytes]:
        worker = subprocess.Popen([sys.executable, "-m", "training.worker"], env=self.environment)
        self.workers.append(worker)
        return worker

    def rows(self, table: Any) -> list[Any]:
        with reading(self.context.database) as connection:
            return list(connection.execute(select(table)).all())

    def run(self) -> Any:
        found = self.rows(training_runs)
        assert len(found) <= 1, "one request, one run"
        return found[0] if found else None

    def wait_for(self, what: str, reached: Callable[[Any], bool]) -> Any:
        """The run's row once it satisfies `reached`."""
        deadline = time.monotonic() + _DEADLINE_S
        while time.monotonic() < deadline:
            row = self.run()
            if row is not None and reached(row):
                return row
            time.sleep(0.05)
        raise AssertionError(f"the run did not reach '{what}': {self.run()}")

    def lease_runs_out(self) -> None:
        """As if its time had passed."""
        with writing(self.context.database) as connection:
            connection.execute(
                update(leases).where(leases.c.name == "training:req_1").values(expires_at=0)
            )

    def close(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()
        self.context.close()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def soon(what: str, reached: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def training_at(step: int, attempt: int) -> Callable[[Any], bool]:
    return lambda row: row.attempt == attempt and row.progress.get("step", 0) >= step


def nothing_visible(office: Office) -> bool:
    return (
        office.rows(adapters) == []
        and office.rows(evaluations) == []
        and not (Path(office.context.store.root) / "adapters").exists()
    )


def one_whole_adapter(office: Office) -> bool:
    stored = office.rows(adapters)
    folders = list((Path(office.context.store.root) / "adapters" / "support").iterdir())
    return (
        len(stored) == len(folders) == len(office.rows(evaluations)) == 1
        and folders[0].name in stored[0].path
        and len(list(folders[0].iterdir())) == 3
    )


def _office(database_url: str, home: Path, base_folder: Path) -> Office:
    return Office(
        open_context(
            load_settings(home=home, database_url=database_url, base_model=str(base_folder))
        )
    )


@pytest.fixture
def office(tmp_path: Path, base_folder: Path) -> Iterator[Office]:
    made = _office(f"sqlite:///{tmp_path / 'whet.db'}", tmp_path / "home", base_folder)
    yield made
    made.close()


@pytest.fixture
def office_on_both(database_url: str, tmp_path: Path, base_folder: Path) -> Iterator[Office]:
    made = _office(database_url, tmp_path / "home", base_folder)
    yield made
    made.close()


@pytest.mark.minutes_on_each_database
def test_a_killed_child_and_a_killed_worker_cost_an_attempt_each_and_nothing_else(
    office_on_both: Office,
) -> None:
    office = office_on_both
    office.ask(_SLOW)
    first = office.hire()
    office.wait_for("first attempt trains", training_at(3, 1))
    # The one that trains: a step of it was reported
    os.kill(children_of(first.pid)[0], signal.SIGKILL)

    office.wait_for("second attempt trains", training_at(3, 2))
    assert nothing_visible(office)
    child = children_of(first.pid)[0]
    first.kill()
    first.wait()
    soon("the child outlived its worker", lambda: not alive(child))
    assert office.run().state == runs.RUNNING and nothing_visible(office)

    second = office.hire()
    office.lease_runs_out()
    done = office.wait_for("the end", lambda row: row.state != runs.RUNNING)
    assert (done.state, done.attempt, done.adapter_digest) == (
        runs.SUCCEEDED,
        3,
        office.rows(adapters)[0].digest,
    ), done.error
    assert one_whole_adapter(office)
    second.terminate()
    assert second.wait(20) == 0


def test_a_child_that_dies_three_times_fails_the_run_with_a_reason(office: Office) -> None:
    office.ask(_SLOW)
    worker = office.hire()

    def gone(attempt: int) -> bool:
        """Whether the attempt is over; kills every child until then, since one that dies before it
        is told what to do costs no attempt.
        """
        for child in children_of(worker.pid):
            if alive(child):
                os.kill(child, signal.SIGKILL)
        row = office.run()
        return bool(row.attempt > attempt or row.state != runs.RUNNING)

    for attempt in (1, 2, 3):
        office.wait_for(f"attempt {attempt}", lambda row, attempt=attempt: row.attempt == attempt)
        soon(f"attempt {attempt} survived its killing", lambda attempt=attempt: gone(attempt), 60)
    done = office.wait_for("the end", lambda row: row.state != runs.RUNNING)
    assert done.state == runs.FAILED and "3 attempts" in done.error and "SIGKILL" in done.error
    assert nothing_visible(office)


# Minutes of starting processes; that a worker and its child can be killed is tested in every run
@pytest.mark.slow
def test_sigterm_puts_the_run_down_and_the_next_worker_goes_on_without_losing_an_attempt(
    office: Office,
) -> None:
    office.ask(_SLOW)
    first = office.hire()
    office.wait_for("training", training_at(3, 1))
    child = children_of(first.pid)[0]
    first.terminate()
    assert first.wait(20) == 0
    assert not alive(child)
    assert (office.run().state, office.run().progress, office.rows(leases)[0].expires_at) == (
        runs.RUNNING,
        {"stage": "waiting"},
        0,
    )
    office.hire()
    done = office.wait_for("the end", lambda row: row.state != runs.RUNNING)
    assert (done.state, done.attempt) == (runs.SUCCEEDED, 1)
    assert one_whole_adapter(office)


def test_cancelling_stops_the_run_and_stores_nothing(office: Office) -> None:
    office.ask(_SLOW)
    office.hire()
    row = office.wait_for("training", training_at(3, 1))
    runs.request_cancel(office.context, row.id, actor="t", now=now_ms())
    done = office.wait_for("the end", lambda row: row.state != runs.RUNNING)
    assert (done.state, done.cancel_requested_by, done.adapter_digest) == (
        runs.CANCELLED,
        "t",
        None,
    )
    assert nothing_visible(office)


@pytest.mark.slow  # as above; the lease that keeps two apart is tested without processes
def test_two_workers_make_one_run_of_one_request(office_on_both: Office) -> None:
    office = office_on_both
    office.ask(_SHORT)
    for _ in range(2):
        office.hire()
    done = office.wait_for("the end", lambda row: row.state != runs.RUNNING)
    assert (done.state, done.attempt) == (runs.SUCCEEDED, 1), done.error
    assert one_whole_adapter(office)


def test_a_request_that_cannot_be_run_ends_with_its_sentence(office: Office) -> None:
    office.ask({"rank": 9999})
    office.hire()
    done = office.wait_for("the end", lambda row: row.state != runs.RUNNING)
    assert done.state == runs.FAILED and "rank" in done.error and done.attempt == 1


def test_a_process_believed_dead_can_change_nothing(sqlite_context: Context) -> None:
    started = runs.start(
        sqlite_context,
        alias="a",
        dataset_digest="d",
        base_digest="b",
        recipe={},
        estimate={},
        worker="one",
        now=1,
    )
    successor = runs.reclaim(sqlite_context, started.id, worker="two", now=2)
    with pytest.raises(runs.Superseded):
        runs.report(sqlite_context, started, progress={"stage": "training"}, curve=None, now=3)
    with pytest.raises(runs.Superseded), writing(sqlite_context.database) as connection:
        runs.succeed(connection, started, adapter_digest="x", progress={}, curve=[], now=3)
    assert not runs.end(sqlite_context, started, runs.FAILED, "late", 3)
    assert runs.end(sqlite_context, successor, runs.SUCCEEDED, "", 4)


def test_a_run_by_hand_whose_process_is_gone_is_closed(sqlite_context: Context) -> None:
    runs.start(
        sqlite_context,
        alias="a",
        dataset_digest="d",
        base_digest="b",
        recipe={},
        estimate={},
        worker="cli",
        now=1,
    )
    assert runs.close_abandoned(sqlite_context, 60_000) == []
    assert len(runs.close_abandoned(sqlite_context, 200_000)) == 1
    with reading(sqlite_context.database) as connection:
        row = connection.execute(select(training_runs)).one()
    assert row.state == runs.FAILED and "stopped without a word" in row.error


def test_checkpoints_go_with_runs_that_ended_for_good_and_with_no_others(
    sqlite_context: Context,
) -> None:
    def run(state: str) -> str:
        started = runs.start(
            sqlite_context,
            alias="a",
            dataset_digest="d",
            base_digest="b",
            recipe={},
            estimate={},
            worker="cli",
            now=1,
        )
        assert state == runs.RUNNING or runs.end(sqlite_context, started, state, "", 2)
        for part in ("checkpoints", "tensorboard"):
            (run_folder(sqlite_context, started.id) / part).mkdir(parents=True)
        return started.id

    ids = {
        state: run(state) for state in (runs.RUNNING, runs.FAILED, runs.SUCCEEDED, runs.CANCELLED)
    }
    (run_folder(sqlite_context, "another database's") / "checkpoints").mkdir(parents=True)
    assert sorted(run_folders.sweep(sqlite_context)) == sorted(
        [ids[runs.SUCCEEDED], ids[runs.CANCELLED]]
    )
    left = {path.parent.name for path in run_folder(sqlite_context, "").glob("*/checkpoints")}
    assert left == {ids[runs.RUNNING], ids[runs.FAILED], "another database's"}, (
        "a run that can be resumed keeps them, and so does one that this database does not know"
    )
    assert all(
        (run_folder(sqlite_context, each) / "tensorboard").is_dir() for each in ids.values()
    ), "the curves stay"
    assert run_folders.sweep(sqlite_context) == []


def test_a_long_curve_is_thinned_to_500_points_with_its_ends() -> None:
    curve = [[float(step), 1.0, 0.0] for step in range(12_345)]
    thin = runs.thin(curve)
    assert (len(thin), thin[0], thin[-1]) == (500, curve[0], curve[-1])
