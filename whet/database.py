"""The database: SQLite in WAL mode beside the product, or PostgreSQL. One place opens it and migrates it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from whet.errors import ConfigurationError, DatabaseError

_BUSY_TIMEOUT_MS = 15_000  # writers queue behind each other; a migration or a large batch may hold the lock for seconds


def open_database(url: str, *, full_durability: bool = False) -> Engine:
    """An engine for `url`; it does not migrate. Raises ConfigurationError for a URL that is not one."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError(f"database_url {url!r} is not an SQLAlchemy URL.", hint="Use sqlite:///FILE or postgresql+psycopg://…") from error
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, connect_args={"timeout": _BUSY_TIMEOUT_MS / 1000})
        _prepare_sqlite(engine, full_durability)
        return engine
    return create_engine(parsed, pool_pre_ping=True)


def _prepare_sqlite(engine: Engine, full_durability: bool) -> None:
    @event.listens_for(engine, "connect")
    def _pragmas(connection: object, _record: object) -> None:
        connection.isolation_level = None  # type: ignore[attr-defined]  # we issue BEGIN ourselves, below
        cursor = connection.cursor()  # type: ignore[attr-defined]
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute(f"PRAGMA synchronous={'FULL' if full_durability else 'NORMAL'}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # `begin_nested`-free writers take the write lock at once: a read that upgrades later fails with SQLITE_BUSY
        # whatever the timeout. Readers ask for a deferred transaction with `reading()`.
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


def insert_ignore(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """`INSERT … ON CONFLICT DO NOTHING` on both databases: races settle in the database, not in code."""
    dialect = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    return dialect(table).on_conflict_do_nothing()


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

    Raises DatabaseError when the database cannot be reached, or was written by a newer version.
    """
    try:
        current, head = schema_state(engine)
    except OperationalError as error:
        raise DatabaseError(
            f"The database {engine.url.render_as_string()} cannot be opened: {error.orig}.", hint="Check WHET_DATABASE_URL and that the server runs."
        ) from error
    if current == head:
        return
    known = {revision.revision for revision in ScriptDirectory.from_config(_alembic(engine)).walk_revisions()}
    if current is not None and current not in known:
        raise DatabaseError(
            f"The database is at schema {current!r}, which this version of Whet does not know (its newest is {head!r}): a newer version wrote it.",
            hint="Run that newer version, or point WHET_DATABASE_URL at another database. Nothing was changed.",
        )
    command.upgrade(_alembic(engine), "head")
