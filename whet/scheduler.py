"""`python -m whet.scheduler`: the clock that calls every package's jobs.

APScheduler is a clock here and nothing more. Its memory is empty at every start; what was done is
read from the database, and every job may run twice without doing anything twice. The lease
`scheduler` keeps a second process idle.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import entry_points
from typing import Any

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.blocking import BlockingScheduler
from sqlalchemy import Connection, func, update

from whet import leases
from whet.auditlog import record
from whet.clock import now_ms
from whet.context import Context, open_context
from whet.database import insert_ignore, writing
from whet.errors import WhetError
from whet.plugins import Job, ProcessSpec
from whet.settings import load_settings
from whet.settings_log import record_settings
from whet.tables import scheduled_jobs

logger = logging.getLogger("whet.scheduler")

LEASE, LEASE_MS = leases.SCHEDULER.name, leases.SCHEDULER.lasts_ms
_NOTE_EVERY_MS = 30_000  # of jobs that go on as before; others are noted at once
_ERROR_LENGTH = 2000
_RENEW_S = 4.0  # three attempts before the lease runs out
_THREADS = 4  # a long drift run must not hold up flagging and the policy


def processes(context: Context) -> list[ProcessSpec]:
    """The scheduler as `whet up` starts it."""
    settings = context.settings
    return [
        ProcessSpec(
            name="scheduler",
            argv=[sys.executable, "-m", "whet.scheduler"],
            environment={
                "DO_NOT_TRACK": "1"
            },  # some packages whose jobs run here would report their use
            listens_on=(
                (settings.metrics_host, settings.metrics_port),
            ),  # monitoring's jobs offer their metrics from here
        )
    ]


def load_jobs(context: Context) -> Iterator[Job]:
    """Return the jobs of all installed packages. One whose extra is not installed is named in the
    log and left out."""
    for entry in sorted(entry_points(group="whet.jobs"), key=lambda e: e.name):
        try:
            yield from entry.load()(context)
        except ModuleNotFoundError as error:
            logger.warning(
                "jobs of %r are left out: %s is not installed. "
                "Install the extra [%s] to have them.",
                entry.name,
                error.name,
                entry.name,
            )


class Runner:
    """Calls one job if this process holds the lease; keeps errors from ending anything."""

    def __init__(self, context: Context, owner: str) -> None:
        self.context = context
        self.owner = owner
        self.leading = threading.Event()
        self._failing: dict[
            str, str
        ] = {}  # job → last error, so that the audit gets changes and not every repetition
        self._noted: dict[str, tuple[str | None, int]] = {}  # job → (error, when it was noted)

    def renew(self) -> None:
        """Take or keep the lease; its row is also the heartbeat that the console reads."""
        try:
            held = (
                leases.acquire(
                    self.context.database, LEASE, self.owner, now=now_ms(), for_ms=LEASE_MS
                )
                is not None
            )
        except Exception:
            logger.exception("the lease could not be renewed; jobs wait until it can")
            held = False
        if held != self.leading.is_set():
            logger.info(
                "%s", "this scheduler leads" if held else "another scheduler leads; this one waits"
            )
        (self.leading.set if held else self.leading.clear)()

    def run(self, job: Job) -> None:
        if not self.leading.is_set():
            return
        try:
            done = job.run(now_ms())
        except Exception as error:  # noqa: BLE001
            self._failed(job, error)
            return
        self._failing.pop(job.name, None)
        self._note_outcome(job, None)
        if done:
            logger.info("%s: %s", job.name, done)

    def _failed(self, job: Job, error: Exception) -> None:
        sentence = (
            str(error) if isinstance(error, WhetError) else f"{type(error).__name__}: {error}"
        )
        logger.error(
            "job %s failed: %s",
            job.name,
            sentence,
            exc_info=None if isinstance(error, WhetError) else error,
        )
        self._note_outcome(job, sentence[:_ERROR_LENGTH])
        if self._failing.get(job.name) == sentence:
            return
        self._failing[job.name] = sentence
        try:
            with writing(self.context.database) as connection:
                record(
                    connection,
                    actor="scheduler",
                    action="job.failed",
                    subject=job.name,
                    detail={"error": sentence[:_ERROR_LENGTH]},
                    now=now_ms(),
                )
        except Exception:
            logger.exception("the failure of %s could not be recorded", job.name)

    def _note_outcome(self, job: Job, error: str | None) -> None:
        """Keep how the job ended, when that is news or the last note is old."""
        now = now_ms()
        known = self._noted.get(job.name)
        if known is not None and known[0] == error and now - known[1] < _NOTE_EVERY_MS:
            return
        try:
            with writing(self.context.database) as connection:
                note_job(connection, job.name, job.every_s, error, now=now)
        except Exception:
            logger.exception("the outcome of %s could not be recorded", job.name)
            return
        self._noted[job.name] = (error, now)


def note_job(
    connection: Connection, name: str, every_s: float, error: str | None, *, now: int
) -> None:
    """Write how a job's last run ended; `failing_since` is the first of its failures in a row."""
    connection.execute(
        insert_ignore(connection, scheduled_jobs).values(
            name=name, every_s=every_s, finished_at=now
        )
    )
    since = None if error is None else func.coalesce(scheduled_jobs.c.failing_since, now)
    connection.execute(
        update(scheduled_jobs)
        .where(scheduled_jobs.c.name == name)
        .values(every_s=every_s, finished_at=now, failing_since=since, error=error)
    )


def build(context: Context, runner: Runner, jobs: list[Job]) -> Any:
    """The APScheduler with every job on it; not started."""
    clock = BlockingScheduler(
        timezone=UTC,
        executors={"default": ThreadPoolExecutor(_THREADS), "lease": ThreadPoolExecutor(1)},
        # No grace time: APScheduler's default of one second drops a job that was due while the
        # machine slept.
        job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
    )
    clock.add_job(runner.renew, "interval", seconds=_RENEW_S, id="lease", executor="lease")
    start = datetime.now(UTC)
    for job in jobs:
        clock.add_job(
            runner.run,
            "interval",
            args=[job],
            seconds=job.every_s,
            id=job.name,
            name=job.name,
            next_run_time=start,
        )
    clock.add_listener(_tell, EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)
    return clock


def _tell(event: Any) -> None:
    if event.code == EVENT_JOB_MAX_INSTANCES:
        logger.warning(
            "job %s was due again while it still ran; this turn is left out", event.job_id
        )
    else:
        logger.error(
            "job %s: the clock reports %s",
            event.job_id,
            getattr(event, "exception", "that it was missed"),
        )


def _stop_on_signal(clock: Any) -> None:
    """Let SIGTERM and SIGINT end the clock; jobs that run finish first.

    Not from within the handler, which may interrupt the clock's own lock.
    """
    stopping = threading.Event()

    def stop(*_: object) -> None:
        if not stopping.is_set():  # supervisors and terminals may signal twice
            stopping.set()
            threading.Thread(target=clock.shutdown, kwargs={"wait": False}).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    logging.basicConfig(
        level=os.environ.get("WHET_LOG_LEVEL", "INFO"),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    for chatty in ("apscheduler", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        context = open_context(load_settings())
        runner = Runner(context, f"{socket.gethostname()}:{os.getpid()}")
        jobs = list(load_jobs(context))
    except WhetError as error:
        logger.error("%s", error)
        sys.exit(error.exit_code)
    runner.renew()
    record_settings(context, actor="scheduler", now=now_ms())
    clock = build(context, runner, jobs)
    _stop_on_signal(clock)
    logger.info(
        "scheduler starts with %s%s",
        ", ".join(job.name for job in jobs),
        "" if runner.leading.is_set() else "; another scheduler leads, this one waits",
    )
    clock.start()
    leases.release(context.database, LEASE, runner.owner, now=now_ms())
    context.close()


if __name__ == "__main__":
    main()
