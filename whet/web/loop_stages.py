"""The six stages of the loop as Overview draws them: pure functions of a health reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from whet.health.operation import is_failing
from whet.health.processes import RUN_SILENT_MS
from whet.health.records import HealthReading


@dataclass(frozen=True)
class LoopStage:
    """One of the six. `kind`: good | attention | bad | information | plain."""

    name: str
    icon: str
    href: str
    value: str
    unit: str
    state: str
    kind: str
    at: int | None
    at_means: str


def loop_stages(reading: HealthReading, new_examples: Mapping[str, int]) -> list[LoopStage]:
    """The six, in the order of the circle.

    `new_examples`: alias → examples that its next training would learn anew.
    """
    traffic_state = (
        ("none in the last hour", "plain")
        if not reading.answers
        else (
            (f"{reading.failed} failed", "bad" if is_failing(reading) else "attention")
            if reading.failed
            else ("none failed", "good")
        )
    )
    traffic = LoopStage(
        "Traffic",
        "traffic",
        "/traffic",
        f"{reading.answers:,}",
        "answers in the last hour",
        *traffic_state,
        reading.last_answer_at,
        "last",
    )
    return [
        traffic,
        _signals(reading),
        _review(reading),
        _dataset(reading, new_examples),
        _training(reading),
        _rollout(reading),
    ]


def _signals(reading: HealthReading) -> LoopStage:
    awake = [alert for alert in reading.alerts if (alert["snoozed_until"] or 0) <= reading.now]
    bad = sum(alert["severity"] == "bad" for alert in awake)
    words = {
        "drift": ("drift", "attention"),
        "no_drift": ("no drift", "good"),
        "not_enough_data": ("not enough data yet", "plain"),
    }
    state, kind = (
        words.get(reading.drift["verdict"], (reading.drift["verdict"], "plain"))
        if reading.drift
        else ("no drift check yet", "plain")
    )
    if awake:
        state, kind = (f"{bad} bad", "bad") if bad else ("to look at", "attention")
    return LoopStage(
        "Signals",
        "drift",
        "/drift",
        str(len(reading.alerts)),
        "open alert" if len(reading.alerts) == 1 else "open alerts",
        state,
        kind,
        reading.drift["created_at"] if reading.drift else None,
        "checked",
    )


def _review(reading: HealthReading) -> LoopStage:
    state, kind = (
        ("waiting for a person", "attention") if reading.waiting else ("nothing waits", "good")
    )
    return LoopStage(
        "Review",
        "review",
        "/review",
        f"{reading.waiting:,}",
        "in the queue",
        state,
        kind,
        reading.waiting_since,
        "oldest",
    )


def _dataset(reading: HealthReading, new_examples: Mapping[str, int]) -> LoopStage:
    newest = reading.dataset
    new = new_examples.get(newest["name"], 0) if newest else sum(new_examples.values())
    state = (
        f"{newest['name']} v{newest['version']}, {sum(newest['rows'].values()):,} rows"
        if newest
        else "no version yet"
    )
    return LoopStage(
        "Dataset",
        "dataset",
        "/datasets",
        f"{new:,}",
        "new example" if new == 1 else "new examples",
        state,
        "plain",
        newest["created_at"] if newest else None,
        "built",
    )


def _training(reading: HealthReading) -> LoopStage:
    running = next((run for run in reading.runs if run["state"] == "running"), None)
    if running:
        progress = running["progress"]
        share = progress.get("step", 0) / max(progress.get("steps", 0), 1)
        silent = reading.now - running["heartbeat_at"] > RUN_SILENT_MS
        state, kind = (
            ("its worker is silent", "bad")
            if silent
            else (progress.get("stage", "running"), "information")
        )
        return LoopStage(
            "Training",
            "runs",
            f"/runs/{running['id']}",
            f"{100 * share:.0f} %",
            f"of the training of {running['alias']}",
            state,
            kind,
            running["started_at"],
            "started",
        )
    if reading.requests:
        return LoopStage(
            "Training",
            "runs",
            "/runs",
            str(len(reading.requests)),
            "waiting for a worker",
            "requested",
            "attention",
            reading.requests[0]["created_at"],
            "asked",
        )
    if not reading.runs:
        return LoopStage(
            "Training", "runs", "/runs", "0", "runs", "nothing trained yet", "plain", None, "ended"
        )
    last = reading.runs[0]
    kind = {"succeeded": "good", "failed": "bad"}.get(last["state"], "plain")
    return LoopStage(
        "Training",
        "runs",
        f"/runs/{last['id']}",
        "0",
        "running",
        f"last one {last['state']}",
        kind,
        last["finished_at"],
        "ended",
    )


def _rollout(reading: HealthReading) -> LoopStage:
    if not reading.rollouts:
        return LoopStage(
            "Rollout",
            "adapters",
            "/adapters",
            "0",
            "aliases live",
            "the base answers everything",
            "plain",
            None,
            "changed",
        )
    newest = max(reading.rollouts.values(), key=lambda rollout: rollout.created_at)
    names = {adapter.digest: f"v{adapter.version}" for adapter in reading.adapters}
    if newest.candidate_digest:
        value, unit = (
            f"{100 * newest.candidate_share:.0f} %",
            (
                f"of {newest.alias} to"
                f" {names.get(newest.candidate_digest, newest.candidate_digest[:8])}"
            ),
        )
        return LoopStage(
            "Rollout",
            "adapters",
            f"/adapters/{newest.alias}",
            value,
            unit,
            "trying a new version",
            "information",
            newest.created_at,
            "changed",
        )
    value = names.get(newest.stable_digest or "", "base")
    state, kind = (
        ("rolled back", "attention")
        if newest.state == "rolled_back"
        else ("pinned", "information")
        if newest.pinned
        else ("live", "good")
    )
    return LoopStage(
        "Rollout",
        "adapters",
        f"/adapters/{newest.alias}",
        value,
        f"answers {newest.alias}",
        state,
        kind,
        newest.created_at,
        "since",
    )
