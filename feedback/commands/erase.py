"""`whet erase`: remove what is kept of one end user."""

from __future__ import annotations

import typer

from feedback.erasing import erase_user
from whet.cli import actor, emit, opened
from whet.clock import now_ms
from whet.errors import InputError


def erase(*, user: str, yes: bool, as_json: bool) -> None:
    """Erase one end user: examples withdrawn and blanked, review texts removed, a receipt kept.
    The scheduler deletes the conversations and ratings within a minute."""
    if not yes and not as_json:
        typer.confirm("This removes the user's reviewed texts for good. Go on?", abort=True)
    if as_json and not yes:
        raise InputError("`--json` does not ask, so it needs `--yes`.")
    with opened() as context:
        receipt = erase_user(
            context.database, context.store, user,
            secret=context.secret, actor=actor(), now=now_ms(),
        )  # fmt: skip
        emit(receipt, as_json)
