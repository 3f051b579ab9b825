"""Who may reach what: every route of the console for every role, sessions, CSRF, origins, passwords, headers."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from fastapi import APIRouter
from starlette.datastructures import Headers

from tests.web import PASSWORD, ConsoleClient, console_client, form_token
from whet import access
from whet.access import ROLES, User, add_user, change_password, change_role, remove_user
from whet.context import Context
from whet.database import writing
from whet.errors import ConflictError
from whet.web import security
from whet.web.first_user import ensure_admin
from whet.web.security import PUBLIC, Facts, Verdict, decide, same_origin
from whet.web.sessions import BasicMemory, Sessions, Throttle, basic_credentials
from whet.web.shell import declared_role

NOW = 1_900_000_000_000
VISITORS = ("", *ROLES)
PUBLIC_PATHS = {"/login", "/healthz", "/static/{package}/{path:path}"}


@pytest.fixture
def clients(sqlite_context: Context) -> dict[str, ConsoleClient]:
    nobody = console_client(sqlite_context, "")
    return {"": nobody, **{role: console_client(sqlite_context, role, app=nobody.app) for role in ROLES}}


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
    assert {route.path for route in clients[""].app.routes if declared_role(route) == PUBLIC} == PUBLIC_PATHS


def test_every_page_package_is_loaded(clients: dict[str, ConsoleClient]) -> None:
    assert clients[""].app.state.shell.missing == []


def test_whoever_changes_something_is_more_than_a_viewer_except_for_their_own_session(clients: dict[str, ConsoleClient]) -> None:
    changing = {route.path: declared_role(route) for route in clients[""].app.routes if route.methods - {"GET", "HEAD"}}
    assert {path for path, role in changing.items() if role in (PUBLIC, "viewer")} == {"/login", "/logout", "/settings/password"}


def test_every_route_refuses_everybody_below_its_role_and_nobody_from_it_on(clients: dict[str, ConsoleClient]) -> None:
    """Each route is asked with ids that do not exist, so that nothing happens: a refusal of access is 303 to log-in, 401 or 403."""
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
                if path in ("/logout", "/settings/password", "/drift/run", "/playground/ask") and visitor and User("x", visitor).may(role):
                    continue  # these do something without an id; their own tests call them
                answer = client.request(method, path)
                refused = answer.status_code in (401, 403) or (answer.status_code == 303 and answer.headers["location"].startswith("/login"))
                may = bool(visitor) and User("x", visitor).may(role)
                if refused == may:
                    wrong.append(f"{visitor or 'anonymous'} {method} {path} (needs {role}): {answer.status_code}")
    assert wrong == []


def test_a_route_without_a_declaration_is_refused_to_an_admin(sqlite_context: Context) -> None:
    client = console_client(sqlite_context, "admin")
    forgotten = APIRouter()
    forgotten.add_api_route("/forgotten", lambda: "open", methods=["GET"])
    client.app.include_router(forgotten)
    assert client.get("/forgotten").status_code == 403


def test_the_role_of_the_method_counts_not_that_of_another_method_at_the_same_address(clients: dict[str, ConsoleClient]) -> None:
    assert clients["operator"].get("/settings/keys").status_code == 403
    assert clients["viewer"].post("/settings/people", data={"name": "x", "role": "admin", "password": PASSWORD}).status_code == 403


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
        (Facts("POST", True, "viewer", _VIEWER, False, True, False), Verdict.ALLOW),  # HTTP Basic: no cookie, no token
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


# --- logging in and out --------------------------------------------------------------------------------------------


def test_a_log_in_by_form_leads_to_the_page_that_was_asked_for_and_a_log_out_ends_the_session(sqlite_context: Context) -> None:
    with writing(sqlite_context.database) as connection:
        add_user(connection, "ada", "viewer", PASSWORD, actor="test", now=NOW)
    client = console_client(sqlite_context, "")
    asked = client.get("/traffic?q=x")
    assert asked.status_code == 303 and asked.headers["location"] == "/login?next=%2Ftraffic%3Fq%3Dx"
    done = client.post("/login", data={"name": "ada", "password": PASSWORD, "next": "/traffic?q=x"})
    assert done.headers["location"] == "/traffic?q=x"
    cookie = done.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie and "Secure" not in cookie
    stolen = dict(client.cookies)
    client.csrf = form_token(client.get("/traffic").text)
    assert client.post("/logout").status_code == 303
    client.cookies.clear()
    client.cookies.update(stolen)
    assert client.get("/traffic").status_code == 303  # the cookie itself is dead, not only forgotten by this browser


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_a_log_in_never_leads_to_another_site(sqlite_context: Context, target: str) -> None:
    client = console_client(sqlite_context, "viewer")
    assert client.get("/login", params={"next": target}).headers["location"] == "/"


def test_wrong_password_and_unknown_name_get_the_same_words(sqlite_context: Context) -> None:
    with writing(sqlite_context.database) as connection:
        add_user(connection, "ada", "viewer", PASSWORD, actor="test", now=NOW)
    client = console_client(sqlite_context, "")
    words = [client.post("/login", data={"name": name, "password": "wrong wrong wrong"}) for name in ("ada", "nobody")]
    assert [answer.status_code for answer in words] == [401, 401]
    assert words[0].text.replace("ada", "") == words[1].text.replace("nobody", "")


def test_after_five_wrong_passwords_a_log_in_waits_and_says_how_long(sqlite_context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "log_in", _refuse)
    client = console_client(sqlite_context, "", clock=lambda: NOW)
    codes = [client.post("/login", data={"name": "ada", "password": "wrong"}).status_code for _ in range(6)]
    assert codes == [401] * 5 + [429]
    assert client.post("/login", data={"name": "ada", "password": "wrong"}).headers["retry-after"] == "1"


def _refuse(*_: object) -> User:
    from whet.errors import AccessError

    raise AccessError("no")


def test_the_wait_doubles_up_to_a_minute_and_is_forgotten_after_a_quarter_of_an_hour() -> None:
    throttle = Throttle()
    waits = []
    for _ in range(14):
        throttle.failed("ada", NOW)
        waits.append(throttle.wait_ms("ada", NOW) // 1000)
    assert waits[:8] == [0, 0, 0, 0, 1, 2, 4, 8] and waits[-1] == 60
    assert throttle.wait_ms("ada", NOW + 15 * 60_000 + 1) == 0
    throttle.succeeded("ada")
    assert throttle.wait_ms("ada", NOW) == 0


def test_a_removed_user_is_out_with_the_next_request(sqlite_context: Context) -> None:
    client = console_client(sqlite_context, "reviewer")
    assert client.get("/traffic").status_code == 200
    with writing(sqlite_context.database) as connection:
        remove_user(connection, "reviewer", actor="test", now=NOW)
    assert client.get("/traffic").status_code == 303


def test_a_changed_role_counts_from_the_next_request(sqlite_context: Context) -> None:
    client = console_client(sqlite_context, "operator")
    assert client.get("/settings/audit").status_code == 200
    with writing(sqlite_context.database) as connection:
        change_role(connection, "operator", "viewer", actor="test", now=NOW)
    assert client.get("/settings/audit").status_code == 403


def test_a_changed_password_ends_the_sessions_of_the_old_one(sqlite_context: Context) -> None:
    client = console_client(sqlite_context, "viewer")
    assert client.get("/traffic").status_code == 200
    with writing(sqlite_context.database) as connection:
        change_password(connection, "viewer", "another password", actor="test", now=NOW)
    assert client.get("/traffic").status_code == 303


def test_the_last_admin_stays_an_admin(sqlite_context: Context) -> None:
    client = console_client(sqlite_context, "admin")
    assert client.post("/settings/people/admin/role", data={"role": "viewer"}).status_code == 409
    assert client.post("/settings/people/admin/remove").status_code == 409
    with writing(sqlite_context.database) as connection, pytest.raises(ConflictError):
        change_role(connection, "admin", "operator", actor="test", now=NOW)


def test_a_session_ends_after_twelve_idle_hours_and_after_a_week_of_use(sqlite_context: Context) -> None:
    sessions, hour = Sessions(sqlite_context.secret), 3_600_000
    session = sessions.begin("ada", "hash", NOW)
    cookie = sessions.write(session, NOW)
    assert sessions.read(cookie, NOW + 11 * hour) is not None
    assert sessions.read(cookie, NOW + 13 * hour) is None
    renewed = sessions.write(session, NOW + 7 * 24 * hour - 1)
    assert sessions.read(renewed, NOW + 7 * 24 * hour) is not None
    assert sessions.read(renewed, NOW + 7 * 24 * hour + 1) is None


def test_a_cookie_that_was_touched_or_signed_elsewhere_is_nobody(sqlite_context: Context) -> None:
    sessions = Sessions(sqlite_context.secret)
    cookie = sessions.write(sessions.begin("admin", "hash", NOW), NOW)
    forged = Sessions(b"x" * 32).write(Sessions(b"x" * 32).begin("admin", "hash", NOW), NOW)
    touched = ("X" if cookie[5] != "X" else "Y").join((cookie[:5], cookie[6:]))
    for value in (touched, cookie[:-3], cookie[1:], forged, "", "a.b", sessions.sign("said", ["admin", "", "id", NOW, NOW])):
        assert sessions.read(value, NOW) is None


def test_a_cookie_is_renewed_while_it_is_used(sqlite_context: Context) -> None:
    moment = [NOW]
    client = console_client(sqlite_context, "viewer", clock=lambda: moment[0])
    assert "set-cookie" not in client.get("/traffic").headers
    moment[0] += 20 * 60_000
    assert client.app.state.shell.gate.sessions.cookie in client.get("/traffic").headers["set-cookie"]


def test_the_first_start_makes_one_admin_with_a_password_that_only_the_owner_can_read(sqlite_context: Context) -> None:
    password = ensure_admin(sqlite_context, NOW)
    path = sqlite_context.settings.home / "admin.password"
    assert password and path.read_text().strip() == password and path.stat().st_mode & 0o777 == 0o600
    assert ensure_admin(sqlite_context, NOW) is None
    client = console_client(sqlite_context, "")
    assert client.post("/login", data={"name": "admin", "password": password}).headers["location"] == "/"


# --- CSRF and origins ----------------------------------------------------------------------------------------------


def deeds(client: ConsoleClient, **keywords: object) -> int:
    return int(client.post("/settings/keys", data={"name": "app"}, **keywords).status_code)


def test_a_form_without_the_sessions_token_changes_nothing(sqlite_context: Context) -> None:
    client, other = console_client(sqlite_context, "admin"), console_client(sqlite_context, "operator")
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


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"origin": "null"}, {"origin": None, "sec-fetch-site": "cross-site"}])
def test_a_request_from_another_site_changes_nothing_even_with_the_token(sqlite_context: Context, headers: dict[str, str | None]) -> None:
    client = console_client(sqlite_context, "admin")
    assert deeds(client, headers=headers) == 403
    assert client.post("/login", data={"name": "a", "password": "b"}, headers=headers).status_code == 403


def test_a_body_that_is_too_long_is_refused_before_it_is_read_whole(sqlite_context: Context) -> None:
    client = console_client(sqlite_context, "admin")
    limit = sqlite_context.settings.request_max_bytes
    assert client.post("/settings/keys", content=b"name=" + b"a" * limit, headers={"content-type": "application/x-www-form-urlencoded"}).status_code == 413

    def parts() -> Iterator[bytes]:
        for _ in range(limit // 65_536 + 2):
            yield b"a" * 65_536

    assert (
        client.post("/settings/keys", content=parts(), headers={"content-type": "application/x-www-form-urlencoded", "x-csrf-token": None}).status_code == 413
    )


# --- HTTP Basic ----------------------------------------------------------------------------------------------------


def test_basic_works_on_the_api_without_a_token_and_nowhere_else(sqlite_context: Context) -> None:
    with writing(sqlite_context.database) as connection:
        add_user(connection, "robot", "reviewer", PASSWORD, actor="test", now=NOW)
    client = console_client(sqlite_context, "")
    plain = {"origin": None}
    assert client.get("/api/review/stats", headers=basic("robot", PASSWORD) | plain).status_code == 200
    assert client.get("/traffic", headers=basic("robot", PASSWORD)).status_code == 303
    refused = client.get("/api/review/stats", headers=basic("robot", "wrong wrong wrong") | plain)
    assert refused.status_code == 401 and refused.headers["www-authenticate"].startswith("Basic")
    assert refused.json()["error"]["message"]
    assert client.get("/api/review/stats", headers={"authorization": "Bearer x"}).status_code == 401


def test_a_basic_password_is_hashed_once_a_minute_and_asked_again_when_it_changed(sqlite_context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    moment, calls = [NOW], []
    real = security.log_in
    monkeypatch.setattr(security, "log_in", lambda *arguments: (calls.append(1), real(*arguments))[1])
    with writing(sqlite_context.database) as connection:
        add_user(connection, "robot", "viewer", PASSWORD, actor="test", now=NOW)
    client = console_client(sqlite_context, "", clock=lambda: moment[0])
    codes = [client.get("/api/review/stats", headers=basic("robot", PASSWORD)).status_code for _ in range(3)]
    assert codes == [200] * 3 and len(calls) == 1
    moment[0] += 61_000
    client.get("/api/review/stats", headers=basic("robot", PASSWORD))
    assert len(calls) == 2
    with writing(sqlite_context.database) as connection:
        change_password(connection, "robot", "another password", actor="test", now=NOW)
    assert client.get("/api/review/stats", headers=basic("robot", PASSWORD)).status_code == 401


def test_a_cookie_counts_for_nothing_beside_basic(sqlite_context: Context) -> None:
    client = console_client(sqlite_context, "admin")
    assert client.get("/api/review/stats", headers=basic("admin", "wrong wrong wrong")).status_code == 401


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("Basic YTpi", ("a", "b")),
        ("basic YTpiOmM=", ("a", "b:c")),
        ("Basic YQ==", None),
        ("Basic %%%", None),
        ("Basic /w==", None),
        ("Bearer x", None),
        ("", None),
    ],
)
def test_basic_credentials(header: str, found: tuple[str, str] | None) -> None:
    assert basic_credentials(header) == found


def test_the_memory_of_basic_holds_no_password() -> None:
    memory = BasicMemory()
    memory.remember("ada", PASSWORD, NOW)
    assert PASSWORD not in repr(memory._until) and memory.knows("ada", PASSWORD, NOW) and not memory.knows("ada", PASSWORD + "x", NOW)
    assert not memory.knows("ada", PASSWORD, NOW + 60_001)


# --- headers, errors, static files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/login", "/", "/traffic", "/nowhere", "/api/nowhere", "/healthz", "/static/whet/shell.css"])
def test_every_answer_carries_the_policy(sqlite_context: Context, path: str) -> None:
    headers = console_client(sqlite_context, "admin").get(path).headers
    policy = headers["content-security-policy"]
    for part in ("default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
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
def test_static_files_come_from_the_static_folders_alone(sqlite_context: Context, path: str) -> None:
    answer = console_client(sqlite_context, "").get(path)
    assert answer.status_code in (303, 404) and "root:" not in answer.text and "class Shell" not in answer.text


def test_a_defect_becomes_a_page_with_a_reference_and_no_details(
    sqlite_context: Context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from whet.web import circle

    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(circle, "look", broken)
    client = console_client(sqlite_context, "viewer")
    page = client.get("/")
    assert page.status_code == 500 and "secret detail" not in page.text and "Something in the console broke" in page.text
    reference = page.text.split("details under ")[1].split(".")[0]
    assert any(reference in record.getMessage() for record in caplog.records)
    script = client.get("/", headers={"accept": "application/json"})
    assert script.json()["error"]["code"] == "error" and "secret" not in script.text


def test_an_unknown_address_is_a_page_for_people_and_json_for_programs(sqlite_context: Context) -> None:
    client = console_client(sqlite_context, "viewer")
    page = client.get("/nowhere")
    assert page.status_code == 404 and "There is nothing at /nowhere" in page.text
    answer = client.get("/api/nowhere")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"


def test_a_link_from_another_site_reaches_its_page_although_the_cookie_is_strict(sqlite_context: Context) -> None:
    """The browser leaves the cookie out of that first request; the same address, asked for again by our own page, gets it."""
    answer = console_client(sqlite_context, "").get("/traffic", headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 200 and 'http-equiv="refresh"' in answer.text


def test_a_part_that_is_asked_for_without_a_session_sends_the_page_to_the_log_in(sqlite_context: Context) -> None:
    answer = console_client(sqlite_context, "").get("/overview/live", headers={"hx-request": "true"})
    assert answer.status_code == 401 and answer.headers["hx-redirect"] == "/login"
