"""Log-in and log-out."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import JSONResponse, Response

from whet.access import User
from whet.errors import AccessError
from whet.web.errors import wants_json
from whet.web.security import client_address, session_cookie
from whet.web.shell import Shell


def add_login(router: APIRouter, shell: Shell) -> None:
    """`GET/POST /login`, `POST /logout`."""
    gate = shell.gate

    @router.get("/login", dependencies=[Depends(shell.public())])
    def login_page(request: Request, next: str = "/") -> Response:
        """The log-in form; `next` is where it leads."""
        if request.scope["whet.user"] is not None:
            return shell.redirect(next)
        return shell.render(request, "shell/login.html", next=next, name="", problem="")

    @router.post("/login", dependencies=[Depends(shell.public())])
    async def log_in(
        request: Request, name: str = Form(""), password: str = Form(""), next: str = Form("/")
    ) -> Response:
        """Check name and password, begin a session.

        A page that asks for JSON gets the token of the new session instead of another page.
        """
        try:
            user = await gate.check_password(name, password, client_address(request.scope))
        except AccessError as error:
            problem = (
                error.message
                if error.status == 429
                else "That name and password do not match a user."
            )
            if wants_json(request.scope):
                raise
            response: Response = shell.render(
                request,
                "shell/login.html",
                error.status,
                next=next,
                name=name,
                problem=problem,
            )
            if error.status == 429:
                response.headers["retry-after"] = str(getattr(error, "retry_s", 60))
            return response
        response = shell.redirect(next)
        session = await gate.begin_session(user)
        if session is not None and wants_json(request.scope):
            response = JSONResponse({"name": user.name, "csrf": gate.sessions.csrf(session)})
        if session is not None:
            response.headers.append(
                "set-cookie", session_cookie(gate.sessions, session, request.scope, gate.clock())
            )
        return response

    @router.post("/logout")
    def log_out(request: Request, _user: User = Depends(shell.require("viewer"))) -> Response:
        """End this session."""
        session = request.scope["whet.session"]
        if session is not None:
            gate.sessions.end(session, gate.clock())
        response = shell.redirect("/login")
        response.delete_cookie(gate.sessions.cookie, path="/")
        return response
