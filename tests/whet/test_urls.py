"""Addresses in settings: databases by their usual names, and no password where people look."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.parse import quote

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from whet import cli
from whet.database import migrate, open_database, parse_database_url
from whet.errors import ConfigurationError, WhetError
from whet.settings import load_settings
from whet.store import Store
from whet.urls import (
    credentials_problem,
    mask_secrets,
    mask_url,
    parse_origins,
    split_credentials,
)

ROOT = Path(__file__).resolve().parents[2]
SECRET = "Xq7zSecretZ"  # in every password below

# --- databases ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgres+psycopg", "POSTGRES"]
)
def test_postgres_means_psycopg(scheme: str) -> None:
    parsed = parse_database_url(f"{scheme}://u:p%40%2F%25x@db.example:5433/whet?sslmode=require")
    assert parsed.drivername == "postgresql+psycopg" and parsed.password == "p@/%x"
    assert (parsed.host, parsed.port, parsed.database) == ("db.example", 5433, "whet")
    assert parsed.query == {"sslmode": "require"}


def test_a_sqlite_path_may_hold_any_character(tmp_path: Path) -> None:
    file = tmp_path / "a:b@c d" / "x.db"
    open_database(f"sqlite:///{file}").dispose()
    assert file.parent.is_dir() and mask_url(f"sqlite:///{file}") == f"sqlite:///{file}"


BAD_URLS = {
    f"mysql://u:{SECRET}@h/x": "'mysql'",
    f"mysql+pymysql://u:{SECRET}@h/x": "SQLite or PostgreSQL",
    f"mssql+pyodbc://u:{SECRET}@h/x": "SQLite or PostgreSQL",
    f"oracle://u:{SECRET}@h/x": "SQLite or PostgreSQL",
    f"http://u:{SECRET}@h/x": "SQLite or PostgreSQL",
    f"postgresql+asyncpg://u:{SECRET}@h/x": "driver 'postgresql\\+asyncpg'",
    f"postgresql+psycopg2://u:{SECRET}@h/x": "driver",
    f"postgresql+psycopg_async://u:{SECRET}@h/x": "driver",
    "sqlite+aiosqlite:///x.db": "driver 'sqlite\\+aiosqlite'",
    f"sqlite://u:{SECRET}@h/x": "three slashes",
    "sqlite://x.db": "three slashes",
    f"nonsense {SECRET}": "no scheme",
    f"host=h password={SECRET}": "no scheme",
    f"u:{SECRET}@h/x": "no scheme",
    "://": "begins with ''",
    f"postgres://u:p@{SECRET}@h/x": "%40",
    f"postgres://u:p/{SECRET}@h/x": "%2F",
    f"postgres://u:p%{SECRET}@h/x": "%25",
    f"postgres://u:p#{SECRET}@h/x": "%23",
    f"postgres://u:p?{SECRET}@h/x": "%3F",
    f"postgres://u:p {SECRET}@h/x": "spaces",
    f"postgres://u:{SECRET}@h:abc/x": "port",
    f"postgres://u:{SECRET}@h:0/x": "port 0",
    f"postgres://u:{SECRET}@h:99999/x": "port 99999",
    f"postgres://u:{SECRET}@a..b/x": "host",
    f"postgres://u:{SECRET}@127.0.0.1:1/x?nonsense=1": "nonsense",
    "sqlite:////proc/nope/x.db": "cannot be used",
}


@pytest.mark.parametrize("url", list(BAD_URLS))
def test_other_databases_are_a_sentence_without_the_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match=BAD_URLS[url]) as caught:
        migrate(open_database(url))
    assert caught.value.exit_code == 2 and "WHET_DATABASE_URL" in caught.value.hint
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_driver_that_is_not_installed_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match="psycopg"):
        open_database(f"postgres://u:{SECRET}@h/x")


def test_a_file_that_is_no_database_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("not a database" * 100)
    with pytest.raises(WhetError, match="not a database"):
        migrate(open_database(f"sqlite:///{tmp_path / 'x.db'}"))


# --- masking -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:p@ss@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql://h/d?user=u&password=p&sslmode=x", "postgresql://h/d?user=u&password=***"),
        ("http://token@h/", "http://***@h/"),
        ("http://h:9093/a", "http://h:9093/a"),
        ("s3://key:secret@bucket/x", "s3://key:***@bucket/x"),
        ("s3://bucket/x@y", "s3://bucket/x@y"),
        ("u:p@h", "u:***@h"),
        ("/a/folder", "/a/folder"),
        ("", ""),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    assert mask_url(url) == shown


_SEPARATORS = st.text("@:/?#%&=;+ .'\"\\", min_size=0, max_size=3)
# Two recognisable halves around whatever people put into passwords.
PASSWORDS = st.tuples(_SEPARATORS, _SEPARATORS, _SEPARATORS).map(
    lambda parts: f"{parts[0]}Xq7zOne{parts[1]}Xq7zTwo{parts[2]}"
)
FORMS = st.sampled_from(
    [
        "postgresql://user:{}@db.example:5432/whet",
        "postgres://:{}@/whet",
        "mysql://user:{}@h/x",
        "nonsense+x://user:{}@h",
        "http://user:{}@127.0.0.1:9093/path",
        "s3://key:{}@bucket/prefix",
        "user:{}@h/x",
    ]
)
QUERIES = st.sampled_from(
    ["postgresql://h:5432/d?user=u&password={}", "http://h/?access_token={}", "s3://b/x?secret={}"]
)


def holds_secret(text: str) -> bool:
    return "Xq7z" in text


@given(FORMS, PASSWORDS, st.booleans())
def test_no_password_is_shown_whatever_it_holds(form: str, password: str, encoded: bool) -> None:
    url = form.format(quote(password, safe="") if encoded else password)
    assert not holds_secret(mask_url(url))
    assert not holds_secret(mask_secrets(f"no answer from {url}: refused", url))
    assert not holds_secret(mask_secrets(f"wrong password '{password}'", url)) or not encoded


@given(QUERIES, PASSWORDS)
def test_no_secret_parameter_is_shown(form: str, password: str) -> None:
    for url in (form.format(password), form.format(quote(password))):
        assert not holds_secret(mask_url(url)), url


@given(FORMS, PASSWORDS, st.booleans())
def test_no_error_of_a_database_or_a_setting_holds_a_password(
    form: str, password: str, encoded: bool
) -> None:
    url = form.format(quote(password, safe="") if encoded else password)
    texts = []
    try:
        open_database(url).dispose()
    except WhetError as error:
        texts.append("".join(traceback.format_exception(error)))
    for name in ("engine_urls", "alertmanager_url", "mlflow_tracking_uri", "cors_origins"):
        try:
            load_settings(home=Path("/nonexistent"), **{name: url})
        except WhetError as error:
            texts.append("".join(traceback.format_exception(error)))
    assert texts and not [text for text in texts if holds_secret(text)]


@given(PASSWORDS)
def test_encoded_credentials_reach_the_client_whole(password: str) -> None:
    url = f"http://user:{quote(password, safe='')}@h:9093/a"
    assert credentials_problem(url) == ""
    assert split_credentials(url) == ("http://h:9093/a", ("user", password))
    assert split_credentials("http://h/a@b") == ("http://h/a@b", None)


# --- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (f'engine_urls = "http://u:{SECRET}@h"', "WHET_ENGINE_KEY"),
        (f'alertmanager_url = "http://u:p@{SECRET}@h"', "%40"),
        (f'engine_key = "a\\n{SECRET}"', "engine_key"),
        (f'databse_url = "postgres://u:{SECRET}@h/d"', "databse_url"),
        (f'pasword = "{SECRET}"', "pasword"),
        (f'gateway_port = "http://u:{SECRET}@h"', "gateway_port"),
        (f'notify_urls = ["slack://{SECRET}"]', "notify_urls"),
        (f'cors_origins = "https://u:{SECRET}@h"', "cors_origins"),
    ],
)
def test_a_refused_setting_is_named_without_its_secret(
    tmp_path: Path, line: str, named: str
) -> None:
    (tmp_path / "whet.toml").write_text(line)
    with pytest.raises(ConfigurationError, match=named) as caught:
        load_settings(home=tmp_path)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_store_that_nobody_understands_is_a_sentence() -> None:
    for url in (f"nonsense://u:{SECRET}@h/x", f"abfs://u:{SECRET}@h/x"):
        with pytest.raises(ConfigurationError, match="WHET_STORE_URL") as caught:
            Store(url)
        assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", []),
        ("*", ["*"]),
        (
            " https://A.example , http://localhost:3000/ ",
            ["https://a.example", "http://localhost:3000"],
        ),
        ("https://a.example:443", ["https://a.example"]),
        ("http://[::1]:8080", ["http://[::1]:8080"]),
        ("tauri://localhost", ["tauri://localhost"]),
    ],
)
def test_origins_are_as_browsers_send_them(text: str, origins: list[str]) -> None:
    assert parse_origins(text) == origins


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "app.example",
        "https://*.example",
        "https://a/b",
        "*, https://a",
        "https://",
        "a b",
        "//x",
    ],
)
def test_what_no_browser_sends_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match="cors_origins"):
        load_settings(home=tmp_path, cors_origins=text)


# --- commands and processes --------------------------------------------------------------------


def every_command() -> Iterator[tuple[list[str], str]]:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec and spec.loader
    reference: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    for name, command in reference.command_tree(typer.main.get_command(cli.app)):
        given: list[str] = []
        for parameter in command.params:
            if parameter.param_type_name == "argument" and parameter.required:
                given.append("x")
            elif parameter.required:
                given += [max(parameter.opts, key=len), "x"]
        if name != "whet up" and name != "whet demo":  # as processes, below
            yield [*name.split(), *given], name


@pytest.mark.seconds
@pytest.mark.parametrize(
    "url",
    [
        f"mysql://u:{SECRET}@127.0.0.1/x",
        f"postgres://u:p@{SECRET}@127.0.0.1/x",
        f"postgres://u:{SECRET}@127.0.0.1:1/x",
    ],
)
def test_every_command_says_a_sentence_and_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    monkeypatch.setenv("WHET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WHET_DATABASE_URL", url)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    said, asked = io.StringIO(), 0
    monkeypatch.setattr(cli, "err", Console(file=said, highlight=False))
    for arguments, name in every_command():
        monkeypatch.setattr("sys.argv", arguments)
        said.truncate(said.seek(0))
        try:
            cli.main()
            code: object = 0
        except SystemExit as end:
            code = end.code
        streams = capsys.readouterr()
        text = said.getvalue() + streams.out + streams.err
        assert SECRET not in text and "Traceback" not in text, (name, text)
        if "database" in text.lower() and name != "whet doctor":
            asked += 1
            assert code == (1 if ":1/x" in url else 2), (name, code, text)
    assert asked > 40, "most commands open the database"


@pytest.mark.seconds
@pytest.mark.parametrize(
    "command",
    [
        ["-m", "serving.gateway"],
        ["-m", "whet.web"],
        ["-m", "whet.scheduler"],
        ["-m", "training.worker"],
        ["-m", "whet.cli", "up"],
        ["-m", "whet.cli", "demo"],
    ],
    ids=lambda command: command[-1],
)
def test_every_process_ends_with_a_sentence_and_code_2(tmp_path: Path, command: list[str]) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WHET_")}
    environment = kept | {
        "WHET_HOME": str(tmp_path / "home"),
        "WHET_DATABASE_URL": f"postgresql+asyncpg://u:{SECRET}@127.0.0.1/x",
    }
    done = subprocess.run(
        [sys.executable, *command],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
    )
    text = done.stdout + done.stderr
    assert done.returncode == 2 and "postgresql+asyncpg" in text, text
    assert SECRET not in text and "Traceback" not in text, text
