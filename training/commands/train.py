"""`whet train …`: start a run, follow it, stop it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from whet.cli import actor, emit, err, opened, out
from whet.clock import iso, now_ms
from whet.context import Context
from whet.database import reading
from whet.errors import InputError, TrainingError, WhetError
from whet.ids import check_name

train = typer.Typer(no_args_is_help=True, help="Train adapters: from a file or a dataset version to a judged, stored version.")

_Json = typer.Option(False, "--json", help="Print one JSON document.")


@train.command("run")
def run(
    file: Path | None = typer.Argument(None, metavar="[FILE]", help="JSONL file of training rows."),
    dataset: str = typer.Option("", "--dataset", help="A dataset version instead of a file, such as support@v2."),
    alias: str = typer.Option("", "--alias", help="Name of the adapter. Default: the setting default_alias."),
    test: Path | None = typer.Option(None, "--test", help="JSONL file to judge by, instead of a part of FILE."),
    no_split: bool = typer.Option(False, "--no-split", help="Train on every row of FILE; without --test nothing can be compared."),
    recipe_name: str = typer.Option("lora", "--recipe", help="A recipe in training/recipes, or the path of a .toml file."),
    method: str = typer.Option("", "--method", help="lora."),
    rank: int = typer.Option(0, "--rank", help="Inner width of the adapter."),
    alpha: float = typer.Option(0.0, "--alpha", help="Scale: the update is multiplied by alpha / rank. Default: twice the rank."),
    epochs: float = typer.Option(0.0, "--epochs", help="Passes over the training rows."),
    batch_size: int = typer.Option(0, "--batch-size", help="Rows per step."),
    learning_rate: float = typer.Option(0.0, "--learning-rate", "--lr", help="Peak learning rate. Default: by the size of the base."),
    max_length: int = typer.Option(0, "--max-length", help="Tokens per row; longer rows are refused."),
    seed: int = typer.Option(-1, "--seed", help="Same seed, data, base and threads: same weights, on a CPU."),
    threads: int = typer.Option(0, "--threads", help="CPU threads. Default: measured at the start."),
    init_from: str = typer.Option("", "--init-from", help="Start from this adapter's weights: a label, or 'production'."),
    skip_bad: bool = typer.Option(False, "--skip-bad", help="Leave out rows that cannot be learned from, instead of refusing."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only print tokens, steps, expected time and memory."),
    as_json: bool = _Json,
) -> None:
    """Check the rows, train, compare with production (or the base) on held-out rows, store a version and say what to do next."""
    overrides = {
        "method": method, "rank": rank, "alpha": alpha or (2.0 * rank), "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate,
        "max_length": max_length, "seed": seed if seed >= 0 else None, "threads": threads, "init_from": init_from,
    }  # fmt: skip
    with opened() as context:
        from training.base_model import open_base, quiet_environment
        from training.platform_tuning import keep_memory
        from training.recipe import check_servable, load_recipe, recipe_from

        quiet_environment()
        keep_memory()
        name = check_name(alias or context.settings.default_alias, "alias")
        recipe = recipe_from({key: value for key, value in overrides.items() if value or (key == "seed" and value is not None)}, load_recipe(recipe_name))
        check_servable(recipe, context.settings.engine_max_lora_rank)
        rows, notices = _dataset(context, name, file, dataset, test, no_split=no_split, skip_bad=skip_bad)
        base = open_base(context.settings)
        from training.prepare import prepare

        prepared = prepare(context, name, rows, recipe, base, skip_bad=skip_bad)
        notices += prepared.notices
        if prepared.left_out:
            notices.append(f"{len(prepared.left_out)} rows were left out: " + "; ".join(map(str, prepared.left_out[:5])))
        if dry_run:
            emit({"notices": notices, **_expected(context, prepared)}, as_json)
            return
        for notice in notices if not as_json else []:
            out.print(f"• {notice}", markup=False)
        outcome = _train(context, prepared, quiet=as_json)
        emit(_summary(outcome, notices), as_json) if as_json else _tell(outcome)


def _dataset(context: Context, name: str, file: Path | None, reference: str, test: Path | None, *, no_split: bool, skip_bad: bool) -> tuple[Any, list[str]]:
    """The dataset to train on, and what to say about how it came about."""
    from training import datasets, rows

    if bool(file) == bool(reference):
        raise InputError(
            "Expected either a FILE or --dataset NAME@vN, found " + ("both." if file else "neither."),
            hint="For example: whet train run rows.jsonl --alias support",
        )
    if reference:
        if test or no_split:
            raise InputError("--test and --no-split belong to a FILE; a dataset version has its test part already.")
        return find_dataset(context, reference), []
    assert file is not None
    reading_ = rows.read_file(file)
    reading_.refuse_bad(str(file), skip_bad=skip_bad)
    notices = describe_reading(reading_, str(file))
    shares = datasets.Shares(0.0, 0.0) if no_split else datasets.default_shares(len(reading_.rows), separate_test=test is not None)
    parts = datasets.split(reading_.rows, shares)
    if test is not None:
        judged = rows.read_file(test)
        judged.refuse_bad(str(test), skip_bad=skip_bad)
        parts["test"] = judged.rows
    if not no_split:
        why = " (fewer than 2,000 rows: a validation part would cost more than it tells)" if not shares.validation else ""
        notices.append(
            f"Split {shares.words()} into train, validation and test{why}: " + ", ".join(f"{len(parts[part])} {part}" for part in datasets.PARTS) + " rows."
        )
    return datasets.save(context.store, name, parts), notices


def describe_reading(reading_: Any, source: str) -> list[str]:
    """What a person should know about a file that was accepted."""
    notices = []
    if reading_.bad:
        notices.append(f"{source}: {len(reading_.bad)} lines left out: " + "; ".join(map(str, reading_.bad[:5])) + ("; …" if len(reading_.bad) > 5 else ""))
    if reading_.blank:
        notices.append(f"{source}: {len(reading_.blank)} empty lines.")
    for field, count in reading_.unknown_fields.items():
        notices.append(f"{source}: the field {field!r} in {count} rows has no meaning here.")
    return notices


def find_dataset(context: Context, reference: str) -> Any:
    """A dataset version by `name@vN`, name (its newest version) or digest. Raises NotFoundError."""
    from training import datasets
    from training.requests import dataset_row

    with reading(context.database) as connection:
        row = dataset_row(connection, reference)
    return datasets.load(context.store, row["path"], row["digest"], row["name"])


def _expected(context: Context, prepared: Any) -> dict[str, Any]:
    from training.pipeline import load, pad_token
    from training.prepare import choose_threads, estimate

    model = load(context, prepared)
    threads, speed = choose_threads(model, prepared.train, prepared.recipe, pad_token(prepared))
    return {"alias": prepared.alias, "base": prepared.base.name, **estimate(prepared, speed), "recipe": replace(prepared.recipe, threads=threads).as_json()}


def _train(context: Context, prepared: Any, *, quiet: bool) -> Any:
    from training import runs
    from training.pipeline import recipe_json, run_training
    from training.reporter import Reporter
    from training.trainer import Cancelled

    runs.close_abandoned(context, now_ms())
    worker = f"cli:{socket.gethostname()}:{os.getpid()}"
    started = runs.start(
        context,
        alias=prepared.alias,
        dataset_digest=prepared.dataset.digest,
        base_digest=prepared.base.digest,
        recipe=recipe_json(prepared),
        estimate={},
        worker=worker,
        now=now_ms(),
    )
    try:
        with _bar(quiet) as watch, Reporter(context, started, watch) as reporter:
            return run_training(context, started, prepared, reporter, actor=actor())
    except Cancelled:
        runs.end(context, started, runs.CANCELLED, "Cancelled on request.", now_ms())
        raise TrainingError(f"The run {started.id} was cancelled.", hint="Nothing was stored.") from None
    except KeyboardInterrupt:
        runs.end(context, started, runs.CANCELLED, "Interrupted on the command line.", now_ms())
        raise
    except WhetError as error:
        runs.end(context, started, runs.FAILED, str(error), now_ms())
        raise
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
            elif stage == "evaluating" and "answered" in state:
                progress.update(task, description=stage, completed=state["answered"], total=state["to_answer"], detail="answers")
            else:
                progress.update(task, description=stage)

        yield watch


def _summary(outcome: Any, notices: list[str]) -> dict[str, Any]:
    judgement = outcome.judgement
    return {
        "run": outcome.run_id,
        "adapter": outcome.adapter.label,
        "digest": outcome.adapter.digest,
        "path": outcome.adapter.path,
        "verdict": judgement.verdict,
        "reason": judgement.reason,
        "against": judgement.against_name,
        "metrics": judgement.decision.metrics if judgement.decision else {},
        "loss": {"first": round(outcome.trained.first_loss, 4), "last": round(outcome.trained.last_loss, 4)},
        "tokens_per_s": round(outcome.trained.tokens_per_s),
        "seconds": {name: round(value, 1) for name, value in outcome.seconds.items()},
        "expected_seconds": outcome.estimate["seconds"],
        "dataset_digest": outcome.adapter.dataset_digest,
        "samples_path": judgement.samples_path,
        "next": _next(outcome),
        "notices": notices,
    }


def _next(outcome: Any) -> str:
    """The command that follows; a version that failed its gate is not recommended."""
    if outcome.judgement.verdict == "fail":
        return f"whet train show {outcome.run_id}"
    return f"whet rollout promote {outcome.adapter.name}"


def _tell(outcome: Any) -> None:
    judgement, colours = outcome.judgement, {"pass": "green", "fail": "red"}
    trained = outcome.trained
    out.print(f"[bold]{outcome.adapter.label}[/bold]  stored as {outcome.adapter.path}")
    out.print(
        f"{trained.steps} steps, {trained.tokens:,} tokens in {trained.seconds:.0f} s ({trained.tokens_per_s:,.0f} tokens/s), loss {trained.first_loss:.3f} to {trained.last_loss:.3f}"
    )
    from training.commands.evaluate import metrics_table

    rows = metrics_table(judgement.decision.metrics if judgement.decision else {}, outcome.adapter.label, judgement.against_name)
    if rows:
        emit(rows, False)
    out.print(f"[bold {colours.get(judgement.verdict, 'yellow')}]{judgement.verdict}[/]  ", end="")
    out.print(judgement.reason, markup=False)
    if judgement.samples_path:
        out.print(f"Every answer: {judgement.samples_path} in the store", markup=False)
    out.print(f"Next: {_next(outcome)}", markup=False)


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
            rows = runs.newest(connection, alias or None, limit)
        if as_json:
            emit([{key: value for key, value in row.items() if key != "curve"} for row in rows], True)
            return
        emit([_line(row) for row in rows], False, title="runs")


def _line(row: dict[str, Any]) -> dict[str, Any]:
    progress = row["progress"]
    return {
        "run": row["id"], "alias": row["alias"], "state": row["state"], "stage": progress.get("stage"), "step": f"{progress.get('step', 0)}/{progress.get('steps', '?')}",
        "loss": progress.get("loss"), "tokens/s": progress.get("tokens_per_s"), "attempt": row["attempt"], "started": iso(row["started_at"]), "error": row["error"],
    }  # fmt: skip


@train.command("show")
def show(run_id: str = typer.Argument(..., metavar="RUN", help="Id of a run, or its beginning."), as_json: bool = _Json) -> None:
    """Everything about one run: recipe, progress, loss curve, estimate against fact, evaluation."""
    with opened() as context:
        from training import runs
        from training.requests import evaluations_of

        with reading(context.database) as connection:
            row = runs.find(connection, run_id)
            row["evaluations"] = evaluations_of(connection, row["adapter_digest"])
        if not as_json:
            row["curve"] = f"{len(row['curve'])} points (--json prints them)"
            for name in ("started_at", "heartbeat_at", "finished_at"):
                row[name] = iso(row[name])
        emit(row, as_json)


@train.command("cancel")
def cancel(run_id: str = typer.Argument(..., metavar="RUN", help="Id of a run, or its beginning."), as_json: bool = _Json) -> None:
    """Stop a running run at its next step. Nothing of it is stored."""
    with opened() as context:
        from training import runs

        row = runs.request_cancel(context, run_id, actor=actor(), now=now_ms())
        emit({"run": row["id"], "state": "cancelling"}, as_json)
