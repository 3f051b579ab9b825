"""Define `whet data …`: check, clean, split, mix and augment rows."""

from __future__ import annotations

from pathlib import Path

import typer

from training.cli.options import BY_TIME, COLUMNS, ENCODING, HOLD_OUT, VERBOSE
from training.imports import load
from whet.lazy import runs

data = typer.Typer(
    no_args_is_help=True,
    help=(
        "Check, clean, split, mix and augment training rows: JSONL, JSON, CSV, Parquet, `datasets`"
        " folders."
    ),
)
_Json = typer.Option(False, "--json", help="Print one JSON document.")
_File = typer.Argument(..., metavar="FILE", help="File of training rows.")
_Region = typer.Option(
    "", "--region", help="Country (two letters) whose phone numbers may stand without +."
)
_SkipBad = typer.Option(
    False, "--skip-bad", help="Leave out lines that are not rows, instead of refusing."
)


@data.command("check")
@runs("training.commands.data_check:check", load)
def check(
    file: Path = _File,
    test: Path | None = typer.Option(
        None, "--test", help="A test set that no row may be known from."
    ),
    report: Path | None = typer.Option(
        None, "--report", help="Also write an HTML page with plots here."
    ),
    region: str = _Region,
    method: str = typer.Option(
        "lora", "--method", help="The method that is to learn them: its run refuses the same rows."
    ),
    verbose: bool = VERBOSE,
    columns: str = COLUMNS,
    encoding: str = ENCODING,
    as_json: bool = _Json,
) -> None:
    """What is wrong with the rows and what to do about it, and what the model will see.

    Exit code 2 when a run would refuse them.
    """


@data.command("stats")
@runs("training.commands.data_check:stats", load)
def stats(
    file: Path = _File,
    columns: str = COLUMNS,
    encoding: str = ENCODING,
    as_json: bool = _Json,
) -> None:
    """Tokens per row (histogram), learned tokens, over-long rows, duplicates, tasks, origins,
    labels, languages.
    """


@data.command("clean")
@runs("training.commands.data:clean")
def clean(
    file: Path = _File,
    into: Path = typer.Option(
        ...,
        "--into",
        help="File for the clean rows (JSONL); a record of what was done is written beside it.",
    ),
    near: bool = typer.Option(
        False, "--near", help="Also leave out rows that are nearly the same as an earlier one."
    ),
    keep_duplicates: bool = typer.Option(
        False, "--keep-duplicates", help="Leave exact duplicates in."
    ),
    keep_pii: bool = typer.Option(False, "--keep-pii", help="Leave personal data in."),
    keep_characters: bool = typer.Option(
        False,
        "--keep-characters",
        help="Leave Unicode form, control characters and white space as they are.",
    ),
    region: str = _Region,
    skip_bad: bool = _SkipBad,
    columns: str = COLUMNS,
    encoding: str = ENCODING,
    as_json: bool = _Json,
) -> None:
    """Normalise texts, replace personal data by placeholders that are seen and never learned, leave
    out duplicates. Exit code 2 when a row had to be refused.
    """


@data.command("split")
@runs("training.commands.data:split")
def split(
    file: Path = _File,
    into: Path = typer.Option(
        ...,
        "--into",
        help="Folder for train.jsonl, validation.jsonl and test.jsonl; it must not hold them yet.",
    ),
    validation: float = typer.Option(
        0.1, "--validation", min=0, max=0.9, help="Share of rows, 0 to 0.9."
    ),
    test: float = typer.Option(0.1, "--test", min=0, max=0.9, help="Share of rows, 0 to 0.9."),
    parent: Path | None = typer.Option(
        None, "--parent", help="Folder of an earlier split: its rows keep their parts."
    ),
    hold_out: str = HOLD_OUT,
    by_time: str = BY_TIME,
    drop_leaks: bool = typer.Option(
        False,
        "--drop-leaks",
        help="Write the parts although more than a tenth of the rows is in none of them.",
    ),
    skip_bad: bool = _SkipBad,
    columns: str = COLUMNS,
    encoding: str = ENCODING,
    as_json: bool = _Json,
) -> None:
    """Split into parts that do not repeat each other: rows with one question or group stay
    together, and a row keeps its part with --parent.
    """


@data.command("augment")
@runs("training.commands.data_more:augment")
def augment(
    file: Path = typer.Argument(
        ...,
        metavar="FILE",
        help="File of training rows: the training part of a split, never a test set.",
    ),
    into: Path = typer.Option(
        ..., "--into", help="File for the new rows (JSONL); a record is written beside it."
    ),
    methods: str = typer.Option(
        "swap,delete",
        "--methods",
        help="Some of swap, delete, insert, synonym, paraphrase, back-translate; taken in turn.",
    ),
    per_row: int = typer.Option(1, "--per-row", min=1, max=100, help="New rows for each row."),
    synonyms: Path | None = typer.Option(
        None,
        "--synonyms",
        help=(
            "File of synonyms: one group on each line, separated by commas, or JSON. Default:"
            " WordNet, where its data is installed."
        ),
    ),
    test: Path | None = typer.Option(
        None,
        "--test",
        help=(
            "Held-out rows that no new row may be like. Default: the other parts of the split in"
            " which FILE lies."
        ),
    ),
    endpoint: str = typer.Option(
        "",
        "--endpoint",
        help="OpenAI-compatible address, up to /v1, for paraphrase and back-translate.",
    ),
    model: str = typer.Option("", "--model", help="Model to ask there."),
    key_env: str = typer.Option(
        "OPENAI_API_KEY", "--key-env", help="Environment variable that holds the endpoint's key."
    ),
    through: str = typer.Option(
        "German", "--through", help="Language that back-translation goes through."
    ),
    language: str = typer.Option(
        "English", "--language", help="Language of the questions, for back-translation."
    ),
    seed: int = typer.Option(0, "--seed", help="Same seed and rows: same word changes."),
    with_originals: bool = typer.Option(
        False, "--with-originals", help="Write the rows of FILE too."
    ),
    skip_bad: bool = _SkipBad,
    columns: str = COLUMNS,
    encoding: str = ENCODING,
    as_json: bool = _Json,
) -> None:
    """New training rows: the question in other words, the answer as it is, marked synthetic with
    the row they were made from.
    """


@data.command("mix")
@runs("training.commands.data_more:mix")
def mix(
    files: list[Path] = typer.Argument(
        ..., metavar="FILE...", help="Files of training rows; each is a set, named by its file."
    ),
    into: Path = typer.Option(
        ..., "--into", help="File for the rows (JSONL); a record is written beside it."
    ),
    temperature: float = typer.Option(
        1.0,
        "--temperature",
        help=(
            "1: every row counts alike; as it grows, every set does. Rates are proportional to"
            " rows^(1/temperature)."
        ),
    ),
    rows: int = typer.Option(
        0, "--rows", min=0, help="Rows of the mixture at most. Default: all, with weights."
    ),
    balance: bool = typer.Option(
        False,
        "--balance",
        help="Weigh rows so that every label of a task (or every task) counts alike.",
    ),
    replay: Path | None = typer.Option(
        None, "--replay", help="Earlier rows to mix in, against forgetting."
    ),
    share: float = typer.Option(
        0.2, "--share", help="Share of replayed rows in the result, 0 to 1."
    ),
    skip_bad: bool = _SkipBad,
    columns: str = COLUMNS,
    encoding: str = ENCODING,
    as_json: bool = _Json,
) -> None:
    """Rows of several sets in one, by weights: mixtures with a temperature, replay of earlier rows,
    balanced labels.
    """
