"""The scheduler as real processes: two do nothing twice, and a killed one leaves nothing half done."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from sqlalchemy import func, select

from feedback import queue
from feedback.queue import Decision
from tests import builders
from tests.feedback.paused_scheduler import MOMENTS
from tests.feedback.world import queued, seed_dataset
from whet import leases, scheduler
from whet.clock import now_ms
from whet.context import Context
from whet.database import reading, writing
from whet.errors import InputError
from whet.plugins import Job
from whet.tables import audit, datasets, review_items, training_requests

_PORTS = iter(range(18250, 18300))


class Processes:
    """Schedulers that are ended with the test, whatever happens."""

    def __init__(self, context: Context, folder: Path) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **os.environ, "WHET_HOME": str(context.settings.home), "WHET_DATABASE_URL": context.settings.resolved_database_url, "WHET_FLAG_INTERVAL_S": "0.3",
            "WHET_SCHEDULER_TICK_S": "0.3", "WHET_RETRAIN_MIN_EXAMPLES": "3", "WHET_RETRAIN_COOLDOWN_S": "0", "WHET_DRIFT_INTERVAL_S": "3600",
        }  # fmt: skip

    def start(self, moment: str = "") -> tuple[subprocess.Popen[bytes], Path]:
        reached = self.folder / f"reached-{len(self.running)}"
        log = (self.folder / f"log-{len(self.running)}").open("wb")
        environment = {**self.environment, "WHET_METRICS_PORT": str(next(_PORTS))}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.feedback.paused_scheduler", moment, reached],
            env=environment,
            stdout=log,
            stderr=log,
        )
        self.running.append(process)
        return process, reached

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("log-*")))


@pytest.fixture
def processes(context: Context, tmp_path: Path) -> Iterator[Processes]:
    folder = tmp_path / "processes"
    folder.mkdir()
    found = Processes(context, folder)
    yield found
    for process in found.running:
        if process.poll() is None:
            process.kill()
        process.wait(10)


def until(
    condition: Callable[[], object], processes: Processes, what: str, within_s: float = 60
) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, (
            f"{what} did not happen within {within_s} s\n{processes.logs()}"
        )
        time.sleep(0.05)


def count(context: Context, table: object) -> int:
    with reading(context.database) as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())  # type: ignore[arg-type]


def ready_to_train(context: Context) -> None:
    seed_dataset(context)
    for item in queued(context, 4, at=now_ms() - 60_000):
        queue.decide(context.database, item, "ada", Decision("approve"), now=now_ms())


@pytest.mark.minutes_on_each_database
def test_a_scheduler_killed_at_any_moment_of_a_build_leaves_one_request_and_no_half_folder(
    context: Context, processes: Processes
) -> None:
    ready_to_train(context)
    for moment in [name for name in MOMENTS if name]:
        process, reached = processes.start(moment)
        until(reached.exists, processes, moment)
        assert count(context, training_requests) == 0
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    processes.start()
    until(lambda: count(context, training_requests) == 1, processes, "the request")
    with reading(context.database) as connection:
        request = connection.execute(select(training_requests)).one()
        versions = connection.execute(select(datasets).order_by(datasets.c.version)).all()
    assert [version.version for version in versions] == [1, 2] and versions[
        1
    ].digest == request.dataset_digest
    folders = {path.name for path in (Path(context.store.root) / "datasets").iterdir()}
    assert folders == {version.digest for version in versions}
    for version in versions:
        folder = Path(context.store.root) / version.path
        assert json.loads((folder / "manifest.json").read_text())["digest"] == version.digest
        assert {
            split: (folder / f"{split}.jsonl").read_text().count("\n") for split in version.rows
        } == version.rows


def test_two_schedulers_do_nothing_twice_and_one_takes_over(
    context: Context, processes: Processes
) -> None:
    ready_to_train(context)
    pair = [processes.start()[0] for _ in range(2)]
    until(lambda: count(context, training_requests) == 1, processes, "the request")
    until(
        lambda: all(
            "scheduler starts with" in path.read_text() for path in processes.folder.glob("log-*")
        ),
        processes,
        "both starts",
    )
    with reading(context.database) as connection:
        built = connection.execute(
            select(func.count()).select_from(audit).where(audit.c.action == "dataset.build")
        ).scalar_one()
    assert (count(context, training_requests), built) == (1, 2), "the seed's version and one other"
    leader = leases.holder(context.database, scheduler.LEASE, now=now_ms())
    first = next(process for process in pair if leader and leader.endswith(f":{process.pid}"))
    first.kill()
    with writing(context.database) as connection:
        builders.add_rating(
            connection,
            builders.add_interaction(connection, now_ms(), question="after the kill?"),
            now_ms(),
        )
    # The audit may draw one more
    until(lambda: count(context, review_items) >= 5, processes, "flagging by the other scheduler")
    (second,) = [process for process in pair if process is not first]
    second.terminate()
    assert second.wait(20) == 0, processes.logs()
    assert leases.holder(context.database, scheduler.LEASE, now=now_ms()) is None, (
        "a scheduler that ends gives the lease back"
    )


def runner(context: Context) -> scheduler.Runner:
    found = scheduler.Runner(context, "me:1")
    found.renew()
    return found


def test_a_failing_job_is_recorded_once_per_change_and_stops_nothing(
    sqlite_context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    own = runner(sqlite_context)
    errors = iter(
        [
            InputError("The file is empty."),
            InputError("The file is empty."),
            ValueError("x"),
            None,
            ValueError("x"),
        ]
    )

    def run(now: int) -> str:
        error = next(errors)
        if error:
            raise error
        return "well"

    with caplog.at_level(logging.INFO, logger="whet.scheduler"):
        for _ in range(5):
            own.run(Job("drift", 1, run))
    with reading(sqlite_context.database) as connection:
        rows = connection.execute(
            select(audit.c.subject, audit.c.detail)
            .where(audit.c.action == "job.failed")
            .order_by(audit.c.sequence)
        ).all()
    assert [(row.subject, row.detail["error"]) for row in rows] == [
        ("drift", "The file is empty."),
        ("drift", "ValueError: x"),
        ("drift", "ValueError: x"),
    ]
    assert "job drift failed: The file is empty." in caplog.text and "drift: well" in caplog.text


def test_a_scheduler_without_the_lease_runs_nothing(sqlite_context: Context) -> None:
    runner(sqlite_context)
    other = scheduler.Runner(sqlite_context, "other:2")
    other.renew()
    other.run(Job("x", 1, lambda now: pytest.fail("ran without the lease")))


def test_jobs_of_a_package_that_is_not_installed_are_named_and_left_out(
    sqlite_context: Context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    entries = [
        EntryPoint("monitoring", "not_installed_here.jobs:jobs", "whet.jobs"),
        EntryPoint("feedback", "feedback.jobs:jobs", "whet.jobs"),
    ]
    monkeypatch.setattr(scheduler, "entry_points", lambda group: entries)
    names = [job.name for job in scheduler.load_jobs(sqlite_context)]
    assert names == ["flagging", "retraining", "review-retention"]
    assert "jobs of 'monitoring' are left out: not_installed_here is not installed" in caplog.text


def test_a_job_that_is_due_while_it_runs_is_not_started_again(
    sqlite_context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    running, finish, starts = threading.Event(), threading.Event(), []

    def slow(now: int) -> None:
        starts.append(now)
        running.set()
        finish.wait(30)

    own = runner(sqlite_context)
    clock = scheduler.build(sqlite_context, own, [Job("slow", 0.05, slow)])
    thread = threading.Thread(target=clock.start)
    thread.start()
    assert running.wait(30)
    deadline = time.monotonic() + 30
    while "due again while it still ran" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.02)
    clock.shutdown(wait=False)
    finish.set()
    thread.join(30)
    assert len(starts) == 1 and "job slow was due again while it still ran" in caplog.text


def test_the_process_is_described_for_the_supervisor(sqlite_context: Context) -> None:
    (spec,) = scheduler.processes(sqlite_context)
    assert (
        spec.name == "scheduler"
        and spec.argv[1:] == ["-m", "whet.scheduler"]
        and spec.environment["DO_NOT_TRACK"] == "1"
    )
