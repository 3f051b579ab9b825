"""The folder of a run, and what is deleted in it when the run is over for good."""

from __future__ import annotations

import shutil
from pathlib import Path

from training.store import runs
from whet.context import Context
from whet.database import reading

CHECKPOINTS = "checkpoints"  # in the folder of a run


def run_folder(context: Context, run_id: str) -> Path:
    """Where a run keeps its own files: `checkpoints/` until it ends, `tensorboard/` for good."""
    return context.settings.home / "runs" / run_id


def checkpoint_folder(context: Context, run_id: str) -> Path:
    """Where a run keeps its checkpoints until it ends."""
    return run_folder(context, run_id) / CHECKPOINTS


def remove_checkpoints(context: Context, run_id: str) -> None:
    """Delete a run's checkpoints: nothing goes on from them any more."""
    shutil.rmtree(checkpoint_folder(context, run_id), ignore_errors=True)


def sweep(context: Context) -> list[str]:
    """Delete the checkpoints of runs that have ended for good, which a process that was killed
    right after the end left; returns the runs' ids.
    """
    kept = [folder.parent.name for folder in run_folder(context, "").glob(f"*/{CHECKPOINTS}")]
    with reading(context.database) as connection:
        found = runs.ended_for_good(connection, kept)
    for run_id in found:
        remove_checkpoints(context, run_id)
    return found
