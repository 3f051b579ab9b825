"""`whet datasets import`: a version made of files of training rows."""

from __future__ import annotations

from pathlib import Path

from feedback.importing import import_files
from whet.cli import actor, emit, opened, out, print_facts, show_stages
from whet.clock import now_ms
from whet.row_files import RowFileOptions


def import_rows(
    *,
    files: list[Path],
    alias: str,
    test: Path | None,
    method: str,
    no_split: bool,
    hold_out: str,
    by_time: str,
    repeats: str,
    skip_bad: bool,
    drop_leaks: bool,
    columns: str,
    encoding: str,
    note: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make a version of files; the same rows are the same version. Reviewed rows build upon it."""
    options = RowFileOptions(
        test, method, no_split, hold_out, by_time, repeats, skip_bad, drop_leaks, columns, encoding
    )
    with opened() as context:
        name = alias or context.settings.default_alias
        with show_stages() as progress:
            made = import_files(
                context, name, files, options,
                actor=actor(), now=now_ms(), note=note, is_dry_run=dry_run, progress=progress,
            )  # fmt: skip
        if as_json:
            emit(made.as_json(), True)
            return
        for notice in made.notices:
            out.print(f"• {notice}", markup=False, soft_wrap=True)
        label = made.version.label if made.version else f"the next version of {name}"
        state = "stored" if made.is_new else "exists already with exactly these rows"
        facts = {
            "version": f"{label} ({'nothing is stored in a dry run' if dry_run else state})",
            "rows": ", ".join(f"{count} {part}" for part, count in made.folder.rows.items()),
            "digest": made.folder.digest,
        }
        if made.version:
            facts["next"] = f"whet train run --dataset {made.version.label} --alias {name}"
        print_facts(facts)
