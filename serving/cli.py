"""`whet rollout …` and `whet replay`."""

from __future__ import annotations

import time
from typing import Any

import typer

from serving.commands.replay import replay
from whet.cli import actor, emit, opened
from whet.clock import now_ms

__all__ = ["replay", "rollout"]

rollout = typer.Typer(
    no_args_is_help=True,
    help="Which version answers under an alias: show, start, promote, roll back, pin.",
)

_AS_JSON = typer.Option(False, "--json", help="Print JSON.")
_REASON = typer.Option("", "--reason", help="Why; it is kept with the change.")
_WAIT = typer.Option(60.0, "--wait", help="Seconds to wait until an engine has proved the version.")


@rollout.command("show")
def show(
    alias: str = typer.Argument("", help="Print one alias with its history; without it, all."),
    as_json: bool = _AS_JSON,
) -> None:
    """What every alias points to, or the history of one."""
    from serving.rollout_store import rollout_rows
    from whet.database import reading
    from whet.registry import alias_filter

    with opened() as context, reading(context.database) as connection:
        emit(
            rollout_rows(connection, alias_filter(connection, alias) or ""),
            as_json,
            columns=[
                "alias",
                "generation",
                "stable",
                "candidate",
                "share",
                "state",
                "pinned",
                "at",
                "actor",
                "reason",
            ],
            title="rollouts",
        )


@rollout.command("start")
def start(
    alias: str,
    version: str = typer.Argument(..., help="support@v7, a name or a digest."),
    share: float = typer.Option(0.1, help="Share of the traffic, 0 to 1."),
    reason: str = _REASON,
    wait: float = _WAIT,
    as_json: bool = _AS_JSON,
) -> None:
    """Put a version on trial beside the stable one."""
    _change(
        lambda store, now: store.start(
            alias, version, share, actor=actor(), reason=reason or "started by hand", now=now
        ),
        wait,
        as_json,
    )


@rollout.command("promote")
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
    _change(
        lambda store, now: store.promote(
            alias,
            version or None,
            actor=actor(),
            reason=reason or "promoted by hand",
            now=now,
            force=force,
        ),
        wait,
        as_json,
    )


@rollout.command("rollback")
def rollback(alias: str, reason: str = _REASON, as_json: bool = _AS_JSON) -> None:
    """Take the candidate off trial; without one, go back to the version before."""
    _change(
        lambda store, now: store.rollback(
            alias, actor=actor(), reason=reason or "rolled back by hand", now=now
        ),
        0,
        as_json,
    )


@rollout.command("pin")
def pin(
    alias: str,
    version: str = typer.Argument("", help="Without it, the stable version."),
    reason: str = _REASON,
    wait: float = _WAIT,
    as_json: bool = _AS_JSON,
) -> None:
    """Hold an alias where it is; nothing moves it until it is unpinned."""
    _change(
        lambda store, now: store.pin(
            alias, version or None, actor=actor(), reason=reason or "pinned by hand", now=now
        ),
        wait,
        as_json,
    )


@rollout.command("unpin")
def unpin(alias: str, reason: str = _REASON, as_json: bool = _AS_JSON) -> None:
    """Let rollouts move an alias again."""
    _change(
        lambda store, now: store.unpin(
            alias, actor=actor(), reason=reason or "unpinned by hand", now=now
        ),
        0,
        as_json,
    )


def _change(act: Any, wait_s: float, as_json: bool) -> None:
    from serving.rollout_store import NotReadyError, RolloutStore, rollout_rows
    from whet.database import reading

    with opened() as context:
        store = RolloutStore(context.database, context.settings)
        deadline = time.monotonic() + wait_s
        while True:
            try:
                row = act(store, now_ms())
                break
            except NotReadyError:  # just trained: the engines need a moment to load and prove it
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.3)
        with reading(context.database) as connection:
            shown = next(
                one
                for one in rollout_rows(connection, row.alias)
                if one["generation"] == row.generation
            )
        emit(shown, as_json)
