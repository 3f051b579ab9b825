"""Held-out rows of earlier tasks: test parts of the datasets that earlier versions of the same
name, and earlier dataset versions, were made from.
"""

from __future__ import annotations

import random
from dataclasses import replace

from sqlalchemy import Connection, select

from training.data.datasets import Dataset
from training.data.rows import Row, read_lines
from whet.context import Context
from whet.database import reading
from whet.registry import list_adapters
from whet.store import digest_json
from whet.tables import datasets

MOST_DATASETS = 5  # the newest ones
MOST_ROWS = 40  # per dataset; a larger test part is sampled by its digest


def earlier_rows(context: Context, name: str, dataset: Dataset) -> list[tuple[str, list[Row]]]:
    """(label of a dataset, its test rows that the current dataset does not hold), newest first,
    reachable ones only.

    Rows that the current dataset holds are judged with it; a question that it answers otherwise has
    changed and says nothing about forgetting. Neither does a row that says what corrections
    replaced: a version that still gave its answer would be wrong.
    """
    outdated = _outdated(context, dataset)
    held = {
        row.prompt_digest
        for part in (dataset.train, dataset.validation, dataset.test)
        for row in part
    }
    with reading(context.database) as connection:
        paths = _paths(connection, name, dataset.digest)
    found: list[tuple[str, list[Row]]] = []
    for label, digest, path in paths:
        file = f"{path}/test.jsonl"
        if len(found) == MOST_DATASETS or not context.store.exists(file):
            continue
        unheld = [
            row
            for row in read_lines(context.store.read_bytes(file).split(b"\n")).rows
            if row.prompt_digest not in held and digest_json(row.raw) not in outdated
        ]
        held |= {row.prompt_digest for row in unheld}
        # Answers are kept by the row's id, and two files may both have a row 1.
        rows = [replace(row, id=f"{digest[:8]}:{row.id}") for row in unheld]
        if rows:
            found.append(
                (
                    label,
                    rows
                    if len(rows) <= MOST_ROWS
                    else random.Random(digest).sample(rows, MOST_ROWS),
                )
            )
    return found


def _outdated(context: Context, dataset: Dataset) -> frozenset[str]:
    """Digests of the rows that the current dataset left out because corrections replaced them."""
    if not dataset.path:  # rows that were given to judge by
        return frozenset()
    path = f"{dataset.path}/manifest.json"
    if not context.store.exists(path):
        return frozenset()
    found = context.store.read_json(path)
    left_out = (found.get("left_out") if isinstance(found, dict) else None) or []
    return frozenset(entry["outdated"] for entry in left_out if "outdated" in entry)


def _paths(connection: Connection, name: str, current: str) -> list[tuple[str, str, str]]:
    """(label, digest, folder in the store) of what the current dataset was built on and what
    earlier versions were trained on.
    """
    known = {row.digest: row for row in connection.execute(select(datasets))}
    ancestors, open_ones = [], list(known[current].parents) if current in known else []
    while open_ones:
        digest = open_ones.pop(0)
        if digest in known and digest not in ancestors:
            ancestors.append(digest)
            open_ones += known[digest].parents
    trained_on = {
        adapter.dataset_digest: str(adapter.card.get("dataset_path") or "")
        for adapter in list_adapters(connection, name)
        if adapter.dataset_digest
    }
    digests = list(dict.fromkeys([*ancestors, *trained_on]))
    found = []
    for digest in digests:
        row = known.get(digest)
        path = row.path if row else trained_on.get(digest, "")
        if digest != current and path:
            found.append((f"{row.name}@v{row.version}" if row else digest[:8], digest, path))
    return found
