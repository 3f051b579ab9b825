"""The console in a test: an application, a user of any role, a logged-in client, and the pages'
routes.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from sqlalchemy import select
from starlette.testclient import TestClient

from whet.access import hash_password
from whet.context import Context
from whet.database import insert_ignore, writing
from whet.tables import users
from whet.web.console import create_console

NOW = 1_900_000_000_000  # what the pages' tests take for the present, in ms
PASSWORD = "correct horse battery"
_ORIGIN = "http://testserver"


@cache
def _password_hash() -> str:
    """One scrypt for all tests of a process: it takes 0.3 s."""
    return hash_password(PASSWORD)


class ConsoleClient(TestClient):
    """A TestClient that behaves like a browser with the page open: it sends the session's CSRF
    token and its origin.

    `token=""` in a call's headers is what a foreign form would send.
    """

    csrf: str = ""

    def request(self, method: str, url: Any, **keywords: Any) -> Any:
        headers = {
            "origin": _ORIGIN,
            **({"x-csrf-token": self.csrf} if self.csrf else {}),
            **(keywords.pop("headers", None) or {}),
        }
        return super().request(
            method,
            url,
            headers={name: value for name, value in headers.items() if value is not None},
            **keywords,
        )


def console_client(
    context: Context,
    role: str = "admin",
    *,
    clock: Any = None,
    raise_errors: bool = False,
    app: Any = None,
) -> ConsoleClient:
    """A client logged in as a user named after `role`; `role=""`: nobody.

    Redirects are not followed.

    `app`: a console that another client uses already.
    """
    app = app or create_console(context, **({"clock": clock} if clock else {}))
    client = ConsoleClient(
        app, base_url=_ORIGIN, follow_redirects=False, raise_server_exceptions=raise_errors
    )
    if not role:
        return client
    gate = app.state.shell.gate
    with writing(context.database) as connection:
        connection.execute(
            insert_ignore(connection, users).values(
                name=role, role=role, password_hash=_password_hash(), created_at=0
            )
        )
        stored = connection.execute(
            select(users.c.password_hash).where(users.c.name == role)
        ).scalar_one()
    session = gate.sessions.begin(role, stored, gate.clock())
    client.cookies.set(gate.sessions.cookie, gate.sessions.write(session, gate.clock()))
    client.csrf = gate.sessions.csrf(session)
    return client


def form_token(html: str) -> str:
    """The CSRF token that a page carries."""
    found = re.search(r'name="csrf" (?:value|content)="([0-9a-f]+)"', html)
    assert found, "the page carries no CSRF token"
    return found[1]


__all__ = ["PASSWORD", "ConsoleClient", "console_client", "form_token"]


def headline(html: str) -> str:
    """The words of a page's headline."""
    found = re.search(r'<h1 id="headline"[^>]*>(.*?)</h1>', html, re.S)
    assert found, "the page has no headline"
    return re.sub(r"<[^>]+>", "", found[1]).strip()
