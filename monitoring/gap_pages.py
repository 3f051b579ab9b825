"""Gaps: subjects that people ask about and no document answers, as a list for whoever writes them."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from sqlalchemy import Connection, select
from starlette.responses import JSONResponse, Response

from monitoring.decisions import change_gap
from monitoring.gap_queries import StoredGap, list_gaps
from whet.access import User
from whet.conversation import last_question
from whet.database import reading
from whet.errors import InputError
from whet.registry import alias_filter
from whet.tables import interactions
from whet.web.shell import Shell

_EXAMPLES = 3  # questions shown of a gap
_MOST_EXAMPLES = 300  # on the page, over all gaps
_LENGTH = 200  # characters of a question
_ACTIONS = {"dismiss": "dismissed", "restore": "open"}
_SAID = {
    "dismissed": "Dismissed. It stays in the list of dismissed gaps, where it can be restored.",
    "open": "Restored.",
}


def add_gap_routes(routes: APIRouter, shell: Shell) -> None:
    """Add the page, its two actions and the JSON."""
    viewer = [Depends(shell.require("viewer"))]

    @routes.get("/drift/gaps", dependencies=viewer)
    def gaps(request: Request, alias: str = "") -> Response:
        """Questions that find nothing, by subject."""
        return shell.render(request, "monitoring/gaps.html", **_page(shell, alias))

    @routes.post("/drift/gaps/{gap_id}/{action}")
    def change(
        gap_id: str, action: str, user: User = Depends(shell.require("reviewer"))
    ) -> Response:
        """`dismiss` a gap, or `restore` it."""
        state = _state_of(action)
        gap = _change(shell, gap_id, state, user)
        return shell.redirect(f"/drift/gaps?alias={gap.alias}", _SAID[state])

    @routes.get("/api/gaps", dependencies=viewer)
    def gaps_json(alias: str = "") -> JSONResponse:
        """Gaps, open ones first, those that most people ask about now before others."""
        with reading(shell.context.database) as connection:
            chosen = alias_filter(connection, alias)
            return JSONResponse([gap.as_json() for gap in list_gaps(connection, chosen)])

    @routes.post("/api/gaps/{gap_id}/{action}")
    def change_json(
        gap_id: str, action: str, user: User = Depends(shell.require("reviewer"))
    ) -> JSONResponse:
        """`dismiss` a gap, or `restore` it; the gap as it is then."""
        return JSONResponse(_change(shell, gap_id, _state_of(action), user).as_json())


def _state_of(action: str) -> str:
    if action not in _ACTIONS:
        raise InputError(
            f"{action[:40]!r} cannot be done to a gap; expected one of {', '.join(_ACTIONS)}."
        )
    return _ACTIONS[action]


def _change(shell: Shell, gap_id: str, state: str, user: User) -> StoredGap:
    return change_gap(shell.context, gap_id, state, actor=user.name, now=shell.now())


def _page(shell: Shell, alias: str) -> dict[str, object]:
    with reading(shell.context.database) as connection:
        every = list_gaps(connection)
        aliases = sorted({row.alias for row in every})
        chosen = alias if alias in aliases else aliases[0] if aliases else ""
        rows = [row for row in every if row.alias == chosen]
        shown = [name for row in rows for name in row.members[:_EXAMPLES]]
        questions = _questions(connection, shown[:_MOST_EXAMPLES])
    gaps = [
        {
            **row.as_json(),
            "questions_shown": [
                (name, questions[name]) for name in row.members[:_EXAMPLES] if name in questions
            ],
        }
        for row in rows
    ]
    return {
        "aliases": aliases,
        "chosen": chosen,
        "open": [gap for gap in gaps if gap["state"] == "open"],
        "dismissed": [gap for gap in gaps if gap["state"] == "dismissed"],
    }


def _questions(connection: Connection, ids: list[str]) -> dict[str, str]:
    """Id → question, shortened; those that were erased are left out."""
    columns = interactions.c.id, interactions.c.request
    query = select(*columns).where(interactions.c.id.in_(ids))
    texts = {
        row.id: " ".join(last_question(row.request).split()) for row in connection.execute(query)
    }
    return {
        name: text if len(text) <= _LENGTH else f"{text[:_LENGTH]} …"
        for name, text in texts.items()
        if text
    }
