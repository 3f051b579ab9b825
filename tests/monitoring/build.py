"""Conversations for tests: a small support desk with users, words and habits of its own, built from
a seed.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from sqlalchemy import insert

from monitoring.alert_store import Alert
from monitoring.rows import Row, row_from_record
from whet.context import Context
from whet.database import writing
from whet.records.monitoring import AlertDetail
from whet.tables import interactions, ratings, rollouts

NOW = 1_800_000_000_000
HOUR = 3_600_000

_OPENINGS = (
    "my",
    "hello my",
    "hi the",
    "sorry but my",
    "since monday my",
    "our",
    "the",
    "help the",
    "why is it that my",
    "i think the",
)
_THINGS = (
    "kettle",
    "toaster",
    "lamp",
    "radio",
    "heater",
    "speaker",
    "camera",
    "drill",
    "fan",
    "blender",
    "printer",
    "scale",
)
_FAULTS = (
    "does not start",
    "makes a loud noise",
    "gets too hot",
    "lost its colour",
    "stops after a minute",
    "has a broken switch",
    "smells odd",
    "leaks water",
)
_ASKS = (
    "what should i do",
    "is that covered",
    "how long is the warranty",
    "can i send it back",
    "who repairs it",
    "do you have a spare part",
    "can you help me",
)
_ANSWERS = (
    "please send it to our workshop",
    "the warranty covers that",
    "switch it off and wait an hour",
    "a spare part is on its way",
    "you can return it within thirty days",
)


def question(rng: np.random.Generator, things: tuple[str, ...] = _THINGS) -> str:
    pick = lambda options: options[int(rng.integers(len(options)))]  # noqa: E731
    return (
        f"{pick(_OPENINGS)} {pick(things)} {pick(_FAULTS)}, {pick(_ASKS)}? order"
        f" {int(rng.integers(10_000, 99_999))}"
    )


def answer(rng: np.random.Generator) -> str:
    pick = lambda options: options[int(rng.integers(len(options)))]  # noqa: E731
    return (
        f"Thank you for your message about the {pick(_THINGS)}: {pick(_ANSWERS)}, and"
        f" {pick(_ANSWERS)}."
    )


def records(
    n: int,
    seed: int,
    *,
    start_at: int = NOW - 100 * HOUR,
    step_ms: int = 1000,
    alias: str = "support",
    digest: str | None = "d" * 64,
    users: int | None = None,
    habits: bool = False,
    new_words: float = 0.0,
    refusals: float = 0.03,
    slower: float = 1.0,
    prefix: str = "int",
) -> list[dict[str, Any]]:
    """`n` complete interactions, one each `step_ms`.

    `users`: how many end users share them; None gives each its own.

    `habits`: each user has one favourite product, way of asking and patience, so that one user's
    rows resemble each other.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        user = f"u{seed}-{int(rng.integers(users))}" if users else f"u{seed}-{i}"
        things = _THINGS
        if habits:
            own = np.random.default_rng(zlib.crc32(user.encode()))
            things = (_THINGS[int(own.integers(len(_THINGS)))],) if rng.random() < 0.8 else _THINGS
            refusals = float(own.beta(0.6, 19.4))
        asked = question(
            rng, ("aurora panel", "aurora tile") if rng.random() < new_words else things
        )
        if habits:
            asked = f"{'please ' * int(own.integers(4))}{asked}"
        refused = rng.random() < refusals
        said = "I'm sorry, but I cannot help with that." if refused else answer(rng)
        tokens = max(1, int(len(said.split()) * 1.3 + rng.normal(0, 2)))
        ttft = float(np.exp(rng.normal(5, 0.4))) * slower
        rows.append(
            {
                "id": f"{prefix}_{seed}_{i:06d}",
                "request_id": f"r{seed}-{i}",
                "created_at": start_at + i * step_ms,
                "completed_at": start_at + i * step_ms + 500,
                "api_key_id": "key_1",
                "end_user": user,
                "route": "chat",
                "model": alias,
                "alias": alias,
                "adapter": alias if digest else None,
                "version": 1 if digest else None,
                "adapter_digest": digest,
                "arm": "stable",
                "rollout_generation": 1,
                "replica": "http://127.0.0.1:18200",
                "stream": bool(rng.random() < 0.7),
                "status": "complete",
                "http_status": 200,
                "error": None,
                "finish_reason": "length" if rng.random() < 0.04 else "stop",
                "request": {
                    "model": alias,
                    "messages": [
                        {"role": "system", "content": "You are kind."},
                        {"role": "user", "content": asked},
                    ],
                },
                "response": {"role": "assistant", "content": said},
                "response_text": said,
                "response_sha256": "0" * 64,
                "prompt_tokens": int(len(asked.split()) * 1.4 + rng.integers(0, 6)) + 20,
                "completion_tokens": tokens,
                "ttft_ms": ttft,
                "duration_ms": ttft + tokens * float(np.exp(rng.normal(3, 0.2))) * slower,
                "retrieved": None,
                "metadata": None,
            }
        )
    return rows


def rows(n: int, seed: int, *, rated: float = 0.2, unhappy: float = 0.2, **world: Any) -> list[Row]:
    """The same as monitoring reads them, a share of them rated."""
    rng = np.random.default_rng(seed + 1_000_000)
    thumbs = [
        (-1 if rng.random() < unhappy else 1) if rng.random() < rated else None for _ in range(n)
    ]
    return [
        row_from_record(record, thumb)
        for record, thumb in zip(records(n, seed, **world), thumbs, strict=True)
    ]


def insert_records(context: Context, found: list[dict[str, Any]]) -> None:
    with writing(context.database) as connection:
        connection.execute(insert(interactions), found)


def insert_ratings(context: Context, given: dict[str, int], at: int = NOW) -> None:
    found = [{"id": f"rat_{i}_{value}", "interaction_id": i, "api_key_id": "key_1", "rating": value, "comment": None, "correction": None, "labels": None, "created_at": at} for i, value in given.items()]  # fmt: skip
    with writing(context.database) as connection:
        connection.execute(insert(ratings), found)


def promote(
    context: Context,
    *,
    at: int,
    digest: str | None = "d" * 64,
    generation: int = 1,
    alias: str = "support",
    candidate: str | None = None,
) -> None:
    with writing(context.database) as connection:
        connection.execute(
            insert(rollouts).values(
                id=f"rol_{alias}_{generation}",
                alias=alias,
                generation=generation,
                stable_digest=digest,
                candidate_digest=candidate,
                candidate_share=0.1 if candidate else 0.0,
                previous_digest=None,
                pinned=False,
                state="canary" if candidate else "live",
                reason="test",
                actor="test",
                created_at=at,
            )
        )


def make_alert(detail: dict[str, Any] | None = None, **over: Any) -> Alert:
    """Return an open alert; `detail` as it is stored."""
    row: dict[str, Any] = {
        "id": "alr_1",
        "dedup_key": "k",
        "alias": "support",
        "kind": "questions",
        "severity": "attention",
        "title": "support: questions changed.",
        "state": "open",
        "opened_at": NOW,
        "changed_at": NOW,
        "changed_by": None,
        "open_marker": "k",
    }
    return Alert(**{**row, **over}, detail=AlertDetail.model_validate(detail or {}))
