"""`whet eval …`: judge a stored version again, or two against each other; its report; people's
votes; another model's opinion; a person's signature.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from training.commands.options import COLUMNS, ENCODING
from whet.cli import actor, emit, err, opened, out, show_stages
from whet.clock import iso, now_ms
from whet.context import Context
from whet.database import reading
from whet.errors import InputError
from whet.registry import find_adapter

if TYPE_CHECKING:
    from training.datasets import Dataset

evaluate = typer.Typer(no_args_is_help=True, help="Judge stored versions on held-out rows.")

_Json = typer.Option(False, "--json", help="Print one JSON document.")
_Test = typer.Option(None, "--test", help="File of rows to judge by.")
_Dataset = typer.Option(
    "",
    "--dataset",
    help=(
        "A dataset version to judge by, such as support@v2; its test part and its reviewed rows"
        " count."
    ),
)


@evaluate.command("run")
def run(
    adapter: str = typer.Argument(
        ..., help="A version such as support@v2, or a name (its newest)."
    ),
    test: Path | None = _Test,
    dataset: str = _Dataset,
    columns: str = COLUMNS,
    encoding: str = ENCODING,
    as_json: bool = _Json,
) -> None:
    """A version against what is in production (or the base). The result joins its evaluations."""
    with opened() as context:
        rows = _rows_to_judge_by(context, test, dataset, columns, encoding)
        _judge(context, adapter, None, rows, as_json)


@evaluate.command("compare")
def compare(
    adapter: str = typer.Argument(..., help="The candidate."),
    against: str = typer.Argument(..., help="The version to compare with, or 'base'."),
    test: Path | None = _Test,
    dataset: str = _Dataset,
    columns: str = COLUMNS,
    encoding: str = ENCODING,
    as_json: bool = _Json,
) -> None:
    """Two versions on the same rows. The result joins the candidate's evaluations."""
    with opened() as context:
        rows = _rows_to_judge_by(context, test, dataset, columns, encoding)
        _judge(context, adapter, against, rows, as_json)


@evaluate.command("report")
def report(
    adapter: str = typer.Argument(
        ..., help="A version such as support@v2, or a name (its newest)."
    ),
    html: Path | None = typer.Option(
        None, "--html", help="Write the report as one self-contained page to this file."
    ),
    as_json: bool = _Json,
) -> None:
    """Everything measured about a version: measures by task, forgetting, bias, refusals, people's
    votes, another model's opinion.
    """
    with opened() as context:
        from training.judging import harness as benchmarks
        from training.judging import report as reports

        with reading(context.database) as connection:
            version = find_adapter(connection, adapter)
        found = reports.stored_report(context, version)
        found["harness"] = benchmarks.stored_results(context, version)
        if html is not None:
            try:
                html.write_text(reports.html(found), encoding="utf-8")
            except OSError as error:
                raise InputError(
                    f"{html} cannot be written: {error.strerror}.",
                    hint="Name a file in a folder that exists.",
                ) from error
        if as_json:
            emit(found, True)
            return
        out.print(f"[bold]{found['adapter']}[/bold]  gate {found['gate']['verdict']}: ", end="")
        out.print(found["gate"]["reason"], markup=False)
        if "votes" in found:
            out.print(found["votes"]["sentence"], markup=False)
        for title, measures in _sections(found).items():
            emit(report_table(measures), False, title=title)
        if "opinion" in found:
            out.print(found["opinion"]["sentence"], markup=False)
        for each in found["harness"]:
            title = f"lm-eval {each['harness']}, {iso(each['at'])[:16]}"
            emit(benchmarks.table(each), False, title=title)


@evaluate.command("votes")
def votes(
    adapter: str = typer.Argument(..., help="A version whose newest evaluation kept its answers."),
    as_json: bool = _Json,
) -> None:
    """What people said who compared a version's answers blind in the console: whom they prefer, and
    how far they agree.
    """
    with opened() as context:
        from training.judging import ballots

        with reading(context.database) as connection:
            version = find_adapter(connection, adapter)
        found = ballots.result(context, ballots.newest_case(context, version))
        if as_json:
            emit(found, True)
            return
        out.print(found["sentence"], markup=False)
        if found["votes"]:
            emit(votes_table(found), False)
            out.print(found["said_agreement"], markup=False)


@evaluate.command("judge")
def judge(
    adapter: str = typer.Argument(..., help="A version whose newest evaluation kept its answers."),
    url: str = typer.Option(
        ...,
        "--judge-endpoint",
        help=(
            "An OpenAI-compatible address, such as http://127.0.0.1:8000/v1. Its key is read from"
            " WHET_JUDGE_KEY."
        ),
    ),
    model: str = typer.Option(..., "--judge-model", help="The model to ask there."),
    limit: int = typer.Option(
        50,
        "--limit",
        min=1,
        max=1000,
        help="Pairs of answers to ask about, those that people judged first; each is asked twice.",
    ),
    as_json: bool = _Json,
) -> None:
    """Ask another model which answers are better, in both orders, and how far it agrees with
    people. It decides nothing.
    """
    with opened() as context:
        from training.judging import ballots
        from training.judging.opinion import KEY_VARIABLE, judge_at, opinion

        with reading(context.database) as connection:
            version = find_adapter(connection, adapter)
        with progress_bar(as_json, "asking the judge") as on_row:
            asked = judge_at(url, model, os.environ.get(KEY_VARIABLE, ""))
            people = ballots.people_say(context, ballots.newest_case(context, version))
            found = opinion(
                context,
                version,
                asked,
                judge={"endpoint": url, "model": model},
                limit=limit,
                people=people,
                on_row=on_row,
            )
        if as_json:
            emit(found, True)
            return
        out.print(found["sentence"], markup=False)


@evaluate.command("sign")
def sign(
    adapter: str = typer.Argument(..., help="A version that breaks reviewed conversations."),
    reason: str = typer.Option(
        ...,
        "--reason",
        help="Why that is acceptable; it is kept with your name and the conversations.",
    ),
    as_json: bool = _Json,
) -> None:
    """Answer for the reviewed conversations that a version breaks, so that it may be promoted
    without --force.
    """
    with opened() as context:
        from training.judging.signing import sign as record

        emit(record(context, adapter, reason, actor=actor(), now=now_ms()), as_json)


@evaluate.command("harness")
def harness(
    adapter: str = typer.Argument(
        ..., help="A version such as support@v2, or a name (its newest)."
    ),
    tasks: str = typer.Option(
        ..., "--tasks", help="Names of lm-evaluation-harness, such as arc_easy,piqa."
    ),
    include_path: Path | None = typer.Option(
        None, "--include-path", help="A folder of task files (YAML) of yours; Python in it is run."
    ),
    examples: int | None = typer.Option(
        None, "--limit", min=1, help="Questions of each task at most. Default: all."
    ),
    shots: int | None = typer.Option(
        None,
        "--num-fewshot",
        min=0,
        help="Worked examples before each question. Default: the task's.",
    ),
    chat_template: bool = typer.Option(
        True,
        "--chat-template/--no-chat-template",
        help="Ask in turns of a conversation, or as plain text.",
    ),
    compare_base: bool = typer.Option(True, "--base/--no-base", help="Ask the base too."),
    as_json: bool = _Json,
) -> None:
    """Benchmarks of lm-evaluation-harness, of a version and its base; kept beside its report.

    They decide nothing.
    """
    with opened() as context:
        from training.base_model import quiet_environment

        quiet_environment()
        from training.judging import harness as benchmarks

        names = tuple(name.strip() for name in tasks.split(",") if name.strip())
        if not names:
            raise InputError("--tasks names nothing.", hint="Such as --tasks arc_easy,piqa.")
        benchmarks.require_installed()
        with reading(context.database) as connection:
            version = find_adapter(connection, adapter)
        options = benchmarks.HarnessOptions(
            names, include_path, examples, shots, chat_template, compare_base
        )
        with show_stages() as progress:
            found = benchmarks.run_harness(context, version, options, progress=progress)
        if as_json:
            emit(found, True)
            return
        emit(benchmarks.table(found), False, title=f"{version.label} by lm-eval {found['harness']}")


def _sections(found: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    probes = found["probes"]
    reliance = {"reliance": found["reliance"]} if found.get("reliance") else {}
    return {
        **found["measures"],
        **reliance,
        "forgetting": probes["forgetting"],
        "bias": probes["bias"],
        "safety": probes["safety"],
    }


def report_table(measures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line per measure and comparison, for people."""
    return [
        {
            "measure": measure["name"],
            "rows": measure["n"],
            **measure["values"],
            "against": other,
            "difference": (
                f"{found['difference']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"
            ),
            "verdict": found["verdict"],
        }
        for measure in measures
        for other, found in measure["against"].items()
    ]


def votes_table(found: dict[str, Any]) -> list[dict[str, Any]]:
    """One line per version that the candidate was compared with, for people."""
    return [
        {
            "against": pair["name"],
            "better": pair["wins"],
            "worse": pair["losses"],
            "ties": pair["ties"],
            "preference": (
                f"{pair['preference']['difference']:+.3f} ({pair['preference']['low']:+.3f} to"
                f" {pair['preference']['high']:+.3f})"
            ),
            "verdict": pair["preference"]["verdict"],
        }
        for pair in found["pairs"].values()
    ]


@contextmanager
def progress_bar(quiet: bool, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error that is told (done, total); silent when data is wanted."""
    if quiet:
        yield lambda done, total: None
        return
    from rich.progress import Progress

    with Progress(console=err) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _interval(found: dict[str, Any]) -> str:
    """Where the candidate's score on other questions of this kind is to be expected."""
    if found.get("candidate_low") is None:
        return "–"
    return f"{100 * found['candidate_low']:.0f} to {100 * found['candidate_high']:.0f} %"


def metrics_table(metrics: dict[str, Any], candidate: str, against: str) -> list[dict[str, Any]]:
    """One line per group that had rows, for people."""
    return [
        {
            "group": group,
            "rows": found["n"],
            "measure": found["measure"],
            candidate: f"{found['candidate']:.1%}",
            "90 % interval": _interval(found),
            against: f"{found['against']:.1%}",
            "regressions": found["broken"],
            "newly correct": found["fixed"],
        }
        for group, found in metrics.items()
        if found["n"]
    ]


def print_details(metrics: dict[str, Any], candidate: str, against: str) -> None:
    """Print the scores by task, and the slices that got worse."""
    overall = metrics.get("all", {})
    tasks = [
        {
            "task": task,
            "rows": found["n"],
            candidate: f"{found['candidate']:g}",
            against: f"{found['against']:g}",
        }
        for task, found in overall.get("tasks", {}).items()
    ]
    if tasks:
        emit(tasks, False, title="right by task")
    for found in overall.get("worse_slices", []):
        out.print(
            f"• Worse on questions about {found['slice']!r}: {found['candidate']:g} of"
            f" {found['n']} right, {against} had {found['against']:g}.",
            style="yellow",
            markup=False,
        )


def _rows_to_judge_by(
    context: Context, test: Path | None, dataset: str, columns: str, encoding: str
) -> Dataset:
    from training.data.formats import read_good, read_options
    from training.datasets import Dataset, rows_digest

    if bool(test) == bool(dataset):
        found = "both." if test else "neither."
        raise InputError(f"Expected either --test FILE or --dataset NAME@vN, found {found}")
    if test is None:
        from training.commands.sources import find_dataset

        found_version: Dataset = find_dataset(context, dataset)
        return found_version
    rows = read_good(test, skip_bad=False, options=read_options(columns, encoding)).rows
    digest = rows_digest({"train": [], "validation": [], "test": rows})
    return Dataset(test.stem, digest, "", [], [], rows)


def _judge(
    context: Context, adapter: str, against: str | None, rows: Dataset, as_json: bool
) -> None:
    from training.judge_stored import judge_stored

    with progress_bar(as_json, "answering") as on_batch:
        result: dict[str, Any] = judge_stored(
            context, adapter, against, rows, actor=actor(), on_batch=on_batch
        )
    if as_json:
        emit(result, True)
        return
    emit(metrics_table(result["metrics"], result["adapter"], result["against"]), False)
    print_details(result["metrics"], result["adapter"], result["against"])
    out.print(f"[bold]{result['verdict']}[/bold]  ", end="")
    out.print(result["reason"], markup=False)
