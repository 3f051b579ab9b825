"""Define `whet eval …`."""

from __future__ import annotations

from pathlib import Path

import typer

from training.cli.options import COLUMNS, ENCODING
from training.imports import load
from whet.lazy import runs

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
@runs("training.commands.evaluate:run", load)
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


@evaluate.command("compare")
@runs("training.commands.evaluate:compare", load)
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


@evaluate.command("report")
@runs("training.commands.judgements:report")
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


@evaluate.command("votes")
@runs("training.commands.judgements:votes")
def votes(
    adapter: str = typer.Argument(..., help="A version whose newest evaluation kept its answers."),
    as_json: bool = _Json,
) -> None:
    """What people said who compared a version's answers blind in the console: whom they prefer, and
    how far they agree.
    """


@evaluate.command("judge")
@runs("training.commands.judgements:judge")
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


@evaluate.command("sign")
@runs("training.commands.judgements:sign")
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


@evaluate.command("harness")
@runs("training.commands.evaluate:harness", load)
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
