"""Define `whet train …`: start a run, follow it, stop it."""

from __future__ import annotations

from pathlib import Path

import typer

from training.cli import train_options as options
from training.cli.options import BY_TIME, COLUMNS, ENCODING, HOLD_OUT
from whet.lazy import runs

train = typer.Typer(
    no_args_is_help=True,
    help="Train adapters: from a file or a dataset version to a judged, stored version.",
)
_Json = typer.Option(False, "--json", help="Print one JSON document.")


@train.command("run")
@runs("training.commands.train:run")
def run(
    file: Path | None = options.FILE,
    dataset: str = options.DATASET,
    alias: str = options.ALIAS,
    test: Path | None = options.TEST,
    drop_leaks: bool = options.DROP_LEAKS,
    no_split: bool = options.NO_SPLIT,
    hold_out: str = HOLD_OUT,
    by_time: str = BY_TIME,
    repeats: str = options.REPEATS,
    recipe_name: str = options.RECIPE_NAME,
    method: str = options.METHOD,
    into: Path | None = options.INTO,
    teacher: str | None = options.TEACHER,
    rank: int | None = options.RANK,
    alpha: float | None = options.ALPHA,
    epochs: float | None = options.EPOCHS,
    batch_size: int | None = options.BATCH_SIZE,
    learning_rate: float | None = options.LEARNING_RATE,
    micro_batch: int | None = options.MICRO_BATCH,
    gradient_checkpointing: bool | None = options.GRADIENT_CHECKPOINTING,
    processes: int | None = options.PROCESSES,
    packing: bool | None = options.PACKING,
    question_variants: int | None = options.QUESTION_VARIANTS,
    counterfactual_share: float | None = options.COUNTERFACTUAL_SHARE,
    rehearsal_share: float | None = options.REHEARSAL_SHARE,
    folds: int | None = options.FOLDS,
    refit: bool | None = options.REFIT,
    patience: int | None = options.PATIENCE,
    sample_every: int | None = options.SAMPLE_EVERY,
    device: str | None = options.DEVICE,
    max_length: int | None = options.MAX_LENGTH,
    dropout: float | None = options.DROPOUT,
    warmup: float | None = options.WARMUP,
    schedule: str | None = options.SCHEDULE,
    target_modules: str | None = options.TARGET_MODULES,
    weight_decay: float | None = options.WEIGHT_DECAY,
    assignments: list[str] = options.SET,
    seed: int | None = options.SEED,
    threads: int | None = options.THREADS,
    init_from: str | None = options.INIT_FROM,
    skip_bad: bool = options.SKIP_BAD,
    on: str = options.ON,
    no_report: bool = options.NO_REPORT,
    full_report: bool = options.FULL_REPORT,
    dry_run: bool = options.DRY_RUN,
    price_per_hour: float = options.PRICE_PER_HOUR,
    columns: str = COLUMNS,
    encoding: str = ENCODING,
    as_json: bool = _Json,
) -> None:
    """Check the rows, train, compare with production (or the base) on held-out rows, store a
    version and say what to do next.
    """


@train.command("methods")
@runs("training.commands.runs:methods")
def methods(as_json: bool = _Json) -> None:
    """Every way to train: what it learns, from which rows, and what the engine can do with the
    result.
    """


@train.command("list")
@runs("training.commands.runs:list_runs")
def list_runs(
    alias: str = typer.Option("", "--alias", help="Only of this alias."),
    limit: int = typer.Option(20, "--limit", min=1, max=1000, help="Newest runs to print."),
    as_json: bool = _Json,
) -> None:
    """Runs, newest first."""


@train.command("show")
@runs("training.commands.runs:show")
def show(
    run_id: str = typer.Argument(..., metavar="RUN", help="Id of a run, or its beginning."),
    as_json: bool = _Json,
) -> None:
    """Everything about one run: recipe, progress, loss curve, estimate against fact, evaluation."""


@train.command("cancel")
@runs("training.commands.runs:cancel")
def cancel(
    run_id: str = typer.Argument(
        ..., metavar="RUN", help="Id of a run or of a training request, or its beginning."
    ),
    as_json: bool = _Json,
) -> None:
    """Stop a running run at its next step, or withdraw a request. Nothing of it is stored."""
