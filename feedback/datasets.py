"""Dataset versions: immutable folders in the store, one row each in `datasets`. The same rows are the same version.

A version of an alias is: the seed rows at the root of what the live adapter was trained on, and every reviewed example
that stands. It is built anew from these each time, so an example that was withdrawn leaves no trace in the next one.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select
from sqlalchemy.exc import IntegrityError

from feedback.assembly import SPLITS, Assembled, Example, assemble
from feedback.erasing import erased_subjects, is_erased
from feedback.queue import REPLACED
from whet.auditlog import record
from whet.context import Context
from whet.control_tokens import load_control_tokens
from whet.database import reading, writing
from whet.errors import ConflictError, InputError, NotFoundError, StoreError
from whet.ids import check_name
from whet.registry import current_rollouts, list_adapters
from whet.store import Store, canonical_json, digest_bytes, digest_json
from whet.tables import datasets, examples

_VERSION_ATTEMPTS = 20  # two builders rarely meet; twenty in a row means something else is wrong
_MAX_ANCESTORS = 1000  # a loop in parents cannot happen by digests; this bounds a damaged manifest
_REFERENCE = re.compile(r"(?P<name>[^@]+)@v?(?P<version>[0-9]{1,9})")


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

    @property
    def label(self) -> str:
        """`support@3`: how people and commands name it."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class Difference:
    """What `b` has that `a` has not, and the other way round; rows are compared without their weight."""

    added: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    removed: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    moved: list[dict[str, Any]] = field(default_factory=list)  # {"id", "from", "to"}
    unchanged: int = 0


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A version, and which rows this build left out: two builds of one version can differ in it."""

    version: DatasetVersion
    left_out: list[dict[str, str]]  # {"id", "why", "control_token"?}
    control_token_rows: int  # of `left_out`: those that hold a control token of the base model


def build(context: Context, alias: str, *, actor: str, now: int, note: str = "") -> DatasetVersion:
    """Build a version from all standing examples, or return the one with the same rows.

    Raises what `build_reported` raises.
    """
    return build_reported(context, alias, actor=actor, now=now, note=note).version


def build_reported(
    context: Context, alias: str, *, actor: str, now: int, note: str = ""
) -> BuildResult:
    """Build a version as `build` does, and say which rows were left out.

    Killed at any moment it leaves either nothing or the whole version. Raises InputError when there is nothing to train on.
    """
    check_name(alias, "alias")
    with reading(context.database) as connection:
        parent = _parent(connection, alias)
        standing = _standing(connection, alias)
        erased = erased_subjects(connection)
        before = newest(connection, alias)
    chain = _ancestors(context.store, parent[1]) if parent else []
    seed = _seed_rows(context, chain[-1], erased) if chain else {}
    if chain:
        _adopt(context, alias, chain[-1], now)
    control = load_control_tokens(context)
    assembled = assemble(seed, standing, _assigned(context.store, before), control)
    if not assembled.rows["train"]:
        raise InputError(
            f"There is nothing to train {alias!r} on: {len(standing)} reviewed examples and no seed rows leave no training row.",
            hint="Name the alias that was reviewed (--alias), review some conversations first, or train a first version from a file with `whet train run FILE`.",
        )
    parents = [parent[0]] if parent else []
    version = _publish(context, alias, assembled, parents, actor=actor, note=note, now=now)
    return BuildResult(version, assembled.left_out, assembled.control_token_rows)


def _parent(connection: Connection, alias: str) -> tuple[str, str] | None:
    """(digest, folder) of the dataset behind the live adapter; else behind the newest adapter; else the newest version."""
    live = current_rollouts(connection).get(alias)
    versions = [adapter for adapter in list_adapters(connection, alias, removed=True) if adapter.dataset_digest]
    chosen = next((a for a in versions if live and a.digest == live.stable_digest), None) or next((a for a in versions if a.removed_at is None), None)
    if chosen and chosen.dataset_digest:
        return chosen.dataset_digest, str(chosen.card.get("dataset_path") or f"datasets/{chosen.dataset_digest}")
    version = newest(connection, alias)
    return (version.digest, version.path) if version else None


def _ancestors(store: Store, path: str) -> list[str]:
    """The folder and those it was built from, up to the seed."""
    chain = [path]
    while len(chain) < _MAX_ANCESTORS:
        parents = manifest(store, chain[-1]).get("parents") or []
        if not parents or not store.exists(f"datasets/{parents[0]}"):
            return chain
        chain.append(f"datasets/{parents[0]}")
    raise StoreError(f"{path} has more than {_MAX_ANCESTORS} ancestors; its manifest.json is damaged.", hint="Compare with `whet doctor`.")


def manifest(store: Store, path: str) -> dict[str, Any]:
    """`manifest.json` of a version; empty for a seed folder without one."""
    return dict(store.read_json(f"{path}/manifest.json")) if store.exists(f"{path}/manifest.json") else {}


def read_rows(store: Store, path: str) -> dict[str, list[dict[str, Any]]]:
    """All rows by split. A split without a file is empty."""
    found: dict[str, list[dict[str, Any]]] = {}
    for split in SPLITS:
        file = f"{path}/{split}.jsonl"
        lines = store.read_bytes(file).decode().split("\n") if store.exists(file) else []
        found[split] = [json.loads(line) for line in lines if line.strip()]
    return found


def _seed_rows(context: Context, path: str, erased: Mapping[str, int]) -> dict[str, list[dict[str, Any]]]:
    if not context.store.exists(path):
        raise StoreError(
            f"The rows that the live adapter was trained on are gone: the store has no {path}.",
            hint="Restore the folder, or train a new first version from a file.",
        )
    rows = read_rows(context.store, path)
    return {split: [row for row in found if not is_erased(dict(erased), row.get("user"), 0, context.secret)] for split, found in rows.items()}


def _standing(connection: Connection, alias: str) -> list[Example]:
    query = select(examples).where(examples.c.alias == alias, examples.c.withdrawn_at.is_(None))
    return [
        Example(row.id, {key: value for key, value in row.row.items() if key != REPLACED}, row.end_user, row.created_at, row.row.get(REPLACED))
        for row in connection.execute(query)
    ]


def _assigned(store: Store, before: DatasetVersion | None) -> dict[str, str]:
    return dict(manifest(store, before.path).get("assigned") or {}) if before else {}


def _jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(canonical_json(row) + b"\n" for row in rows)


def rows_digest(rows: Mapping[str, Sequence[Mapping[str, Any]]], regression: Sequence[Mapping[str, Any]] = ()) -> str:
    """Identity of a version: the rows of each split, whatever their order, and of those beside them, if any. The same rows that training stored have the same digest."""
    parts = {split: rows[split] for split in SPLITS} | ({"regression": regression} if regression else {})
    return digest_json({name: sorted(digest_bytes(canonical_json(row)) for row in some) for name, some in parts.items()})


def _publish(context: Context, alias: str, assembled: Assembled, parents: list[str], *, actor: str, note: str, now: int) -> DatasetVersion:
    files = {f"{split}.jsonl": _jsonl(assembled.rows[split]) for split in SPLITS}
    if assembled.regression:
        files["regression.jsonl"] = _jsonl(assembled.regression)
    digest = rows_digest(assembled.rows, assembled.regression)
    counts = {split: len(assembled.rows[split]) for split in SPLITS}
    parents = [parent for parent in parents if parent != digest]
    about = {
        "name": alias, "rows": counts, "parents": parents, "example_ids": assembled.example_ids, "digest": digest, "reviewed_weight": assembled.weight,
        "assigned": assembled.assigned, "superseded": assembled.superseded, "left_out": assembled.left_out,
        "control_token_rows": assembled.control_token_rows,
    }  # fmt: skip

    def fill(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        (folder / "manifest.json").write_bytes(canonical_json(about))

    path = context.store.put_folder(f"datasets/{digest}", fill)
    return _register(context, digest, alias, path, counts, parents, assembled.example_ids, actor=actor, note=note, now=now)


def _adopt(context: Context, alias: str, path: str, now: int) -> None:
    """Give the seed rows that training stored a version of their own, so that lineage and differences start there."""
    digest = path.rsplit("/", 1)[-1]
    with reading(context.database) as connection:
        if connection.execute(select(datasets.c.digest).where(datasets.c.digest == digest)).first():
            return
    counts = {split: len(rows) for split, rows in read_rows(context.store, path).items()}
    _register(context, digest, alias, path, counts, [], [], actor="training", note="The rows that the first version was trained on.", now=now)


def _register(
    context: Context, digest: str, name: str, path: str, counts: dict[str, int], parents: list[str], example_ids: list[str], *, actor: str, note: str, now: int
) -> DatasetVersion:
    """Insert the row under the next free version, or return the one that is there."""
    for _ in range(_VERSION_ATTEMPTS):
        try:
            with writing(context.database) as connection:
                known = connection.execute(select(datasets).where(datasets.c.digest == digest)).first()
                if known is not None:
                    return _version(known)
                last = connection.execute(select(func.max(datasets.c.version)).where(datasets.c.name == name)).scalar() or 0
                row: dict[str, Any] = {
                    "digest": digest, "name": name, "version": last + 1, "path": path, "rows": counts, "parents": parents,
                    "example_ids": example_ids, "note": note or None, "created_by": actor, "created_at": now,
                }  # fmt: skip
                connection.execute(insert(datasets).values(**row))
                record(connection, actor=actor, action="dataset.build", subject=digest, detail={"name": name, "version": last + 1, "rows": counts}, now=now)
                return DatasetVersion(**{**row, "note": note or None})
        except IntegrityError:
            continue  # another builder took the version number or the digest; look again
    raise ConflictError(f"No free version number for dataset {name!r} after {_VERSION_ATTEMPTS} attempts.", hint="Run the command again.")


def _version(row: Row[*tuple[Any, ...]]) -> DatasetVersion:
    return DatasetVersion(**row._mapping)


def newest(connection: Connection, name: str) -> DatasetVersion | None:
    row = connection.execute(select(datasets).where(datasets.c.name == name).order_by(datasets.c.version.desc()).limit(1)).first()
    return _version(row) if row else None


def list_versions(connection: Connection, name: str | None = None, *, limit: int = 200) -> list[DatasetVersion]:
    """Newest first."""
    query = select(datasets).order_by(datasets.c.created_at.desc(), datasets.c.version.desc()).limit(limit)
    return [_version(row) for row in connection.execute(query.where(datasets.c.name == name) if name else query)]


def find(connection: Connection, reference: str) -> DatasetVersion:
    """By label (`support@3`), name (its newest version), digest or the first 8 characters of one. Raises NotFoundError."""
    query = select(datasets).order_by(datasets.c.version.desc()).limit(1)
    match = _REFERENCE.fullmatch(reference)
    if match:
        row = connection.execute(query.where(datasets.c.name == match["name"], datasets.c.version == int(match["version"]))).first()
    else:
        row = connection.execute(query.where(datasets.c.name == reference)).first()
        if row is None and re.fullmatch(r"[0-9a-f]{8,64}", reference):
            row = connection.execute(query.where(datasets.c.digest.startswith(reference))).first()
    if row is None:
        raise NotFoundError(f"There is no dataset version {reference[:80]!r}.", hint="`whet datasets list` prints what there is.")
    return _version(row)


def diff(context: Context, a: DatasetVersion, b: DatasetVersion) -> Difference:
    """What changed from `a` to `b`, by split."""
    before, after = (_index(read_rows(context.store, version.path)) for version in (a, b))
    result = Difference({split: [] for split in SPLITS}, {split: [] for split in SPLITS}, [], len(before.keys() & after.keys()))
    for digest, (split, row) in after.items():
        if digest not in before:
            result.added[split].append(row)
        elif before[digest][0] != split:
            result.moved.append({"id": row.get("id"), "from": before[digest][0], "to": split})
    for digest, (split, row) in before.items():
        if digest not in after:
            result.removed[split].append(row)
    return result


def _index(rows: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, tuple[str, dict[str, Any]]]:
    return {digest_json({k: v for k, v in row.items() if k != "weight"}): (split, row) for split, found in rows.items() for row in found}


def export(context: Context, version: DatasetVersion, folder: Path) -> list[Path]:
    """Copy the version's files into a new or empty folder. Raises InputError when it holds something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder.", hint="Name a new folder.")
    source = context.store.local_folder(version.path)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for file in sorted(source.iterdir()):
        written.append(folder / file.name)
        shutil.copyfile(file, written[-1])
    return written
