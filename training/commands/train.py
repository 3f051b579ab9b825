"""`whet train …`: start a run, follow it, stop it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from training.commands.options import COLUMNS, ENCODING
from training.commands.sources import RowSource, rows_or_ask, warnings_of
from whet.cli import actor, emit, err, opened, out
from whet.clock import now_ms
from whet.context import Context
from whet.database import reading
from whet.errors import TrainingError, WhetError
from whet.ids import check_name
from whet.registry import alias_filter, list_adapters
from whet.web.filters import relative

train = typer.Typer(no_args_is_help=True, help="Train adapters: from a file or a dataset version to a judged, stored version.")

_Json = typer.Option(False, "--json", help="Print one JSON document.")


@train.command("run")
def run(
    file: Path | None = typer.Argument(None, metavar="[FILE]", help="Training rows: JSONL, JSON, CSV, Parquet, or a folder that `datasets` saved."),
    dataset: str = typer.Option("", "--dataset", help="A dataset version instead of a file, such as support@v2."),
    alias: str = typer.Option("", "--alias", help="Name of the adapter. Default: the setting default_alias."),
    test: Path | None = typer.Option(None, "--test", help="File of rows to judge by, instead of a part of FILE."),
    drop_leaks: bool = typer.Option(
        False, "--drop-leaks", help="Go on where more than a tenth of the rows has to be dropped to prevent train/test leakage."
    ),
    no_split: bool = typer.Option(False, "--no-split", help="Train on every row of FILE; without --test nothing can be compared."),
    hold_out: str = typer.Option(
        "auto", "--hold-out", help="What is held out together: pattern (whole patterns of questions), question, user; auto chooses. See --by-time."
    ),
    by_time: str = typer.Option("", "--by-time", help="Field with a time: the newest rows are held out."),
    repeats: str = typer.Option("keep", "--repeats", help="Exact repeats: keep, weight (one row with their weights added up), or remove."),
    recipe_name: str = typer.Option("", "--recipe", help="A recipe in training/recipes, or the path of a .toml file. Default: the method's own."),
    method: str = typer.Option("", "--method", help="How to train; `whet train methods` lists them. Default: what the recipe says, lora without one."),
    into: Path | None = typer.Option(None, "--into", help="Where the result goes of a method that the engine cannot serve as an adapter; a new folder."),
    teacher: str | None = typer.Option(None, "--teacher", help="For distill: a model's folder, or http(s)://host/v1#MODEL."),
    rank: int | None = typer.Option(None, "--rank", help="Inner width of the adapter."),
    alpha: float | None = typer.Option(
        None, "--alpha", help="Scale: the update is multiplied by alpha / rank. Default: twice the rank; with rslora what its recipe says."
    ),
    epochs: float | None = typer.Option(None, "--epochs", help="Passes over the training rows."),
    batch_size: int | None = typer.Option(None, "--batch-size", help="Rows per step."),
    learning_rate: float | None = typer.Option(None, "--learning-rate", "--lr", help="Peak learning rate. Default: by the size of the base."),
    micro_batch: int | None = typer.Option(
        None, "--micro-batch", help="Rows computed at once; gradients are summed to those of --batch-size rows. Default: all of them."
    ),
    gradient_checkpointing: bool | None = typer.Option(
        None, "--gradient-checkpointing/--no-gradient-checkpointing", help="Compute activations twice to keep fewer: slower, less memory, same result."
    ),
    processes: int | None = typer.Option(None, "--processes", help="Processes that share the training on this machine (torchrun, FSDP). Default: 1."),
    packing: bool | None = typer.Option(None, "--packing/--no-packing", help="Several rows to a sequence, each seeing itself alone."),
    question_variants: int | None = typer.Option(
        None, "--question-variants", help="Wordings of each question over the passes; 1: as they are. Default: 4 below 5,000 rows."
    ),
    folds: int | None = typer.Option(
        None, "--folds", help="Judge by cross-validation with so many models beside the version, which is trained on all rows. Default: 5 for sets too small for a test."
    ),
    refit: bool | None = typer.Option(None, "--refit/--no-refit", help="After the verdict, train on all rows, held-out ones too, and store that."),
    patience: int | None = typer.Option(None, "--patience", help="Checks on validation rows without a new best before the run stops; 0: never."),
    device: str | None = typer.Option(None, "--device", help="auto, or cuda to refuse a machine without a GPU."),
    max_length: int | None = typer.Option(None, "--max-length", help="Tokens per row; longer rows are refused."),
    seed: int | None = typer.Option(None, "--seed", help="Same seed, data, base and threads: same weights, on a CPU."),
    threads: int | None = typer.Option(None, "--threads", help="CPU threads. Default: measured at the start."),
    init_from: str | None = typer.Option(None, "--init-from", help="Start from this adapter's weights: a label, or 'production'."),
    skip_bad: bool = typer.Option(False, "--skip-bad", help="Leave out rows that cannot be learned from, instead of refusing."),
    on: str = typer.Option("", "--on", help="ray, or ray=http://HOST:8265: train as a job of a Ray cluster instead of here."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only print tokens, steps, expected time, memory by part and cost."),
    price_per_hour: float = typer.Option(
        0.0, "--price-per-hour", min=0.0, help="What the machine costs an hour: --dry-run prints what the training will cost."
    ),
    columns: str = COLUMNS,
    encoding: str = ENCODING,
    as_json: bool = _Json,
) -> None:
    """Check the rows, train, compare with production (or the base) on held-out rows, store a version and say what to do next."""
    overrides = {
        "method": method or None, "rank": rank, "alpha": alpha, "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate,
        "max_length": max_length, "seed": seed, "threads": threads, "init_from": init_from, "teacher": teacher, "micro_batch": micro_batch,
        "gradient_checkpointing": gradient_checkpointing, "processes": processes, "packing": packing, "question_variants": question_variants, "folds": folds, "refit": refit, "patience": patience, "device": device,
    }  # fmt: skip
    with opened() as context:
        from training.base_model import open_base, quiet_environment
        from training.data.formats import read_options
        from training.methods.registry import find
        from training.platform_tuning import keep_memory
        from training.recipe import check_into, check_servable, load_recipe, recipe_from

        quiet_environment()
        keep_memory()
        name = check_name(alias or context.settings.default_alias, "alias")
        begun = load_recipe(recipe_name or find(method or "lora").name)
        chosen = find(method or begun.method)
        if rank and alpha is None and "alpha" in chosen.reads and chosen.name != "rslora":  # whose scale is made not to follow the rank
            overrides["alpha"] = 2.0 * rank
        recipe = recipe_from({name: value for name, value in overrides.items() if value is not None}, begun)
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
            folds=folds if "folds" in chosen.reads else 0,
            options=read_options(columns, encoding),
            method=chosen,
        )
        read = rows_or_ask(context, name, source, may_ask=not as_json)
        rows, notices = read.dataset, read.notices
        if read.folds:
            recipe = recipe_from({"folds": read.folds}, recipe)
        base = open_base(context.settings)
        from training.prepare import prepare

        here = on_ray.prepared_for(recipe) if ray else recipe
        prepared = prepare(context, name, rows, here, base, skip_bad=skip_bad, drop_leaks=drop_leaks or file is None)
        notices += [*prepared.notices, *(warnings_of(prepared.dataset.train) if file else [])]
        if prepared.left_out:
            notices.append(f"{len(prepared.left_out)} rows were left out: " + "; ".join(map(str, prepared.left_out[:5])))
        if dry_run:
            emit({"notices": notices, **_expected(context, prepared, price_per_hour)}, as_json)
            return
        for notice in notices if not as_json else []:
            out.print(f"• {notice}", markup=False)
        if ray:
            with _bar(as_json) as watch:
                on_ray.run_there(context, ray, prepared, recipe, watch, notices, as_json)
            return
        tell(_train(context, prepared, into, quiet=as_json), notices, as_json)


def _expected(context: Context, prepared: Any, price_per_hour: float) -> dict[str, Any]:
    from training.pipeline import measured

    prepared, _, _, expected = measured(context, prepared, price_per_hour)
    return {"alias": prepared.alias, "base": prepared.base.name, **expected, "recipe": prepared.recipe.as_json()}


def _train(context: Context, prepared: Any, into: Path | None = None, *, quiet: bool) -> Any:
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
    return see_through(context, started, lambda: prepared, into, quiet=quiet)


def this_process() -> str:
    """The `worker` of a run by hand."""
    return f"cli:{socket.gethostname()}:{os.getpid()}"


def see_through(context: Context, started: Any, prepared: Callable[[], Any], into: Path | None = None, *, quiet: bool) -> Any:
    """Do a run that has its row, `prepared()` first; the row is ended whatever happens. What is raised comes out as a WhetError where it can."""
    from training import runs
    from training.pipeline import run_training
    from training.reporter import Reporter
    from training.run.resume import checkpoints_of
    from training.trainer import Cancelled

    try:
        with _bar(quiet) as watch, Reporter(context, started, watch) as reporter:
            return run_training(context, started, prepared(), reporter, actor=actor(), into=into)
    except Cancelled:
        runs.end(context, started, runs.CANCELLED, "Cancelled on request.", now_ms())
        checkpoints_of(context, started.id).remove()
        raise TrainingError(f"The run {started.id} was cancelled.", hint="Nothing was stored.") from None
    except KeyboardInterrupt:
        reason = (
            "Interrupted on the command line. "
            f"`whet train resume {started.id}` goes on with it."
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


@contextmanager
def _bar(quiet: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A progress bar on standard error; silent when data is wanted."""
    if quiet:
        yield lambda progress: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("loading", total=None, detail="")

        def watch(state: dict[str, Any]) -> None:
            stage = state["stage"]
            if stage == "training" and "step" in state:
                progress.update(
                    task,
                    description=stage,
                    completed=state["step"],
                    total=state["steps"],
                    detail=f"loss {state['loss']:.3f} · {state['tokens_per_s']:,} tokens/s",
                )
            elif stage in ("evaluating", "reporting") and "answered" in state:
                progress.update(task, description=stage, completed=state["answered"], total=state["to_answer"], detail="answers")
            elif "done" in state:
                progress.update(task, description=stage, completed=state["done"], total=state["total"])
            else:
                progress.update(task, description=stage)

        yield watch


def tell(outcome: Any, notices: list[str], as_json: bool) -> None:
    """What a run made: one JSON document, or words."""
    emit(_summary(outcome, notices), True) if as_json else _tell(outcome)


def _summary(outcome: Any, notices: list[str]) -> dict[str, Any]:
    judgement = outcome.judgement
    return {
        "run": outcome.run_id,
        "adapter": outcome.adapter.label if outcome.adapter else None,
        "digest": outcome.adapter.digest if outcome.adapter else None,
        "path": outcome.adapter.path if outcome.adapter else None,
        "folder": str(outcome.folder) if outcome.folder else None,
        "verdict": judgement.verdict,
        "reason": judgement.reason,
        "against": judgement.against_name,
        "metrics": judgement.decision.metrics if judgement.decision else {},
        "loss": {"first": round(outcome.trained.first_loss, 4), "last": round(outcome.trained.last_loss, 4)},
        "tokens_per_s": round(outcome.trained.tokens_per_s),
        "seconds": {name: round(value, 1) for name, value in outcome.seconds.items()},
        "expected_seconds": outcome.estimate["seconds"],
        "estimate_error": outcome.estimate["error"],
        "signs": outcome.trained.signs,
        "dataset_digest": outcome.dataset_digest,
        "samples_path": judgement.samples_path,
        "next": _next(outcome),
        "notices": notices,
    }


def _next(outcome: Any) -> str:
    """The command that follows; a version that failed its gate is not recommended."""
    if outcome.judgement.verdict == "fail" or outcome.adapter is None:
        return f"whet train show {outcome.run_id}"
    if outcome.judgement.verdict != "pass":
        return f"whet eval run {outcome.label} --test FILE, with rows in other wordings than those of training"
    return f"whet rollout promote {outcome.adapter.name}"


def _tell(outcome: Any) -> None:
    judgement, colours = outcome.judgement, {"pass": "green", "fail": "red"}
    trained = outcome.trained
    out.print(f"[bold]{outcome.label}[/bold]" + (f"  stored as {outcome.adapter.path}" if outcome.adapter else "  written, with its card.json"))
    out.print(
        f"{trained.steps} steps, {trained.tokens:,} tokens in {trained.seconds:.0f} s ({trained.tokens_per_s:,.0f} tokens/s), loss {trained.first_loss:.3f} to {trained.last_loss:.3f}"
    )
    error = outcome.estimate["error"]
    if error:
        out.print("Estimate: " + ", ".join(f"{name.replace('_', ' ')} {100 * value:+.0f} %" for name, value in error.items()) + " of what was measured")
    for sign in trained.signs:
        out.print(f"• {sign}", style="yellow", markup=False)
    from training.commands.evaluate import metrics_table, print_details

    metrics = judgement.decision.metrics if judgement.decision else {}
    rows = metrics_table(metrics, outcome.label, judgement.against_name)
    if rows:
        emit(rows, False)
    print_details(metrics, outcome.label, judgement.against_name)
    out.print(f"[bold {colours.get(judgement.verdict, 'yellow')}]{judgement.verdict}[/]  ", end="")
    out.print(judgement.reason, markup=False)
    if judgement.samples_path:
        out.print(f"Every answer: {judgement.samples_path} in the store", markup=False)
    out.print(f"Next: {_next(outcome)}", markup=False)


@train.command("methods")
def methods(as_json: bool = _Json) -> None:
    """Every way to train: what it learns, from which rows, and what the engine can do with the result."""
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
    emit(rows if as_json else [{name: row[name] for name in ("method", "learns", "rows", "becomes")} for row in rows], as_json, title="methods")


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
            emit([{key: value for key, value in row.items() if key != "curve"} for row in rows], True)
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
def show(run_id: str = typer.Argument(..., metavar="RUN", help="Id of a run, or its beginning."), as_json: bool = _Json) -> None:
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
