"""Going on with a run of which a checkpoint was kept."""

from __future__ import annotations

from dataclasses import fields

from training.loop.checkpoint import Checkpoints
from training.loop.run_folders import run_folder
from training.recipes.recipe import Recipe, recipe_from
from training.store.table_rows import RunRow
from whet.context import Context


def checkpoints_of(context: Context, run_id: str) -> Checkpoints:
    """Those of one run, in the home folder."""
    return Checkpoints(run_folder(context, run_id), every_s=context.settings.checkpoint_interval_s)


def recipe_of(context: Context, run_id: str) -> Recipe | None:
    """The recipe with everything that the first attempt chose (dtype, threads, rate, the version it
    started from); None without a checkpoint.

    To choose again could choose otherwise, and then the run could not go on.
    """
    snapshot = checkpoints_of(context, run_id).newest()
    return recipe_from(snapshot.recipe) if snapshot else None


def recipe_in(row: RunRow) -> Recipe:
    """The recipe in a run's row, which holds more than it."""

    known = {field.name for field in fields(Recipe)}
    return recipe_from({name: value for name, value in row["recipe"].items() if name in known})
