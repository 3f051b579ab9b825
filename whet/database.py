"""The database: SQLite in WAL mode beside the product, or PostgreSQL. One place opens it and
migrates it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Dialect, Engine, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, ProgrammingError

from whet.errors import ConfigurationError, DatabaseError
from whet.lines import split_lines
from whet.urls import credentials_problem, mask_secrets, mask_url

# Writers queue behind each other; a migration or a large batch may hold the lock for seconds
_BUSY_TIMEOUT_MS = 15_000


# Emptying the write-ahead log waits for readers, and writers wait for it: 5 s of tries in all.
_TRUNCATE_WAIT_MS, _TRUNCATE_PAUSE_S, _TRUNCATE_TRIES = 50, 0.1, 50

# Scheme of a URL → SQLAlchemy's driver. `postgres://` is what hosts of databases hand out.
_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgres+psycopg": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_FORMS = "Use sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/DATABASE in WHET_DATABASE_URL."


def open_database(url: str, *, full_durability: bool = False) -> Engine:
    """Return an engine for `url`; it does not migrate.

    Raises ConfigurationError for a URL that is not one, or of a database that is not supported.
    """
    parsed = parse_database_url(url)
    try:
        if parsed.get_backend_name() != "sqlite":
            return create_engine(parsed, pool_pre_ping=True)
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        connect_args = {"timeout": _BUSY_TIMEOUT_MS / 1000}
        engine = create_engine(parsed, connect_args=connect_args)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"The database {mask_url(url)} needs {error.name!r}, which is not installed.",
            hint="Run `make setup`.",
        ) from None
    except (ArgumentError, OSError, TypeError) as error:
        raise ConfigurationError(
            f"The database {mask_url(url)} cannot be used: {mask_secrets(str(error), url)}.",
            hint=_FORMS,
        ) from None
    _prepare_sqlite(engine, full_durability)
    return engine


def parse_database_url(url: str) -> URL:
    """Return `url` with the driver used for it. Raises ConfigurationError, without passwords."""
    scheme, separator, rest = url.strip().partition("://")
    driver = _DRIVERS.get(scheme.lower())
    if not separator or driver is None:
        if not separator:  # not shown: it may be anything, also a password
            raise ConfigurationError("The database URL has no scheme.", hint=_FORMS)
        raise _unusable(url, _scheme_problem(scheme.lower()))
    if driver != "sqlite":
        if any(ord(character) <= 32 for character in rest):
            raise _unusable(url, "holds spaces or control characters")
        if problem := credentials_problem(f"{driver}://{rest}"):
            raise _unusable(url, f"cannot be read: {problem}")
    try:
        parsed = make_url(f"{driver}://{rest}")
        (parsed.host or "").encode("idna")  # as the driver will
    except UnicodeError:
        raise _unusable(url, "names a host that cannot exist") from None
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        raise _unusable(url, "cannot be read: its port is no number, or it is no URL") from None
    if driver == "sqlite" and (parsed.host or parsed.username or parsed.password):
        raise _unusable(url, "names a host; a SQLite file follows three slashes")
    if parsed.port is not None and not 1 <= parsed.port <= 65535:
        raise _unusable(url, f"has the port {parsed.port}; expected 1 to 65535")
    return parsed


def _scheme_problem(scheme: str) -> str:
    backend = scheme.partition("+")[0]
    if backend in ("postgres", "postgresql", "sqlite"):
        return f"names the driver {scheme!r}; Whet brings its own, so leave out what follows the +"
    return f"begins with {scheme[:40]!r}; Whet keeps its data in SQLite or PostgreSQL"


def _unusable(url: str, problem: str) -> ConfigurationError:
    return ConfigurationError(f"The database URL {mask_url(url)!r} {problem}.", hint=_FORMS)


def database_name(engine: Engine) -> str:
    """Return the engine's URL as it may be shown."""
    return mask_url(engine.url.render_as_string(hide_password=False))


def error_text(engine: Engine, error: Exception) -> str:
    """Return the first line of a driver's error, without the password of the engine's URL."""
    original = getattr(error, "orig", None) or error
    lines = split_lines(str(original).strip()) or [type(original).__name__]
    return mask_secrets(lines[0], engine.url.render_as_string(hide_password=False))


def _prepare_sqlite(engine: Engine, full_durability: bool) -> None:
    @event.listens_for(engine, "connect")
    def _pragmas(connection: object, _record: object) -> None:
        connection.isolation_level = None  # type: ignore[attr-defined]  # we issue BEGIN ourselves, below
        cursor = connection.cursor()  # type: ignore[attr-defined]
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA secure_delete=ON")  # what is deleted is overwritten in the file too
        cursor.execute(f"PRAGMA synchronous={'FULL' if full_durability else 'NORMAL'}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # `begin_nested`-free writers take the write lock at once: a read that upgrades later fails
        # with SQLITE_BUSY whatever the timeout. Readers ask for a deferred transaction with
        # `reading()`.
        mode = "DEFERRED" if connection.get_execution_options().get("whet_reading") else "IMMEDIATE"
        connection.exec_driver_sql(f"BEGIN {mode}")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection for queries only; on SQLite it never waits for a writer."""
    with engine.connect() as raw:
        connection = raw.execution_options(whet_reading=True)
        yield connection
        connection.rollback()


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One short transaction, committed at the end, rolled back on any error."""
    with engine.begin() as connection:
        yield connection


def truncate_wal(database: Engine, *, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Empty SQLite's write-ahead log, which still holds what was deleted from the database.

    Needs a moment without readers of an older state, for which writers wait `_TRUNCATE_WAIT_MS` at
    most; it is tried again and again. Returns False when no such moment came. PostgreSQL has none
    of this to do.
    """
    if database.dialect.name != "sqlite":
        return True
    connection = database.raw_connection()
    try:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_TRUNCATE_WAIT_MS}")
        for _ in range(_TRUNCATE_TRIES):
            cursor.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # nobody waits for this one
            if cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0:
                return True
            sleep(_TRUNCATE_PAUSE_S)
        return False
    finally:
        connection.invalidate()  # the pool must not hand out a connection with the short timeout
        connection.close()


def insert_ignore(where: Connection | Dialect, table: Table) -> sqlite.Insert | postgresql.Insert:
    """`INSERT … ON CONFLICT DO NOTHING` on both databases: races settle there, not in code."""
    dialect = where.dialect if isinstance(where, Connection) else where
    insert = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
    return insert(table).on_conflict_do_nothing()


def _alembic(engine: Engine) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["engine"] = engine
    return config


def schema_state(engine: Engine) -> tuple[str | None, str]:
    """(revision in the database or None, newest revision in this code)."""
    script = ScriptDirectory.from_config(_alembic(engine))
    with reading(engine) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return current, str(script.get_current_head())


def migrate(engine: Engine) -> None:
    """Bring the schema to this code's version, or leave it as it was.

    Raises DatabaseError when the database cannot be reached, or was written by a newer version, and
    ConfigurationError when its URL holds an option that the driver does not know.
    """
    try:
        current, head = schema_state(engine)
    except DBAPIError as error:
        problem = error_text(engine, error).rstrip(".")
        if isinstance(error, ProgrammingError) and getattr(error.orig, "sqlstate", None) is None:
            # Refused by the driver before it asked the server: an unknown option in the URL.
            raise ConfigurationError(
                f"The database URL {database_name(engine)!r} is refused: {problem}.", hint=_FORMS
            ) from None
        raise DatabaseError(
            f"The database {database_name(engine)} cannot be opened: {problem}.",
            hint="Check WHET_DATABASE_URL and that the server runs.",
        ) from None
    if current == head:
        return
    known = {
        revision.revision
        for revision in ScriptDirectory.from_config(_alembic(engine)).walk_revisions()
    }
    if current is not None and current not in known:
        raise DatabaseError(
            f"The database is at schema {current!r}, which this version of Whet does not know (its"
            f" newest is {head!r}): a newer version wrote it.",
            hint=(
                "Run that newer version, or point WHET_DATABASE_URL at another database. Nothing"
                " was changed."
            ),
        )
    command.upgrade(_alembic(engine), "head")
