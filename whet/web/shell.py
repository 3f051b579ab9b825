"""The console's shell: what every page shares.

A package's `whet.pages` entry point is `router(shell) -> fastapi.APIRouter`. Each of its routes
declares a role with `Depends(shell.require("viewer"))`; a route that declares none is refused.
Pages extend `shell/base.html`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jinja2
from fastapi import FastAPI
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from whet import __version__
from whet.access import ROLES, User
from whet.context import Context
from whet.errors import ConfigurationError, NotFoundError
from whet.web import filters, rendering
from whet.web.errors import section_of
from whet.web.security import PUBLIC, Gate, RouteRule

logger = logging.getLogger(__name__)

_PACKAGES = ("whet", "serving", "training", "monitoring", "feedback")
_KEEPALIVE_S = 15  # proxies drop a silent stream after 30 to 60 s
_SAID_S = 60  # a message about what was just done is shown on the next page, once


@dataclass(frozen=True)
class Page:
    """An entry of the menu. `key`: the letter after `g` that goes there."""

    label: str
    href: str
    icon: str
    order: int
    key: str = ""


class Require:
    """A route's declaration of who may use it; the middleware enforces it before the route runs."""

    def __init__(self, role: str, upload_bytes: int = 0) -> None:
        if role not in (*ROLES, PUBLIC):
            raise ConfigurationError(f"Role {role!r} is not one of {', '.join(ROLES)}.")
        self.role = role
        self.upload_bytes = upload_bytes

    async def __call__(self, request: Request) -> User | None:
        user: User | None = request.scope["whet.user"]
        return user


class Shell:
    """Handed to every `router(shell)`."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.pages: list[Page] = []
        self.missing: list[str] = []  # sentences about pages that could not be loaded
        # Alias → examples that its next training would learn anew; set by who writes examples
        self.count_new_examples: Callable[[], Mapping[str, int]] = dict
        self._page_roles: dict[str, str | None] = {}
        self.app: FastAPI  # both set by create_console
        self.gate: Gate
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(
                [str(folder) for folder in _folders("templates").values()]
            ),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(
            number=filters.number,
            percent=filters.percent,
            duration=filters.duration,
            short=filters.short,
            clip=filters.clip,
            lines=filters.lines,
            plural=filters.plural,
            code=filters.code,
            rendered=rendering.render,
            as_json=rendering.coloured_json,
            pictures=rendering.describe_pictures,
            plain_text=rendering.plain_text,
            utc_clock=filters.utc_clock,
        )
        self._templates.filters["ago"] = lambda at: filters.ago(at, self.now())
        self._templates.filters["local_times"] = lambda text, at=None: filters.local_times(
            text, self.now(), at
        )
        self._templates.filters["clock"] = lambda at: filters.clock(at, self.now())
        self._templates.filters["age"] = lambda at: filters.age(at, self.now())
        self._templates.filters["since"] = lambda at: filters.since(at, self.now())
        self._templates.globals.update(
            static=self.static, csrf=self.csrf_field, exists=self.exists, version=__version__
        )

    def now(self) -> int:
        """The time of this request in ms; pages take it from here so that tests can set it."""
        return self.gate.clock()

    def require(self, role: str, *, upload_bytes: int = 0) -> Require:
        """A dependency that returns the User: `user: User = Depends(shell.require("operator"))`.

        `upload_bytes`: the route reads a file from `request.stream()`, of at most so many bytes.
        """
        return Require(role, upload_bytes)

    def public(self) -> Require:
        """The declaration of a route that anybody may reach."""
        return Require(PUBLIC)

    def user(self, request: Request) -> User:
        """Who asks. Only for routes that require a role."""
        user: User | None = request.scope.get("whet.user")
        if user is None:
            raise ConfigurationError("shell.user() was called in a route that requires no role.")
        return user

    def add_page(self, label: str, href: str, icon: str, order: int, key: str = "") -> None:
        """Put a page into the menu.

        `icon`: a name in shell/icons.html; `key`: its letter after `g`, by default the first free
        one of the label.
        """
        letters = [key] if key else [letter for letter in label.lower() if letter.isalpha()]
        taken = {page.key for page in self.pages}
        free = next((letter for letter in letters if letter not in taken), "")
        self.pages = sorted(
            [*self.pages, Page(label, href, icon, order, free)],
            key=lambda page: (page.order, page.label),
        )

    def render(
        self, request: Request, template: str, status: int = 200, /, **values: object
    ) -> HTMLResponse:
        """An HTML answer from `<package>/<name>.html`.

        The template also sees `request`, `user`, `pages`, `here`, `csrf(request)`.
        """
        said_cookie = f"{self.gate.sessions.cookie}_said"
        said = (
            self.gate.sessions.unsign("said", request.cookies[said_cookie])
            if said_cookie in request.cookies
            else None
        )
        if "status" in values:
            raise TypeError("render() takes its status after the template, not by name")
        values.setdefault("said", said[0] if said else "")
        html = self._templates.get_template(template).render(
            request=request,
            user=request.scope.get("whet.user"),
            pages=self._pages_of(request.scope.get("whet.user")),
            section_of=section_of,
            here=request.url.path,
            csrf_token=self.csrf_token(request),
            missing=self.missing,
            now=self.now(),
            **values,
        )
        response = HTMLResponse(html, status_code=status)
        if said_cookie in request.cookies and not request.headers.get("hx-request"):
            response.delete_cookie(said_cookie, path="/")
        return response

    def _pages_of(self, user: User | None) -> list[Page]:
        """The menu of one user: pages that would refuse them are not in it."""
        if user is None:
            return self.pages
        for page in self.pages:
            if page.href not in self._page_roles:
                self._page_roles[page.href] = route_rule(self.app, _scope("GET", page.href)).role
        return [
            page
            for page in self.pages
            if (role := self._page_roles[page.href]) not in ROLES or user.may(role)
        ]

    def redirect(self, href: str, said: str = "") -> RedirectResponse:
        """After a form: go to `href` (a path of this console) and say there what was done."""
        if not href.startswith("/") or href.startswith("//") or "\\" in href:
            href = "/"
        response = RedirectResponse(href, status_code=303)
        if said:
            value = self.gate.sessions.sign("said", [said[:500]])
            response.set_cookie(
                f"{self.gate.sessions.cookie}_said",
                value,
                max_age=_SAID_S,
                httponly=True,
                samesite="strict",
                path="/",
            )
        return response

    def exists(self, method: str, path: str) -> bool:
        """Is there a route for this?

        So that a page links only to what another package offers in this installation.
        """
        return matching_route(self.app, _scope(method, path))[1] is Match.FULL

    def csrf_token(self, request: Request) -> str:
        session = request.scope.get("whet.session")
        return self.gate.sessions.csrf(session) if session else ""

    def csrf_field(self, request: Request) -> Markup:
        """The hidden field that every form carries."""
        return Markup('<input type="hidden" name="csrf" value="{}">').format(
            self.csrf_token(request)
        )

    def static(self, path: str) -> str:
        """Address of `<package>/<file>` in a package's static folder, with its content's hash, so
        that it may be cached for ever.
        """
        package, _, name = path.partition("/")
        return f"/static/{path}?v={_file_hash(str(_folders('static')[package] / name))}"

    def sse(self, events: AsyncIterator[Any]) -> StreamingResponse:
        """Server-sent events from an async generator of `data` or `(event, data)`; anything but
        text becomes JSON.

        The generator is closed when the reader goes away.
        """
        return StreamingResponse(
            _frames(events),
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )


def _scope(method: str, path: str) -> Scope:
    """A request without a body or a query, to ask the router with."""
    return {
        "type": "http", "method": method, "path": path, "root_path": "", "headers": [],
        "query_string": b"",
    }  # fmt: skip


async def _frames(events: AsyncIterator[Any]) -> AsyncIterator[str]:
    iterator = aiter(events)
    waiting: asyncio.Future[Any] = asyncio.ensure_future(anext(iterator))
    try:
        yield ": open\n\n"
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=_KEEPALIVE_S)
            if not done:
                yield ": still here\n\n"
                continue
            try:
                item = waiting.result()
            except StopAsyncIteration:
                return
            name, data = item if isinstance(item, tuple) else ("message", item)
            text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
            yield (
                f"event: {name}\n" + "".join(f"data: {line}\n" for line in text.split("\n")) + "\n"
            )
            waiting = asyncio.ensure_future(anext(iterator))
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()


@cache
def _folders(kind: str) -> dict[str, Path]:
    """`templates` or `static` of every installed package; the shell's own lie under whet/web."""
    found = {}
    for package in _PACKAGES:
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            continue
        folder = Path(next(iter(spec.submodule_search_locations)))
        folder = folder / "web" / kind if package == "whet" else folder / kind
        found[package] = folder
    return found


@cache
def _file_hash(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]
    except OSError as error:
        raise ConfigurationError(
            f"The static file {path} is missing.",
            hint="Install Whet again: its package data is incomplete.",
        ) from error


def static_file(package: str, path: str, version: str) -> Response:
    """Return a package's file, as browsers may keep it. Raises NotFoundError."""
    folder = _folders("static").get(package)
    if folder is None:
        raise NotFoundError(f"There are no static files of {package!r}.")
    file = (folder / path).resolve()
    if not file.is_relative_to(folder.resolve()) or not file.is_file():
        raise NotFoundError(f"There is no static file {package}/{path}.")
    # With its hash in the address the content never changes; without, the browser asks each time
    # and mostly gets a 304.
    return FileResponse(
        file,
        headers={"cache-control": "public, max-age=31536000, immutable" if version else "no-cache"},
    )


def matching_route(app: FastAPI, scope: Scope) -> tuple[BaseRoute | None, Match]:
    """The route that will answer, as the router chooses it: the first full match, else the first
    whose path alone matches.
    """
    partial = None
    for route in app.router.routes:
        match, _ = route.matches(scope)
        if match is Match.FULL:
            return route, match
        if match is Match.PARTIAL and partial is None:
            partial = route
    return (partial, Match.PARTIAL) if partial is not None else (None, Match.NONE)


def route_rule(app: FastAPI, scope: Scope) -> RouteRule:
    """Return what the route that will answer declares."""
    route, match = matching_route(app, scope)
    upload_bytes = max((one.upload_bytes for one in _declarations(route)), default=0)
    return RouteRule(match is not Match.NONE, declared_role(route), upload_bytes)


def _declarations(route: BaseRoute | None) -> list[Require]:
    dependant = getattr(route, "dependant", None)
    calls = [dependency.call for dependency in dependant.dependencies] if dependant else []
    return [call for call in calls if isinstance(call, Require)]


def declared_role(route: BaseRoute | None) -> str | None:
    """The strictest declaration among the route's dependencies, its router's included."""
    roles = [one.role for one in _declarations(route)]
    named = [role for role in roles if role != PUBLIC]
    return max(named, key=ROLES.index) if named else (PUBLIC if roles else None)
