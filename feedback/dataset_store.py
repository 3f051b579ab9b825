"""Reads dataset versions: their rows in `datasets`, and their folders in the store."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from feedback.assembly import SPLITS
from whet.errors import NotFoundError
from whet.ids import dataset_reference
from whet.store import Store, canonical_json, digest_bytes, digest_json
from whet.tables import datasets


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    digest: str
    name: str
    version: int
    path: str
    rows: dict[str, int]
    parents: list[str]
    example_ids: list[str]
    note: str | None
    created_by: str
    created_at: int
    imported: dict[str, Any] | None = None  # {"files": [...]} of a version made of files

    @property
    def source(self) -> str:
        """Where its rows come from: `files`, a `run` that read files, or a `build` with reviews."""
        if self.imported:
            return "files"
        return "run" if not self.parents and not self.example_ids else "build"

    @property
    def label(self) -> str:
        """`support@3`: how people and commands name it."""
        return f"{self.name}@{self.version}"


def version_of(row: Row[*tuple[Any, ...]]) -> DatasetVersion:
    """Return a row of `datasets` as a version."""
    return DatasetVersion(**row._mapping)


def newest(connection: Connection, name: str) -> DatasetVersion | None:
    """Return the newest version of that name."""
    query = select(datasets).where(datasets.c.name == name).order_by(datasets.c.version.desc())
    row = connection.execute(query.limit(1)).first()
    return version_of(row) if row else None


def newest_import(connection: Connection, name: str) -> DatasetVersion | None:
    """Return the newest version of that name that was made of files."""
    query = select(datasets).where(datasets.c.name == name, datasets.c.imported.is_not(None))
    newest_first = query.order_by(datasets.c.created_at.desc(), datasets.c.version.desc())
    row = connection.execute(newest_first.limit(1)).first()
    return version_of(row) if row else None


def by_digest(connection: Connection, digest: str) -> DatasetVersion | None:
    """Return the version with that digest, if there is one."""
    row = connection.execute(select(datasets).where(datasets.c.digest == digest)).first()
    return version_of(row) if row else None


def labels(connection: Connection, digests: Sequence[str]) -> list[str]:
    """Return the labels of versions; of one that is not known, how its digest begins."""
    found = [(digest, by_digest(connection, digest)) for digest in digests]
    return [version.label if version else digest[:8] for digest, version in found]


def list_versions(
    connection: Connection, name: str | None = None, *, limit: int = 200
) -> list[DatasetVersion]:
    """Return versions, newest first."""
    query = select(datasets).order_by(datasets.c.created_at.desc(), datasets.c.version.desc())
    if name:
        query = query.where(datasets.c.name == name)
    return [version_of(row) for row in connection.execute(query.limit(limit))]


def find(connection: Connection, reference: str) -> DatasetVersion:
    """Return a version by label, name or digest.

    A label is `support@3` or `support@v3`, a name means its newest version, and of a digest the
    first 8 characters are enough. Raises NotFoundError.
    """
    query = select(datasets).order_by(datasets.c.version.desc()).limit(1)
    if named_version := dataset_reference(reference):
        name, version = named_version
        same = query.where(datasets.c.name == name, datasets.c.version == version)
        row = connection.execute(same).first()
    else:
        row = connection.execute(query.where(datasets.c.name == reference)).first()
        if row is None and re.fullmatch(r"[0-9a-f]{8,64}", reference):
            row = connection.execute(query.where(datasets.c.digest.startswith(reference))).first()
    if row is None:
        raise NotFoundError(
            f"There is no dataset version {reference[:80]!r}.",
            hint="`whet datasets list` prints what there is.",
        )
    return version_of(row)


def manifest(store: Store, path: str) -> dict[str, Any]:
    """Read `manifest.json` of a version; empty for a seed folder without one."""
    file = f"{path}/manifest.json"
    return dict(store.read_json(file)) if store.exists(file) else {}


def read_rows(store: Store, path: str) -> dict[str, list[dict[str, Any]]]:
    """Read all rows by split. A split without a file is empty."""
    found: dict[str, list[dict[str, Any]]] = {}
    for split in SPLITS:
        file = f"{path}/{split}.jsonl"
        lines = store.read_bytes(file).decode().split("\n") if store.exists(file) else []
        found[split] = [json.loads(line) for line in lines if line.strip()]
    return found


def origins(store: Store, path: str) -> dict[str, int]:
    """Count the rows of a version by where they come from, the most frequent first."""
    rows = (row for part in read_rows(store, path).values() for row in part)
    return dict(Counter(str(row.get("origin", "seed")) for row in rows).most_common())


def rows_digest(
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    regression: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the identity of a version: the rows of each split and those beside them, in any order.

    The same rows that training stored have the same digest.
    """
    parts = {split: rows[split] for split in SPLITS}
    if regression:
        parts["regression"] = regression
    return digest_json(
        {
            name: sorted(digest_bytes(canonical_json(row)) for row in part)
            for name, part in parts.items()
        }
    )
