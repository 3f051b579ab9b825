"""Items about trainings that failed and versions that somebody must decide about."""

from __future__ import annotations

from whet.health.processes import RUN_SILENT_MS
from whet.health.records import ActionItem, HealthReading
from whet.registry import Adapter, Rollout
from whet.web.filters import clip


def find_training_items(reading: HealthReading) -> list[ActionItem]:
    """Return runs without a worker, and the last run of an alias where it failed."""
    found = []
    seen: set[str] = set()
    for run in reading.runs:
        href = f"/runs/{run['id']}"
        if run["state"] == "running" and reading.now - run["heartbeat_at"] > RUN_SILENT_MS:
            found.append(
                ActionItem(
                    "run_silent",
                    69,
                    "bad",
                    f"The run that trains {run['alias']} is silent: its worker may be gone.",
                    href,
                    run["heartbeat_at"],
                    "Start a worker (`whet up` does); it continues at the last checkpoint.",
                )
            )
        # Only when nothing newer trained that alias
        if run["state"] == "failed" and run["alias"] not in seen:
            found.append(
                ActionItem(
                    "run_failed",
                    50,
                    "attention",
                    f"The last run for {run['alias']} failed: {clip(run['error'], 120)}",
                    href,
                    run["finished_at"],
                )
            )
        seen.add(run["alias"])
    return found


def find_version_items(reading: HealthReading) -> list[ActionItem]:
    """Return newest versions that wait for a decision, and versions that a replica refused."""
    found = []
    for alias, rollout in reading.rollouts.items():
        newest = _undecided(reading, alias, rollout)
        if newest is None:
            continue
        href = f"/adapters/{alias}/v{newest.version}"
        if newest.gate == "inconclusive":
            reason = reading.gate_reasons.get(newest.digest, "no reason recorded")
            sentence = f"The gate could not decide on {newest.label}: {reason}"
        elif newest.gate == "pass" and rollout.pinned:
            sentence = f"{newest.label} passed its gate, but {alias} is pinned."
        else:
            continue
        found.append(
            ActionItem("version_waits", 45, "attention", sentence, href, newest.created_at)
        )
    return [*found, *_refusals(reading)]


def _undecided(reading: HealthReading, alias: str, rollout: Rollout) -> Adapter | None:
    """The alias's newest version, where neither a rollout nor a newer live one has decided."""
    newest = next((adapter for adapter in reading.adapters if adapter.name == alias), None)
    pointed = (rollout.stable_digest, rollout.candidate_digest, rollout.previous_digest)
    if newest is None or newest.digest in pointed:
        return None
    live = (one for one in reading.adapters if one.digest == rollout.stable_digest)
    stable = next(live, None)
    return None if stable is not None and stable.version > newest.version else newest


def _refusals(reading: HealthReading) -> list[ActionItem]:
    by_digest = {adapter.digest: adapter for adapter in reading.adapters}
    found = []
    for replica in reading.replicas:
        for digest, reason in (replica["refused"] or {}).items():
            adapter = by_digest.get(digest)
            label = adapter.label if adapter else digest[:8]
            found.append(
                ActionItem(
                    "version_refused",
                    58,
                    "bad",
                    f"{replica['url']} refuses {label}: {clip(reason, 160)}",
                    f"/adapters/{adapter.name}/v{adapter.version}" if adapter else "/adapters",
                    None,
                )
            )
    return found
