"""`whet train resume`: go on with a run that failed or was killed."""

from __future__ import annotations

from pathlib import Path

from training.commands.outcome import show_report, summary
from training.commands.train_rows import execute, this_process
from training.data import datasets
from training.machine.allocator import keep_memory
from training.models.base_choice import open_base
from training.plan.prepare import Prepared, prepare
from training.runs.resume import recipe_in, recipe_of
from training.store import runs
from training.store.again import command_again
from training.store.table_rows import RunRow
from whet.cli import actor, emit, opened
from whet.clock import now_ms
from whet.context import Context
from whet.database import reading
from whet.errors import InputError


def resume(*, run_id: str, as_json: bool) -> None:
    """Go on with a run that failed or whose process was killed, from its newest checkpoint: same
    rows, recipe and base, and the same result.
    """
    with opened() as context:
        keep_memory()
        started, row = runs.resume(
            context, run_id, worker=this_process(), actor=actor(), now=now_ms()
        )
        if started.request_id is not None:
            emit(
                {
                    "run": started.id,
                    "state": "waiting",
                    "next": "The worker of `whet up` goes on with it.",
                },
                as_json,
            )
            return
        into = Path(row["recipe"]["into"]) if row["recipe"].get("into") else None
        outcome = execute(context, started, lambda: _prepared(context, row), into, as_json=as_json)
        emit(summary(outcome, []), True) if as_json else show_report(context, outcome, "full")


def _prepared(context: Context, row: RunRow) -> Prepared:
    """What the run was to do, from its row and its checkpoint."""

    if "dataset_path" not in row["recipe"]:
        with reading(context.database) as connection:
            command = command_again(context, connection, row)
        raise InputError(
            f"The run {row['id']} ended before it knew its rows, so there is nothing to go on "
            "with.",
            hint=f"Start it again: `{command}`.",
        )
    base = open_base(context.settings)
    if base.digest != row["base_digest"]:
        raise InputError(
            f"The run {row['id']} was begun on the base {row['base_digest'][:8]}, but"
            f" {base.name} is {base.digest[:8]}.",
            hint="Set WHET_BASE_MODEL to the base it was begun on.",
        )
    dataset = datasets.load(
        context.store,
        row["recipe"]["dataset_path"],
        row["dataset_digest"],
        row["recipe"]["dataset_name"],
    )
    recipe = recipe_of(context, row["id"]) or recipe_in(row)
    # The rows were accepted when the run began; one that this base cannot take was left out then
    # too, or the checkpoint is refused.
    return prepare(context, row["alias"], dataset, recipe, base, skip_bad=True)
