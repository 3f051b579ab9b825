"""The worker: claims training requests and has each run by a child process.

`python -m training.worker`.

A request is claimed under the lease `training:<request id>`. A worker that dies stops renewing it,
and the next one continues the same run row with the next attempt; the row's attempt number keeps a
process that was believed dead from writing.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time

from sqlalchemy.exc import OperationalError

from training.loop import run_folders
from training.runs.child_process import Child
from training.store import adapter_store, runs
from training.store.again import command_again
from training.store.requests import open_requests, run_of
from training.store.table_rows import OpenRequest, RunRow
from whet import leases
from whet.clock import now_ms
from whet.context import Context, open_context
from whet.database import reading
from whet.errors import ConflictError, WhetError
from whet.ids import new_id
from whet.settings import load_settings

log = logging.getLogger(__name__)

LEASE_MS = 30_000  # how long a request waits for another worker after its own was killed
_RENEW_S = 5.0  # six renewals may fail before the lease is lost
_WATCH_S = 0.2
# A run stops at its next step; one that does not, because it hangs or loads, is killed after this
_CANCEL_GRACE_S = 20.0
_HOUSEKEEPING_S = 60.0
# The first child is made ready once the engine's own start, which needs both cores, is over
_PREPARE_CHILD_AFTER_S = 45.0


class Worker:
    """One worker process. `stop` may be set from a signal handler."""

    def __init__(
        self,
        context: Context,
        *,
        lease_ms: int = LEASE_MS,
        prepare_after_s: float = _PREPARE_CHILD_AFTER_S,
    ) -> None:
        self._context, self._lease_ms = context, lease_ms
        self.owner = f"{socket.gethostname()[:60]}:{os.getpid()}:{new_id('wrk')[-8:]}"
        self.stop = threading.Event()
        self._spare: Child | None = None
        self._prepare_at = time.monotonic() + prepare_after_s
        self._housekeeping_at = 0.0

    def run_for_ever(self) -> None:
        """Until `stop` is set. A database that does not answer is waited for."""
        while not self.stop.is_set():
            try:
                worked = self.work_once()
            except WhetError as error:
                log.error("%s", error)
                worked = False
            except OperationalError as error:
                log.error("the database does not answer: %s", error.orig)
                worked = False
            if not worked:
                self._prepare_child()
                self.stop.wait(self._context.settings.worker_poll_s)
        if self._spare is not None:
            self._spare.kill()

    def work_once(self) -> bool:
        """Claim one request and see it through. False when there was nothing to do."""
        self._housekeeping()
        with reading(self._context.database) as connection:
            waiting = open_requests(connection)
        for request in waiting:
            lease = f"training:{request['id']}"
            if (
                self.stop.is_set()
                or leases.acquire(
                    self._context.database, lease, self.owner, now=now_ms(), for_ms=self._lease_ms
                )
                is None
            ):
                continue
            try:
                run = self._begin(request)
                if run is not None:
                    self._execute(run, lease)
                    return True
            finally:
                leases.release(self._context.database, lease, self.owner)
        return False

    def _begin(self, request: OpenRequest) -> runs.Run | None:
        """The run of a claimed request: new, or the one whose process is gone.

        None when it has ended meanwhile.
        """
        with reading(self._context.database) as connection:
            row = run_of(connection, request["id"])
        if row is None:
            try:
                return runs.start(
                    self._context,
                    alias=request["alias"],
                    dataset_digest=request["dataset_digest"],
                    base_digest="",
                    recipe=request["recipe"],
                    estimate={},
                    worker=self.owner,
                    now=now_ms(),
                    request_id=request["id"],
                )
            except ConflictError as error:  # cancelled at the same moment
                log.info("%s", error)
                return None
        if row["state"] != runs.RUNNING:
            return None
        last = runs.Run(row["id"], row["attempt"], row["alias"], row["started_at"], request["id"])
        if row["cancel_requested_by"] is not None:
            runs.end(self._context, last, runs.CANCELLED, "Cancelled on request.", now_ms())
            return None
        if row["attempt"] >= runs.MAX_ATTEMPTS and row["worker"]:
            reason = self._died(row, "killed, or out of memory")
            runs.end(self._context, last, runs.FAILED, reason, now_ms())
            return None
        return runs.reclaim(self._context, row["id"], worker=self.owner, now=now_ms())

    def _execute(self, run: runs.Run, lease: str) -> None:
        """Have the child run it; renew the lease meanwhile; end the child when the lease, the
        worker or the wish is gone.
        """
        child, self._spare = self._spare or Child(), None
        if not child.alive:
            child = Child()
        log.info(
            "run %s, attempt %d of at most %d: started in process %d",
            run.id,
            run.attempt,
            runs.MAX_ATTEMPTS,
            child.pid,
        )
        child.tell(
            {
                "run": run.id,
                "attempt": run.attempt,
                "alias": run.alias,
                "started_at": run.started_at,
                "request": run.request_id,
            }
        )
        keeper = _LeaseKeeper(self._context, lease, self.owner, self._lease_ms)
        cancel_since: float | None = None
        with keeper:
            while child.wait(_WATCH_S) is None:
                if keeper.lost.is_set():
                    log.error("run %s: its lease was lost; another worker continues it", run.id)
                    child.kill()
                    return
                if self.stop.is_set():
                    child.kill()
                    runs.release(self._context, run, now_ms())
                    return
                cancel_since = self._overdue(run, child, cancel_since)
        self._after(run, child)

    def _overdue(self, run: runs.Run, child: Child, since: float | None) -> float | None:
        """When a wish to cancel was first seen; the child is killed when it lets the grace pass."""
        if since is None:
            with reading(self._context.database) as connection:
                row = run_of(connection, str(run.request_id))
            return time.monotonic() if row and row["cancel_requested_by"] is not None else None
        if time.monotonic() - since > _CANCEL_GRACE_S:
            child.kill()
            runs.end(self._context, run, runs.CANCELLED, "Cancelled on request.", now_ms())
        return since

    def _after(self, run: runs.Run, child: Child) -> None:
        """The child has ended.

        When its row is still running, it was killed: the next turn continues it, up to the limit.
        """
        with reading(self._context.database) as connection:
            row = run_of(connection, str(run.request_id))
        if row is None or row["state"] != runs.RUNNING or row["attempt"] != run.attempt:
            return
        log.error("run %s: its process ended with %s", run.id, child.how_it_ended())
        if run.attempt >= runs.MAX_ATTEMPTS:
            reason = self._died(row, f"last with {child.how_it_ended()}")
            runs.end(self._context, run, runs.FAILED, reason, now_ms())

    def _died(self, row: RunRow, how: str) -> str:
        """Return the error of a run whose process ended without a word in every attempt."""
        with reading(self._context.database) as connection:
            command = command_again(self._context, connection, row, "--micro-batch", "1")
        return (
            f"Its process died in each of {row['attempt']} attempts ({how}). Where memory was "
            f"short, fewer rows at once need less: `{command}`."
        )

    def _prepare_child(self) -> None:
        """Have one child with everything imported wait for the next request."""
        if time.monotonic() < self._prepare_at or self.stop.is_set():
            return
        if self._spare is None or not self._spare.alive:
            self._spare = Child()

    def _housekeeping(self) -> None:
        if time.monotonic() < self._housekeeping_at:
            return
        self._housekeeping_at = time.monotonic() + _HOUSEKEEPING_S
        for run_id in runs.close_abandoned(self._context, now_ms()):
            log.warning("run %s: the process that ran it is gone; marked as failed", run_id)
        for path in adapter_store.sweep(self._context, now_ms()):
            log.info("files of the removed version %s deleted", path)
        for run_id in run_folders.sweep(self._context):
            log.info("checkpoints of the ended run %s deleted", run_id)


class _LeaseKeeper:
    """Renews a lease in a thread while its context is open; `lost` is set when another owner has
    it.
    """

    def __init__(self, context: Context, lease: str, owner: str, lease_ms: int) -> None:
        self._context, self._lease, self._owner, self._lease_ms = context, lease, owner, lease_ms
        self._done, self.lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _keep(self) -> None:
        held_until = time.monotonic() + self._lease_ms / 1000
        while not self._done.wait(min(_RENEW_S, self._lease_ms / 3000)):
            try:
                token = leases.acquire(
                    self._context.database,
                    self._lease,
                    self._owner,
                    now=now_ms(),
                    for_ms=self._lease_ms,
                )
            except Exception:
                log.exception("the lease %s could not be renewed", self._lease)
                if time.monotonic() > held_until:
                    self.lost.set()
                    return
                continue
            if token is None:
                self.lost.set()
                return
            held_until = time.monotonic() + self._lease_ms / 1000


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        context = open_context(load_settings())
        worker = Worker(context)
    except WhetError as error:
        log.error("%s", error)
        sys.exit(error.exit_code)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop.set())
    try:
        worker.run_for_ever()
    finally:
        context.close()


if __name__ == "__main__":
    main()
