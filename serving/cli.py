"""Define `whet rollout …` and `whet replay`: their options and their help.

Each names the function of `serving.commands` that does its work, which is imported when it runs.
"""

from __future__ import annotations

import typer

from whet.lazy import runs

rollout = typer.Typer(
    no_args_is_help=True,
    help="Which version answers under an alias: show, start, promote, roll back, pin.",
)

_AS_JSON = typer.Option(False, "--json", help="Print JSON.")
_REASON = typer.Option("", "--reason", help="Why; it is kept with the change.")
_WAIT = typer.Option(60.0, "--wait", help="Seconds to wait until an engine has proved the version.")


@rollout.command("show")
@runs("serving.commands.rollout:show")
def show(
    alias: str = typer.Argument("", help="Print one alias with its history; without it, all."),
    as_json: bool = _AS_JSON,
) -> None:
    """What every alias points to, or the history of one."""


@rollout.command("start")
@runs("serving.commands.rollout:start")
def start(
    alias: str,
    version: str = typer.Argument(..., help="support@v7, a name or a digest."),
    share: float = typer.Option(0.1, help="Share of the traffic, 0 to 1."),
    reason: str = _REASON,
    wait: float = _WAIT,
    as_json: bool = _AS_JSON,
) -> None:
    """Put a version on trial beside the stable one."""


@rollout.command("promote")
@runs("serving.commands.rollout:promote")
def promote(
    alias: str,
    version: str = typer.Argument(
        "",
        help=(
            "support@v7, a name or a digest; without it, the candidate on trial or the newest"
            " version of that name."
        ),
    ),
    reason: str = _REASON,
    force: bool = typer.Option(False, "--force", help="Also a version whose gate failed."),
    wait: float = _WAIT,
    as_json: bool = _AS_JSON,
) -> None:
    """Give a version all traffic. A new alias is made by this."""


@rollout.command("rollback")
@runs("serving.commands.rollout:rollback")
def rollback(alias: str, reason: str = _REASON, as_json: bool = _AS_JSON) -> None:
    """Take the candidate off trial; without one, go back to the version before."""


@rollout.command("pin")
@runs("serving.commands.rollout:pin")
def pin(
    alias: str,
    version: str = typer.Argument("", help="Without it, the stable version."),
    reason: str = _REASON,
    wait: float = _WAIT,
    as_json: bool = _AS_JSON,
) -> None:
    """Hold an alias where it is; nothing moves it until it is unpinned."""


@rollout.command("unpin")
@runs("serving.commands.rollout:unpin")
def unpin(alias: str, reason: str = _REASON, as_json: bool = _AS_JSON) -> None:
    """Let rollouts move an alias again."""


@runs("serving.commands.replay:replay")
def replay(
    interaction_id: str = typer.Argument("", help="The answer whose request is asked again."),
    model: str = typer.Option(
        "", "--model",
        help="An alias, a version such as support@v7, or the base; without it, the version that "
        "answered.",
    ),
    key: str = typer.Option(
        "", "--key", envvar="WHET_KEY",
        help="API key for the gateway; without it, one is made and revoked again.",
    ),
    matrix: bool = typer.Option(
        False, "--matrix",
        help="Say which part was at fault: document, index, prompt, adapter or base.",
    ),
    alias: str = typer.Option(
        "",
        "--alias",
        help="With --matrix: the corrected answers of this alias that have no verdict.",
    ),
    last: int = typer.Option(20, "--last", min=1, help="With --alias: how many, newest first."),
    again: bool = typer.Option(False, "--again", help="With --alias: also those with a verdict."),
    passage: str = typer.Option(
        "", "--passage", help="With --matrix: id of the passage that holds the answer."
    ),
    answer: str = typer.Option(
        "", "--answer", help="With --matrix: what the answer should have been, without a review."
    ),
    samples: int = typer.Option(
        5, "--samples", min=1, max=50,
        help="With --matrix: answers to a question that decides, where they are drawn at random.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:  # fmt: skip
    """Ask the same request again, of the same or another version, and show what differs."""
