"""`whet rollout …`: show and change which version answers under an alias."""

from __future__ import annotations

import time
from collections.abc import Callable

from serving.rollout_store import NotReadyError, RolloutStore, rollout_rows
from whet.cli import actor, emit, opened
from whet.clock import now_ms
from whet.database import reading
from whet.registry import Rollout, alias_filter


def show(*, alias: str, as_json: bool) -> None:
    """What every alias points to, or the history of one."""
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


def start(
    *, alias: str, version: str, share: float, reason: str, wait: float, as_json: bool
) -> None:
    """Put a version on trial beside the stable one."""
    _change(
        lambda store, now: store.start(
            alias, version, share, actor=actor(), reason=reason or "started by hand", now=now
        ),
        wait,
        as_json,
    )


def promote(
    *, alias: str, version: str, reason: str, force: bool, wait: float, as_json: bool
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


def rollback(*, alias: str, reason: str, as_json: bool) -> None:
    """Take the candidate off trial; without one, go back to the version before."""
    _change(
        lambda store, now: store.rollback(
            alias, actor=actor(), reason=reason or "rolled back by hand", now=now
        ),
        0,
        as_json,
    )


def pin(*, alias: str, version: str, reason: str, wait: float, as_json: bool) -> None:
    """Hold an alias where it is; nothing moves it until it is unpinned."""
    _change(
        lambda store, now: store.pin(
            alias, version or None, actor=actor(), reason=reason or "pinned by hand", now=now
        ),
        wait,
        as_json,
    )


def unpin(*, alias: str, reason: str, as_json: bool) -> None:
    """Let rollouts move an alias again."""
    _change(
        lambda store, now: store.unpin(
            alias, actor=actor(), reason=reason or "unpinned by hand", now=now
        ),
        0,
        as_json,
    )


def _change(act: Callable[[RolloutStore, int], Rollout], wait_s: float, as_json: bool) -> None:
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
