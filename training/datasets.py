"""Datasets: rows in three parts, split by content so that a row always lands in the same part, stored by digest.

A dataset folder in the store holds `train.jsonl`, `validation.jsonl`, `test.jsonl` and `manifest.json`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from training.rows import Reading, Row, read_lines
from whet.errors import InputError, StoreError
from whet.store import Store, canonical_json, digest_bytes, digest_json

PARTS = ("train", "validation", "test")
# Below this many rows a validation part of 10 % is too small to choose a checkpoint by, while every row it takes away
# is missed in training; the test part stays, because the gate needs it.
SMALL_SET_ROWS = 2000


@dataclass(frozen=True)
class Dataset:
    """Rows by part. `digest` is of the rows alone: the same rows are the same dataset, wherever they came from."""

    name: str
    digest: str
    path: str  # folder in the store
    train: list[Row]
    validation: list[Row]
    test: list[Row]

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
    """80/10/10; for small sets 90/0/10, see SMALL_SET_ROWS; no test share when a test file was given."""
    return Shares(0.1 if rows >= SMALL_SET_ROWS else 0.0, 0.0 if separate_test else 0.1)


def group_key(row: Row) -> str:
    """Rows that must not be parted: those of one named group, of one user, or with one question."""
    if row.group is not None:
        return digest_json(["group", row.group])
    return digest_json(["user", row.user]) if row.user is not None else row.prompt_digest


def split(rows: list[Row], shares: Shares) -> dict[str, list[Row]]:
    """Part name → rows in their order. A group's part follows from its content alone, so it never changes when rows are added,
    save that a part which would stay empty takes the group nearest to it."""
    position = {key: int(digest_bytes(key.encode())[:12], 16) / 16**12 for key in {group_key(row) for row in rows}}
    part_of = {key: _part(at, shares) for key, at in position.items()}
    if len(position) > 2:
        for name, share, edge in (("test", shares.test, 0.0), ("validation", shares.validation, shares.test)):
            candidates = [key for key in position if part_of[key] == "train"]
            if share > 0 and name not in part_of.values() and len(candidates) > 1:
                part_of[min(candidates, key=lambda key: abs(position[key] - edge))] = name
    parts: dict[str, list[Row]] = {name: [] for name in PARTS}
    for row in rows:
        parts[part_of[group_key(row)]].append(row)
    return parts


def _part(at: float, shares: Shares) -> str:
    return "test" if at < shares.test else "validation" if at < shares.test + shares.validation else "train"


def rows_digest(parts: dict[str, list[Row]]) -> str:
    """Identity of a dataset: the rows of each part, whatever their order."""
    return digest_json({name: sorted(digest_bytes(canonical_json(row.raw)) for row in parts[name]) for name in PARTS})


def save(store: Store, name: str, parts: dict[str, list[Row]]) -> Dataset:
    """Write the rows to `datasets/<digest>` (once; the same rows are not written again) and return them as a dataset."""
    if not parts["train"]:
        raise InputError("No row is left for training.", hint="Give more rows, or use --no-split.")
    digest = rows_digest(parts)
    manifest = {"name": name, "rows": {part: len(parts[part]) for part in PARTS}, "parents": [], "example_ids": [], "digest": digest}

    def fill(folder: Path) -> None:
        for part in PARTS:
            (folder / f"{part}.jsonl").write_text("".join(json.dumps(row.raw, ensure_ascii=False) + "\n" for row in parts[part]), encoding="utf-8")
        (folder / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False), encoding="utf-8")

    path = store.put_folder(f"datasets/{digest}", fill)
    return Dataset(name, digest, path, parts["train"], parts["validation"], parts["test"])


def load(store: Store, path: str, digest: str, name: str) -> Dataset:
    """Read a dataset folder. Raises StoreError when a row in it is not one: a stored dataset was checked when it was made."""
    parts: dict[str, list[Row]] = {}
    for part in PARTS:
        reading = _read_part(store, f"{path}/{part}.jsonl")
        if reading.bad:
            raise StoreError(f"{path}/{part}.jsonl is damaged: {reading.bad[0]}.", hint="Build the dataset version again.")
        parts[part] = reading.rows
    if not parts["train"]:
        raise StoreError(f"{path}/train.jsonl holds no row.", hint="Build a dataset version with rows to train on.")
    return Dataset(name, digest, path, parts["train"], parts["validation"], parts["test"])


def _read_part(store: Store, path: str) -> Reading:
    if not store.exists(path):
        raise StoreError(f"The store has no file {path}.", hint="Build the dataset version again.")
    return read_lines(store.read_bytes(path).split(b"\n"))
