"""Dataset versions: immutable folders in the store, one row each in `datasets`.

The same rows are the same version.

What a version holds is said in `feedback.next_version`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError

from feedback.assembly import SPLITS
from feedback.dataset_store import DatasetVersion as DatasetVersion
from feedback.dataset_store import find as find
from feedback.dataset_store import labels as labels
from feedback.dataset_store import list_versions as list_versions
from feedback.dataset_store import manifest as manifest
from feedback.dataset_store import newest as newest
from feedback.dataset_store import origins as origins
from feedback.dataset_store import read_rows as read_rows
from feedback.dataset_store import rows_digest as rows_digest
from feedback.dataset_store import version_of
from feedback.next_version import NextVersion, assemble_next
from whet.auditlog import record
from whet.context import Context
from whet.database import reading, writing
from whet.errors import ConflictError, InputError
from whet.ids import check_name
from whet.json_types import Json, JsonObject
from whet.store import canonical_json, digest_json
from whet.tables import datasets

_VERSION_ATTEMPTS = 20  # two builders rarely meet; twenty in a row means something else is wrong


@dataclass(frozen=True, slots=True)
class Difference:
    """What `b` has that `a` has not, and the other way round; rows are compared without their
    weight.
    """

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

    Killed at any moment it leaves either nothing or the whole version. Raises InputError when there
    is nothing to train on.
    """
    check_name(alias, "alias")
    made = assemble_next(context, alias)
    if made.seed_path:
        _adopt(context, alias, made.seed_path, now)
    if not made.assembled.rows["train"]:
        raise InputError(
            f"There is nothing to train {alias!r} on: {made.standing} reviewed examples and no "
            "seed rows leave no training row.",
            hint="Name the alias that was reviewed (--alias), review some conversations first, or "
            f"train a first version from a file: `whet train run FILE --alias {alias}`.",
        )
    version = _publish(context, alias, made, actor=actor, note=note, now=now)
    return BuildResult(version, made.assembled.left_out, made.assembled.control_token_rows)


def _jsonl(rows: Iterable[Mapping[str, Json]]) -> bytes:
    return b"".join(canonical_json(row) + b"\n" for row in rows)


def _publish(
    context: Context, alias: str, made: NextVersion, *, actor: str, note: str, now: int
) -> DatasetVersion:
    assembled, digest = made.assembled, made.digest
    files = {f"{split}.jsonl": _jsonl(assembled.rows[split]) for split in SPLITS}
    if assembled.regression:
        files["regression.jsonl"] = _jsonl(assembled.regression)
    counts = {split: len(assembled.rows[split]) for split in SPLITS}
    about = {
        "name": alias, "rows": counts, "parents": made.parents,
        "example_ids": assembled.example_ids, "digest": digest,
        "reviewed_weight": assembled.weight, "assigned": assembled.assigned,
        "superseded": assembled.superseded, "left_out": assembled.left_out,
        "left_out_by_reason": dict(assembled.left_out_by_reason),
        "control_token_rows": assembled.control_token_rows,
    }  # fmt: skip

    def fill(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        (folder / "manifest.json").write_bytes(canonical_json(about))

    path = context.store.put_folder(f"datasets/{digest}", fill)
    return register(
        context, digest, alias, path, counts, made.parents, assembled.example_ids,
        actor=actor, note=note, now=now,
    )  # fmt: skip


def _adopt(context: Context, alias: str, path: str, now: int) -> None:
    """Give the seed rows that training stored a version of their own, so that lineage and
    differences start there.
    """
    digest = path.rsplit("/", 1)[-1]
    with reading(context.database) as connection:
        if connection.execute(select(datasets.c.digest).where(datasets.c.digest == digest)).first():
            return
    counts = {split: len(rows) for split, rows in read_rows(context.store, path).items()}
    note = "The rows that the first version was trained on."
    register(context, digest, alias, path, counts, [], [], actor="training", note=note, now=now)


def register(
    context: Context,
    digest: str,
    name: str,
    path: str,
    counts: dict[str, int],
    parents: list[str],
    example_ids: list[str],
    *,
    actor: str,
    note: str,
    now: int,
    imported: JsonObject | None = None,
) -> DatasetVersion:
    """Insert the row of a folder under the next free version, or return the one that is there.

    Raises ConflictError where other builders take every number.
    """
    for _ in range(_VERSION_ATTEMPTS):
        try:
            with writing(context.database) as connection:
                same = select(datasets).where(datasets.c.digest == digest)
                known = connection.execute(same).first()
                if known is not None:
                    return version_of(known)
                newest_number = select(func.max(datasets.c.version)).where(datasets.c.name == name)
                last = connection.execute(newest_number).scalar() or 0
                made = DatasetVersion(
                    digest, name, last + 1, path, counts, parents, example_ids, note or None,
                    actor, now, imported,
                )  # fmt: skip
                connection.execute(insert(datasets).values(**asdict(made)))
                detail = {"name": name, "version": last + 1, "rows": counts}
                action = "dataset.import" if imported else "dataset.build"
                record(
                    connection, actor=actor, action=action, subject=digest, detail=detail, now=now
                )
                return made
        except IntegrityError:
            continue  # another builder took the version number or the digest; look again
    raise ConflictError(
        f"No free version number for dataset {name!r} after {_VERSION_ATTEMPTS} attempts.",
        hint="Run the command again.",
    )


def diff(context: Context, a: DatasetVersion, b: DatasetVersion) -> Difference:
    """What changed from `a` to `b`, by split."""
    before, after = (_index(read_rows(context.store, version.path)) for version in (a, b))
    result = Difference(
        {split: [] for split in SPLITS},
        {split: [] for split in SPLITS},
        [],
        len(before.keys() & after.keys()),
    )
    for digest, (split, row) in after.items():
        if digest not in before:
            result.added[split].append(row)
        elif before[digest][0] != split:
            result.moved.append({"id": row.get("id"), "from": before[digest][0], "to": split})
    for digest, (split, row) in before.items():
        if digest not in after:
            result.removed[split].append(row)
    return result


def _index(rows: Mapping[str, Sequence[JsonObject]]) -> dict[str, tuple[str, JsonObject]]:
    return {
        digest_json({k: v for k, v in row.items() if k != "weight"}): (split, row)
        for split, found in rows.items()
        for row in found
    }


def export(context: Context, version: DatasetVersion, folder: Path) -> list[Path]:
    """Copy the version's files into a new or empty folder.

    Raises InputError when it holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder.", hint="Name a new folder.")
    source = context.store.local_folder(version.path)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for file in sorted(source.iterdir()):
        written.append(folder / file.name)
        shutil.copyfile(file, written[-1])
    return written
