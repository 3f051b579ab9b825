"""Side by side: answers to one row at a time, judged by people who do not know whose they are; and
what their votes come to.

Nothing that a reviewer gets before the vote tells the versions apart: places are numbered, and what
a number means stays here.
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import JSONResponse, Response

from training.evaluation import ballots, votes
from training.evaluation.ballots import Case
from training.store.evaluation_types import VotesSummary
from whet.access import User
from whet.conversation import history
from whet.database import reading
from whet.web.shell import Shell

_Text = Annotated[str, Form()]
_LETTERS = "ABC"  # what the answers are called


def add(routes: APIRouter, shell: Shell) -> None:
    """The pages of `training.pages` that are about votes."""
    _add_comparison(routes, shell)
    context, reviewer = shell.context, Depends(shell.require("reviewer"))

    @routes.post("/evaluations/{evaluation_id}/compare")
    def vote(
        request: Request,
        evaluation_id: str,
        row: _Text = "",
        choice: _Text = "",
        user: User = reviewer,
    ) -> Response:
        """Vote on a row: `choice` is the number of the best answer's place, `tie` or `none`; an
        earlier vote of one's own is replaced.
        """
        case = ballots.case_of(context, evaluation_id)
        ballots.vote(context, case, user.name, row, choice, now=shell.now())
        return _done(shell, request, case, user, f"/evaluations/{case.id}/compare")

    @routes.post("/evaluations/{evaluation_id}/compare/undo")
    def undo(
        request: Request, evaluation_id: str, row: _Text = "", user: User = reviewer
    ) -> Response:
        """Take one's own vote on a row back."""
        case = ballots.case_of(context, evaluation_id)
        ballots.undo(context, case, user.name, row)
        return _done(
            shell, request, case, user, f"/evaluations/{case.id}/compare?row={quote(row, safe='')}"
        )

    @routes.get("/evaluations/{evaluation_id}/votes")
    def result(request: Request, evaluation_id: str) -> Response:
        """What people's votes on an evaluation come to, with the versions' names."""
        found = ballots.result(context, ballots.case_of(context, evaluation_id))
        return shell.render(request, "training/votes.html", headline=headline(found), votes=found)


def _add_comparison(routes: APIRouter, shell: Shell) -> None:
    context, reviewer = shell.context, Depends(shell.require("reviewer"))

    @routes.get("/evaluations/{evaluation_id}/compare")
    def compare(
        request: Request, evaluation_id: str, row: str = "", user: User = reviewer
    ) -> Response:
        """Answers side by side, judged blind: the row that is asked for, or the first that one has
        not voted on.
        """
        return shell.render(
            request,
            "training/compare.html",
            **_page_values(shell, ballots.case_of(context, evaluation_id), user, row),
        )

    @routes.get("/evaluations/{evaluation_id}/compare/part")
    def compare_part(
        request: Request, evaluation_id: str, row: str = "", user: User = reviewer
    ) -> Response:
        """One row as a part of the page, fetched while the one before is still being judged."""
        case = ballots.case_of(context, evaluation_id)
        return shell.render(
            request,
            "training/compare_row.html",
            evaluation_id=case.id,
            **_row_values(shell, case, user, row, _mine(shell, case, user)),
        )


def headline(found: VotesSummary) -> str:
    """The sentence of the result's page, without its figures."""
    return str(found["sentence"]).split(". ")[0].removesuffix(".")


def _done(shell: Shell, request: Request, case: Case, user: User, href: str) -> Response:
    """The script wants figures, a form the next page.

    Neither tells whose answer it was: people who learn it row by row do not stay blind.
    """
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse(
            {"voted": len(_mine(shell, case, user)), "of": len(votes.differing(case.samples))}
        )
    return shell.redirect(href)


def _mine(shell: Shell, case: Case, user: User) -> dict[str, votes.Ballot]:
    """Row id → one's own vote, oldest first."""
    with reading(shell.context.database) as connection:
        return {ballot.row: ballot for ballot in ballots.ballots_of(connection, case.id, user.name)}


def _page_values(shell: Shell, case: Case, user: User, row: str) -> dict[str, Any]:
    mine = _mine(shell, case, user)
    rows = [sample["id"] for sample in votes.differing(case.samples)]
    voted = [one for one in mine if one in set(rows)]
    chosen = row or next((one for one in rows if one not in mine), "")
    values: dict[str, Any] = {
        "evaluation_id": case.id,
        "rows": rows,
        "voted": voted,
        "last": voted[-1] if voted else "",
        "alike": len(case.samples) - len(rows),
        "shown": bool(chosen),
    }
    if chosen:
        return values | _row_values(shell, case, user, chosen, mine)
    return values | {"sentence": ballots.result(shell.context, case)["sentence"]}


def _row_values(
    shell: Shell, case: Case, user: User, row: str, mine: dict[str, votes.Ballot]
) -> dict[str, Any]:
    """What `compare_row.html` shows: texts in this person's order, and nothing about whose they
    are.
    """
    sample = case.sample(row)
    texts, order = (
        votes.texts_of(sample),
        votes.places(sample, voter=user.name, evaluation=case.id, secret=shell.context.secret),
    )
    rows = [one["id"] for one in votes.differing(case.samples)]
    at = rows.index(row)
    choice = mine[row].choice if row in mine else ""
    return {
        "row": row,
        "number": at + 1,
        "of": len(rows),
        "before": rows[at - 1] if at > 0 else "",
        "after": rows[at + 1] if at + 1 < len(rows) else "",
        "turns": history({"messages": sample["prompt"]}),
        "reference": sample["reference"],
        "answers": [(_LETTERS[place], texts[role]) for place, role in enumerate(order)],
        "said": str(order.index(choice) + 1) if choice in order else choice,
    }
