"""Makes a dataset version of files of rows (`whet datasets import`).

A version that was imported is a seed: reviewed rows build upon the newest one, until an adapter
that learned from other rows goes live after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback.dataset_store import DatasetVersion, by_digest, labels
from feedback.datasets import register
from feedback.erasing import erased_subjects, is_erased
from feedback.next_version import seed_version
from whet.context import Context
from whet.database import reading
from whet.errors import ConflictError
from whet.ids import check_name
from whet.json_types import JsonObject
from whet.row_files import Progress, RowFileOptions, RowFolder, load_row_file_reader


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import made, or would make."""

    folder: RowFolder
    version: DatasetVersion | None  # None in a dry run of new rows
    is_new: bool
    notices: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return what programs are told."""
        return {
            "version": self.version.label if self.version else None,
            **self.folder.rows,
            "digest": self.folder.digest,
            "new": self.is_new,
            "files": [file.as_json() for file in self.folder.files],
            "notices": self.notices,
        }


def import_files(
    context: Context,
    alias: str,
    files: Sequence[Path],
    options: RowFileOptions,
    *,
    actor: str,
    now: int,
    note: str = "",
    is_dry_run: bool = False,
    progress: Progress = lambda stage: None,
) -> ImportResult:
    """Make a version of the rows in `files`, or return the one that has exactly these rows.

    Rows of end users who were erased are left out. Raises InputError for rows that a training run
    would refuse, ConflictError where the rows are a version of another alias.
    """
    check_name(alias, "alias")
    with reading(context.database) as connection:
        erased = erased_subjects(connection)

    def may_be_stored(row: Mapping[str, Any]) -> bool:
        return not is_erased(erased, row.get("user"), 0, context.secret)

    before = seed_version(context, alias)
    read = load_row_file_reader()
    folder = read(
        context, alias, files, options,
        keep=may_be_stored, is_dry_run=is_dry_run, progress=progress,
    )  # fmt: skip
    with reading(context.database) as connection:
        known = by_digest(connection, folder.digest)
    if known is not None and known.name != alias:
        raise ConflictError(
            f"These rows are {known.label} already, and a dataset version has one name.",
            hint=f"Train on them: `whet train run --dataset {known.label} --alias {alias}`.",
        )
    version = known
    if known is None and not is_dry_run:
        imported: JsonObject = {"files": [file.as_json() for file in folder.files]}
        version = register(
            context, folder.digest, alias, folder.path, folder.rows, [], [],
            actor=actor, note=note, now=now, imported=imported,
        )  # fmt: skip
    notices = [*folder.notices, *_seed_notices(context, alias, before, version)]
    return ImportResult(folder, version, known is None, notices)


def _seed_notices(
    context: Context, alias: str, before: str | None, version: DatasetVersion | None
) -> list[str]:
    """Say which seed rows reviewed rows build upon, where that is not what one would expect."""
    seed = seed_version(context, alias)
    if version is None or seed is None:
        return []
    with reading(context.database) as connection:
        (label,) = labels(connection, [seed if seed != version.digest else before or seed])
    if seed != version.digest:
        return [
            f"Reviewed rows of {alias} build upon newer seed rows ({label}) than these. They build "
            "upon these when a version that learned from them is live: "
            f"`whet train run --dataset {version.label} --alias {alias}`."
        ]
    if before in (None, seed):
        return []
    return [
        f"Reviewed rows of {alias} build upon these rows now, not upon those of {label}. To keep "
        "those too, import them together with the new files (`whet datasets export`)."
    ]
