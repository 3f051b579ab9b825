"""Train on rows that were read: prepare them, run, and say what was made."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from training.commands import on_ray
from training.commands.outcome import (
    Expected,
    note_stored,
    show_expected,
    show_report,
    show_stored,
    summary,
)
from training.commands.progress import run_progress
from training.commands.sources import SourceRows, warnings_of
from training.commands.train import TrainRequest
from training.loop.trainer import Cancelled
from training.models.base_choice import open_base
from training.plan.prepare import Prepared, prepare
from training.plan.reporter import Reporter
from training.recipes.recipe_checks import relevant_fields
from training.runs.load_model import measured
from training.runs.outcome import Outcome
from training.runs.pipeline import run_training
from training.runs.ray_job import JobClient
from training.runs.rehearsal import with_rehearsal
from training.runs.resume import checkpoints_of
from training.runs.version_card import recipe_json
from training.store import runs
from whet.cli import actor, emit, out
from whet.clock import now_ms
from whet.context import Context
from whet.errors import TrainingError, WhetError


def _expected(context: Context, prepared: Prepared, price_per_hour: float) -> Expected:
    prepared = with_rehearsal(context, prepared, lambda done, total: None)
    prepared, _, _, expected = measured(context, prepared, price_per_hour)
    return {
        "alias": prepared.alias,
        "base": prepared.base.name,
        **expected,
        "recipe": relevant_fields(prepared.recipe.as_json()),
    }


def _train(
    context: Context,
    prepared: Prepared,
    into: Path | None = None,
    *,
    as_json: bool,
    report: str = "full",
) -> Outcome:
    runs.close_abandoned(context, now_ms())
    started = runs.start(
        context,
        alias=prepared.alias,
        dataset_digest=prepared.dataset.digest,
        base_digest=prepared.base.digest,
        recipe=recipe_json(prepared, into),
        estimate={},
        worker=this_process(),
        now=now_ms(),
    )
    return execute(context, started, lambda: prepared, into, as_json=as_json, report=report)


def this_process() -> str:
    """The `worker` of a run by hand."""
    return f"cli:{socket.gethostname()}:{os.getpid()}"


def execute(
    context: Context,
    started: runs.Run,
    prepared: Callable[[], Prepared],
    into: Path | None = None,
    *,
    as_json: bool,
    report: str = "full",
) -> Outcome:
    """Do a run that has its row, `prepared()` first; the row is ended whatever happens.

    What is raised comes out as a WhetError where it can.

    Progress goes to standard error. What was made is printed as soon as it is stored, with
    `as_json` in one line there too; then comes the report.
    """

    try:
        on_stored = note_stored if as_json else show_stored
        with run_progress() as watch, Reporter(context, started, watch) as reporter:
            return run_training(
                context,
                started,
                prepared(),
                reporter,
                actor=actor(),
                into=into,
                report=report,
                on_stored=on_stored,
            )
    except Cancelled:
        runs.end(context, started, runs.CANCELLED, "Cancelled on request.", now_ms())
        checkpoints_of(context, started.id).remove()
        raise TrainingError(
            f"The run {started.id} was cancelled.", hint="Nothing was stored."
        ) from None
    except KeyboardInterrupt:
        reason = (
            f"Interrupted on the command line. `whet train resume {started.id}` goes on with it."
        )
        runs.end(context, started, runs.FAILED, reason, now_ms())
        raise
    except WhetError as error:
        runs.end(context, started, runs.FAILED, str(error), now_ms())
        raise
    except runs.Superseded:
        raise TrainingError(
            f"Another process goes on with the run {started.id}, or it was cancelled.",
            hint=f"`whet train show {started.id}` says which.",
        ) from None
    except BaseException as error:
        runs.end(context, started, runs.FAILED, f"{type(error).__name__}: {error}", now_ms())
        raise


def dry_run(context: Context, asked: TrainRequest, read: SourceRows, ray: JobClient | None) -> None:
    """Print what a training would take."""
    prepared, notices = _prepared(context, asked, read, ray)
    expected = _expected(context, prepared, asked.price_per_hour)
    if asked.as_json:
        emit({"notices": notices, **expected}, True)
    else:
        show_expected(expected, notices)


def train_rows(
    context: Context, asked: TrainRequest, read: SourceRows, ray: JobClient | None
) -> None:
    """Train on the rows, here or on Ray, and say what was made."""
    prepared, notices = _prepared(context, asked, read, ray)
    for notice in notices if not asked.as_json else []:
        out.print(f"• {notice}", markup=False, soft_wrap=True)
    if ray:
        with run_progress() as watch:
            on_ray.run_there(context, ray, prepared, asked.recipe, watch, notices, asked.as_json)
        return
    outcome = _train(context, prepared, asked.into, as_json=asked.as_json, report=asked.report)
    if asked.as_json:
        emit(summary(outcome, notices), True)
    else:
        show_report(context, outcome, asked.report)


def _prepared(
    context: Context, asked: TrainRequest, read: SourceRows, ray: JobClient | None
) -> tuple[Prepared, list[str]]:
    """Load the base and prepare the rows; returns notices, too."""
    prepared = prepare(
        context,
        asked.alias,
        read.dataset,
        on_ray.prepared_for(asked.recipe) if ray else asked.recipe,
        open_base(context.settings),
        skip_bad=asked.skip_bad,
        drop_leaks=asked.drop_leaks,
    )
    notices = [*read.notices, *prepared.notices]
    notices += warnings_of(prepared.dataset.train) if asked.warns else []
    if prepared.left_out:
        first = "; ".join(map(str, prepared.left_out[:5]))
        notices.append(f"{len(prepared.left_out)} rows were left out: {first}")
    return prepared, notices
