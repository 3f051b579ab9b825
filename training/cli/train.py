"""Define `whet train …`: start a run, follow it, stop it."""

from __future__ import annotations

from pathlib import Path

import typer

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
    hold_out: str = HOLD_OUT,
    by_time: str = BY_TIME,
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
    rehearsal_share: float | None = typer.Option(
        None,
        "--rehearsal-share",
        help=(
            "Share of the training, 0 to 0.5, that is general questions as the base answers them,"
            " so that it keeps what it can do. Default: 0.15 for bases above 50 M parameters, else"
            " 0."
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
        help=(
            "After the verdict, train on all rows, held-out ones too, and store that. Default: yes"
            " for up to 1,000 rows, unless --test gives the rows to judge by."
        ),
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
