"""One run from prepared rows to a judged, stored adapter.

What the worker's child process and `whet train run` both call.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from peft import PeftModel
from torch import nn

from training.evaluation.cross_validation import CrossValidated, cross_validate
from training.evaluation.judge import judge
from training.loop.diagnostics import warn_endless_answers, warn_no_gain
from training.loop.faults import (
    file_signature,
    require_unchanged,
    translate_oom,
)
from training.loop.loss import Loss
from training.loop.run_folders import run_folder
from training.loop.trainer import Step, Trained
from training.machine.disk_space import require_disk_space
from training.methods.families import family
from training.methods.loop import free_model
from training.models.fingerprint import fingerprint
from training.plan.beside import train_beside
from training.plan.estimates import compared, peak_memory_bytes
from training.plan.identity import identity_of
from training.plan.prepare import Prepared, sampler_of, with_all_rows
from training.plan.reporter import Reporter
from training.recipes.methods import METHODS
from training.recipes.recipe_checks import check_into
from training.runs.load_model import load, measured, pad_token, probes
from training.runs.outcome import Outcome
from training.runs.rehearsal import with_rehearsal
from training.runs.report import FULL_REPORT, make_report
from training.runs.resume import checkpoints_of
from training.runs.run_records import EvaluatedRun, LoadedRun
from training.runs.stopwatch import Stopwatch
from training.runs.storing import require_place, store
from training.runs.trackers import Trackers
from training.runs.version_card import recipe_json, version_card
from training.store import runs
from training.store.table_rows import Estimate
from whet.context import Context

# Checkpoints' worth of disk: two are kept while a third is written; the adapter itself is smaller
# than one
_ROOM = 3


def run_training(
    context: Context,
    run: runs.Run,
    prepared: Prepared,
    reporter: Reporter,
    *,
    actor: str,
    into: Path | None = None,
    report: str = FULL_REPORT,
    on_stored: Callable[[Outcome], None] = lambda outcome: None,
) -> Outcome:
    """Train, evaluate, gate and store; the run's row ends as `succeeded` in the transaction that
    makes the adapter visible.

    Where an earlier attempt at the run left a checkpoint, the training goes on from it. Raises
    WhetError when it cannot, trainer.Cancelled when somebody asked to stop, runs.Superseded when
    the run is no longer ours; then no part of an adapter is visible, and the row is the caller's to
    end. `into` is where a method goes whose result is no version; `report` one of `report.REPORTS`.
    `on_stored` is told the outcome as soon as it is stored and before its report is made.
    """
    check_into(prepared.recipe, into)
    clock = Stopwatch()
    loaded, model = _load(context, run, prepared, reporter, into)
    clock.mark("loading")
    with Trackers(context, run, loaded.prepared, loaded.folder, loaded.earlier) as trackers:
        trained = _train(model, loaded, reporter, trackers)
        estimate = _measure(context, run, loaded, trained)
        clock.mark("training")
        clock.part("training", "sampling", trained.sampling_seconds)
        require_unchanged(loaded.prepared.base, loaded.base_files)
        crossed = _cross_validate(context, loaded, reporter)
        reporter.stage("evaluating")
        with translate_oom(loaded.prepared.recipe, judging=run.id):
            model = loaded.method.candidate(model, loaded.prepared)
            evaluated = _evaluate(context, run, model, loaded, reporter, crossed)
        if loaded.prepared.recipe.refit and loaded.prepared.dataset.test:
            evaluated = _refit(context, loaded, evaluated, reporter)
        model = evaluated.model
        if into is None:
            evaluated = _with_fingerprint(run, loaded, evaluated)
        trackers.judged(trained.steps, evaluated.metrics)
    trained = _with_warnings(trained, evaluated)
    require_unchanged(loaded.prepared.base, loaded.base_files)
    clock.mark("evaluating")
    clock.part("evaluating", "refitting", evaluated.refit_seconds)

    reporter.stage("storing")
    card = version_card(loaded.prepared, trained, estimate, clock.seconds)
    adapter = store(context, run, loaded, evaluated, trained, card, reporter, actor, into)
    loaded.checkpoints.remove()
    clock.mark("storing")

    outcome = Outcome(
        run.id, adapter, into, evaluated.judgement, trained, clock.seconds, estimate,
        loaded.prepared.dataset.digest, loaded.prepared.recipe.method,
    )  # fmt: skip
    on_stored(outcome)
    make_report(context, model, loaded.prepared, outcome, reporter, report)
    clock.mark("reporting")
    return outcome


def _load(
    context: Context,
    run: runs.Run,
    prepared: Prepared,
    reporter: Reporter,
    into: Path | None,
) -> tuple[LoadedRun, nn.Module]:
    """Make the method's rows, load the model, measure it, and find what to go on from."""
    method = family(METHODS[prepared.recipe.method])
    folder = run_folder(context, run.id)
    # What an attempt goes on with that this one leaves behind while it makes its rows
    _describe(context, run, prepared, into)
    prepared = method.rows(context, prepared, reporter, folder)
    reporter.stage("loading")
    prepared = with_rehearsal(context, prepared, partial(reporter.working, "asking the base"))
    reporter.stage("loading")
    pad_id = pad_token(prepared)
    base_files = file_signature(prepared.base.folder)
    prepared, model, loss_of, estimate = measured(context, prepared)
    require_disk_space(folder, _ROOM * estimate["memory"]["checkpoint"])
    require_place(context, model, prepared, into)
    checkpoints = checkpoints_of(context, run.id)
    checkpoints.belongs_to(prepared.recipe.as_json(), identity_of(prepared))
    resume = checkpoints.resume()
    if resume is not None:
        reporter.continues(resume.state)
    _describe(context, run, prepared, into)
    runs.describe(context, run, estimate=estimate)
    loaded = LoadedRun(
        prepared, method, loss_of, pad_id, folder, checkpoints, resume, base_files, estimate
    )
    return loaded, model


def _describe(context: Context, run: runs.Run, prepared: Prepared, into: Path | None) -> None:
    runs.describe(
        context,
        run,
        recipe=recipe_json(prepared, into),
        base_digest=prepared.base.digest,
        dataset_digest=prepared.dataset.digest,
    )


def _train(model: nn.Module, loaded: LoadedRun, reporter: Reporter, trackers: Trackers) -> Trained:
    """Train in place, from the newest checkpoint."""
    sampler = sampler_of(loaded.prepared)
    reporter.questions = sampler.questions if sampler else []
    reporter.stage("training")

    def on_step(step: Step) -> None:
        trackers.step(step)
        reporter.step(step)

    with translate_oom(loaded.prepared.recipe):
        return loaded.method.run(
            model,
            loaded.prepared,
            reporter,
            pad_id=loaded.pad_id,
            loss_of=loaded.loss_of,
            on_step=on_step,
            checkpoints=loaded.checkpoints,
            resume=loaded.resume,
            sampler=sampler,
        )


def _cross_validate(
    context: Context, loaded: LoadedRun, reporter: Reporter
) -> CrossValidated | None:
    """Train and judge the recipe's folds; None without."""
    if not loaded.prepared.recipe.folds:
        return None
    with translate_oom(loaded.prepared.recipe):
        return cross_validate(
            loaded.prepared,
            partial(load, context),
            pad_id=loaded.pad_id,
            loss_of=loaded.loss_of,
            on_step=partial(reporter.working, "cross-validating"),
        )


def _evaluate(
    context: Context,
    run: runs.Run,
    candidate: nn.Module,
    loaded: LoadedRun,
    reporter: Reporter,
    crossed: CrossValidated | None,
) -> EvaluatedRun:
    """Answer held-out questions and decide."""
    judgement = judge(
        context,
        candidate,
        loaded.prepared,
        sample_name=f"{run.id}-{run.attempt}",
        on_batch=reporter.evaluating,
        crossed=crossed,
    )
    return EvaluatedRun(candidate, judgement, None)


def _refit(
    context: Context, loaded: LoadedRun, evaluated: EvaluatedRun, reporter: Reporter
) -> EvaluatedRun:
    """Make the model again of all rows; the one that was judged is freed."""
    reporter.stage("refitting")
    began = time.monotonic()
    with translate_oom(loaded.prepared.recipe):
        model = refitted(
            context,
            loaded.prepared,
            evaluated.model,
            reporter,
            pad_id=loaded.pad_id,
            loss_of=loaded.loss_of,
        )
    note = (
        "The version was trained on all rows again afterwards, so that it knows these questions too;"
        " the scores are of the one before."
    )
    seconds = time.monotonic() - began
    return EvaluatedRun(model, evaluated.judgement.with_note(note), None, seconds)


def _with_fingerprint(run: runs.Run, loaded: LoadedRun, evaluated: EvaluatedRun) -> EvaluatedRun:
    """Note what an engine that serves the version has to answer."""
    with translate_oom(loaded.prepared.recipe, judging=run.id):
        found = fingerprint(
            cast(PeftModel, evaluated.model),
            probes(loaded.prepared),
            loaded.prepared.base.folder,
            loaded.prepared.encoder,
        )
    return replace(evaluated, fingerprint=found)


def _with_warnings(trained: Trained, evaluated: EvaluatedRun) -> Trained:
    judgement = evaluated.judgement
    endless = warn_endless_answers(evaluated.metrics)
    gained = ""
    if judgement.against is None:
        gained = warn_no_gain(evaluated.metrics, judgement.against_name)
    return replace(trained, signs=[*trained.signs, *filter(None, (endless, gained))])


def _measure(context: Context, run: runs.Run, loaded: LoadedRun, trained: Trained) -> Estimate:
    """Note in the run's row what it took beside what was expected."""
    processes = loaded.prepared.recipe.processes
    estimate = compared(loaded.estimate, trained, peak_memory_bytes(), processes)
    runs.describe(context, run, estimate=estimate)
    return estimate


def refitted(
    context: Context,
    prepared: Prepared,
    judged: nn.Module,
    reporter: Reporter,
    *,
    pad_id: int,
    loss_of: Loss,
) -> nn.Module:
    """The model that the same recipe makes of all rows; `judged` is freed.

    Raises what training raises.
    """
    free_model(judged)
    everything = with_all_rows(prepared)
    model = load(context, everything)
    train_beside(
        model,
        everything,
        pad_id=pad_id,
        loss_of=loss_of,
        on_step=lambda step: reporter.working("refitting", step.step, step.steps),
    )
    return family(METHODS[prepared.recipe.method]).candidate(model, everything)
