"""Saved views of Traffic: an address under a name, for oneself or for everybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form
from sqlalchemy import Connection, delete, insert, or_, select, update
from starlette.responses import Response

from serving.pages.search_filters import Filters
from whet.access import User
from whet.database import writing
from whet.errors import InputError, NotFoundError
from whet.ids import new_id
from whet.tables import saved_views
from whet.web.security import ForbiddenError
from whet.web.shell import Shell

_LONGEST_NAME = 80
_LONGEST_QUERY = 2_000


@dataclass(frozen=True, slots=True)
class SavedView:
    """One view as the page lists it."""

    id: str
    name: str
    href: str
    owner: str
    is_shared: bool


def list_views(connection: Connection, user: str) -> list[SavedView]:
    """Return one's own views and those that are shared, by name."""
    view = saved_views.c
    query = (
        select(saved_views)
        .where(or_(view.owner == user, view.is_shared))
        .order_by(view.name, view.owner)
    )
    return [
        SavedView(row.id, row.name, f"/traffic?{row.query}", row.owner, row.is_shared)
        for row in connection.execute(query)
    ]


def save_view(
    connection: Connection, owner: str, name: str, filters: Filters, *, shared: bool, now: int
) -> None:
    """Save a search under a name; one's own view of that name is replaced.

    Raises InputError for a name that is empty or too long.
    """
    name = " ".join(name.split())
    if not name or len(name) > _LONGEST_NAME:
        raise InputError(
            f"A view needs a name of 1 to {_LONGEST_NAME} characters; this one has {len(name)}.",
            hint="Name it after what it shows, such as “refunds rated down”.",
        )
    query = filters.address(before="").partition("?")[2] or urlencode({"since": filters.since})
    if len(query) > _LONGEST_QUERY:
        raise InputError("This search is too long to be saved.", hint="Shorten its words.")
    own = (saved_views.c.owner == owner, saved_views.c.name == name)
    values = {"query": query, "is_shared": shared}
    if connection.execute(update(saved_views).where(*own).values(**values)).rowcount == 0:
        connection.execute(
            insert(saved_views).values(
                id=new_id("view", at=now), name=name, owner=owner, created_at=now, **values
            )
        )


def remove_view(connection: Connection, view_id: str, user: User) -> str:
    """Remove one's own view, or as an operator a shared one; returns its name.

    Raises NotFoundError where there is none.
    """
    view = saved_views.c
    theirs = view.owner == user.name
    may = or_(theirs, view.is_shared) if user.may("operator") else theirs
    row = connection.execute(select(view.name).where(view.id == view_id, may)).first()
    if row is None:
        raise NotFoundError("There is no such view of yours.", hint="Its owner can remove it.")
    connection.execute(delete(saved_views).where(view.id == view_id))
    return str(row.name)


def add_view_routes(routes: APIRouter, shell: Shell) -> None:
    """Add the routes that save and remove views."""

    @routes.post("/traffic/views")
    def save(
        name: Annotated[str, Form()] = "",
        query: Annotated[str, Form()] = "",
        shared: Annotated[bool, Form()] = False,
        user: User = Depends(shell.require("viewer")),
    ) -> Response:
        """Save the search of an address under a name."""
        if shared and not user.may("reviewer"):
            raise ForbiddenError(
                "A view for everybody is saved by reviewers and operators.",
                hint="Save it for yourself.",
            )
        filters = Filters.from_query(query)
        with writing(shell.context.database) as connection:
            save_view(connection, user.name, name, filters, shared=shared, now=shell.now())
        whom = "everybody" if shared else "you"
        return shell.redirect(filters.address(), f"Saved as “{name.strip()}”, for {whom}.")

    @routes.post("/traffic/views/{view_id}/remove")
    def remove(view_id: str, user: User = Depends(shell.require("viewer"))) -> Response:
        """Remove a saved view."""
        with writing(shell.context.database) as connection:
            name = remove_view(connection, view_id, user)
        return shell.redirect("/traffic", f"Removed the view “{name}”.")
