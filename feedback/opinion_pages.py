"""Pages of second opinions: one answer at a time without the first decision, and the agreement."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Query, Request
from starlette.responses import Response

from feedback import inbox, opinion_store
from feedback.acceptance import ERROR_LABELS
from feedback.agreement import SECOND_PERCENT
from feedback.guidelines import load_guideline
from whet.access import User
from whet.database import reading
from whet.web.shell import Shell


def add(routes: APIRouter, shell: Shell) -> None:
    """Add the routes of second opinions, gold items and agreement."""
    database = shell.context.database

    @routes.get("/review/second")
    def second(
        request: Request,
        alias: str = "",
        skip: Annotated[list[str] | None, Query()] = None,
        user: User = Depends(shell.require("reviewer")),
    ) -> Response:
        """An answer that somebody else decided, without that decision."""
        passed = skip or []
        with reading(database) as connection:
            item_id = opinion_store.next_for_second_opinion(
                connection, user.name, alias=alias, exclude=passed
            )
            view = inbox.load(connection, item_id) if item_id else None
            guideline = load_guideline(connection, view.item["alias"]) if view else None
        fields = {"alias": alias, "skip": [*passed[-50:], item_id]}
        return shell.render(
            request, "feedback/second.html", view=view, alias=alias, labels=ERROR_LABELS,
            guideline=guideline, percent=SECOND_PERCENT, opened_at=shell.now(),
            skip_href=f"/review/second?{urlencode(fields, doseq=True)}",
        )  # fmt: skip

    @routes.post("/review/second/{item_id}")
    def say(
        item_id: str,
        verdict: Annotated[str, Form()],
        alias: Annotated[str, Form()] = "",
        opened_at: Annotated[int, Form()] = 0,
        label: Annotated[list[str] | None, Form()] = None,
        user: User = Depends(shell.require("reviewer")),
    ) -> Response:
        """Record a second opinion: `verdict` is `right` or `wrong`."""
        now = shell.now()
        seconds = (now - opened_at) / 1000 if 0 < opened_at <= now else None
        opinion_store.save_opinion(
            database, item_id, user.name, is_right=verdict == "right",
            labels=[name for name in label or () if name in ERROR_LABELS], seconds=seconds, now=now,
        )  # fmt: skip
        query = f"?{urlencode({'alias': alias})}" if alias else ""
        return shell.redirect(f"/review/second{query}", f"Recorded: {verdict}.")

    @routes.post("/review/gold/{item_id}")
    def gold(item_id: str, user: User = Depends(shell.require("operator"))) -> Response:
        """Measure reviewers by the decision that stands on this item."""
        opinion_store.mark_gold(database, item_id, actor=user.name, now=shell.now())
        return shell.redirect(
            f"/review/item/{item_id}", "Reviewers are asked about it under Second opinion."
        )

    @routes.get("/review/agreement")
    def agreement(request: Request, user: User = Depends(shell.require("viewer"))) -> Response:
        """How far second opinions agree, by alias, and each reviewer with gold items."""
        with reading(database) as connection:
            return shell.render(
                request, "feedback/agreement.html", percent=SECOND_PERCENT,
                aliases=opinion_store.load_agreement(connection),
                reviewers=opinion_store.load_gold_accuracy(connection),
                disagreements=opinion_store.list_disagreements(connection),
            )  # fmt: skip
