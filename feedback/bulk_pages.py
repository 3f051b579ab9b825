"""What Traffic's bar of chosen conversations sends: into review, undo, into a test set."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form
from starlette.responses import Response

from feedback import bulk, test_sets
from whet.access import User
from whet.web.shell import Shell


def add(routes: APIRouter, shell: Shell) -> None:
    """Add the routes."""
    database = shell.context.database

    @routes.post("/review/request-many")
    def request_many(
        interaction: Annotated[list[str] | None, Form()] = None,
        back: Annotated[str, Form()] = "/traffic",
        user: User = Depends(shell.require("reviewer")),
    ) -> Response:
        """Put chosen conversations into the review queue."""
        made = bulk.request_reviews(database, interaction or [], actor=user.name, now=shell.now())
        undo = f"{'&' if '?' in back else '?'}batch={made.batch}" if made.batch else ""
        return shell.redirect(f"{back}{undo}", made.sentence)

    @routes.post("/review/request-many/undo")
    def undo_many(
        batch: Annotated[str, Form()] = "",
        back: Annotated[str, Form()] = "/traffic",
        user: User = Depends(shell.require("reviewer")),
    ) -> Response:
        """Take them out again, except those that somebody is at."""
        said = bulk.undo_request(database, batch, actor=user.name, now=shell.now())
        return shell.redirect(back, said)

    @routes.post("/datasets/test-set")
    def test_set(
        interaction: Annotated[list[str] | None, Form()] = None,
        name: Annotated[str, Form()] = "",
        user: User = Depends(shell.require("reviewer")),
    ) -> Response:
        """Make chosen conversations rows of a test set."""
        made = test_sets.add_to_test_set(
            shell.context, name, interaction or [], actor=user.name, now=shell.now()
        )
        return shell.redirect(f"/datasets/{made.version.digest}?split=test", made.sentence)
