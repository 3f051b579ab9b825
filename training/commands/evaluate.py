"""`whet eval …`: judge a stored version again, or two versions against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from whet.cli import actor, emit, opened, out
from whet.context import Context
from whet.errors import InputError

evaluate = typer.Typer(no_args_is_help=True, help="Judge stored versions on held-out rows.")

_Json = typer.Option(False, "--json", help="Print one JSON document.")
_Test = typer.Option(None, "--test", help="JSONL file of rows to judge by.")
_Dataset = typer.Option("", "--dataset", help="A dataset version to judge by, such as support@v2; its test part and its reviewed rows count.")


@evaluate.command("run")
def run(
    adapter: str = typer.Argument(..., help="A version such as support@v2, or a name (its newest)."),
    test: Path | None = _Test,
    dataset: str = _Dataset,
    as_json: bool = _Json,
) -> None:
    """A version against what is in production (or the base). The result joins its evaluations."""
    with opened() as context:
        _judge(context, adapter, None, test, dataset, as_json)


@evaluate.command("compare")
def compare(
    adapter: str = typer.Argument(..., help="The candidate."),
    against: str = typer.Argument(..., help="The version to compare with, or 'base'."),
    test: Path | None = _Test,
    dataset: str = _Dataset,
    as_json: bool = _Json,
) -> None:
    """Two versions on the same rows. The result joins the candidate's evaluations."""
    with opened() as context:
        _judge(context, adapter, against, test, dataset, as_json)


def metrics_table(metrics: dict[str, Any], candidate: str, against: str) -> list[dict[str, Any]]:
    """One line per group that had rows, for people."""
    return [
        {
            "group": group,
            "rows": found["n"],
            "measure": found["measure"],
            candidate: f"{found['candidate']:.1%}",
            against: f"{found['against']:.1%}",
            "broken": found["broken"],
            "fixed": found["fixed"],
        }
        for group, found in metrics.items()
        if found["n"]
    ]


def _judge(context: Context, adapter: str, against: str | None, test: Path | None, dataset: str, as_json: bool) -> None:
    from training.judge_stored import judge_stored
    from training.rows import read_file

    if bool(test) == bool(dataset):
        raise InputError("Expected either --test FILE or --dataset NAME@vN, found " + ("both." if test else "neither."))
    if test is not None:
        from training.datasets import Dataset, rows_digest

        found = read_file(test)
        found.refuse_bad(str(test), skip_bad=False)
        rows = Dataset(test.stem, rows_digest({"train": [], "validation": [], "test": found.rows}), "", [], [], found.rows)
    else:
        from training.commands.train import find_dataset

        rows = find_dataset(context, dataset)
    result: dict[str, Any] = judge_stored(context, adapter, against, rows, actor=actor())
    if as_json:
        emit(result, True)
        return
    emit(metrics_table(result["metrics"], result["adapter"], result["against"]), False)
    out.print(f"[bold]{result['verdict']}[/bold]  ", end="")
    out.print(result["reason"], markup=False)
