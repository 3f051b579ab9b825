"""A PostgreSQL server for the tests: the one that answers, or one we start ourselves from Debian's binaries.

Set WHET_TEST_POSTGRES to use a particular server. Without a server and without binaries the tests fail with the
command to install one; they are never skipped in silence.
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
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

_CANDIDATES = ("postgresql+psycopg://postgres@127.0.0.1:5432/postgres",)


@functools.cache
def postgres_server_url() -> str:
    """URL of a server on which databases may be created."""
    configured = os.environ.get("WHET_TEST_POSTGRES")
    for url in (configured,) if configured else _CANDIDATES:
        if _answers(url):
            return url
    return _start_our_own()


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
    raise RuntimeError("No PostgreSQL server answers on 127.0.0.1:5432 and none is installed. Run `apt-get install postgresql`, or set WHET_TEST_POSTGRES.")


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
    subprocess.run([*as_user, binaries / "initdb", "-D", data, "-U", user, "-A", "trust"], check=True, stdout=subprocess.DEVNULL)
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
    subprocess.run([*as_user, binaries / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start"], check=True, stdout=subprocess.DEVNULL)
    atexit.register(subprocess.run, [*as_user, binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"], stdout=subprocess.DEVNULL)
    return f"postgresql+psycopg://{user}@127.0.0.1:{port}/postgres"
