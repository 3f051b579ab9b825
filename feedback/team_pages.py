"""Pages of reviewing as a team: who decides what, batches, rules, comments, bulk, adjudication."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import Response

from feedback import assignment, bulk_decisions, comments, inbox, opinion_store
from feedback.acceptance import ERROR_LABELS
from feedback.queue import Decision
from feedback.similar_items import find_similar
from whet.access import User
from whet.control_tokens import load_control_tokens
from whet.database import reading
from whet.errors import InputError
from whet.web.shell import Shell

_DAY_MS = 86_400_000
_Items = Annotated[list[str] | None, Form()]
_Text = Annotated[str, Form()]


def add(routes: APIRouter, shell: Shell) -> None:
    """Add the routes."""
    _add_team(routes, shell)
    _add_selection(routes, shell)
    _add_bulk(routes, shell)
    _add_talk(routes, shell)


def _add_team(routes: APIRouter, shell: Shell) -> None:
    database = shell.context.database

    @routes.get("/review/team", dependencies=[Depends(shell.require("viewer"))])
    def team(request: Request) -> Response:
        """Batches with owner and day, rules, and how much is assigned to whom."""
        with reading(database) as connection:
            return shell.render(
                request, "feedback/team.html", batches=assignment.list_batches(connection),
                rules=assignment.list_rules(connection), people=assignment.list_reviewers(connection),
                assigned=assignment.count_assigned(connection), choices=inbox.choices(connection),
            )  # fmt: skip

    @routes.post("/review/rules")
    def add_rule(
        alias: _Text = "",
        reason: _Text = "",
        person: _Items = None,
        user: User = Depends(shell.require("operator")),
    ) -> Response:
        """Give waiting and new items to people, shared alike."""
        assignment.add_rule(database, alias, reason, person or [], actor=user.name, now=shell.now())
        return shell.redirect("/review/team", "The rule holds from now on.")

    @routes.post("/review/rules/{rule_id}/remove")
    def remove_rule(rule_id: str, user: User = Depends(shell.require("operator"))) -> Response:
        """End a rule; what it assigned stays assigned."""
        assignment.remove_rule(database, rule_id, actor=user.name, now=shell.now())
        return shell.redirect("/review/team", "The rule has ended; what it assigned stays so.")


def _add_selection(routes: APIRouter, shell: Shell) -> None:
    database, operator = shell.context.database, Depends(shell.require("operator"))

    @routes.post("/review/assign")
    def assign(item: _Items = None, assignee: _Text = "", user: User = operator) -> Response:
        """Ask a reviewer to decide the selected items."""
        changed = assignment.assign(
            database, item or [], assignee, actor=user.name, now=shell.now()
        )
        to = f"to {assignee}" if assignee else "to whoever comes first"
        return shell.redirect("/review/list", f"{changed} assigned {to}.")

    @routes.post("/review/batches")
    def batch(
        item: _Items = None,
        name: _Text = "",
        owner: _Text = "",
        due: _Text = "",
        user: User = operator,
    ) -> Response:
        """Put the selected items into a batch with an owner and a day."""
        assignment.make_batch(
            database, name, item or [], owner=owner, due_at=_end_of_day(due), actor=user.name,
            now=shell.now(),
        )  # fmt: skip
        return shell.redirect("/review/team", f"The batch {name} is there.")


def _end_of_day(due: str) -> int | None:
    """The end of a day such as 2026-12-24 in UTC (ms); None for an empty text."""
    if not due:
        return None
    try:
        day = datetime.strptime(due, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise InputError(f"{due[:20]!r} is no day; expected one such as 2026-12-24.") from None
    return int(day.timestamp() * 1000) + _DAY_MS - 1


def _add_bulk(routes: APIRouter, shell: Shell) -> None:
    database, reviewer = shell.context.database, Depends(shell.require("reviewer"))

    @routes.get("/review/similar/{item_id}")
    def similar(request: Request, item_id: str, user: User = reviewer) -> Response:
        """Decided and waiting conversations like this one, as a part of the page."""
        with reading(database) as connection:
            view = inbox.load(connection, item_id)
            found = find_similar(connection, view.item, view.question, view.answer, shell.now())
        return shell.render(
            request, "feedback/similar.html", found=found, item=view.item, labels=ERROR_LABELS
        )

    @routes.post("/review/bulk")
    def decide(
        item: _Items = None,
        decision: _Text = "",
        label: _Items = None,
        user: User = reviewer,
    ) -> Response:
        """Say the same of many items."""
        labels = tuple(name for name in label or () if name in ERROR_LABELS)
        outcome = bulk_decisions.decide_in_bulk(
            database, item or [], user.name, Decision(decision, labels=labels), now=shell.now(),
            control=load_control_tokens(shell.context),
        )  # fmt: skip
        return shell.redirect(f"/review/bulk/{outcome.bulk_id}", outcome.sentence)

    @routes.get("/review/bulk/{bulk_id}")
    def show(request: Request, bulk_id: str, user: User = reviewer) -> Response:
        """What was decided in one go, with the button that undoes it."""
        with reading(database) as connection:
            rows = inbox.bulk_rows(connection, bulk_id)
        return shell.render(request, "feedback/bulk.html", rows=rows, bulk_id=bulk_id)

    @routes.post("/review/bulk/{bulk_id}/undo")
    def undo(bulk_id: str, user: User = reviewer) -> Response:
        """Take them all back."""
        count = bulk_decisions.undo_bulk(
            database, bulk_id, user.name, now=shell.now(), may_undo_others=user.may("operator")
        )
        return shell.redirect(f"/review/bulk/{quote(bulk_id)}", f"{count} undone; they wait again.")


def _add_talk(routes: APIRouter, shell: Shell) -> None:
    database = shell.context.database

    @routes.post("/review/item/{item_id}/comments")
    def comment(
        item_id: str, text: _Text = "", user: User = Depends(shell.require("reviewer"))
    ) -> Response:
        """Tell the other reviewers something about an item."""
        comments.add_comment(database, item_id, text, author=user.name, now=shell.now())
        return shell.redirect(f"/review/item/{quote(item_id)}", "Kept.")

    @routes.post("/review/comments/{comment_id}/remove")
    def remove(comment_id: str, user: User = Depends(shell.require("reviewer"))) -> Response:
        """Take a comment back: one's own, or as an operator anybody's."""
        item_id = comments.remove_comment(
            database, comment_id, actor=user.name, now=shell.now(),
            may_remove_others=user.may("operator"),
        )  # fmt: skip
        return shell.redirect(f"/review/item/{quote(item_id)}", "Removed.")

    @routes.post("/review/adjudicate/{item_id}")
    def adjudicate(
        item_id: str,
        second: _Text = "",
        verdict: _Text = "",
        user: User = Depends(shell.require("operator")),
    ) -> Response:
        """Say who was right where a second opinion differs."""
        is_open = opinion_store.adjudicate(
            database, item_id, second, verdict, actor=user.name,
            claim_ms=int(shell.context.settings.review_claim_s * 1000), now=shell.now(),
        )  # fmt: skip
        if is_open:
            return shell.redirect(
                f"/review/item/{quote(item_id)}", "The first decision is undone; decide it anew."
            )
        return shell.redirect("/review/agreement", "Settled: the decision stands.")
