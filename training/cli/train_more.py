"""Define `whet train lr-find`, `resume` and `search`."""

from __future__ import annotations

from pathlib import Path

import typer

from training.cli.options import COLUMNS, ENCODING
from training.cli.train import train
from training.imports import load
from whet.lazy import runs

_MINUTES = 5.0  # a hundred steps of a small base take seconds


@train.command("lr-find")
@runs("training.commands.lr_find:lr_find", load)
def lr_find(
    file: Path | None = typer.Argument(None, metavar="[FILE]", help="File of training rows."),
    dataset: str = typer.Option(
        "", "--dataset", help="A dataset version instead of a file, such as support@v2."
    ),
    recipe_name: str = typer.Option(
        "", "--recipe", help="A recipe, by name or path. Default: the method's own."
    ),
    method: str = typer.Option("", "--method", help="How to train. Default: lora."),
    rank: int | None = typer.Option(None, "--rank", help="Inner width of the adapter."),
    batch_size: int | None = typer.Option(None, "--batch-size", help="Rows per step."),
    assignments: list[str] = typer.Option(
        [], "--set", metavar="FIELD=VALUE", help="Any other field of a recipe; may be given again."
    ),
    minutes: float = typer.Option(
        _MINUTES,
        "--minutes",
        min=0.1,
        help="Longest time of the test; fewer steps where it takes longer.",
    ),
    alias: str = typer.Option(
        "",
        "--alias",
        help="Name of the adapter that the rows are for. Default: the setting default_alias.",
    ),
    skip_bad: bool = typer.Option(
        False, "--skip-bad", help="Leave out rows that cannot be learned from, instead of refusing."
    ),
    columns: str = COLUMNS,
    encoding: str = ENCODING,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Train some hundred steps at rising learning rates and suggest one; nothing is stored but a
    picture.
    """


@train.command("resume")
@runs("training.commands.resume:resume", load)
def resume(
    run_id: str = typer.Argument(..., metavar="RUN", help="Id of a run, or its beginning."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Go on with a run that failed or whose process was killed, from its newest checkpoint: same
    rows, recipe and base, and the same result.
    """


@train.command("search")
@runs("training.commands.search:search", load)
def search(
    file: Path | None = typer.Argument(None, metavar="[FILE]", help="JSONL file of training rows."),
    dataset: str = typer.Option(
        "", "--dataset", help="A dataset version instead of a file, such as support@v2."
    ),
    trials: int = typer.Option(
        0,
        "--trials",
        min=0,
        help="Trials in all; those of an earlier call of the same search count.",
    ),
    minutes: float = typer.Option(
        0.0, "--minutes", min=0.0, help="Minutes of this call; a trial that has begun is finished."
    ),
    params: str = typer.Option(
        "learning_rate,rank,epochs",
        "--params",
        help="What is searched: learning_rate, rank, epochs, batch_size, alpha.",
    ),
    pruner: str = typer.Option(
        "median", "--pruner", help="How hopeless trials are ended early: median or hyperband."
    ),
    recipe_name: str = typer.Option(
        "lora", "--recipe", help="Where what is not searched comes from."
    ),
    alias: str = typer.Option(
        "",
        "--alias",
        help="Name of the adapter that the rows are for. Default: the setting default_alias.",
    ),
    seed: int = typer.Option(0, "--seed", help="Of the proposals."),
    skip_bad: bool = typer.Option(
        False, "--skip-bad", help="Leave out rows that cannot be learned from, instead of refusing."
    ),
    on: str = typer.Option(
        "",
        "--on",
        help="ray (one that is started here), or ray=ADDRESS of a cluster: several trials at once.",
    ),
    columns: str = COLUMNS,
    encoding: str = ENCODING,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Search learning rate, rank, epochs … by the loss on validation rows; write the best recipe
    and a picture of what mattered.
    """


__all__ = ["train"]
