"""Who somebody is: logging in and out, sessions, the first admin, and HTTP Basic for programs."""

from __future__ import annotations

import base64

import pytest

from tests.web import NOW, PASSWORD, ConsoleClient, console_client, form_token
from whet import access
from whet.access import ROLES, User, add_user, change_password, change_role, remove_user
from whet.context import Context
from whet.database import writing
from whet.errors import ConflictError
from whet.web import security
from whet.web.first_user import ensure_admin
from whet.web.sessions import BasicMemory, Sessions, Throttle, basic_credentials

VISITORS = ("", *ROLES)
PUBLIC_PATHS = {"/login", "/healthz", "/static/{package}/{path:path}"}


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


# --- logging in and out --------------------------------------------------------------------------------------------


def test_a_log_in_by_form_leads_to_the_page_that_was_asked_for_and_a_log_out_ends_the_session(
    sqlite_context: Context,
) -> None:
    with writing(sqlite_context.database) as connection:
        add_user(connection, "ada", "viewer", PASSWORD, actor="test", now=NOW)
    client = console_client(sqlite_context, "")
    asked = client.get("/traffic?q=x")
    assert (
        asked.status_code == 303 and asked.headers["location"] == "/login?next=%2Ftraffic%3Fq%3Dx"
    )
    done = client.post("/login", data={"name": "ada", "password": PASSWORD, "next": "/traffic?q=x"})
    assert done.headers["location"] == "/traffic?q=x"
    cookie = done.headers["set-cookie"]
    assert (
        "HttpOnly" in cookie
        and "SameSite=Strict" in cookie
        and "Path=/" in cookie
        and "Secure" not in cookie
    )
    stolen = dict(client.cookies)
    client.csrf = form_token(client.get("/traffic").text)
    assert client.post("/logout").status_code == 303
    client.cookies.clear()
    client.cookies.update(stolen)
    # The cookie itself is dead, not only forgotten by this browser
    assert client.get("/traffic").status_code == 303


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"]
)
def test_a_log_in_never_leads_to_another_site(sqlite_context: Context, target: str) -> None:
    client = console_client(sqlite_context, "viewer")
    assert client.get("/login", params={"next": target}).headers["location"] == "/"


def test_wrong_password_and_unknown_name_get_the_same_words(sqlite_context: Context) -> None:
    with writing(sqlite_context.database) as connection:
        add_user(connection, "ada", "viewer", PASSWORD, actor="test", now=NOW)
    client = console_client(sqlite_context, "")
    words = [
        client.post("/login", data={"name": name, "password": "wrong wrong wrong"})
        for name in ("ada", "nobody")
    ]
    assert [answer.status_code for answer in words] == [401, 401]
    assert words[0].text.replace("ada", "") == words[1].text.replace("nobody", "")


def test_after_five_wrong_passwords_a_log_in_waits_and_says_how_long(
    sqlite_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "log_in", _refuse)
    client = console_client(sqlite_context, "", clock=lambda: NOW)
    codes = [
        client.post("/login", data={"name": "ada", "password": "wrong"}).status_code
        for _ in range(6)
    ]
    assert codes == [401] * 5 + [429]
    assert (
        client.post("/login", data={"name": "ada", "password": "wrong"}).headers["retry-after"]
        == "1"
    )


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


def test_a_session_ends_after_twelve_idle_hours_and_after_a_week_of_use(
    sqlite_context: Context,
) -> None:
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
    for value in (
        touched,
        cookie[:-3],
        cookie[1:],
        forged,
        "",
        "a.b",
        sessions.sign("said", ["admin", "", "id", NOW, NOW]),
    ):
        assert sessions.read(value, NOW) is None


def test_a_cookie_is_renewed_while_it_is_used(sqlite_context: Context) -> None:
    moment = [NOW]
    client = console_client(sqlite_context, "viewer", clock=lambda: moment[0])
    assert "set-cookie" not in client.get("/traffic").headers
    moment[0] += 20 * 60_000
    assert (
        client.app.state.shell.gate.sessions.cookie in client.get("/traffic").headers["set-cookie"]
    )


def test_the_first_start_makes_one_admin_with_a_password_that_only_the_owner_can_read(
    sqlite_context: Context,
) -> None:
    password = ensure_admin(sqlite_context, NOW)
    path = sqlite_context.settings.home / "admin.password"
    assert (
        password and path.read_text().strip() == password and path.stat().st_mode & 0o777 == 0o600
    )
    assert ensure_admin(sqlite_context, NOW) is None
    client = console_client(sqlite_context, "")
    assert (
        client.post("/login", data={"name": "admin", "password": password}).headers["location"]
        == "/"
    )


# --- HTTP Basic ----------------------------------------------------------------------------------------------------


def test_basic_works_on_the_api_without_a_token_and_nowhere_else(sqlite_context: Context) -> None:
    with writing(sqlite_context.database) as connection:
        add_user(connection, "robot", "reviewer", PASSWORD, actor="test", now=NOW)
    client = console_client(sqlite_context, "")
    plain = {"origin": None}
    assert (
        client.get("/api/review/stats", headers=basic("robot", PASSWORD) | plain).status_code == 200
    )
    assert client.get("/traffic", headers=basic("robot", PASSWORD)).status_code == 303
    refused = client.get("/api/review/stats", headers=basic("robot", "wrong wrong wrong") | plain)
    assert refused.status_code == 401 and refused.headers["www-authenticate"].startswith("Basic")
    assert refused.json()["error"]["message"]
    assert client.get("/api/review/stats", headers={"authorization": "Bearer x"}).status_code == 401


def test_a_basic_password_is_hashed_once_a_minute_and_asked_again_when_it_changed(
    sqlite_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment, calls = [NOW], []
    real = security.log_in
    monkeypatch.setattr(
        security, "log_in", lambda *arguments: (calls.append(1), real(*arguments))[1]
    )
    with writing(sqlite_context.database) as connection:
        add_user(connection, "robot", "viewer", PASSWORD, actor="test", now=NOW)
    client = console_client(sqlite_context, "", clock=lambda: moment[0])
    codes = [
        client.get("/api/review/stats", headers=basic("robot", PASSWORD)).status_code
        for _ in range(3)
    ]
    assert codes == [200] * 3 and len(calls) == 1
    moment[0] += 61_000
    client.get("/api/review/stats", headers=basic("robot", PASSWORD))
    assert len(calls) == 2
    with writing(sqlite_context.database) as connection:
        change_password(connection, "robot", "another password", actor="test", now=NOW)
    assert client.get("/api/review/stats", headers=basic("robot", PASSWORD)).status_code == 401


def test_a_cookie_counts_for_nothing_beside_basic(sqlite_context: Context) -> None:
    client = console_client(sqlite_context, "admin")
    assert (
        client.get("/api/review/stats", headers=basic("admin", "wrong wrong wrong")).status_code
        == 401
    )


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
    assert (
        PASSWORD not in repr(memory._until)
        and memory.knows("ada", PASSWORD, NOW)
        and not memory.knows("ada", PASSWORD + "x", NOW)
    )
    assert not memory.knows("ada", PASSWORD, NOW + 60_001)
