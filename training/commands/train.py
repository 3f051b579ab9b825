"""`whet train …`: start a run, follow it, stop it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from training.commands.options import COLUMNS, ENCODING
from training.commands.outcome import note_stored, show_expected, show_report, show_stored, summary
from training.commands.progress import run_progress
from training.commands.recipe_options import overrides, with_alpha
from training.commands.sources import RowSource, rows_or_ask, warnings_of
from whet.cli import actor, emit, opened, out
from whet.clock import now_ms
from whet.context import Context
from whet.database import reading
from whet.errors import TrainingError, WhetError
from whet.ids import check_name
from whet.registry import alias_filter, list_adapters
from whet.web.filters import relative

train = typer.Typer(
    no_args_is_help=True,
    help="Train adapters: from a file or a dataset version to a judged, stored version.",
)

_Json = typer.Option(False, "--json", help="Print one JSON document.")


@train.command("run")
def run(
    file: Path | None = typer.Argument(
        None,
        metavar="[FILE]",
        help="Training rows: JSONL, JSON, CSV, Parquet, or a folder that `datasets` saved.",
    ),
    dataset: str = typer.Option(
        "", "--dataset", help="A dataset version instead of a file, such as support@v2."
    ),
    alias: str = typer.Option(
        "", "--alias", help="Name of the adapter. Default: the setting default_alias."
    ),
    test: Path | None = typer.Option(
        None, "--test", help="File of rows to judge by, instead of a part of FILE."
    ),
    drop_leaks: bool = typer.Option(
        False,
        "--drop-leaks",
        help=(
            "Go on where more than a tenth of the rows has to be dropped to prevent train/test"
            " leakage."
        ),
    ),
    no_split: bool = typer.Option(
        False,
        "--no-split",
        help="Train on every row of FILE; without --test nothing can be compared.",
    ),
    hold_out: str = typer.Option(
        "auto",
        "--hold-out",
        help=(
            "What is held out together: pattern (whole patterns of questions), question, user; auto"
            " chooses. See --by-time."
        ),
    ),
    by_time: str = typer.Option(
        "", "--by-time", help="Field with a time: the newest rows are held out."
    ),
    repeats: str = typer.Option(
        "keep",
        "--repeats",
        help="Exact repeats: keep, weight (one row with their weights added up), or remove.",
    ),
    recipe_name: str = typer.Option(
        "",
        "--recipe",
        help=(
            "A recipe in training/recipes, or the path of a .toml file. Default: the method's own."
        ),
    ),
    method: str = typer.Option(
        "",
        "--method",
        help=(
            "How to train; `whet train methods` lists them. Default: what the recipe says, lora"
            " without one."
        ),
    ),
    into: Path | None = typer.Option(
        None,
        "--into",
        help=(
            "Where the result goes of a method that the engine cannot serve as an adapter; a new"
            " folder."
        ),
    ),
    teacher: str | None = typer.Option(
        None, "--teacher", help="For distill: a model's folder, or http(s)://host/v1#MODEL."
    ),
    rank: int | None = typer.Option(None, "--rank", help="Inner width of the adapter."),
    alpha: float | None = typer.Option(
        None,
        "--alpha",
        help=(
            "Scale: the update is multiplied by alpha / rank. Default: twice the rank; with rslora"
            " what its recipe says."
        ),
    ),
    epochs: float | None = typer.Option(None, "--epochs", help="Passes over the training rows."),
    batch_size: int | None = typer.Option(None, "--batch-size", help="Rows per step."),
    learning_rate: float | None = typer.Option(
        None,
        "--learning-rate",
        "--lr",
        help="Peak learning rate. Default: by the size of the base.",
    ),
    micro_batch: int | None = typer.Option(
        None,
        "--micro-batch",
        help=(
            "Rows computed at once; gradients are summed to those of --batch-size rows. Default:"
            " all of them."
        ),
    ),
    gradient_checkpointing: bool | None = typer.Option(
        None,
        "--gradient-checkpointing/--no-gradient-checkpointing",
        help="Compute activations twice to keep fewer: slower, less memory, same result.",
    ),
    processes: int | None = typer.Option(
        None,
        "--processes",
        help="Processes that share the training on this machine (torchrun, FSDP). Default: 1.",
    ),
    packing: bool | None = typer.Option(
        None, "--packing/--no-packing", help="Several rows to a sequence, each seeing itself alone."
    ),
    question_variants: int | None = typer.Option(
        None,
        "--question-variants",
        help=(
            "Wordings of each question over the passes; 1: as they are. Default: 4 below 5,000"
            " rows."
        ),
    ),
    counterfactual_share: float | None = typer.Option(
        None,
        "--counterfactual-share",
        help=(
            "Share of the training, 0 to 0.5, that is rows whose passages (`context`) say"
            " otherwise, so that the model goes on reading them. Default: 0."
        ),
    ),
    folds: int | None = typer.Option(
        None,
        "--folds",
        help=(
            "Judge by cross-validation with so many models beside the version, which is trained on"
            " all rows. Default: 5 for sets too small for a test."
        ),
    ),
    refit: bool | None = typer.Option(
        None,
        "--refit/--no-refit",
        help="After the verdict, train on all rows, held-out ones too, and store that.",
    ),
    patience: int | None = typer.Option(
        None,
        "--patience",
        help="Checks on validation rows without a new best before the run stops; 0: never.",
    ),
    sample_every: int | None = typer.Option(
        None,
        "--sample-every",
        help=(
            "Steps between samplings: a few held-out questions are answered while training."
            " Default: 0, none."
        ),
    ),
    device: str | None = typer.Option(
        None, "--device", help="auto, cpu, or cuda to refuse a machine without a GPU."
    ),
    max_length: int | None = typer.Option(
        None,
        "--max-length",
        help="Tokens per row; longer rows are refused. At most what engine and base take.",
    ),
    dropout: float | None = typer.Option(
        None, "--dropout", help="On the adapter's input, 0 to below 1."
    ),
    warmup: float | None = typer.Option(
        None, "--warmup", help="Share of all steps in which the learning rate rises, 0 to 1."
    ),
    schedule: str | None = typer.Option(
        None,
        "--schedule",
        help="How the learning rate falls afterwards: cosine, linear or constant.",
    ),
    target_modules: str | None = typer.Option(
        None,
        "--target-modules",
        help=(
            "Layers that get an adapter, by the ends of their names: q_proj,v_proj. Default:"
            " all-linear."
        ),
    ),
    weight_decay: float | None = typer.Option(
        None, "--weight-decay", help="Of AdamW, on matrices."
    ),
    assignments: list[str] = typer.Option(
        [],
        "--set",
        metavar="FIELD=VALUE",
        help="Any other field of a recipe (docs/training.md); may be given again.",
    ),
    seed: int | None = typer.Option(
        None, "--seed", help="Same seed, data, base and threads: same weights, on a CPU."
    ),
    threads: int | None = typer.Option(
        None, "--threads", help="CPU threads. Default: measured at the start."
    ),
    init_from: str | None = typer.Option(
        None, "--init-from", help="Start from this adapter's weights: a label, or 'production'."
    ),
    skip_bad: bool = typer.Option(
        False, "--skip-bad", help="Leave out rows that cannot be learned from, instead of refusing."
    ),
    on: str = typer.Option(
        "",
        "--on",
        help="ray, or ray=http://HOST:8265: train as a job of a Ray cluster instead of here.",
    ),
    no_report: bool = typer.Option(
        False,
        "--no-report",
        help="Judge on held-out rows alone; `whet eval run` makes the report later.",
    ),
    full_report: bool = typer.Option(
        False,
        "--full-report",
        help=(
            "Ask every probe for the report. Default: as many as a quarter of the training's time"
            " allows."
        ),
    ),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Only print tokens, steps, expected time, memory by part and cost."
    ),
    price_per_hour: float = typer.Option(
        0.0,
        "--price-per-hour",
        min=0.0,
        help="What the machine costs an hour: --dry-run prints what the training will cost.",
    ),
    columns: str = COLUMNS,
    encoding: str = ENCODING,
    as_json: bool = _Json,
) -> None:
    """Check the rows, train, compare with production (or the base) on held-out rows, store a
    version and say what to do next.
    """
    options = {
        "method": method or None, "rank": rank, "alpha": alpha, "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate,
        "max_length": max_length, "seed": seed, "threads": threads, "init_from": init_from, "teacher": teacher, "micro_batch": micro_batch,
        "gradient_checkpointing": gradient_checkpointing, "processes": processes, "packing": packing, "question_variants": question_variants, "counterfactual_share": counterfactual_share, "folds": folds, "refit": refit, "patience": patience, "sample_every": sample_every, "device": device,
        "dropout": dropout, "warmup": warmup, "schedule": schedule, "target_modules": target_modules, "weight_decay": weight_decay,
    }  # fmt: skip
    given = overrides(options, assignments)
    with opened() as context:
        from training.allocator import keep_memory
        from training.base_model import open_base, quiet_environment
        from training.data.formats import read_options
        from training.imports import import_libraries
        from training.methods.registry import find
        from training.recipe import check_into, check_servable, load_recipe, recipe_from

        quiet_environment()
        keep_memory()
        name = check_name(alias or context.settings.default_alias, "alias")
        begun = load_recipe(recipe_name or find(str(given.get("method", "lora"))).name)
        chosen = find(str(given.get("method", begun.method)))
        recipe = recipe_from(with_alpha(given, chosen), begun)
        check_servable(recipe, context.settings.engine_max_lora_rank)
        ray = None
        if on:
            from training.commands import on_ray

            ray = on_ray.client_for(context, on, into, dry_run=dry_run)
        if not dry_run:
            check_into(recipe, into)
        source = RowSource(
            file,
            dataset,
            test,
            no_split=no_split,
            hold_out=hold_out,
            by_time=by_time,
            repeats=repeats,
            skip_bad=skip_bad,
            remember=not dry_run,
            accept_loss=drop_leaks,
            folds=_chosen_folds(given) if "folds" in chosen.reads else 0,
            options=read_options(columns, encoding),
            method=chosen,
        )
        read = rows_or_ask(context, name, source, may_ask=not as_json)
        rows, notices = read.dataset, read.notices
        if read.folds:
            recipe = recipe_from({"folds": read.folds}, recipe)
        import_libraries(four_bits=recipe.method == "qlora")
        base = open_base(context.settings)
        from training.prepare import prepare

        here = on_ray.prepared_for(recipe) if ray else recipe
        prepared = prepare(
            context,
            name,
            rows,
            here,
            base,
            skip_bad=skip_bad,
            drop_leaks=drop_leaks or file is None,
        )
        notices += [*prepared.notices, *(warnings_of(prepared.dataset.train) if file else [])]
        if prepared.left_out:
            notices.append(
                f"{len(prepared.left_out)} rows were left out: "
                + "; ".join(map(str, prepared.left_out[:5]))
            )
        if dry_run:
            expected = _expected(context, prepared, price_per_hour)
            (
                emit({"notices": notices, **expected}, True)
                if as_json
                else show_expected(expected, notices)
            )
            return
        for notice in notices if not as_json else []:
            out.print(f"• {notice}", markup=False, soft_wrap=True)
        if ray:
            with run_progress() as watch:
                on_ray.run_there(context, ray, prepared, recipe, watch, notices, as_json)
            return
        report = "none" if no_report else "full" if full_report else "first look"
        outcome = _train(context, prepared, into, as_json=as_json, report=report)
        emit(summary(outcome, notices), True) if as_json else show_report(outcome, report)


def _chosen_folds(given: dict[str, Any]) -> int | None:
    """What somebody asked for; None leaves it to the size of the set."""
    return int(given["folds"]) if given.get("folds") is not None else None


def _expected(context: Context, prepared: Any, price_per_hour: float) -> dict[str, Any]:
    from training.pipeline import measured
    from training.recipe import relevant_fields

    prepared, _, _, expected = measured(context, prepared, price_per_hour)
    return {
        "alias": prepared.alias,
        "base": prepared.base.name,
        **expected,
        "recipe": relevant_fields(prepared.recipe.as_json()),
    }


def _train(
    context: Context,
    prepared: Any,
    into: Path | None = None,
    *,
    as_json: bool,
    report: str = "full",
) -> Any:
    from training import runs
    from training.pipeline import recipe_json

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
    started: Any,
    prepared: Callable[[], Any],
    into: Path | None = None,
    *,
    as_json: bool,
    report: str = "full",
) -> Any:
    """Do a run that has its row, `prepared()` first; the row is ended whatever happens.

    What is raised comes out as a WhetError where it can.

    Progress goes to standard error. What was made is printed as soon as it is stored, with
    `as_json` in one line there too; then comes the report.
    """
    from training import runs
    from training.pipeline import run_training
    from training.reporter import Reporter
    from training.run.resume import checkpoints_of
    from training.trainer import Cancelled

    try:
        on_stored = note_stored if as_json else show_stored
        with run_progress() as watch, Reporter(context, started, watch, on_stored) as reporter:
            return run_training(
                context, started, prepared(), reporter, actor=actor(), into=into, report=report
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


@train.command("methods")
def methods(as_json: bool = _Json) -> None:
    """Every way to train: what it learns, from which rows, and what the engine can do with the
    result.
    """
    from training.methods.registry import METHODS

    rows = [
        {
            "method": each.name,
            "learns": each.learns,
            "rows": each.rows,
            "engine": each.engine,
            "becomes": each.becomes,
            "recipe": f"{each.name}.toml",
            "said": each.said,
        }
        for each in METHODS.values()
    ]
    emit(
        (
            rows
            if as_json
            else [
                {name: row[name] for name in ("method", "learns", "rows", "becomes")}
                for row in rows
            ]
        ),
        as_json,
        title="methods",
    )


@train.command("list")
def list_runs(
    alias: str = typer.Option("", "--alias", help="Only of this alias."),
    limit: int = typer.Option(20, "--limit", min=1, max=1000, help="Newest runs to print."),
    as_json: bool = _Json,
) -> None:
    """Runs, newest first."""
    with opened() as context:
        from training import runs

        with reading(context.database) as connection:
            rows = runs.newest(connection, alias_filter(connection, alias), limit)
        if as_json:
            emit(
                [{key: value for key, value in row.items() if key != "curve"} for row in rows], True
            )
            return
        now = now_ms()
        emit([_line(row, now) for row in rows], False, title="runs")
        for row in rows:
            if row["state"] == runs.FAILED and row["error"]:
                out.print(f"{row['id']}: {row['error']}", markup=False, soft_wrap=True)


def _line(row: dict[str, Any], now: int) -> dict[str, Any]:
    progress = row["progress"]
    return {
        "run": row["id"],
        "alias": row["alias"],
        "state": row["state"],
        "step": f"{progress.get('step', 0)}/{progress.get('steps', '?')}",
        "loss": progress.get("loss"),
        "started": relative(row["started_at"], now),
    }


@train.command("show")
def show(
    run_id: str = typer.Argument(..., metavar="RUN", help="Id of a run, or its beginning."),
    as_json: bool = _Json,
) -> None:
    """Everything about one run: recipe, progress, loss curve, estimate against fact, evaluation."""
    with opened() as context:
        from training import runs
        from training.requests import evaluations_of

        with reading(context.database) as connection:
            row = runs.find(connection, run_id)
            row["evaluations"] = evaluations_of(connection, row["adapter_digest"])
            labels = {each.digest: each.label for each in list_adapters(connection, removed=True)}
        if as_json:
            emit(row, True)
            return
        from training.commands.shown import show_run

        show_run({**row, "label": labels.get(row["adapter_digest"], "")}, labels, now_ms())


@train.command("cancel")
def cancel(
    run_id: str = typer.Argument(
        ..., metavar="RUN", help="Id of a run or of a training request, or its beginning."
    ),
    as_json: bool = _Json,
) -> None:
    """Stop a running run at its next step, or withdraw a request. Nothing of it is stored."""
    with opened() as context:
        from training import runs

        row = runs.request_cancel(context, run_id, actor=actor(), now=now_ms())
        state = "cancelled" if row["state"] == runs.CANCELLED else "cancelling"
        emit({"run": row["id"], "state": state}, as_json)
