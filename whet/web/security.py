"""The gate in front of every route of the console: one pure ASGI middleware, deny by default.

A route is reachable only when it declares a role (`shell.require(...)`) or is declared public;
anything else is refused, so a forgotten declaration is a closed door. The decision itself is
`decide`, a pure function of plain facts.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import anyio
from sqlalchemy import select
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whet.access import User, log_in
from whet.clock import now_ms
from whet.database import reading
from whet.errors import AccessError, InputError, WhetError
from whet.tables import users
from whet.web.sessions import BasicMemory, Session, Sessions, Throttle, basic_credentials

logger = logging.getLogger(__name__)

# The declared role of routes that anybody may reach: log-in, static files, liveness
PUBLIC = "public"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_FORM = "application/x-www-form-urlencoded"
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src"
    " 'self'; connect-src 'self'; form-action 'self'; frame-src 'self'; base-uri 'none';"
    " frame-ancestors 'none'"
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class TooLargeError(InputError):
    code = "too_large"
    status = 413


class ForbiddenError(AccessError):
    """The caller is known and may not do this."""

    code = "forbidden"
    status = 403


class ThrottledError(AccessError):
    """Too many wrong passwords; `retry_s` says when to try again."""

    code = "throttled"
    status = 429

    def __init__(self, retry_s: int) -> None:
        super().__init__(f"Too many wrong passwords. Try again in {retry_s} s.")
        self.retry_s = retry_s


class Verdict(Enum):
    ALLOW = "allow"
    LOG_IN = "log in"
    FORBIDDEN = "forbidden"
    UNDECLARED = "undeclared"
    FOREIGN_ORIGIN = "foreign origin"
    NO_TOKEN = "no token"


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the decision needs.

    `needs` is the route's role, PUBLIC, or None for a route that declares nothing.
    """

    method: str
    found: bool
    needs: str | None
    user: User | None
    by_cookie: bool
    same_origin: bool
    token_matches: bool


def decide(facts: Facts) -> Verdict:
    """Deny unless every rule agrees.

    Unknown addresses ask for a log-in too, so that nobody maps the console from outside.
    """
    unsafe = facts.method not in _SAFE
    if unsafe and not facts.same_origin:
        return Verdict.FOREIGN_ORIGIN
    if facts.found and facts.needs is None:
        return Verdict.UNDECLARED
    if facts.needs == PUBLIC:
        return Verdict.ALLOW
    if facts.user is None:
        return Verdict.LOG_IN
    if facts.needs is not None and not facts.user.may(facts.needs):
        return Verdict.FORBIDDEN
    if unsafe and facts.by_cookie and not facts.token_matches:
        return Verdict.NO_TOKEN
    return Verdict.ALLOW


def same_origin(headers: Headers, console_url: str = "") -> bool:
    """False when the browser says that another site sent this request.

    Scripts send neither header and are judged by their credentials. `console_url`: the address
    that browsers use where a proxy does not pass `Host` on.
    """
    origin = headers.get("origin")
    if origin is not None:
        own = urlsplit(console_url)
        is_console = bool(own.netloc) and origin == f"{own.scheme}://{own.netloc}"
        is_host = origin != "null" and urlsplit(origin).netloc == headers.get("host", "")
        return is_console or is_host
    return headers.get("sec-fetch-site", "none") in ("same-origin", "none")


@dataclass(frozen=True, slots=True)
class RouteRule:
    """What the route that will answer declares.

    `upload_bytes`: above 0, the route reads its body itself, as it comes, up to so many bytes; its
    token has to come as the header `x-csrf-token`. All other bodies are read before the decision.
    """

    found: bool
    role: str | None
    upload_bytes: int = 0


@dataclass
class Gate:
    """The state behind the middleware: cookies, remembered Basic log-ins, failed attempts."""

    context: Any  # whet.context.Context
    rule: Callable[[Scope], RouteRule]
    on_error: Callable[[Scope, Exception], Response]
    clock: Callable[[], int] = now_ms

    def __post_init__(self) -> None:
        self.sessions = Sessions(self.context.secret)
        self.basic = BasicMemory()
        self.throttle = Throttle()
        # Scrypt takes 128 MiB a piece; more at once would be a way to fill the memory
        self._hashing = anyio.CapacityLimiter(2)

    async def check_password(self, name: str, password: str, address: str) -> User:
        """The user, or AccessError / ThrottledError. Counts failures per name and per address."""
        now = self.clock()
        subjects = (f"{name[:64]}@{address}", f"@{address}")
        # One address may try several names (an office behind one proxy), so it has more room than
        # one name does.
        wait = max(self.throttle.wait_ms(subjects[0], now), self.throttle.wait_ms(subjects[1], now))
        if wait:
            raise ThrottledError(-(-wait // 1000))

        def verify() -> User:
            with reading(self.context.database) as connection:
                return log_in(connection, name, password)

        try:
            user = await anyio.to_thread.run_sync(verify, limiter=self._hashing)
        except AccessError:
            for subject in subjects:
                self.throttle.failed(subject, now)
            raise
        for subject in subjects:
            self.throttle.succeeded(subject)
        return user

    async def user_of_basic(self, name: str, password: str, address: str) -> User | None:
        now = self.clock()
        found = await self.known(name)
        # A changed password is asked for again
        mark = self.sessions.mark(found[1]) if found else ""
        if not found or not self.basic.knows(name, password + mark, now):
            await self.check_password(name, password, address)
            self.basic.remember(name, password + mark, now)
        return found[0] if found else None

    async def known(self, name: str) -> tuple[User, str] | None:
        """The user as of now (a removed one is out with their next request), and the hash of their
        password.
        """

        def find() -> tuple[User, str] | None:
            with reading(self.context.database) as connection:
                row = connection.execute(
                    select(users.c.name, users.c.role, users.c.password_hash).where(
                        users.c.name == name, users.c.removed_at.is_(None)
                    )
                ).first()
            return (User(row.name, row.role), row.password_hash) if row else None

        return await anyio.to_thread.run_sync(find)

    async def begin_session(self, user: User) -> Session | None:
        found = await self.known(user.name)
        return self.sessions.begin(user.name, found[1], self.clock()) if found else None


class SecurityMiddleware:
    """Authenticates, decides, adds headers, and turns every error into an answer (the only error
    boundary of the console).
    """

    def __init__(self, app: ASGIApp, gate: Gate, max_body: int) -> None:
        self.app, self.gate, self.max_body = app, gate, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError("the console speaks HTTP only")
        state = _Answer(scope, send)
        try:
            await self._serve(scope, receive, state)
        except Exception as error:
            if state.started:
                logger.exception(
                    "%s %s failed after its answer had begun", scope["method"], scope["path"]
                )
                raise
            await self.gate.on_error(scope, error)(scope, receive, state)

    async def _serve(self, scope: Scope, receive: Receive, state: _Answer) -> None:
        headers = Headers(scope=scope)
        now = self.gate.clock()
        rule = self.gate.rule(scope)
        found, needs = rule.found, rule.role
        user, session = await self._identify(scope, headers, now)
        scope["whet.user"], scope["whet.session"] = user, session
        matches = False
        if scope["method"] not in _SAFE:
            if rule.upload_bytes:
                body, receive = b"", _limited(receive, headers, rule.upload_bytes)
            else:
                body = await _whole_body(receive, headers, self.max_body)
                receive = _giving_again(body, receive)
            matches = session is not None and hmac.compare_digest(
                _sent_token(headers, body), self.gate.sessions.csrf(session).encode()
            )
        verdict = decide(
            Facts(
                scope["method"],
                found,
                needs,
                user,
                session is not None,
                same_origin(headers, self.gate.context.settings.console_url),
                matches,
            )
        )
        if verdict is Verdict.ALLOW:
            if session is not None and session.due(now):
                state.cookie = session_cookie(self.gate.sessions, session, scope, now)
            await self.app(scope, receive, state)
        elif verdict is Verdict.LOG_IN:
            await _ask_to_log_in(scope, headers)(scope, receive, state)
        else:
            raise _refusal(verdict, scope, needs, user, headers)

    async def _identify(
        self, scope: Scope, headers: Headers, now: int
    ) -> tuple[User | None, Session | None]:
        """By HTTP Basic on `/api/` (the cookie then counts for nothing), by the session cookie
        everywhere.
        """
        authorization = headers.get("authorization")
        if authorization and scope["path"].startswith("/api/"):
            credentials = basic_credentials(authorization)
            if credentials is None:
                raise AccessError(
                    "The Authorization header is not HTTP Basic.",
                    hint="Send `Authorization: Basic base64(name:password)` of a console user.",
                )
            return await self.gate.user_of_basic(*credentials, client_address(scope)), None
        value = cookie_parser(headers.get("cookie", "")).get(self.gate.sessions.cookie, "")
        session = self.gate.sessions.read(value, now) if value else None
        found = await self.gate.known(session.name) if session else None
        if session is None or found is None or self.gate.sessions.mark(found[1]) != session.mark:
            return None, None
        return found[0], session


def client_address(scope: Scope) -> str:
    return scope["client"][0] if scope.get("client") else "unknown"


def session_cookie(sessions: Sessions, session: Session, scope: Scope, now: int) -> str:
    """The Set-Cookie line.

    Strict, so that no other site can send it along; Secure wherever the page came over TLS.
    """
    secure = "; Secure" if scope.get("scheme") == "https" else ""
    return (
        f"{sessions.cookie}={sessions.write(session, now)}; Path=/; HttpOnly; SameSite=Strict;"
        f" Max-Age={7 * 24 * 3600}{secure}"
    )


async def _whole_body(receive: Receive, headers: Headers, most: int) -> bytes:
    """The body, read before anything else happens: no form of the console is long.

    Raises TooLargeError past `most` bytes.
    """
    declared = headers.get("content-length", "")
    chunks, size, more = [], int(declared) if declared.isdigit() else 0, True
    while more and size <= most:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
        size = max(size, sum(map(len, chunks)))
    if size > most:
        raise TooLargeError(
            f"The request has more than {most:,} bytes.",
            hint="Send less, or raise WHET_REQUEST_MAX_BYTES.",
        )
    return b"".join(chunks)


def _limited(receive: Receive, headers: Headers, most: int) -> Receive:
    """A `receive` that raises TooLargeError past `most` bytes; at once where that is declared."""
    size = 0
    declared = headers.get("content-length", "")

    async def limited() -> Message:
        nonlocal size
        if declared.isdigit() and int(declared) > most:
            raise _file_too_large(most)
        message = await receive()
        size += len(message.get("body", b""))
        if size > most:
            raise _file_too_large(most)
        return message

    return limited


def _file_too_large(most: int) -> TooLargeError:
    return TooLargeError(f"The file has more than {most:,} bytes.", hint="Divide it.")


def _giving_again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, and after it what comes next: the news that
    the client left.
    """
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _sent_token(headers: Headers, body: bytes) -> bytes:
    """The CSRF token of a request: its header, or the field `csrf` of a plain form."""
    token = headers.get("x-csrf-token", "")
    if token or not headers.get("content-type", "").startswith(_FORM):
        return token.encode()
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=1000)
    except ValueError:  # more fields than any form of the console has
        return b""
    return fields.get("csrf", [""])[0].encode()


def _ask_to_log_in(scope: Scope, headers: Headers) -> Response:
    if scope["path"].startswith("/api/") or headers.get("accept", "").startswith(
        "application/json"
    ):
        raise AccessError(
            "This needs a log-in.",
            hint="Send HTTP Basic with a console user's name and password, or log in at /login.",
        )
    target = scope["path"] + (
        f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
    )
    if headers.get("hx-request"):
        return Response(status_code=401, headers={"hx-redirect": "/login"})
    if headers.get("sec-fetch-site") == "cross-site" and scope["method"] == "GET":
        # A Strict cookie is not sent when a link on another site leads here. The same address asked
        # for by our own page gets it.
        return HTMLResponse(
            '<!doctype html><meta http-equiv="refresh" content="0"><title>Whet</title>'
        )
    if scope["method"] != "GET":
        target = "/"
    return RedirectResponse(
        "/login" if target == "/" else f"/login?next={quote(target, safe='')}", status_code=303
    )


def _refusal(
    verdict: Verdict, scope: Scope, needs: str | None, user: User | None, headers: Headers
) -> WhetError:
    if verdict is Verdict.FOREIGN_ORIGIN:
        return _foreign_origin(headers)
    if verdict is Verdict.NO_TOKEN:
        return ForbiddenError(
            "The form has no valid token: it was opened in an earlier session.",
            hint="Load the page again and repeat; nothing was changed.",
        )
    if verdict is Verdict.UNDECLARED:
        logger.error(
            "%s %s declares no role and was refused; add Depends(shell.require(...))",
            scope["method"],
            scope["path"],
        )
        return ForbiddenError("This address is closed: it declares nobody who may use it.")
    name = user.name if user else "nobody"
    return ForbiddenError(
        f"{name} is a {user.role if user else 'stranger'}; this needs the role {needs}.",
        hint="Ask an admin for the role (Settings, People).",
    )


def _foreign_origin(headers: Headers) -> WhetError:
    """Both values that differ, since behind a proxy a setting may have to change."""
    origin, host = headers.get("origin", "not said")[:200], headers.get("host", "not said")[:200]
    return ForbiddenError(
        "This request came from a page of another site:"
        f" its origin is {origin}, the console was asked as {host}.",
        hint=(
            "Open the console itself and try again. Behind a proxy, let it pass the Host header"
            " on, or set WHET_CONSOLE_URL to the address in the browser and start the console"
            " again. Nothing was changed."
        ),
    )


class _Answer:
    """Adds the security headers to whatever is sent, and remembers whether the answer has begun."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope, self.send, self.started, self.cookie = scope, send, False, ""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            own = headers.get("content-security-policy", "")
            # A page may tighten its own policy into a sandbox (stored reports with scripts in
            # them); it can loosen nothing else.
            if not own.startswith("sandbox") or "allow-same-origin" in own:
                headers["content-security-policy"] = _CSP
            headers.setdefault("cache-control", "no-store")
            if self.cookie:
                headers.append("set-cookie", self.cookie)
        await self.send(message)
