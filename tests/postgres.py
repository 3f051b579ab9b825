"""A PostgreSQL server for the tests: the one that answers, or one we start ourselves from Debian's
binaries.

Set WHET_TEST_POSTGRES to use a particular server. Without a server and without binaries the tests
fail with the command to install one; they are never skipped in silence.
"""

from __future__ import annotations

import atexit
import functools
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path

from sqlalchemy import create_engine, delete, inspect, text
from sqlalchemy.exc import OperationalError

from whet.database import migrate, open_database, schema_state, writing
from whet.tables import metadata

_CANDIDATES = ("postgresql+psycopg://postgres@127.0.0.1:5432/postgres",)


@functools.cache
def postgres_server_url() -> str:
    """URL of a server on which databases may be created."""
    configured = os.environ.get("WHET_TEST_POSTGRES")
    for url in (configured,) if configured else _CANDIDATES:
        if _answers(url):
            return url
    return _start_our_own()


class Databases:
    """Databases for single tests on one server.

    One that a test gives back is emptied for the next: creating, migrating and dropping one takes
    the better part of a second.
    """

    def __init__(self, server: str) -> None:
        self._base = server.rsplit("/", 1)[0]
        self._admin = create_engine(server, isolation_level="AUTOCOMMIT")
        self._made: list[str] = []
        self._free: list[str] = []

    def url(self, name: str) -> str:
        return f"{self._base}/{name}"

    def take(self) -> str:
        """Name of a migrated database without rows, and without anybody who is connected to it."""
        while self._free:
            name = self._free.pop()
            if self._emptied(name):
                return name
        name = f"whet_test_{uuid.uuid4().hex[:12]}"
        self._say(f'CREATE DATABASE "{name}"')
        self._made.append(name)
        opened = open_database(self.url(name))
        migrate(opened)
        opened.dispose()
        return name

    def give_back(self, name: str) -> None:
        self._free.append(name)

    def close(self) -> None:
        for name in self._made:
            self._say(f'DROP DATABASE "{name}" WITH (FORCE)')
        self._admin.dispose()

    def _emptied(self, name: str) -> bool:
        """False where the test left another schema behind."""
        self._say(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name",
            name=name,
        )
        opened = open_database(self.url(name))
        try:
            found, newest = schema_state(opened)
            tables = set(inspect(opened).get_table_names()) - {"alembic_version"}
            if found != newest or tables != set(metadata.tables):
                return False
            with writing(opened) as connection:
                for table in reversed(metadata.sorted_tables):
                    connection.execute(delete(table))
            return True
        finally:
            opened.dispose()

    def _say(self, statement: str, **values: str) -> None:
        with self._admin.connect() as connection:
            connection.execute(text(statement), values)


def _answers(url: str) -> bool:
    engine = create_engine(url, connect_args={"connect_timeout": 3})
    try:
        with engine.connect():
            return True
    except OperationalError:
        return False
    finally:
        engine.dispose()


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    if found:
        return found[0].parent
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).parent
    raise RuntimeError(
        "No PostgreSQL server answers on 127.0.0.1:5432 and none is installed. Run `apt-get install"
        " postgresql`, or set WHET_TEST_POSTGRES."
    )


def _start_our_own() -> str:
    binaries = _binaries()
    folder = Path(tempfile.mkdtemp(prefix="whet-pg-"))
    as_user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    user = "postgres" if as_user else getpass.getuser()
    data = folder / "data"
    subprocess.run(
        [*as_user, binaries / "initdb", "-D", data, "-U", user, "-A", "trust"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    options = (
        f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c"
        " fsync=off"
    )
    subprocess.run(
        [
            *as_user,
            binaries / "pg_ctl",
            "-D",
            data,
            "-w",
            "-l",
            folder / "log",
            "-o",
            options,
            "start",
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    atexit.register(
        subprocess.run,
        [*as_user, binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"],
        stdout=subprocess.DEVNULL,
    )
    return f"postgresql+psycopg://{user}@127.0.0.1:{port}/postgres"
