"""What the feedback tests build: conversations in the queue, a live adapter with seed rows behind
it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests import builders
from whet.context import Context
from whet.database import writing

NOW = 1_763_000_000_000  # a fixed instant, in the middle of a UTC day
ALIAS = "support"
CLAIM_MS = 900_000


def queued(
    context: Context,
    count: int,
    *,
    at: int = NOW,
    question: str = "How long is the warranty of product {n}?",
    **over: Any,
) -> list[str]:
    """`count` waiting items, each with its own conversation; ids in queue order."""
    items = []
    with writing(context.database) as connection:
        for n in range(count):
            interaction = builders.add_interaction(
                connection,
                at + n,
                question=question.format(n=n),
                answer=over.pop("answer", None) or f"{n} months.",
                **over,
            )
            items.append(
                builders.add_review_item(connection, interaction, at + n, priority=float(count - n))
            )
    return items


def seed_row(
    n: int, *, question: str = "", answer: str = "", split: str = "train", **over: Any
) -> dict[str, Any]:
    user = question or f"What does part number {n} of the {split} series cost in euros today?"
    return {
        "id": f"seed-{split}-{n}",
        "origin": "seed",
        "messages": [
            {"role": "system", "content": "You are the support desk of Zenith."},
            {"role": "user", "content": user},
            {"role": "assistant", "content": answer or f"{n} euros."},
        ],
        **over,
    }


def seed_dataset(
    context: Context, rows: dict[str, list[dict[str, Any]]] | None = None, *, name: str = "seed"
) -> str:
    """A seed folder as training stores it, and a live adapter trained on it.

    Returns the dataset's digest.
    """
    rows = rows or {
        "train": [seed_row(n) for n in range(12)],
        "validation": [],
        "test": [seed_row(n, split="test") for n in range(4)],
    }
    digest = builders.digest("seed rows", name)

    def fill(folder: Path) -> None:
        for split in ("train", "validation", "test"):
            (folder / f"{split}.jsonl").write_text(
                "".join(json.dumps(row) + "\n" for row in rows.get(split, []))
            )
        manifest = {
            "name": ALIAS,
            "rows": {split: len(found) for split, found in rows.items()},
            "parents": [],
            "example_ids": [],
            "digest": digest,
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))

    context.store.put_folder(f"datasets/{digest}", fill)
    with writing(context.database) as connection:
        adapter = builders.add_adapter(
            connection,
            NOW - builders.DAY,
            dataset=digest,
            card={"dataset_path": f"datasets/{digest}"},
        )
        builders.add_rollout(connection, NOW - builders.DAY, stable=adapter)
    return digest
