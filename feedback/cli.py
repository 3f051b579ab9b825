"""Define `whet review`, `whet datasets` and `whet erase`: their options and their help.

Each names the function of `feedback.commands` that does its work, which is imported when it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from whet.lazy import runs

review = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Judge conversations: the queue, and what was decided.",
)
datasets = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Dataset versions built from reviewed conversations.",
)

_Json = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]
_Alias = Annotated[str, typer.Option("--alias", help="Only this alias.")]


@review.command("next")
@runs("feedback.commands.review:claim_next")
def review_next(
    alias: _Alias = "",
    reason: Annotated[str, typer.Option(help="Only this reason.")] = "",
    as_json: _Json = False,
) -> None:
    """Claim the next conversation and print it. Exit code 0 also when the queue is empty."""


@review.command("stats")
@runs("feedback.commands.review:show_stats")
def review_stats(alias: _Alias = "", as_json: _Json = False) -> None:
    """What waits, what was decided today, and how fast."""


@review.command("decide")
@runs("feedback.commands.review:decide")
def review_decide(
    item_id: Annotated[str, typer.Argument(metavar="ITEM")],
    decision: Annotated[str, typer.Argument(metavar="approve|edit|reject|skip")],
    answer: Annotated[
        str, typer.Option(help="The right answer, for `edit`; `-` reads it from standard input.")
    ] = "",
    label: Annotated[list[str] | None, typer.Option(help="May be given several times.")] = None,
    tool_calls: Annotated[
        str,
        typer.Option(help="Calls of tools of an edited answer: a JSON list of name, arguments."),
    ] = "",
    note: str = "",
    accept_cut: Annotated[
        bool, typer.Option(help="Approve although the answer ended at its token limit.")
    ] = False,
    accept_labels: Annotated[
        bool, typer.Option(help="Approve although a label says what is wrong with the answer.")
    ] = False,
    passage_verdict: Annotated[
        str,
        typer.Option(
            metavar="missing|wrong|ignored", help="What was wrong with the passages of its prompt."
        ),
    ] = "",
    passage: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Which passage; may be given several times."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Record a decision."""


@datasets.command("build")
@runs("feedback.commands.datasets:build")
def datasets_build(alias: _Alias = "", note: str = "", as_json: _Json = False) -> None:
    """Build a version from all standing examples; the same rows give the same version."""


@datasets.command("import")
@runs("feedback.commands.dataset_import:import_rows")
def datasets_import(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…",
            help="Training rows: JSONL, JSON, CSV, Parquet, or a folder that `datasets` saved.",
        ),
    ],
    alias: Annotated[
        str, typer.Option("--alias", help="Name of the version. Default: default_alias.")
    ] = "",
    test: Annotated[
        Path | None, typer.Option("--test", help="Rows to judge by, instead of a part of FILE.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method", help="Method that is to learn them: what its run refuses is refused."
        ),
    ] = "lora",
    no_split: Annotated[
        bool, typer.Option("--no-split", help="All rows of FILE are for training.")
    ] = False,
    hold_out: Annotated[
        str,
        typer.Option("--hold-out", help="Held out together: pattern, question, user, or auto."),
    ] = "auto",
    by_time: Annotated[
        str, typer.Option("--by-time", help="Field with a time: the newest rows are held out.")
    ] = "",
    repeats: Annotated[
        str, typer.Option("--repeats", help="Exact repeats: keep, weight or remove.")
    ] = "keep",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out rows that cannot be learned from.")
    ] = False,
    drop_leaks: Annotated[
        bool,
        typer.Option(
            "--drop-leaks", help="Go on where more than a tenth of the rows has to be dropped."
        ),
    ] = False,
    columns: Annotated[
        str,
        typer.Option("--columns", help="Which field is which: prompt=Frage,completion=Antwort."),
    ] = "",
    encoding: Annotated[
        str, typer.Option("--encoding", help="Of text files that do not say it themselves.")
    ] = "",
    note: str = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read, check and part the rows; store nothing.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Make a version of files; the same rows are the same version. Reviewed rows build upon it."""


@datasets.command("list")
@runs("feedback.commands.datasets:list_all")
def datasets_list(alias: _Alias = "", as_json: _Json = False) -> None:
    """Versions, newest first."""


@datasets.command("show")
@runs("feedback.commands.datasets:show")
def datasets_show(
    reference: Annotated[
        str,
        typer.Argument(metavar="VERSION", help="support@3, support (its newest), or a digest."),
    ],
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="The ids too: of examples and left-out rows.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """One version: rows, weight of reviewed rows, what was replaced or left out and why."""


@datasets.command("retraining")
@runs("feedback.commands.retraining:show")
def datasets_retraining(alias: _Alias = "", as_json: _Json = False) -> None:
    """What the retraining policy sees of each alias now, and what it would decide."""


@datasets.command("diff")
@runs("feedback.commands.datasets:show_diff")
def datasets_diff(a: str, b: str, as_json: _Json = False) -> None:
    """What changed from version A to version B."""


@datasets.command("export")
@runs("feedback.commands.datasets:export")
def datasets_export(
    reference: Annotated[str, typer.Argument(metavar="VERSION")],
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    as_json: _Json = False,
) -> None:
    """Copy a version's files: train.jsonl, validation.jsonl, test.jsonl, manifest.json."""


@runs("feedback.commands.erase:erase")
def erase(
    user: Annotated[
        str, typer.Option("--user", help="The end user, as the application names them in `user`.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: _Json = False,
) -> None:
    """Erase one end user: examples withdrawn and blanked, review texts removed, a receipt kept.
    The scheduler deletes the conversations and ratings within a minute."""
