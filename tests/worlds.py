"""Whole installations in the middle of their circle, of 7 or of 100,000 conversations, for tests
and for looking at pages.
"""

from __future__ import annotations

import random
from typing import Any

from sqlalchemy import Connection, insert

from tests.builders import (
    DAY,
    HOUR,
    MINUTE,
    add_adapter,
    add_alert,
    add_dataset,
    add_drift_report,
    add_evaluation,
    add_example,
    add_lease,
    add_replica,
    add_request,
    add_review_item,
    add_rollout,
    add_run,
    digest,
    interaction_row,
)
from whet.context import Context
from whet.database import writing
from whet.tables import interactions, ratings

_TOPICS = (
    (
        "How long is the warranty of the {p}?",
        (
            "The {p} has a warranty of {m} months. If it fails in that time, send it to us with the"
            " receipt and we repair it free of charge."
        ),
    ),
    (
        "My {p} does not turn on any more.",
        (
            "I am sorry to hear that. Hold the power button of the {p} for {m} seconds; if it stays"
            " dark, write to care@zenith.example and we send a label."
        ),
    ),
    (
        "Can I return the {p}? I bought it {m} days ago.",
        (
            "Yes. You may return the {p} within 30 days; print the label in your account and drop"
            " the parcel at any shop."
        ),
    ),
    (
        "the {p} keeps losing wifi every few minutes",
        (
            "Please update the {p} to the newest firmware and place it within {m} metres of the"
            " router. Does it still disconnect after that?"
        ),
    ),
    (
        "Wo finde ich die Seriennummer?",
        "Die Seriennummer steht auf der Unterseite des {p}, unter dem Strichcode.",
    ),
)
_PRODUCTS = ("Aurora 2", "Lumen Mini", "Pulse One", "Vela Speaker", "Orbit Hub")


def traffic(
    connection: Connection,
    count: int,
    now: int,
    *,
    days: float = 3,
    seed: int = 1,
    live: int = 2,
    candidate: int | None = 3,
) -> list[str]:
    """`count` interactions spread over the last `days`, with mistakes, cancelled streams and
    ratings; returns their ids, oldest first.
    """
    noise = random.Random(seed)
    rows, votes = [], []
    for index in range(count):
        at = int(now - days * DAY * (1 - (index + 1) / (count + 1)))
        question, answer = noise.choice(_TOPICS)
        product = noise.choice(_PRODUCTS)
        months = noise.choice((12, 24, 36))
        draw = noise.random()
        trial = at > now - 18 * HOUR  # since then the candidate gets a tenth
        version = (
            candidate
            if candidate and trial and draw < 0.1
            else live
            if index > count * 0.4
            else max(1, live - 1)
        )
        first = max(9.0, noise.gauss(64, 14))
        over: dict[str, Any] = {
            "version": version,
            "arm": "candidate" if version == candidate else "stable",
            "adapter_digest": digest("support", version),
            "rollout_generation": 3 if trial else version,
        }
        over |= {
            "prompt_tokens": noise.randint(18, 90),
            "completion_tokens": noise.randint(12, 70),
            "ttft_ms": first,
            "duration_ms": first + noise.uniform(200, 900),
        }
        text: str | None = answer.format(p=product, m=months)
        if draw > 0.985:
            text = None
            over |= {
                "status": "error",
                "http_status": 503,
                "error": "No replica could answer support at this moment.",
                "finish_reason": None,
                "ttft_ms": None,
                "completion_tokens": None,
            }
        elif draw > 0.97:
            text = str(text)[:25]
            over |= {"status": "cancelled", "finish_reason": None}
        elif draw > 0.9:
            over["retrieved"] = [
                {
                    "document_id": "warranty",
                    "title": "Warranty terms 2026",
                    "text": f"The {product} carries {months} months from the date of purchase.",
                    "score": 0.83,
                }
            ]
        if noise.random() < 0.4:
            over["end_user"] = f"u-{noise.randint(1, 60)}"
        row = interaction_row(
            at, question=question.format(p=product, m=months), answer=text, **over
        )
        rows.append(row)
        if text and noise.random() < 0.12:
            value = 1 if noise.random() < 0.65 else -1
            votes.append(
                {
                    "id": digest(row["id"], value),
                    "interaction_id": row["id"],
                    "api_key_id": "key_test",
                    "rating": value,
                    "comment": None if value > 0 else "This is not what your site says.",
                    "correction": None,
                    "labels": None,
                    "created_at": at + MINUTE,
                }
            )
    for start in range(0, len(rows), 2000):
        connection.execute(insert(interactions), rows[start : start + 2000])
    if votes:
        connection.execute(insert(ratings), votes)
    return [str(row["id"]) for row in rows]


def world(context: Context, count: int, now: int) -> dict[str, Any]:
    """An installation in the middle of its circle: v2 live, v3 on a tenth of the traffic, v4
    training, a queue, an alert.

    `count` interactions; 0 leaves the database as it is. Returns ids by name.
    """
    if count == 0:
        return {}
    with writing(context.database) as connection:
        ids = traffic(connection, count, now)
        made = [
            add_example(connection, item, now - DAY + index * MINUTE)[0]
            for index, item in enumerate(ids[: min(36, max(1, count // 3))])
        ]
        for index, item in enumerate(ids[len(made) : len(made) + min(23, count // 3)]):
            add_review_item(connection, item, now - 5 * HOUR + index * MINUTE)
        first = add_dataset(connection, now - 9 * DAY)
        second = add_dataset(
            connection, now - 20 * HOUR, version=2, example_ids=made, parents=[first], train=520
        )
        runs, digests = [], []
        for version, (data, age, gate) in enumerate(
            ((first, 9 * DAY, "pass"), (first, 4 * DAY, "pass"), (second, 19 * HOUR, "pass")),
            start=1,
        ):
            run = add_run(
                connection, now - age, dataset=data, adapter_digest=digest("support", version)
            )
            own = add_adapter(
                connection, now - age + 80_000, version=version, dataset=data, run=run, gate=gate
            )
            add_evaluation(
                connection,
                now - age + 90_000,
                adapter=own,
                dataset=data,
                run=run,
                against=digests[-1] if digests else None,
            )
            runs.append(run)
            digests.append(own)
        third = add_dataset(
            connection, now - 10 * MINUTE, version=3, example_ids=made, parents=[second], train=610
        )
        request = add_request(connection, now - 3 * MINUTE, dataset=third)
        live_run = add_run(
            connection,
            now - 40_000,
            dataset=third,
            state="running",
            request=request,
            step=88,
            heartbeat_at=now - 900,
        )
        failed = add_run(
            connection,
            now - 2 * DAY,
            dataset=first,
            state="failed",
            error="The disk is full: 12 MiB were left and the checkpoint needs 40 MiB.",
            step=31,
        )
        add_rollout(connection, now - 9 * DAY + HOUR, stable=digests[0], reason="first version")
        add_rollout(
            connection,
            now - 4 * DAY + HOUR,
            generation=2,
            stable=digests[1],
            previous_digest=digests[0],
            reason="passed its gate",
        )
        add_rollout(
            connection,
            now - 18 * HOUR,
            generation=3,
            stable=digests[1],
            candidate=digests[2],
            share=0.1,
            previous_digest=digests[0],
            reason="passed its gate; first step",
            actor="rollout controller",
        )
        add_replica(connection, now - 2000, ready=tuple(digests))
        add_alert(connection, now - 2 * HOUR)
        add_drift_report(
            connection,
            now - 2 * HOUR,
            verdict="drift",
            summary="Questions about warranty doubled; answers got shorter by 18 %.",
        )
        add_lease(connection, "reconciler", "gateway:4242", now + HOUR)
        add_lease(connection, "scheduler", "scheduler:4243", now + HOUR)
    return {
        "interactions": ids,
        "runs": runs,
        "live_run": live_run,
        "failed_run": failed,
        "digests": digests,
        "datasets": [first, second, third],
    }
