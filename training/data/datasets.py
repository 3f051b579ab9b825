"""Datasets: rows in three parts, stored by digest. `training/data/split.py` makes the parts.

A dataset folder in the store holds `train.jsonl`, `validation.jsonl`, `test.jsonl` and
`manifest.json`; one that reviews were put into may hold `regression.jsonl`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlalchemy import select

from training.data.rows import Reading, Row, read_lines
from whet.context import Context
from whet.database import reading
from whet.errors import InputError, StoreError
from whet.store import Store, canonical_json, digest_bytes, digest_json
from whet.tables import datasets

REGRESSION = "regression"  # the group of reviewed conversations
PARTS = ("train", "validation", "test")
# Below this many rows a validation part of 10 % is too small to choose a checkpoint by, while every
# row it takes away is missed in training; the test part stays, because the gate needs it.
SMALL_SET_ROWS = 2000


@dataclass(frozen=True)
class Dataset:
    """Rows by part.

    `digest` is of the rows alone: the same rows are the same dataset, wherever they came from.
    """

    name: str
    digest: str
    path: str  # folder in the store
    train: list[Row]
    validation: list[Row]
    test: list[Row]
    # Reviewed rows in no part: not learned, and judged by
    regression: list[Row] = field(default_factory=list)

    @property
    def reviewed(self) -> list[Row]:
        """Every reviewed row, learned or not; of two answers to one question that in `regression`."""
        learned = (
            row
            for part in (self.train, self.validation, self.test)
            for row in part
            if row.origin == "review"
        )
        return list({row.prompt_digest: row for row in [*learned, *self.regression]}.values())

    def part(self, name: str) -> list[Row]:
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    @property
    def rows(self) -> dict[str, int]:
        return {name: len(self.part(name)) for name in PARTS}


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of validation and test rows, 0 to 1; the rest is for training."""

    validation: float
    test: float

    def words(self) -> str:
        return f"{round(100 * (1 - self.validation - self.test))}/{round(100 * self.validation)}/{round(100 * self.test)}"


def default_shares(rows: int, *, separate_test: bool) -> Shares:
    """80/10/10; for small sets 90/0/10, see SMALL_SET_ROWS; no test share when a test file was
    given.
    """
    return Shares(0.1 if rows >= SMALL_SET_ROWS else 0.0, 0.0 if separate_test else 0.1)


def rows_digest(parts: dict[str, list[Row]]) -> str:
    """Identity of a dataset: the rows of each part, whatever their order."""
    return digest_json(
        {
            name: sorted(digest_bytes(canonical_json(row.raw)) for row in parts[name])
            for name in PARTS
        }
    )


def require_training_rows(parts: dict[str, list[Row]]) -> None:
    """Raises InputError where no row is in the training part."""
    if not parts["train"]:
        raise InputError("No row is left for training.", hint="Give more rows, or use --no-split.")


def save(store: Store, name: str, parts: dict[str, list[Row]]) -> Dataset:
    """Write the rows to `datasets/<digest>` (once; the same rows are not written again) and return
    them as a dataset.
    """
    require_training_rows(parts)
    digest = rows_digest(parts)
    manifest = {
        "name": name,
        "rows": {part: len(parts[part]) for part in PARTS},
        "parents": [],
        "example_ids": [],
        "digest": digest,
    }

    def fill(folder: Path) -> None:
        for part in PARTS:
            (folder / f"{part}.jsonl").write_text(
                "".join(json.dumps(row.raw, ensure_ascii=False) + "\n" for row in parts[part]),
                encoding="utf-8",
            )
        (folder / "manifest.json").write_text(
            json.dumps(manifest, ensure_ascii=False), encoding="utf-8"
        )

    path = store.put_folder(f"datasets/{digest}", fill)
    return Dataset(name, digest, path, parts["train"], parts["validation"], parts["test"])


def load(store: Store, path: str, digest: str, name: str) -> Dataset:
    """Read a dataset folder.

    Raises StoreError when a row in it is not one: a stored dataset was checked when it was made.
    """
    parts: dict[str, list[Row]] = {REGRESSION: []}
    for part in (*PARTS, *([REGRESSION] if store.exists(f"{path}/{REGRESSION}.jsonl") else [])):
        found = _read_part(store, f"{path}/{part}.jsonl")
        if found.bad:
            raise StoreError(
                f"{path}/{part}.jsonl is damaged: {found.bad[0]}.",
                hint="Build the dataset version again.",
            )
        parts[part] = found.rows
    if not parts["train"]:
        raise StoreError(
            f"{path}/train.jsonl holds no row.",
            hint="Build a dataset version with rows to train on.",
        )
    return Dataset(
        name, digest, path, parts["train"], parts["validation"], parts["test"], parts[REGRESSION]
    )


def with_standing_reviews(context: Context, name: str, dataset: Dataset) -> Dataset:
    """The dataset with every reviewed conversation that stands for the alias `name` to be judged
    by: its own, and those of the newest dataset version of that name.

    So a run on a file, or on an older version, cannot break what people have corrected without that
    being seen.
    """
    with reading(context.database) as connection:
        row = connection.execute(
            select(datasets)
            .where(datasets.c.name == name)
            .order_by(datasets.c.version.desc())
            .limit(1)
        ).first()
    newest = (
        load(context.store, row.path, row.digest, name).reviewed
        if row is not None and row.digest != dataset.digest
        else []
    )
    return replace(dataset, regression=[*dataset.reviewed, *newest])


def _read_part(store: Store, path: str) -> Reading:
    if not store.exists(path):
        raise StoreError(f"The store has no file {path}.", hint="Build the dataset version again.")
    return read_lines(store.read_bytes(path).split(b"\n"))
