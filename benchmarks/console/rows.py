"""Fills a database with a million interactions and twenty thousand items to review.

Texts are drawn from words whose frequencies fall as in a language (Zipf), so that a search meets
common, usual and rare words; threads, users, tags, versions and ratings as an installation has
them. The same seed gives the same rows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert

from whet.context import Context
from whet.database import writing
from whet.ids import new_id
from whet.tables import api_keys, interactions, ratings, review_items, reviews

DAY_MS = 86_400_000
_BLOCK = 2_000  # rows of a transaction
_VOCABULARY = 40_000
_COMMON = [
    "the",
    "a",
    "to",
    "of",
    "and",
    "is",
    "in",
    "for",
    "my",
    "your",
    "order",
    "parcel",
    "refund",
    "delivery",
    "warranty",
    "invoice",
    "account",
    "password",
    "zodiac",
    "repair",
    "crack",
    "battery",
    "charger",
    "return",
    "label",
    "address",
    "card",
    "payment",
    "days",
    "working",
    "please",
    "thank",
    "sorry",
    "when",
    "how",
    "can",
    "not",
    "does",
    "it",
    "with",
    "on",
    "at",
    "by",
    "from",
]
_PHRASE = "where is my parcel"  # one of its words is rare by itself, all are common together


@dataclass(frozen=True, slots=True)
class Size:
    """How much is made."""

    interactions: int = 1_000_000
    items: int = 20_000
    days: int = 30
    seed: int = 1


class _Texts:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        letters = "bcdfghklmnprstvz"
        vowels = "aeiou"
        rare = [
            "".join(
                self.random.choice(letters if at % 2 == 0 else vowels)
                for at in range(self.random.randint(5, 10))
            )
            for _ in range(_VOCABULARY - len(_COMMON))
        ]
        self.words = [*_COMMON, *rare]
        self.cumulative: list[float] = []
        total = 0.0
        for rank in range(len(self.words)):
            total += 1 / (rank + 2.7)
            self.cumulative.append(total)

    def text(self, least: int, most: int) -> str:
        count = self.random.randint(least, most)
        words = self.random.choices(self.words, cum_weights=self.cumulative, k=count)
        if self.random.random() < 0.02:
            words.insert(self.random.randrange(count), _PHRASE)
        return " ".join(words)


def fill(context: Context, size: Size, now: int) -> Iterator[int]:
    """Write rows, oldest first; yields how many are there. Interactions in threads of 1 to 4."""
    texts = _Texts(size.seed)
    with writing(context.database) as connection:
        key = {"id": "key_load", "name": "load", "hash": "load", "hint": "whet-", "created_at": now,
               "group_name": "key_load"}  # fmt: skip
        connection.execute(insert(api_keys), [key])
    threads: list[list[dict[str, str]]] = []
    step = size.days * DAY_MS / size.interactions
    made = 0
    while made < size.interactions:
        block = []
        for number in range(made, min(made + _BLOCK, size.interactions)):
            at = round(now - (size.interactions - number) * step)
            block.append(_interaction(texts, threads, at, number))
        _write(context, texts, block, now, size)
        made += len(block)
        yield made


def _interaction(
    texts: _Texts, threads: list[list[dict[str, str]]], at: int, number: int
) -> dict[str, Any]:
    chance = texts.random
    history: list[dict[str, str]] = []
    if threads and chance.random() < 0.5:
        history = threads.pop(chance.randrange(len(threads)))
    question, answer = texts.text(8, 30), texts.text(20, 120)
    said = [*history, {"role": "user", "content": question}]
    after = [*said, {"role": "assistant", "content": answer}]
    if len(after) < 8 and chance.random() < 0.5:
        threads.append(after)
        del threads[:-200]
    status = chance.choices(("complete", "cancelled", "error", "cut"), (96, 2, 1.5, 0.5))[0]
    is_base = chance.random() < 0.03
    version = None if is_base else 1 + number * 12 // 1_000_000 + chance.randrange(2)
    alias = None if is_base else chance.choices(("support", "billing", "sales"), (80, 15, 5))[0]
    return {
        "id": new_id("int", at=at),
        "request_id": new_id("req", at=at),
        "created_at": at,
        "completed_at": at + 800,
        "api_key_id": "key_load",
        "end_user": f"user-{chance.randrange(20_000)}",
        "route": "chat",
        "model": alias or "base",
        "alias": alias,
        "adapter": alias,
        "version": version,
        "adapter_digest": f"{version:064d}" if version else None,
        "arm": "base" if is_base else "stable",
        "rollout_generation": None if is_base else 1,
        "replica": "http://127.0.0.1:8001",
        "stream": True,
        "status": status,
        "http_status": 500 if status == "error" else 200,
        "error": "The engine was restarted." if status == "error" else None,
        "finish_reason": "stop",
        "request": {"model": alias or "base", "messages": said},
        "response": {"role": "assistant", "content": answer},
        "response_text": answer,
        "response_sha256": None,
        "prompt_tokens": 30 * len(said),
        "completion_tokens": len(answer) // 5,
        "ttft_ms": round(chance.lognormvariate(4.5, 0.5), 1),
        "duration_ms": round(chance.lognormvariate(7, 0.6), 1),
        "retrieved": None,
        "retrieval": None,
        "metadata": {"feature": chance.choice(("chat", "mail", "widget")), "plan": "pro"},
    }


def _write(
    context: Context, texts: _Texts, block: list[dict[str, Any]], now: int, size: Size
) -> None:
    chance = texts.random
    votes, items, decisions = [], [], []
    share = size.items / size.interactions
    for row in block:
        if chance.random() < 0.03:
            votes.append({
                "id": row["id"], "interaction_id": row["id"], "api_key_id": "key_load",
                "rating": chance.choice((-1, 1, 1)), "comment": None, "correction": None,
                "labels": None, "created_at": row["created_at"] + 5_000,
            })  # fmt: skip
        if row["alias"] and row["status"] == "complete" and chance.random() < share * 1.08:
            is_waiting = chance.random() < 0.3
            item = new_id("itm", at=row["created_at"] + 60_000)
            items.append({
                "id": item, "interaction_id": row["id"], "alias": row["alias"],
                "reason": chance.choice(("rating", "audit", "drift")),
                "why": "Drawn at random.", "priority": chance.random(),
                "sampling_probability": None, "alert_id": None,
                "state": "waiting" if is_waiting else "done", "claimed_by": None,
                "claimed_until": None, "created_at": row["created_at"] + 60_000,
            })  # fmt: skip
            if not is_waiting:
                review = new_id("rev", at=row["created_at"] + 90_000)
                decisions.append({
                    "id": review, "item_id": item, "interaction_id": row["id"],
                    "reviewer": chance.choice(("ann", "bob", "eve")),
                    "decision": chance.choice(("approve", "edit", "reject")),
                    "answer": row["response_text"], "labels": [], "note": None,
                    "seconds": chance.uniform(3, 60), "passage_verdict": None,
                    "passage_ids": None, "created_at": row["created_at"] + 90_000,
                    "undone_at": None, "standing": item,
                })  # fmt: skip
    with writing(context.database) as connection:
        connection.execute(insert(interactions), block)
        for table, rows in ((ratings, votes), (review_items, items), (reviews, decisions)):
            if rows:
                connection.execute(insert(table), rows)
