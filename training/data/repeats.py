"""Exact repeats: rows that teach the same answer to the same conversation, word for word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from training.data.row_fields import MOST_WEIGHT
from training.data.rows import Row
from whet.errors import InputError

KEEP, WEIGHT, REMOVE = CHOICES = ("keep", "weight", "remove")


def merge_repeats(rows: Sequence[Row], choice: str) -> tuple[list[Row], str]:
    """Return the rows with their exact repeats kept, merged or removed, and a sentence about it.

    `weight` keeps the first of equal rows with the sum of their weights, so that the loss counts
    what it counted before and a pass takes fewer steps; `remove` keeps the first as it is. Rows
    with other ratings or rejected answers are no repeats. Raises InputError for an unknown choice.
    """
    if choice not in CHOICES:
        raise InputError(
            f"--repeats is {choice!r}; expected one of {', '.join(CHOICES)}.",
            hint="keep trains on every row as often as it is in the file.",
        )
    first: dict[tuple[str, str, int], int] = {}
    weights: dict[int, float] = {}
    for number, row in enumerate(rows):
        kept = first.setdefault((row.digest, row.rejected, row.rating), number)
        weights[kept] = weights.get(kept, 0.0) + row.weight
    repeats = len(rows) - len(first)
    if not repeats:
        return list(rows), ""
    if choice == KEEP:  # `whet data check` and each run warn of them
        return list(rows), ""
    kept_rows = [rows[number] for number in sorted(first.values())]
    if choice == REMOVE:
        return kept_rows, f"{repeats} exact repeats are removed; {len(kept_rows)} rows are left."
    weighted = [
        _with_weight(rows[number], min(weights[number], MOST_WEIGHT))
        for number in sorted(first.values())
    ]
    return weighted, (
        f"{repeats} exact repeats are merged into the weights of {len(weighted)} rows."
    )


def _with_weight(row: Row, weight: float) -> Row:
    if weight == row.weight:
        return row
    return replace(row, weight=weight, raw={**row.raw, "weight": weight})
