"""One run from prepared rows to a judged, stored adapter.

What the worker's child process and `whet train run` both call.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from peft import PeftModel
from torch import nn

from training.evaluation.cross_validation import cross_validate
from training.evaluation.judge import base_beside, judge
from training.evaluation.survey import survey
from training.loop.diagnostics import warn_endless_answers, warn_no_gain
from training.loop.faults import file_signature, require_unchanged, translate_oom
from training.loop.loss import Loss
from training.loop.run_folders import run_folder
from training.loop.trainer import Step
from training.machine.disk_space import require_disk_space
from training.methods.families import family
from training.methods.loop import free_model
from training.models.fingerprint import fingerprint
from training.plan.beside import train_beside
from training.plan.estimates import compared, peak_memory_bytes
from training.plan.identity import identity_of
from training.plan.prepare import Prepared, sampler_of, with_all_rows
from training.plan.reporter import Reporter
from training.recipes.methods import METHODS, MODEL
from training.recipes.recipe_checks import check_into
from training.runs.folders import write_folder
from training.runs.load_model import load, measured, pad_token, probes
from training.runs.outcome import Outcome
from training.runs.resume import checkpoints_of
from training.runs.trackers import Trackers
from training.runs.version_card import new_adapter, recipe_json, version_card
from training.store import adapter_publish, runs
from whet.clock import now_ms
from whet.context import Context
from whet.errors import StoreError

log = logging.getLogger(__name__)

# How much the report asks beyond the gate's rows: all probes, as many as a quarter of the
# training's time allows, or there is no report.
FULL_REPORT, FIRST_LOOK, NO_REPORT = REPORTS = ("full", "first look", "none")
_REPORT_SHARE = 0.25
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
    end. `into` is where a method goes whose result is no version; `report` one of `REPORTS`. `on_stored` is told the outcome as soon as
    it is stored and before its report is made.
    """
    check_into(prepared.recipe, into)
    method = family(METHODS[prepared.recipe.method])
    clock, folder = _Stopwatch(), run_folder(context, run.id)
    known = {
        "recipe": recipe_json(prepared, into),
        "base_digest": prepared.base.digest,
        "dataset_digest": prepared.dataset.digest,
    }
    # What an attempt goes on with that this one leaves behind while it makes its rows
    runs.describe(context, run, **known)
    prepared = method.rows(context, prepared, reporter, folder)
    reporter.stage("loading")
    pad_id = pad_token(prepared)
    as_loaded = file_signature(prepared.base.folder)
    prepared, model, loss_of, expected = measured(context, prepared)
    require_disk_space(folder, _ROOM * expected["memory"]["checkpoint"])
    _require_place(context, model, prepared, into)
    checkpoints = checkpoints_of(context, run.id)
    checkpoints.belongs_to(prepared.recipe.as_json(), identity_of(prepared))
    resume = checkpoints.resume()
    if resume is not None:
        reporter.continues(resume.state)
    runs.describe(
        context,
        run,
        recipe=recipe_json(prepared, into),
        estimate=expected,
        base_digest=prepared.base.digest,
        dataset_digest=prepared.dataset.digest,
    )
    clock.mark("loading")

    sampler = sampler_of(prepared)
    reporter.questions = sampler.questions if sampler else []
    reporter.stage("training")
    with Trackers(context, run, prepared, folder, resume.state if resume else None) as trackers:

        def on_step(step: Step) -> None:
            trackers.step(step)
            reporter.step(step)

        with translate_oom(prepared.recipe):
            trained = method.run(
                model,
                prepared,
                reporter,
                pad_id=pad_id,
                loss_of=loss_of,
                on_step=on_step,
                checkpoints=checkpoints,
                resume=resume,
                sampler=sampler,
            )
        expected = compared(expected, trained, peak_memory_bytes(), prepared.recipe.processes)
        runs.describe(context, run, estimate=expected)
        clock.mark("training")
        clock.part("training", "sampling", trained.sampling_seconds)

        require_unchanged(prepared.base, as_loaded)
        crossed = None
        if prepared.recipe.folds:
            with translate_oom(prepared.recipe):
                crossed = cross_validate(
                    prepared,
                    partial(load, context),
                    pad_id=pad_id,
                    loss_of=loss_of,
                    on_step=partial(reporter.working, "cross-validating"),
                )
        reporter.stage("evaluating")
        with translate_oom(prepared.recipe, judging=run.id):
            model = method.candidate(model, prepared)
            judgement = judge(
                context,
                model,
                prepared,
                sample_name=f"{run.id}-{run.attempt}",
                on_batch=reporter.evaluating,
                crossed=crossed,
            )
        if prepared.recipe.refit and prepared.dataset.test:
            reporter.stage("refitting")
            with translate_oom(prepared.recipe):
                model = refitted(context, prepared, model, reporter, pad_id=pad_id, loss_of=loss_of)
            judgement = judgement.with_note(
                "The version was trained on all rows again afterwards; the scores are of the one"
                " before."
            )
        with translate_oom(prepared.recipe, judging=run.id):
            evidence = (
                fingerprint(
                    cast(PeftModel, model), probes(prepared), prepared.base.folder, prepared.encoder
                )
                if into is None
                else None
            )
        metrics = judgement.decision.metrics if judgement.decision else {}
        trackers.judged(trained.steps, metrics)
    endless = warn_endless_answers(metrics)
    gained = warn_no_gain(metrics, judgement.against_name) if judgement.against is None else ""
    trained = replace(
        trained, signs=[*trained.signs, *(sign for sign in (endless, gained) if sign)]
    )
    require_unchanged(prepared.base, as_loaded)
    clock.mark("evaluating")

    reporter.stage("storing")
    card = version_card(prepared, trained, expected, clock.seconds)
    if into is not None:
        write_folder(
            context,
            run,
            prepared,
            model,
            judgement,
            card,
            into,
            reporter.final(trained),
            reporter.curve,
        )
        checkpoints.remove()
        clock.mark("storing")
        outcome = Outcome(
            run.id,
            None,
            into,
            judgement,
            trained,
            clock.seconds,
            expected,
            prepared.dataset.digest,
            prepared.recipe.method,
        )
        on_stored(outcome)
        _survey(context, model, prepared, outcome, reporter, report)
        clock.mark("reporting")
        return outcome
    new = new_adapter(model, prepared, run, judgement, {**card, "fingerprint": evidence}, actor)
    adapter = adapter_publish.publish(
        context,
        replace(
            new,
            also=lambda connection, stored: runs.succeed(
                connection,
                run,
                adapter_digest=stored.digest,
                progress=reporter.final(trained),
                curve=reporter.curve,
                now=now_ms(),
            ),
        ),
    )
    checkpoints.remove()
    clock.mark("storing")
    outcome = Outcome(
        run.id,
        adapter,
        None,
        judgement,
        trained,
        clock.seconds,
        expected,
        prepared.dataset.digest,
        prepared.recipe.method,
    )
    on_stored(outcome)
    _survey(context, model, prepared, outcome, reporter, report)
    clock.mark("reporting")
    return outcome


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


def _require_place(
    context: Context, model: nn.Module, prepared: Prepared, into: Path | None
) -> None:
    """Raises TrainingError where what comes of the run has no room: hours before it is written."""
    if into is not None:
        whole = METHODS[prepared.recipe.method].engine == MODEL
        learned = (
            prepared.base.parameters
            if whole
            else sum(each.numel() for each in model.parameters() if each.requires_grad)
        )
        require_disk_space(
            into.absolute(), learned * next(model.parameters()).element_size(), "--into"
        )
    elif context.store.is_local:
        sizes = (
            each.numel() * each.element_size() for each in model.parameters() if each.requires_grad
        )
        require_disk_space(Path(context.store.root), sum(sizes), "WHET_STORE_URL")


def _survey(
    context: Context,
    model: nn.Module,
    prepared: Prepared,
    outcome: Outcome,
    reporter: Reporter,
    report: str,
) -> None:
    """The report, once the version is there: whoever waits for the version need not wait for it,
    and a kill meanwhile costs the report alone (`whet eval run` makes it again).
    """
    if report == NO_REPORT:
        return
    base = base_beside(prepared)
    answered = sum(len(rows) for rows in (outcome.judgement.ours, outcome.judgement.theirs))
    pace = outcome.seconds["evaluating"] / max(answered, 1)
    limit = (
        int(_REPORT_SHARE * outcome.trained.seconds / max(pace, 1e-9))
        if report == FIRST_LOOK
        else None
    )
    try:
        survey(
            context,
            model,
            prepared.encoder,
            prepared.dataset,
            outcome.judgement,
            name=prepared.alias,
            on_batch=reporter.surveying,
            base=base,
            most_answers=limit,
        )
    except (StoreError, OSError) as error:
        log.warning("The report of %s could not be stored: %s", prepared.alias, error)


class _Stopwatch:
    """Seconds by stage."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last = clock, clock()
        self.seconds: dict[str, float] = {}

    def part(self, stage: str, name: str, seconds: float) -> None:
        """Count some of a stage's seconds as a stage of their own."""
        if seconds:
            self.seconds[stage] = max(0.0, self.seconds[stage] - seconds)
            self.seconds[name] = seconds

    def mark(self, stage: str) -> None:
        now = self._clock()
        self.seconds[stage], self._last = now - self._last, now
