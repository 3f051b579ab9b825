"""Items about the running product: processes, engines, disk, log, jobs, notifications."""

from __future__ import annotations

from collections.abc import Sequence

from whet.health.processes import ProcessState, list_processes, unclaimed_requests
from whet.health.records import ActionItem, HealthReading, UndeliveredNotification
from whet.web.filters import age, clip, duration, plural

_ERRORS_BAD = 0.02  # share of failed answers that needs a person …
_ERRORS_FEW = 3  # … unless there are fewer than these: one failure in a quiet hour is no trend
# The gateway refuses requests below 64 MiB, `whet up` does not start below 512 MiB
_DISK_FULL = 512 << 20
_DISK_LOW = 2 << 30
_BACKLOG_BYTES = 64 << 20  # minutes of a busy gateway whose database does not take them
_OVERDUE_MS = 900_000  # besides three of its turns, after which a job should have finished
_TODO = {
    "reconciler": (
        "It runs within the gateway: see that one runs (`whet status`, `curl"
        " GATEWAY/readyz`), and start it again where it hangs."
    ),
    "scheduler": "See its log, logs/scheduler.log in the home folder, and start it again.",
    "worker": "See its log, logs/worker.log in the home folder, and start it again.",
}


def is_failing(reading: HealthReading) -> bool:
    """Whether the last hour's failed answers are more than chance."""
    return reading.failed >= _ERRORS_FEW and reading.failed / reading.answers > _ERRORS_BAD


def find_operation_items(reading: HealthReading) -> list[ActionItem]:
    """Return what is dead, stalled, full or refused. Nothing for an installation never started."""
    never_started = reading.is_new and not reading.leases and not reading.machine.processes
    processes = [] if never_started else list_processes(reading)
    found = [
        *_engine_items(reading, processes),
        *(item for one in processes if (item := _process_item(reading, one, processes))),
        *_disk_items(reading),
        *_job_items(reading, processes),
        *_notification_items(reading.undelivered),
    ]
    if is_failing(reading):
        found.append(
            ActionItem(
                "answers_fail",
                90,
                "bad",
                f"{reading.failed} of {reading.answers:,} answers failed in the last hour.",
                "/traffic?status=error&since=1h",
                reading.failing_since,
                "The list names each one's error; errors of the engine stand in its log too.",
            )
        )
    waiting = (
        []
        if any(one.name == "worker" and not one.works for one in processes)
        else (unclaimed_requests(reading))
    )
    if waiting:
        found.append(
            ActionItem(
                "worker_absent",
                70,
                "bad",
                f"No training worker takes up {plural(len(waiting), 'request')}: nothing is"
                " trained.",
                "/health#worker_absent",
                int(str(waiting[0]["created_at"])),
                _TODO["worker"],
            )
        )
    return found


def _process_item(
    reading: HealthReading, one: ProcessState, processes: Sequence[ProcessState]
) -> ActionItem | None:
    if one.works or one.name == "engine":  # engines are told of with their replicas
        return None
    if one.name == "reconciler":
        return _watcher_item(reading, one)
    costs = {"gateway": 103, "scheduler": 97, "worker": 70}
    code = f"{one.name}_{one.state}"
    lasted = f" for {age(one.since, reading.now)}" if one.since is not None else ""
    if one.name == "scheduler" and not one.log:
        sentence = f"The scheduler has not run{lasted}: {one.stands_still}."
    else:
        still = f": {one.stands_still}" if one.stands_still else ""
        sentence = f"The {one.label} does not run{still}; {one.detail}."
    todo = _TODO.get(one.name, "")
    if one.log:
        todo = f"Its log: {one.log}. `whet status` lists every process."
    return ActionItem(
        code, costs.get(one.name, 75), "bad", sentence, f"/health#{code}", one.since, todo
    )


def _watcher_item(reading: HealthReading, one: ProcessState) -> ActionItem:
    if one.since is None:
        sentence = "Nobody has watched the engines yet: no request can be answered."
    else:
        sentence = (
            f"Nobody has watched the engines for {age(one.since, reading.now)}:"
            " traffic, drift and training may stand still."
        )
    code = "engine_watcher_stalled"
    return ActionItem(code, 102, "bad", sentence, f"/health#{code}", one.since, _TODO["reconciler"])


def _engine_items(reading: HealthReading, processes: Sequence[ProcessState]) -> list[ActionItem]:
    down = [one for one in reading.replicas if one["state"] != "ready"]
    process = next((one for one in processes if one.name == "engine" and not one.works), None)
    if not down and process is None:
        return []
    why = f" The engine process: {process.detail}." if process else ""
    log = process.log if process else "logs/engine.log in the home folder"
    todo = (
        f"Read {log}. `whet up` starts an engine again when its process ends; one that hangs is"
        " ended with `kill -9 PID`."
    )
    if process is not None or (down and len(down) == len(reading.replicas)):
        times = [one["since"] for one in down if one["since"] is not None]
        begun = process.since if process and process.since is not None else None
        since = max(times) if times and len(down) == len(reading.replicas) else begun
        return [
            ActionItem(
                "engine_down",
                101,
                "bad",
                f"No engine replica can answer: every request fails.{why}",
                "/health#engine_down",
                since,
                todo,
            )
        ]
    return [
        ActionItem(
            "replica_down",
            80,
            "bad",
            f"Engine replica {one['url']} of {len(reading.replicas)} does not answer"
            f" ({one['state']}).",
            "/health#replica_down",
            one["since"],
            f"{clip(one['detail'], 200)} {todo}".strip(),
        )
        for one in down
        if one["state"] in ("hung", "gone")
    ]


def _disk_items(reading: HealthReading) -> list[ActionItem]:
    found, machine = [], reading.machine
    free = machine.free_bytes
    if free is not None and free < _DISK_LOW:
        is_full = free < _DISK_FULL
        effect = (
            "the gateway refuses requests below 64 MiB"
            if is_full
            else "`whet up` does not start below 512 MiB"
        )
        found.append(
            ActionItem(
                "disk_full" if is_full else "disk_low",
                99 if is_full else 56,
                "bad" if is_full else "attention",
                f"The disk of the home folder has {free >> 20:,} MiB left: {effect}.",
                "/health#disk_full" if is_full else "/health#disk_low",
                None,
                "Free space: `du -sh HOME/*` shows what takes it. A lower WHET_RETENTION_DAYS"
                " lets the scheduler delete old conversations at night.",
            )
        )
    if machine.backlog_bytes >= _BACKLOG_BYTES:
        found.append(
            ActionItem(
                "log_backlog",
                83,
                "bad",
                f"{machine.backlog_bytes >> 20:,} MiB of answers wait to be written to the"
                " database: newest traffic is not shown.",
                "/health#log_backlog",
                machine.backlog_since,
                "Nothing is lost. See that the database answers and that a gateway runs; it"
                " refuses requests when 1 GiB waits.",
            )
        )
    return found


def _job_items(reading: HealthReading, processes: Sequence[ProcessState]) -> list[ActionItem]:
    found = []
    scheduler_works = all(one.works for one in processes if one.name == "scheduler")
    for job in reading.jobs:
        late_ms = reading.now - job.finished_at
        if job.failing_since is not None:
            code, since = "job_failing", job.failing_since
            sentence = f"The scheduled job {job.name} fails: {clip(job.error, 160)}"
        elif scheduler_works and late_ms > 3000 * job.every_s + _OVERDUE_MS:
            code, since = "job_overdue", job.finished_at
            sentence = (
                f"The scheduled job {job.name} has not finished for {age(job.finished_at, reading.now)}; it is"
                f" due every {duration(1000 * job.every_s)}."
            )
        else:
            continue
        todo = "The scheduler's log (logs/scheduler.log) has the whole error."
        found.append(ActionItem(code, 65, "bad", sentence, f"/health#job-{job.name}", since, todo))
    return found


def _notification_items(undelivered: Sequence[UndeliveredNotification]) -> list[ActionItem]:
    """One item per service that refuses."""
    by_service: dict[str, list[UndeliveredNotification]] = {}
    for one in undelivered:
        by_service.setdefault(one.service, []).append(one)
    found = []
    for service, mine in by_service.items():
        attempts = sum(one.attempts for one in mine)
        what = plural(len(mine), "notification")
        found.append(
            ActionItem(
                "notification_undelivered",
                82 if any(one.severity == "bad" for one in mine) else 62,
                "bad",
                f"{service} has refused {what}, after {plural(attempts, 'attempt')}:"
                f" {clip(mine[-1].error, 120)}",
                f"/drift/incidents/{mine[0].alert_id}"
                if len(mine) == 1
                else "/health#notification_undelivered",
                mine[0].created_at,
                "`whet alerts test` sends a message to each address of WHET_NOTIFY_URLS and says"
                " what each answered.",
            )
        )
    return found
