"""One run from prepared rows to a judged, stored adapter.

What the worker's child process and `whet train run` both call.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from peft import PeftModel
from torch import nn

from training.evaluation.cross_validation import cross_validate
from training.evaluation.judge import Judgement, base_beside, judge
from training.evaluation.survey import survey
from training.loop.diagnostics import warn_endless_answers, warn_no_gain
from training.loop.faults import file_signature, require_unchanged, translate_oom
from training.loop.pairs import max_completion_tokens
from training.loop.run_folders import run_folder
from training.loop.throughput import choose_threads, write, writing_seconds
from training.loop.trainer import Loss, Step, Trained
from training.machine.allocator import return_memory
from training.machine.disk_space import require_disk_space
from training.methods.families import family
from training.methods.loop import free_model
from training.models.encoded import Encoded
from training.models.fingerprint import PROMPTS, fingerprint
from training.models.lora import served_adapter, set_adapter_weights
from training.plan.beside import train_beside
from training.plan.estimates import compared, estimate, memory_of, peak_memory_bytes
from training.plan.identity import identity_of
from training.plan.prepare import Prepared, sampler_of, with_all_rows
from training.plan.reporter import Reporter
from training.recipes.methods import METHODS, MODEL
from training.recipes.recipe import check_into, relevant_fields
from training.runs.folders import write_folder
from training.runs.outcome import Outcome
from training.runs.resume import checkpoints_of
from training.runs.trackers import Trackers
from training.store import adapter_publish, runs
from training.store.adapter_publish import NewAdapter
from whet.clock import now_ms
from whet.context import Context
from whet.errors import InputError, StoreError

log = logging.getLogger(__name__)

# How much the report asks beyond the gate's rows: all probes, as many as a quarter of the
# training's time allows, or there is no report.
FULL_REPORT, FIRST_LOOK, NO_REPORT = REPORTS = ("full", "first look", "none")
_REPORT_SHARE = 0.25
# Checkpoints' worth of disk: two are kept while a third is written; the adapter itself is smaller
# than one
_ROOM = 3
_LIBRARIES = ("torch", "transformers", "peft", "safetensors", "tokenizers")


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
    card = _card(prepared, trained, expected, clock.seconds)
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
    new = _new_adapter(model, prepared, run, judgement, {**card, "fingerprint": evidence}, actor)
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
    judged: Any,
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


def measured(
    context: Context, prepared: Prepared, price_per_hour: float = 0.0
) -> tuple[Prepared, Any, Loss, dict[str, Any]]:
    """(the run with its number of threads, its model, what is minimised, the estimate): all that is
    known before the first step. Raises TrainingError where memory runs out already.
    """
    pad_id = pad_token(prepared)
    with translate_oom(prepared.recipe):
        model, loss_of = (
            load(context, prepared),
            family(METHODS[prepared.recipe.method]).loss(prepared),
        )
        recipe, answers = (
            prepared.recipe,
            (prepared.base.stop_ids, max_completion_tokens(prepared.train)),
        )
        writes = "samples" in METHODS[recipe.method].reads
        writing = (
            partial(writing_seconds, model, prepared.train, recipe, pad_id, *answers)
            if writes
            else float
        )
        threads, speed = choose_threads(model, prepared.train, recipe, pad_id, loss_of, writing)
        prepared = replace(prepared, recipe=replace(prepared.recipe, threads=threads))
        # What computing some steps left behind is memory that the run will use again
        return_memory()
        memory = memory_of(model, prepared, pad_id, loss_of)
        written = write(model, prepared.train, recipe, pad_id, *answers) if writes else None
    return (
        prepared,
        model,
        loss_of,
        estimate(prepared, speed, memory, price_per_hour, written=written),
    )


def load(context: Context, prepared: Prepared) -> nn.Module:
    """The model as the method trains it, or with the weights of the adapter that the run starts
    from.

    Raises InputError when that one is scaled in the other way (LoRA by alpha / rank, rsLoRA by
    alpha / √rank).
    """
    model = family(METHODS[prepared.recipe.method]).build(prepared)
    if prepared.start_adapter is not None:
        weights, config = adapter_publish.read_weights(context, prepared.start_adapter)
        if bool(config.get("use_rslora")) != (prepared.recipe.method == "rslora"):
            raise InputError(
                f"{prepared.start_adapter.label} is scaled"
                f" {'by alpha / √rank' if config.get('use_rslora') else 'by alpha / rank'},"
                f" {prepared.recipe.method} the other way.",
                hint=(
                    "Go on with the method it was trained with (lora or rslora), or start without"
                    " init_from."
                ),
            )
        set_adapter_weights(cast(PeftModel, model), weights)
    return model


def probes(prepared: Prepared) -> list[list[int]]:
    """Token ids of a few whole conversations, held-out ones where there are any."""
    rows = prepared.dataset.test or prepared.dataset.validation or prepared.dataset.train
    found = (prepared.encoder.encode(row) for row in rows[:PROMPTS])
    return [list(encoded.ids) for encoded in found if isinstance(encoded, Encoded)]


def pad_token(prepared: Prepared) -> int:
    """Any token serves: nothing attends to it and it is never learned."""
    pad = prepared.base.tokenizer.pad_token_id
    return int(pad if pad is not None else min(prepared.base.stop_ids))


def recipe_json(prepared: Prepared, into: Path | None = None) -> dict[str, Any]:
    """The complete recipe as it is stored with the run and on the card; with the folder that the
    run writes to, for an attempt that goes on with it.
    """
    rows = prepared.dataset.rows
    if made := prepared.counterfactuals:
        rows = {**rows, "train": rows["train"] - made, "counterfactual": made}
    found = {
        **prepared.recipe.as_json(),
        "dataset_path": prepared.dataset.path,
        "dataset_name": prepared.dataset.name,
        "rows": rows,
    }
    return {**found, "into": str(into.absolute())} if into else found


def _new_adapter(
    model: nn.Module,
    prepared: Prepared,
    run: runs.Run,
    judgement: Judgement,
    card: dict[str, Any],
    actor: str,
) -> NewAdapter:
    weights, config = served_adapter(cast(PeftModel, model), prepared.recipe.dtype)
    return NewAdapter(
        name=prepared.alias,
        weights=weights,
        config=config,
        base_digest=prepared.base.digest,
        template_digest=prepared.base.template_digest,
        rank=config["r"],
        dataset_digest=prepared.dataset.digest,
        run_id=run.id,
        gate=judgement.verdict,
        evaluation=judgement.row(run.id, prepared.dataset.digest),
        created_by=actor,
        card=card,
    )


def _card(
    prepared: Prepared, trained: Trained, expected: dict[str, Any], seconds: dict[str, float]
) -> dict[str, Any]:
    """What is said of a result beyond its hashes and its evaluation."""
    return {
        "base": prepared.base.name,
        "dataset_path": prepared.dataset.path,
        "recipe": relevant_fields(recipe_json(prepared)),
        "training": {
            "steps": trained.steps,
            "tokens": trained.tokens,
            "trained_tokens": trained.trained_tokens,
            "tokens_per_s": round(trained.tokens_per_s),
            "first_loss": round(trained.first_loss, 4),
            "last_loss": round(trained.last_loss, 4),
            "validation": trained.validation,
            "best_step": trained.best_step,
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
            "expected_seconds": expected["seconds"],
            "peak_memory_bytes": peak_memory_bytes(),
            "estimate": {
                name: expected[name]
                for name in ("seconds", "peak_memory_bytes", "measured", "error")
            },
            "signs": trained.signs,
        },
        "left_out": [bad.as_json() for bad in prepared.left_out],
        "libraries": {name: version(name) for name in _LIBRARIES},
        "python": platform.python_version(),
    }


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
