"""Overview: the circle at a glance."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from whet.database import reading
from whet.web import circle
from whet.web.shell import Shell


def router(shell: Shell) -> APIRouter:
    """Entry point `whet.pages`."""
    shell.add_page("Overview", "/", "overview", 0)
    routes = APIRouter(dependencies=[Depends(shell.require("viewer"))])

    @routes.get("/")
    def overview(request: Request) -> Response:
        """The circle at a glance, what needs a person, how each alias does."""
        return shell.render(request, "shell/overview.html", **_values(shell))

    @routes.get("/overview/live")
    def live(request: Request) -> Response:
        """Overview as a part that follows what happens."""
        return shell.render(request, "shell/overview_live.html", **_values(shell))

    return routes


def _values(shell: Shell) -> dict[str, Any]:
    with reading(shell.context.database) as connection:
        facts = circle.look(connection, shell.now())
        aliases = circle.alias_states(connection, facts)
    found = circle.needs(facts)
    settings = shell.context.settings
    return {
        "facts": facts,
        "aliases": aliases,
        "needs": found,
        "stations": circle.stations(facts),
        "headline": circle.headline(facts, found),
        "is_new": circle.is_new(facts),
        "gateway_url": f"http://{settings.gateway_host}:{settings.gateway_port}",
        "settings": settings,
    }
