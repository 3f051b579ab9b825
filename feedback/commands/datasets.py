"""`whet datasets`: build, list, show, compare and export versions."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from feedback import datasets as versions
from feedback.dataset_text import about_json, facts_of, ids_of
from whet.cli import actor, emit, opened, out, print_facts
from whet.clock import iso, now_ms
from whet.database import reading
from whet.json_types import JsonObject
from whet.registry import alias_filter


def _brief(version: versions.DatasetVersion) -> JsonObject:
    return {
        "version": version.label,
        "source": version.source,
        **version.rows,
        "reviewed": len(version.example_ids),
        "digest": version.digest,
        "created": iso(version.created_at),
        "by": version.created_by,
        "note": version.note,
    }


def build(*, alias: str, note: str, as_json: bool) -> None:
    """Build a version from all standing examples; the same rows give the same version."""
    with opened() as context:
        built = versions.build_reported(
            context, alias or context.settings.default_alias, actor=actor(), now=now_ms(), note=note
        )
        counts = {"left_out": len(built.left_out), "control_token_rows": built.control_token_rows}
        emit({**_brief(built.version), **counts}, as_json)


def list_all(*, alias: str, as_json: bool) -> None:
    """Versions, newest first."""
    with opened() as context, reading(context.database) as connection:
        alias_filter(connection, alias)
        rows = [_brief(version) for version in versions.list_versions(connection, alias or None)]
    if not as_json:  # eight characters of a digest are enough for every command
        rows = [
            {**row, "digest": str(row["digest"])[:8], "created": str(row["created"])[:16]}
            for row in rows
        ]
    columns = [
        "version", "source", "train", "validation", "test", "reviewed", "digest", "created",
    ]  # fmt: skip
    emit(rows, as_json, columns=columns, title="dataset versions")


def show(*, reference: str, verbose: bool, as_json: bool) -> None:
    """One version: rows, weight of reviewed rows, what was replaced or left out and why."""
    with opened() as context:
        with reading(context.database) as connection:
            version = versions.find(connection, reference)
            parents = versions.labels(connection, version.parents)
        about = versions.manifest(context.store, version.path)
        origins = versions.origins(context.store, version.path)
        if as_json:
            shown = {**asdict(version), "label": version.label, "origins": origins}
            emit({**shown, **about_json(about)}, True)
            return
        print_facts(facts_of(version, about, parents, origins))
        if not verbose:
            out.print(f"`whet datasets show {version.label} --verbose` prints the ids.")
            return
        for title, rows in ids_of(version, about).items():
            out.print()
            emit(rows, False, title=title)


def show_diff(*, a: str, b: str, as_json: bool) -> None:
    """What changed from version A to version B."""
    with opened() as context:
        with reading(context.database) as connection:
            first, second = versions.find(connection, a), versions.find(connection, b)
        found = versions.diff(context, first, second)
        if as_json:
            emit(asdict(found), True)
            return
        rows = [
            {
                "change": change,
                "split": split,
                "id": row.get("id"),
                "origin": row.get("origin", "seed"),
            }
            for change, by_split in (("added", found.added), ("removed", found.removed))
            for split, changed in by_split.items()
            for row in changed
        ]
        rows += [
            {
                "change": "moved",
                "split": f"{row['from']} → {row['to']}",
                "id": row["id"],
                "origin": "",
            }
            for row in found.moved
        ]
        emit(
            rows,
            False,
            title=(
                f"changes from {first.label} to {second.label}; {found.unchanged} rows are in both"
            ),
        )


def export(*, reference: str, folder: Path, as_json: bool) -> None:
    """Copy a version's files: train.jsonl, validation.jsonl, test.jsonl, manifest.json."""
    with opened() as context:
        with reading(context.database) as connection:
            version = versions.find(connection, reference)
        emit(
            {
                "version": version.label,
                "files": [str(file) for file in versions.export(context, version, folder)],
            },
            as_json,
        )
