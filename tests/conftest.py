"""Fixtures that every package's tests share: a home folder, and one database of each kind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import ConsoleDimensions

from tests.engine_fixture import (
    live_engine,  # noqa: F401
)  # one real engine for the session, whoever asks first
from tests.postgres import Databases, postgres_server_url
from whet import cli
from whet.context import Context, open_context
from whet.database import migrate, open_database
from whet.settings import Settings, load_settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("KMP_BLOCKTIME", "0")


_ENGINE_FILES = (
    "tests/clients/test_matrix.py", "tests/loop/", "tests/serving/test_engine_start.py",
    "tests/serving/test_real_client.py", "tests/serving/test_real_engine.py",
    "tests/serving/test_schema_bomb.py", "tests/serving/test_shapes.py",
    "tests/training/methods/test_architectures.py", "tests/training/methods/test_smollm2.py",
    "tests/training/methods/test_smollm2_bases.py",
)  # fmt: skip
# What a test starts, loads or writes by these takes time; a test without them, and without the mark
# `seconds`, is a unit test.
_HEAVY = {
    "database_url",
    "context",
    "sqlite_context",
    "live_engine",
    "engine",
    "browser",
    "page",
    "bases",
    "base",
    "base_folder",
    "prepared",
}
# Minutes of starting processes: begun last, one worker would wait for the other
_LONG_FILES = ("tests/training/test_worker.py",)


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of the real engine first, of two workers one has them all; then other long files,
    then the many short ones.

    Tests marked `minutes_on_each_database` run on SQLite by `make test`, and on PostgreSQL too by
    `make test-all`.
    """
    for item in items:
        if item.get_closest_marker("minutes_on_each_database") and "postgresql" in item.name:
            item.add_marker(pytest.mark.slow)
        if not _HEAVY & set(getattr(item, "fixturenames", ())) and not any(
            map(item.get_closest_marker, ("slow", "seconds", "engine", "browser"))
        ):
            item.add_marker(pytest.mark.unit)
    items.sort(
        key=lambda item: (
            0
            if item.nodeid.startswith(_ENGINE_FILES)
            else 1
            if item.nodeid.startswith(_LONG_FILES)
            else 2
        )
    )
    for item in items:
        started = item.nodeid.startswith(_ENGINE_FILES)
        assert started == (item.get_closest_marker("engine") is not None), (
            f"{item.nodeid}: the marker `engine` and _ENGINE_FILES disagree"
        )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Two workers: the tests of the real engine share one engine, so one worker has them; a file's
    tests share its fixtures.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByEngineAndFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "engine" if nodeid.startswith(_ENGINE_FILES) else nodeid.split("::", 1)[0]

    return ByEngineAndFile(config, log)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own WHET_ variables must not decide a test."""
    for name in list(os.environ):
        if name.startswith("WHET_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _wide_consoles() -> None:
    """The terminal in which the tests run must not decide where a sentence is broken."""
    for console in (cli.out, cli.err):
        console.size = ConsoleDimensions(300, 50)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated database without rows, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "whet.db")
        yield f"sqlite:///{tmp_path / 'whet.db'}"
        return
    databases: Databases = request.getfixturevalue("databases")
    name = databases.take()
    yield databases.url(name)
    databases.give_back(name)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = Path(tmp_path_factory.mktemp("migrated") / "whet.db")
    database = open_database(f"sqlite:///{file}")
    migrate(database)
    database.dispose()
    assert not file.with_name("whet.db-wal").exists(), (
        "the last connection puts everything into the one file that is copied"
    )
    return file


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    server = Databases(postgres_server_url())
    yield server
    server.close()


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return load_settings(home=tmp_path / "home", database_url=database_url)


@pytest.fixture
def context(settings: Settings) -> Iterator[Context]:
    """Settings, migrated database (both kinds) and store in a temporary home."""
    opened = open_context(settings)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_context(tmp_path: Path) -> Iterator[Context]:
    """The same on SQLite only, for tests in which the database plays no part; migrated from
    nothing, as a user's is.
    """
    opened = open_context(load_settings(home=tmp_path / "home"))
    yield opened
    opened.close()
