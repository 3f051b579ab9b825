"""Pages of guidelines: the versions of an alias, and an editor for operators."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import Response

from feedback import guidelines
from whet.access import User
from whet.database import reading
from whet.errors import ConflictError, InputError
from whet.registry import known_aliases
from whet.web.shell import Shell


def add(routes: APIRouter, shell: Shell) -> None:
    """Add the routes of guidelines."""
    database = shell.context.database

    def page(
        request: Request, alias: str, *, status: int = 200, typed: str | None = None, problem: object = None
    ) -> Response:  # fmt: skip
        with reading(database) as connection:
            aliases = known_aliases(connection)
            alias = alias or next(iter(aliases), shell.context.settings.default_alias)
            versions = guidelines.list_versions(connection, alias)
        return shell.render(
            request, "feedback/guidelines.html", status, alias=alias, aliases=aliases,
            versions=versions, typed=typed, problem=problem,
        )  # fmt: skip

    @routes.get("/review/guidelines")
    def show(
        request: Request, alias: str = "", user: User = Depends(shell.require("viewer"))
    ) -> Response:
        """What reviewers of an alias go by, all versions, newest first."""
        return page(request, alias)

    @routes.post("/review/guidelines")
    def save(
        request: Request,
        alias: Annotated[str, Form()],
        text: Annotated[str, Form()] = "",
        after: Annotated[int, Form()] = 0,
        user: User = Depends(shell.require("operator")),
    ) -> Response:
        """Write the next version of an alias's guideline."""
        with reading(database) as connection:
            if alias not in known_aliases(connection):
                raise InputError(
                    f"There is no alias {alias[:64]!r}.", hint="Choose one of the list."
                )
        text = text.replace("\r\n", "\n")
        try:
            made = guidelines.save_guideline(
                database, alias, text, after=after, actor=user.name, now=shell.now()
            )
        except (InputError, ConflictError) as error:
            return page(request, alias, status=error.status, typed=text, problem=error)
        address = f"/review/guidelines?{urlencode({'alias': alias})}"
        return shell.redirect(address, f"Version {made.version} is what reviewers see now.")
