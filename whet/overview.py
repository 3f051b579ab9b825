"""How the product is at this moment, in one document: `whet status` prints it, scripts read it as
JSON.
"""

from __future__ import annotations

from typing import TypedDict

from sqlalchemy import Connection, func, select

from whet.context import Context
from whet.database import reading
from whet.health.action_items import find_action_items
from whet.health.reading import HOUR_MS, load_reading
from whet.health.records import ActionItemFacts, HealthReading
from whet.json_types import JsonObject
from whet.registry import current_rollouts
from whet.tables import (
    adapters,
    alerts,
    interactions,
    replicas,
    review_items,
    training_requests,
    training_runs,
)
from whet.up import state
from whet.up.state import SupervisorStatus

_RECENT_RUNS = 5


class ReplicaFacts(TypedDict):
    """One engine."""

    url: str
    state: str
    detail: str | None
    adapters_ready: int
    adapters_refused: int
    seen_at: int


class AliasFacts(TypedDict):
    """Which versions answer an alias."""

    alias: str
    stable: str
    candidate: str | None
    candidate_share: float
    state: str
    generation: int
    since: int
    reason: str


class TrafficFacts(TypedDict):
    """Requests of the last hour."""

    last_hour: int
    complete: int
    failed: int


class QueueFacts(TypedDict):
    """Conversations that wait for a reviewer."""

    waiting: int
    by_reason: dict[str, int]


class AlertFacts(TypedDict):
    """One open alert."""

    id: str
    alias: str
    severity: str
    state: str
    title: str
    opened_at: int


class RunFacts(TypedDict):
    """One training run."""

    id: str
    alias: str
    state: str
    progress: JsonObject | None
    error: str | None
    started_at: int


class TrainingFacts(TypedDict):
    """Requests without a run, and the newest runs."""

    requests_waiting: int
    runs: list[RunFacts]


class Overview(TypedDict):
    """What `whet status` tells."""

    health: list[ActionItemFacts]
    home: str
    at: int
    supervisor: SupervisorStatus | None
    replicas: list[ReplicaFacts]
    aliases: list[AliasFacts]
    traffic: TrafficFacts
    review: QueueFacts
    alerts: list[AlertFacts]
    training: TrainingFacts


def overview(context: Context, *, now: int) -> Overview:
    """What needs a person, processes, replicas, aliases, the last hour's traffic, the review queue, open alerts, and
    training.
    """
    found = load_reading(context, now)
    with reading(context.database) as connection:
        return {
            "health": [item.as_json() for item in find_action_items(found)],
            "home": str(context.settings.home),
            "at": now,
            "supervisor": state.read_status(context.settings.home),
            "replicas": _replicas(connection),
            "aliases": _aliases(connection),
            "traffic": _traffic(connection, found),
            "review": _queue(connection),
            "alerts": _alerts(connection),
            "training": _training(connection),
        }


def _replicas(connection: Connection) -> list[ReplicaFacts]:
    return [
        {
            "url": row.url,
            "state": row.state,
            "detail": row.detail,
            "adapters_ready": len(row.ready),
            "adapters_refused": len(row.refused),
            "seen_at": row.seen_at,
        }
        for row in connection.execute(select(replicas).order_by(replicas.c.url))
    ]


def _aliases(connection: Connection) -> list[AliasFacts]:
    labels = {
        row.digest: f"{row.name}@v{row.version}"
        for row in connection.execute(
            select(adapters.c.digest, adapters.c.name, adapters.c.version)
        )
    }
    return [
        {
            "alias": rollout.alias,
            "stable": labels.get(rollout.stable_digest or "", "base"),
            "candidate": labels.get(rollout.candidate_digest) if rollout.candidate_digest else None,
            "candidate_share": rollout.candidate_share,
            "state": "pinned" if rollout.pinned else rollout.state,
            "generation": rollout.generation,
            "since": rollout.created_at,
            "reason": rollout.reason,
        }
        for rollout in sorted(
            current_rollouts(connection).values(), key=lambda rollout: rollout.alias
        )
    ]


def _traffic(connection: Connection, found: HealthReading) -> TrafficFacts:
    complete = select(func.count()).where(
        interactions.c.created_at > found.now - HOUR_MS, interactions.c.status == "complete"
    )
    return {
        "last_hour": found.answers,
        "complete": connection.execute(complete).scalar_one(),
        "failed": found.failed,
    }


def _queue(connection: Connection) -> QueueFacts:
    query = (
        select(review_items.c.reason, func.count())
        .where(review_items.c.state == "waiting")
        .group_by(review_items.c.reason)
    )
    by_reason = {row[0]: row[1] for row in connection.execute(query)}
    return {"waiting": sum(by_reason.values()), "by_reason": by_reason}


def _alerts(connection: Connection) -> list[AlertFacts]:
    query = (
        select(alerts)
        .where(alerts.c.state.in_(("open", "acknowledged")))
        .order_by(alerts.c.opened_at.desc())
        .limit(20)
    )
    return [
        {
            "id": row.id,
            "alias": row.alias,
            "severity": row.severity,
            "state": row.state,
            "title": row.title,
            "opened_at": row.opened_at,
        }
        for row in connection.execute(query)
    ]


def _training(connection: Connection) -> TrainingFacts:
    runs = connection.execute(
        select(training_runs).order_by(training_runs.c.started_at.desc()).limit(_RECENT_RUNS)
    ).all()
    claimed = select(training_runs.c.request_id).where(training_runs.c.request_id.is_not(None))
    waiting = connection.execute(
        select(func.count())
        .select_from(training_requests)
        .where(training_requests.c.id.not_in(claimed))
    ).scalar_one()
    return {
        "requests_waiting": waiting,
        "runs": [
            {
                "id": row.id,
                "alias": row.alias,
                "state": row.state,
                "progress": row.progress,
                "error": row.error,
                "started_at": row.started_at,
            }
            for row in runs
        ],
    }
