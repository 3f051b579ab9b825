"""The console: the pages of all packages in one application."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import entry_points

from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Scope

from whet import __version__
from whet.access import User
from whet.clock import now_ms
from whet.context import Context
from whet.errors import WhetError
from whet.web import rendering
from whet.web.errors import error_response, hint_for_reader
from whet.web.login import add_login
from whet.web.security import Gate, SecurityMiddleware
from whet.web.shell import Shell, route_rule, static_file

logger = logging.getLogger(__name__)


class TextBody(BaseModel):
    """`POST /rendered`."""

    model_config = ConfigDict(extra="forbid")
    text: str


def create_console(context: Context, *, clock: Callable[[], int] = now_ms) -> FastAPI:
    """The console as an ASGI application.

    A package whose pages cannot be imported is left out and said so on Overview.
    """
    app = FastAPI(
        title="Whet", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    shell = Shell(context)
    shell.app = app

    def error_page(scope: Scope, error: WhetError) -> HTMLResponse:
        request = Request(scope)
        template = (
            "shell/error_part.html" if request.headers.get("hx-request") else "shell/error.html"
        )
        scope.setdefault("whet.user", None)
        hint = hint_for_reader(error)
        return shell.render(request, template, error.status, error=error, hint=hint)

    def on_error(scope: Scope, error: Exception) -> Response:
        return error_response(scope, error, error_page)

    shell.gate = Gate(
        context, rule=lambda scope: route_rule(app, scope), on_error=on_error, clock=clock
    )
    for kind in (WhetError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, lambda request, error: on_error(request.scope, error))
    app.include_router(_own_routes(shell))
    for entry in sorted(entry_points(group="whet.pages"), key=lambda entry: entry.name):
        try:
            build = entry.load()
        except (ImportError, AttributeError) as error:
            shell.missing.append(f"The {entry.name} pages are left out: {error}.")
            logger.warning("%s", shell.missing[-1])
            continue
        app.include_router(build(shell))
    app.state.shell = shell
    app.add_middleware(
        SecurityMiddleware, gate=shell.gate, max_body=context.settings.request_max_bytes
    )
    return app


def _own_routes(shell: Shell) -> APIRouter:
    router = APIRouter()
    add_login(router, shell)

    @router.get("/static/{package}/{path:path}", dependencies=[Depends(shell.public())])
    def send_static_file(package: str, path: str, v: str = "") -> Response:
        """Style sheets and scripts of the packages."""
        return static_file(package, path, v)

    @router.post("/rendered")
    def rendered(body: TextBody, _user: User = Depends(shell.require("viewer"))) -> Response:
        """A text as pages show it, for what came after the page; 204 where it stays as it is."""
        html = rendering.render(body.text)
        return HTMLResponse(html) if html else Response(status_code=204)

    @router.get("/healthz", dependencies=[Depends(shell.public())])
    def healthz() -> dict[str, str]:
        """Alive, without a look at the database."""
        return {"status": "ok", "version": __version__}

    return router
