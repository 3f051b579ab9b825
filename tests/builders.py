"""Rows as the packages would write them, for tests and for looking at pages: 0, 7 or 100,000 of
them.

Each function inserts one thing with sensible defaults and returns its id or digest;
`tests/worlds.py` builds whole installations of them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert

from whet.ids import new_id
from whet.tables import (
    adapters,
    alerts,
    datasets,
    drift_reports,
    evaluations,
    examples,
    interactions,
    leases,
    ratings,
    replicas,
    review_items,
    reviews,
    rollouts,
    training_requests,
    training_runs,
)

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def digest(*parts: object) -> str:
    """A digest that is the same for the same parts."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def interaction_row(
    at: int,
    *,
    question: str = "How long is the warranty?",
    answer: str | None = "24 months.",
    alias: str | None = "support",
    version: int | None = 1,
    **over: Any,
) -> dict[str, Any]:
    """One `interactions` row as a dict, for `add_interaction` and bulk inserts. `at`: ms."""
    adapter = alias if version is not None else None
    row = {
        "id": new_id("int", at=at),
        "request_id": new_id("req", at=at),
        "created_at": at,
        "completed_at": at + 420,
        "api_key_id": "key_test",
        "end_user": None,
        "route": "chat",
        "model": alias or "base",
        "alias": alias,
        "adapter": adapter,
        "version": version,
        "adapter_digest": digest(adapter, version) if adapter else None,
        "arm": "stable" if adapter else "base",
        "rollout_generation": 1 if adapter else None,
        "replica": "http://127.0.0.1:8001",
        "stream": True,
        "status": "complete",
        "http_status": 200,
        "error": None,
        "finish_reason": "stop",
        "request": {
            "model": alias or "base",
            "messages": [
                {"role": "system", "content": "You are the support desk of Zenith."},
                {"role": "user", "content": question},
            ],
        },
        "response": {"role": "assistant", "content": answer} if answer is not None else None,
        "response_text": answer,
        "response_sha256": digest(answer),
        "prompt_tokens": 40,
        "completion_tokens": 32,
        "ttft_ms": 61.0,
        "duration_ms": 420.0,
        "retrieved": None,
        "metadata": None,
    }
    return row | over


def add_interaction(connection: Connection, at: int, **over: Any) -> str:
    row = interaction_row(at, **over)
    connection.execute(insert(interactions).values(**row))
    return str(row["id"])


def add_rating(
    connection: Connection,
    interaction_id: str,
    at: int,
    *,
    rating: int = -1,
    comment: str | None = None,
    correction: str | None = None,
    labels: list[str] | None = None,
    api_key_id: str = "key_test",
) -> str:
    rating_id = digest(interaction_id, rating, comment, correction, api_key_id)
    connection.execute(
        insert(ratings).values(
            id=rating_id,
            interaction_id=interaction_id,
            api_key_id=api_key_id,
            rating=rating,
            comment=comment,
            correction=correction,
            labels=labels,
            created_at=at,
        )
    )
    return rating_id


def add_adapter(
    connection: Connection,
    at: int,
    *,
    name: str = "support",
    version: int = 1,
    gate: str = "pass",
    dataset: str | None = None,
    run: str | None = None,
    **over: Any,
) -> str:
    own = digest(name, version)
    row = {
        "digest": own,
        "name": name,
        "version": version,
        "path": f"adapters/{name}/v{version}--{own[:8]}",
        "base_digest": digest("base"),
        "template_digest": digest("template"),
        "dataset_digest": dataset,
        "run_id": run,
        "rank": 16,
        "gate": gate,
        "card": {"recipe": {"rank": 16, "learning_rate": 0.004}},
        "created_at": at,
        "removed_at": None,
    }
    connection.execute(insert(adapters).values(**(row | over)))
    return own


def add_rollout(
    connection: Connection,
    at: int,
    *,
    alias: str = "support",
    generation: int = 1,
    stable: str | None = None,
    candidate: str | None = None,
    share: float = 0.0,
    **over: Any,
) -> str:
    row = {
        "id": new_id("rol", at=at),
        "alias": alias,
        "generation": generation,
        "stable_digest": stable,
        "candidate_digest": candidate,
        "candidate_share": share,
        "previous_digest": None,
        "pinned": False,
        "state": "canary" if candidate else "live",
        "reason": "promoted",
        "actor": "admin",
        "created_at": at,
    }
    connection.execute(insert(rollouts).values(**(row | over)))
    return str(row["id"])


def add_replica(
    connection: Connection,
    at: int,
    *,
    url: str = "http://127.0.0.1:8001",
    ready: tuple[str, ...] = (),
    refused: dict[str, str] | None = None,
    state: str = "ready",
) -> str:
    proved = {
        item: {"engine_name": item[:8], "proved_at": at, "parity": {"mean": 0.004}}
        for item in ready
    }
    connection.execute(
        insert(replicas).values(
            url=url,
            state=state,
            detail=None,
            ready=proved,
            refused=refused or {},
            base_digest=digest("base"),
            seen_at=at,
        )
    )
    return url


def add_dataset(
    connection: Connection,
    at: int,
    *,
    name: str = "support",
    version: int = 1,
    example_ids: list[str] | None = None,
    parents: list[str] | None = None,
    train: int = 450,
) -> str:
    own = digest("dataset", name, version)
    rows = {"train": train, "validation": max(1, train // 10), "test": max(1, train // 10)}
    connection.execute(
        insert(datasets).values(
            digest=own,
            name=name,
            version=version,
            path=f"datasets/{name}/v{version}",
            rows=rows,
            parents=parents or [],
            example_ids=example_ids or [],
            note=None,
            created_by="admin",
            created_at=at,
        )
    )
    return own


def add_request(
    connection: Connection,
    at: int,
    *,
    dataset: str,
    alias: str = "support",
    reason: str = "120 new reviewed examples",
) -> str:
    request_id = new_id("req", at=at)
    connection.execute(
        insert(training_requests).values(
            id=request_id,
            alias=alias,
            dataset_digest=dataset,
            recipe={},
            reason=reason,
            requested_by="policy",
            created_at=at,
        )
    )
    return request_id


def curve(steps: int, seed: int = 1) -> list[list[float]]:
    """A loss curve that falls with noise: [[step, loss, seconds], …]."""
    noise = random.Random(seed)
    return [
        [
            step,
            round(0.08 + 2.4 * 0.965**step + noise.uniform(-0.03, 0.05), 4),
            round(step * 0.45, 2),
        ]
        for step in range(1, steps + 1)
    ]


def add_run(
    connection: Connection,
    at: int,
    *,
    dataset: str,
    state: str = "succeeded",
    request: str | None = None,
    step: int = 160,
    steps: int = 160,
    **over: Any,
) -> str:
    run_id = new_id("run", at=at)
    finished = state != "running"
    row = {
        "id": run_id,
        "request_id": request,
        "alias": "support",
        "dataset_digest": dataset,
        "base_digest": digest("base"),
        "recipe": {
            "rank": 16,
            "alpha": 32,
            "learning_rate": 0.004,
            "epochs": 6,
            "batch_size": 16,
            "seed": 7,
            "target_modules": ["q_proj", "v_proj"],
        },
        "state": state,
        "progress": {
            "stage": "done" if finished else "training",
            "step": step,
            "steps": steps,
            "loss": 0.113,
            "tokens_per_s": 4180.0,
            "eta_s": 0 if finished else 31.0,
        },
        "curve": curve(step),
        "estimate": {
            "rows": 450,
            "seconds": 64,
            "tokens": 130_000,
            "trained_tokens": 41_200,
            "tokens_per_s": 4300,
            "steps": steps,
        },
        "adapter_digest": None,
        "error": None,
        "attempt": 1,
        "worker": "local:4711",
        "cancel_requested_by": None,
        "started_at": at,
        "heartbeat_at": at + 30_000,
        "finished_at": at + 72_000 if finished else None,
    }
    connection.execute(insert(training_runs).values(**(row | over)))
    return run_id


def add_evaluation(
    connection: Connection,
    at: int,
    *,
    adapter: str,
    dataset: str,
    against: str | None = None,
    run: str | None = None,
    verdict: str = "pass",
    reason: str = "",
    **over: Any,
) -> str:
    row = {
        "id": new_id("evl", at=at),
        "run_id": run,
        "adapter_digest": adapter,
        "against_digest": against,
        "dataset_digest": dataset,
        "metrics": {
            "old": {
                "n": 200,
                "candidate": 0.965,
                "against": 0.97,
                "difference": -0.005,
                "low": -0.03,
                "high": 0.02,
                "fixed": 2,
                "broken": 3,
                "measure": "correct",
            },
            "new": {
                "n": 80,
                "candidate": 0.9625,
                "against": 0.41,
                "difference": 0.5525,
                "low": 0.43,
                "high": 0.66,
                "fixed": 45,
                "broken": 1,
                "measure": "correct",
            },
            "regression": {
                "n": 36,
                "measure": "correct",
                "candidate": 1.0,
                "against": 0.2,
                "difference": 0.8,
                "low": 0.64,
                "high": 0.91,
                "fixed": 29,
                "broken": 0,
            },
        },
        "verdict": verdict,
        "reason": reason
        or "Better on new by 55 points (43 to 66), no worse on old: within the 2 points allowed.",
        "thresholds": {"old_may_lose": 0.02, "new_must_win": 0.0},
        "samples_path": None,
        "created_at": at,
    }
    connection.execute(insert(evaluations).values(**(row | over)))
    return str(row["id"])


def add_review_item(
    connection: Connection,
    interaction_id: str,
    at: int,
    *,
    why: str = "A customer rated this answer as wrong.",
    state: str = "waiting",
    reason: str = "rating",
    priority: float = 1.0,
) -> str:
    item_id = new_id("itm", at=at)
    connection.execute(
        insert(review_items).values(
            id=item_id,
            interaction_id=interaction_id,
            alias="support",
            reason=reason,
            why=why,
            priority=priority,
            sampling_probability=None,
            alert_id=None,
            state=state,
            claimed_by=None,
            claimed_until=None,
            created_at=at,
        )
    )
    return item_id


def add_review(
    connection: Connection,
    interaction_id: str,
    item_id: str,
    at: int,
    *,
    decision: str = "edit",
    answer: str | None = None,
    reviewer: str = "reviewer",
) -> str:
    """A decision that stands; returns its id. The item's state is the caller's."""
    review = new_id("rev", at=at)
    connection.execute(
        insert(reviews).values(
            id=review,
            item_id=item_id,
            interaction_id=interaction_id,
            reviewer=reviewer,
            decision=decision,
            answer=answer,
            labels=[],
            note=None,
            seconds=14.0,
            created_at=at,
            undone_at=None,
            standing=item_id,
        )
    )
    return review


def add_example(
    connection: Connection,
    interaction_id: str,
    at: int,
    *,
    reviewer: str = "reviewer",
    answer: str = "36 months.",
) -> tuple[str, str]:
    """A standing review with its example: (example id, review id)."""
    item = add_review_item(connection, interaction_id, at, state="done")
    review = add_review(connection, interaction_id, item, at, answer=answer, reviewer=reviewer)
    example = new_id("exm", at=at)
    row = {
        "id": example,
        "messages": [
            {"role": "user", "content": "How long is the warranty?"},
            {"role": "assistant", "content": answer},
        ],
    }
    connection.execute(
        insert(examples).values(
            id=example,
            digest=digest(row),
            alias="support",
            interaction_id=interaction_id,
            review_id=review,
            row=row,
            source="edited",
            end_user=None,
            created_at=at,
            withdrawn_at=None,
        )
    )
    return example, review


def add_alert(
    connection: Connection,
    at: int,
    *,
    title: str = "support answers warranty questions otherwise than last week: 41 conversations",
    severity: str = "attention",
    key: str = "drift:support",
    state: str = "open",
    interaction_ids: Sequence[str] = (),
) -> str:
    alert_id = new_id("alr", at=at)
    connection.execute(
        insert(alerts).values(
            id=alert_id,
            dedup_key=key,
            alias="support",
            kind="drift",
            severity=severity,
            title=title,
            detail={"signals": [], "interaction_ids": list(interaction_ids)},
            state=state,
            opened_at=at,
            changed_at=at,
            changed_by=None,
            open_marker=key if state in ("open", "acknowledged") else None,
        )
    )
    return alert_id


def add_drift_report(
    connection: Connection,
    at: int,
    *,
    verdict: str = "no_drift",
    summary: str = "No signal moved beyond its usual range.",
) -> str:
    report_id = new_id("drf", at=at)
    connection.execute(
        insert(drift_reports).values(
            id=report_id,
            alias="support",
            reference_from=at - 8 * DAY,
            reference_to=at - DAY,
            window_from=at - DAY,
            window_to=at,
            n_reference=2000,
            n_window=400,
            verdict=verdict,
            summary=summary,
            signals=[],
            report_path=None,
            created_at=at,
        )
    )
    return report_id


def add_lease(connection: Connection, name: str, owner: str, expires_at: int) -> None:
    connection.execute(
        insert(leases).values(name=name, owner=owner, expires_at=expires_at, token=1)
    )
