"""Who may reach what: every route of the console for every role, CSRF, origins, headers, static
files.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi import APIRouter
from starlette.datastructures import Headers

from tests.web import PASSWORD, ConsoleClient, console_client, form_token
from whet import access
from whet.access import ROLES, User
from whet.context import Context
from whet.web.security import PUBLIC, Facts, Verdict, decide, same_origin
from whet.web.shell import declared_role

VISITORS = ("", *ROLES)
PUBLIC_PATHS = {"/login", "/healthz", "/readyz", "/static/{package}/{path:path}"}


@pytest.fixture
def clients(sqlite_context: Context) -> dict[str, ConsoleClient]:
    nobody = console_client(sqlite_context, "")
    return {
        "": nobody,
        **{role: console_client(sqlite_context, role, app=nobody.app) for role in ROLES},
    }


@pytest.fixture(autouse=True)
def _cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """What scrypt costs is not what these tests are about."""
    monkeypatch.setitem(access._SCRYPT, "n", 1 << 4)


def basic(name: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


# --- the table of routes -------------------------------------------------------------------------------------------


def test_every_route_declares_who_may_use_it(clients: dict[str, ConsoleClient]) -> None:
    undeclared = [route.path for route in clients[""].app.routes if declared_role(route) is None]
    assert undeclared == []


def test_only_login_liveness_and_static_files_are_public(clients: dict[str, ConsoleClient]) -> None:
    assert {
        route.path for route in clients[""].app.routes if declared_role(route) == PUBLIC
    } == PUBLIC_PATHS


def test_every_page_package_is_loaded(clients: dict[str, ConsoleClient]) -> None:
    assert clients[""].app.state.shell.missing == []


def test_whoever_changes_something_is_more_than_a_viewer_except_for_their_own_session(
    clients: dict[str, ConsoleClient],
) -> None:
    changing = {
        route.path: declared_role(route)
        for route in clients[""].app.routes
        if route.methods - {"GET", "HEAD"}
    }
    assert {path for path, role in changing.items() if role in (PUBLIC, "viewer")} == {
        "/login",
        "/logout",
        "/settings/password",
        "/rendered",  # changes nothing; a text is too long for an address
        "/traffic/export",  # nor does this: the ids of chosen rows are too many for one
        "/traffic/views",  # one's own; sharing them asks for a reviewer
        "/traffic/views/{view_id}/remove",
    }


def test_every_route_refuses_everybody_below_its_role_and_nobody_from_it_on(
    clients: dict[str, ConsoleClient],
) -> None:
    """Each route is asked with ids that do not exist, so that nothing happens: a refusal of access
    is 303 to log-in, 401 or 403.
    """
    wrong = []
    for route in clients[""].app.routes:
        role = declared_role(route)
        if role == PUBLIC:
            continue
        path = route.path
        for name in route.param_convertors:
            path = path.replace("{" + name + "}", "1").replace("{" + name + ":path}", "x")
        path = path.replace("{version}", "1")
        for method in sorted(route.methods - {"HEAD"}):
            for visitor, client in clients.items():
                if (
                    path in ("/logout", "/settings/password", "/drift/run", "/playground/ask")
                    and visitor
                    and User("x", visitor).may(role)
                ):
                    continue  # these do something without an id; their own tests call them
                answer = client.request(method, path)
                refused = answer.status_code in (401, 403) or (
                    answer.status_code == 303 and answer.headers["location"].startswith("/login")
                )
                may = bool(visitor) and User("x", visitor).may(role)
                if refused == may:
                    wrong.append(
                        f"{visitor or 'anonymous'} {method} {path} (needs {role}):"
                        f" {answer.status_code}"
                    )
    assert wrong == []


def test_a_route_without_a_declaration_is_refused_to_an_admin(sqlite_context: Context) -> None:
    client = console_client(sqlite_context, "admin")
    forgotten = APIRouter()
    forgotten.add_api_route("/forgotten", lambda: "open", methods=["GET"])
    client.app.include_router(forgotten)
    assert client.get("/forgotten").status_code == 403


def test_the_role_of_the_method_counts_not_that_of_another_method_at_the_same_address(
    clients: dict[str, ConsoleClient],
) -> None:
    assert clients["operator"].get("/settings/keys").status_code == 403
    assert (
        clients["viewer"]
        .post("/settings/people", data={"name": "x", "role": "admin", "password": PASSWORD})
        .status_code
        == 403
    )


# --- the decision, as a table --------------------------------------------------------------------------------------

_ADMIN, _VIEWER = User("a", "admin"), User("v", "viewer")


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        (Facts("GET", True, "viewer", _VIEWER, True, True, False), Verdict.ALLOW),
        (Facts("GET", True, "viewer", None, False, True, False), Verdict.LOG_IN),
        (Facts("GET", False, None, None, False, True, False), Verdict.LOG_IN),
        (Facts("GET", False, None, _VIEWER, True, True, False), Verdict.ALLOW),
        (Facts("GET", True, None, _ADMIN, True, True, True), Verdict.UNDECLARED),
        (Facts("POST", True, "operator", _VIEWER, True, True, True), Verdict.FORBIDDEN),
        (Facts("POST", True, "viewer", _VIEWER, True, True, False), Verdict.NO_TOKEN),
        (Facts("POST", True, "viewer", _VIEWER, True, True, True), Verdict.ALLOW),
        # HTTP Basic: no cookie, no token
        (Facts("POST", True, "viewer", _VIEWER, False, True, False), Verdict.ALLOW),
        (Facts("POST", True, "viewer", _VIEWER, False, False, False), Verdict.FOREIGN_ORIGIN),
        (Facts("POST", True, PUBLIC, None, False, False, False), Verdict.FOREIGN_ORIGIN),
        (Facts("GET", True, PUBLIC, None, False, False, False), Verdict.ALLOW),
        (Facts("DELETE", True, "admin", _ADMIN, True, True, False), Verdict.NO_TOKEN),
    ],
)
def test_the_decision(facts: Facts, verdict: Verdict) -> None:
    assert decide(facts) is verdict


@pytest.mark.parametrize(
    ("headers", "same"),
    [
        ({"host": "h:1"}, True),
        ({"host": "h:1", "origin": "http://h:1"}, True),
        ({"host": "h:1", "origin": "https://h:1"}, True),  # TLS ends at a proxy
        ({"host": "h:1", "origin": "http://h:2"}, False),
        ({"host": "h:1", "origin": "http://evil"}, False),
        ({"host": "h:1", "origin": "null"}, False),
        ({"host": "h:1", "sec-fetch-site": "cross-site"}, False),
        ({"host": "h:1", "sec-fetch-site": "same-site"}, False),
        ({"host": "h:1", "sec-fetch-site": "same-origin"}, True),
    ],
)
def test_same_origin(headers: dict[str, str], same: bool) -> None:
    assert same_origin(Headers(headers)) is same


# --- CSRF and origins ----------------------------------------------------------------------------------------------


def deeds(client: ConsoleClient, **keywords: object) -> int:
    return int(client.post("/settings/keys", data={"name": "app"}, **keywords).status_code)


def test_a_form_without_the_sessions_token_changes_nothing(sqlite_context: Context) -> None:
    client, other = (
        console_client(sqlite_context, "admin"),
        console_client(sqlite_context, "operator"),
    )
    assert deeds(client, headers={"x-csrf-token": None}) == 403
    assert deeds(client, headers={"x-csrf-token": ""}) == 403
    assert deeds(client, headers={"x-csrf-token": other.csrf}) == 403
    assert "<td>app</td>" not in client.get("/settings/keys").text
    assert deeds(client) == 200


def test_the_token_may_stand_in_the_form_itself(sqlite_context: Context) -> None:
    client = console_client(sqlite_context, "admin")
    token = form_token(client.get("/settings/keys").text)
    client.csrf = ""
    assert client.post("/settings/keys", data={"name": "app", "csrf": token}).status_code == 200
    assert client.post("/settings/keys", data={"name": "app2", "csrf": "0" * 40}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": None, "sec-fetch-site": "cross-site"},
    ],
)
def test_a_request_from_another_site_changes_nothing_even_with_the_token(
    sqlite_context: Context, headers: dict[str, str | None]
) -> None:
    client = console_client(sqlite_context, "admin")
    assert deeds(client, headers=headers) == 403
    assert (
        client.post("/login", data={"name": "a", "password": "b"}, headers=headers).status_code
        == 403
    )


def test_a_body_that_is_too_long_is_refused_before_it_is_read_whole(
    sqlite_context: Context,
) -> None:
    client = console_client(sqlite_context, "admin")
    limit = sqlite_context.settings.request_max_bytes
    assert (
        client.post(
            "/settings/keys",
            content=b"name=" + b"a" * limit,
            headers={"content-type": "application/x-www-form-urlencoded"},
        ).status_code
        == 413
    )

    def parts() -> Iterator[bytes]:
        for _ in range(limit // 65_536 + 2):
            yield b"a" * 65_536

    assert (
        client.post(
            "/settings/keys",
            content=parts(),
            headers={"content-type": "application/x-www-form-urlencoded", "x-csrf-token": None},
        ).status_code
        == 413
    )


# --- headers, errors, static files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/login", "/", "/traffic", "/nowhere", "/api/nowhere", "/healthz", "/static/whet/shell.css"],
)
def test_every_answer_carries_the_policy(sqlite_context: Context, path: str) -> None:
    headers = console_client(sqlite_context, "admin").get(path).headers
    policy = headers["content-security-policy"]
    for part in (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ):
        assert part in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"


def test_pages_are_never_kept_by_a_browser_and_hashed_files_always(sqlite_context: Context) -> None:
    client = console_client(sqlite_context, "viewer")
    assert client.get("/").headers["cache-control"] == "no-store"
    address = client.app.state.shell.static("whet/shell.css")
    assert "immutable" in client.get(address).headers["cache-control"]
    assert client.get("/static/whet/shell.css").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path",
    [
        "/static/whet/../templates/shell/base.html",
        "/static/whet/%2e%2e/shell.py",
        "/static/whet/..%2fshell.py",
        "/static/nobody/x.css",
        "/static/whet/",
        "/static/whet//etc/passwd",
    ],
)
def test_static_files_come_from_the_static_folders_alone(
    sqlite_context: Context, path: str
) -> None:
    answer = console_client(sqlite_context, "").get(path)
    assert (
        answer.status_code in (303, 404)
        and "root:" not in answer.text
        and "class Shell" not in answer.text
    )


def test_a_defect_becomes_a_page_with_a_reference_and_no_details(
    sqlite_context: Context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from whet.web import overview

    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(overview, "load_reading", broken)
    client = console_client(sqlite_context, "viewer")
    page = client.get("/")
    assert (
        page.status_code == 500
        and "secret detail" not in page.text
        and "Something in the console broke" in page.text
    )
    reference = page.text.split("details under ")[1].split(".")[0]
    assert any(reference in record.getMessage() for record in caplog.records)
    script = client.get("/", headers={"accept": "application/json"})
    assert script.json()["error"]["code"] == "error" and "secret" not in script.text


def test_an_unknown_address_is_a_page_for_people_and_json_for_programs(
    sqlite_context: Context,
) -> None:
    client = console_client(sqlite_context, "viewer")
    page = client.get("/nowhere")
    assert page.status_code == 404 and "There is nothing at /nowhere" in page.text
    answer = client.get("/api/nowhere")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("path", "section"),
    [
        ("/adapters/no-such-alias", "Open Adapters"),
        ("/runs/run_none", "Open Runs"),
        ("/drift/incidents/alr_none", "Open Drift"),
    ],
)
def test_page_of_what_is_not_there_links_to_the_list_of_what_is(
    sqlite_context: Context, path: str, section: str
) -> None:
    page = console_client(sqlite_context, "admin").get(path)
    assert page.status_code == 404, page.text
    assert f">{section}</a>" in page.text and "whet " not in page.text.split("<main")[1]


def test_a_link_from_another_site_reaches_its_page_although_the_cookie_is_strict(
    sqlite_context: Context,
) -> None:
    """The browser leaves the cookie out of that first request; the same address, asked for again by
    our own page, gets it.
    """
    answer = console_client(sqlite_context, "").get(
        "/traffic", headers={"sec-fetch-site": "cross-site"}
    )
    assert answer.status_code == 200 and 'http-equiv="refresh"' in answer.text


def test_a_part_that_is_asked_for_without_a_session_sends_the_page_to_the_log_in(
    sqlite_context: Context,
) -> None:
    answer = console_client(sqlite_context, "").get(
        "/overview/live", headers={"hx-request": "true"}
    )
    assert answer.status_code == 401 and answer.headers["hx-redirect"] == "/login"


def test_a_proxy_that_changes_host_is_named_with_the_setting_that_admits_it(
    sqlite_context: Context,
) -> None:
    def pin(console_url: str) -> Any:
        settings = sqlite_context.settings.model_copy(update={"console_url": console_url})
        client = console_client(replace(sqlite_context, settings=settings), "operator")
        headers = {"origin": "https://whet.example", "host": "10.0.0.7:8080"}
        return client.post("/adapters/nothing/pin", headers=headers)

    refused = pin("")
    assert refused.status_code == 403
    for said in ("https://whet.example", "10.0.0.7:8080", "WHET_CONSOLE_URL"):
        assert said in refused.text
    assert pin("http://whet.example").status_code == 403, "another scheme is another site"
    assert pin("https://whet.example/").status_code == 404, "admitted; no such alias"


@pytest.mark.parametrize("role", ROLES)
def test_the_menu_has_no_page_that_refuses(sqlite_context: Context, role: str) -> None:
    client = console_client(sqlite_context, role)
    menu = client.get("/").text.split('<nav id="menu"')[1].split("</nav>")[0]
    pages = re.findall(r'<li><a href="([^"]+)"', menu)
    assert "/health" in pages
    assert {href: client.get(href).status_code for href in pages} == dict.fromkeys(pages, 200)
