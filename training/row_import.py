"""The entry point of `whet datasets import`: files of rows become a folder in the store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training.imports import load
from whet.context import Context
from whet.row_files import Progress, RowFileOptions, RowFilter, RowFolder


def store_rows(
    context: Context,
    alias: str,
    files: Sequence[Path],
    options: RowFileOptions,
    *,
    keep: RowFilter,
    is_dry_run: bool,
    progress: Progress,
) -> RowFolder:
    """Read, check and part the rows of `files`, and store them; see `RowFileReader`."""
    store = load("training.commands.row_folders:store_rows")
    found: RowFolder = store(
        context, alias, files, options, keep=keep, is_dry_run=is_dry_run, progress=progress
    )
    return found
