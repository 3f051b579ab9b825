"""Which background processes work: decided from their leases, and what `whet up` says of them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import RowMapping

from whet.health.records import HealthReading, SupervisedProcess
from whet.leases import ENGINE_WATCHER, SCHEDULER

# Renewed every second, and every 4 s; two renewals may be late on a busy machine
_WATCHER_SILENT_MS = 6_000
_SCHEDULER_SILENT_MS = 10_000
# Workers ask for requests every few seconds; a claim that takes longer has nobody to make it
_UNCLAIMED_MS = 60_000
RUN_SILENT_MS = 120_000  # a run whose heartbeat is older than this has lost its worker

LABELS = {"reconciler": "engine watcher"}
_STANDS_STILL = {
    "engine": "no answer can be computed",
    "gateway": "no request is answered",
    "retrieval": "no document is searched and nothing is embedded",
    "scheduler": "no drift check, no review item, no training request and no notification is made",
    "worker": "nothing is trained",
}


@dataclass(frozen=True)
class ProcessState:
    """One background process as Overview and System health list it."""

    name: str
    state: str  # running | starting | stalled | stopped
    since: int | None  # when it stopped working, or when it began
    detail: str
    log: str = ""

    @property
    def label(self) -> str:
        return LABELS.get(self.name, self.name)

    @property
    def works(self) -> bool:
        return self.state in ("running", "starting")

    @property
    def stands_still(self) -> str:
        """What does not happen without it."""
        return _STANDS_STILL.get(self.name, "")


def list_processes(reading: HealthReading) -> list[ProcessState]:
    """Every process that is known here: of `whet up`, and those that hold a lease."""
    supervised = [_of_supervised(one) for one in reading.machine.processes if one.name != "console"]
    return [
        *supervised,
        _of_lease(reading, ENGINE_WATCHER.name, ENGINE_WATCHER.lasts_ms, _WATCHER_SILENT_MS),
        *(
            [_of_lease(reading, SCHEDULER.name, SCHEDULER.lasts_ms, _SCHEDULER_SILENT_MS)]
            if all(one.name != "scheduler" or one.works for one in supervised)
            else []
        ),
    ]


def _of_supervised(one: SupervisedProcess) -> ProcessState:
    if one.is_stopped:
        why = "a signal has stopped it; it continues with `kill -CONT " + f"{one.pid}`"
        return ProcessState(one.name, "stopped", None, why, one.log)
    if one.phase == "ready":
        return ProcessState(one.name, "running", one.since, f"pid {one.pid}", one.log)
    if one.phase == "starting" and one.down_since is None and not one.restarts:
        return ProcessState(one.name, "starting", one.since, "it has not been ready yet", one.log)
    since = one.down_since if one.down_since is not None else one.since
    return ProcessState(one.name, "stopped", since, _why_down(one), one.log)


def _why_down(one: SupervisedProcess) -> str:
    code = one.last_exit
    ended = (
        "it is not ready"
        if code is None
        else f"signal {-code} ended it"
        if code < 0
        else f"it ended with exit code {code}"
    )
    reason = f" ({one.reason})" if one.reason else ""
    then = {
        "given_up": "it is not started again",
        "waiting": "it is started again",
        "starting": "it is starting again",
    }.get(one.phase, "")
    return f"{ended}{reason}" + (f"; {then}" if then else "")


def _of_lease(reading: HealthReading, name: str, lasts_ms: int, silent_ms: int) -> ProcessState:
    """What the lease's last renewal says. A lease that was given back ended at its `expires_at`."""
    row = reading.leases.get(name)
    if row is None:
        return ProcessState(name, "stopped", None, "it has never run")
    if not row["owner"]:
        return ProcessState(name, "stopped", row["expires_at"] or None, "it was stopped")
    seen = row["expires_at"] - lasts_ms
    if reading.now - seen > silent_ms:
        return ProcessState(name, "stalled", seen, f"last heard of from {row['owner']}")
    return ProcessState(name, "running", None, row["owner"])


def unclaimed_requests(reading: HealthReading) -> list[RowMapping]:
    """Training requests that no worker has taken up, though none is busy with another."""
    busy = any(
        run["state"] == "running" and reading.now - run["heartbeat_at"] <= RUN_SILENT_MS
        for run in reading.runs
    )
    if busy:
        return []
    return [one for one in reading.requests if reading.now - one["created_at"] > _UNCLAIMED_MS]
