"""The schema: migrations give exactly what the code declares, on both databases, and never half of
it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, select, text

from whet.context import Context
from whet.database import _alembic, migrate, open_database, reading, schema_state, writing
from whet.errors import DatabaseError
from whet.search_tables import FULL_TEXT_INDEX, FULL_TEXT_TABLE
from whet.tables import WRITERS, api_keys, metadata


def _is_declared(_object: object, name: str | None, kind: str, *_: object) -> bool:
    """Leave out the full-text index, which metadata cannot declare for both databases."""
    if kind == "index":
        return name != FULL_TEXT_INDEX
    return kind != "table" or not (name or "").startswith(FULL_TEXT_TABLE)


def _configure(connection: Connection) -> MigrationContext:
    return MigrationContext.configure(connection, opts={"include_object": _is_declared})


def test_migrations_build_exactly_the_declared_tables(context: Context) -> None:
    with reading(context.database) as connection:
        differences = compare_metadata(_configure(connection), metadata)
    assert differences == [], "whet/tables.py and whet/migrations disagree; add a migration"
    tables = set(inspect(context.database).get_table_names())
    full_text = {name for name in tables if name.startswith(FULL_TEXT_TABLE)}
    assert tables - full_text == {*WRITERS, "alembic_version"}


def test_migrating_twice_changes_nothing(context: Context) -> None:
    before = schema_state(context.database)
    migrate(context.database)
    assert schema_state(context.database) == before


def test_keys_from_before_groups_are_each_their_own_group(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'old.db'}")
    command.upgrade(_alembic(database), "0007")
    with writing(database) as connection:
        connection.execute(
            text(
                "INSERT INTO api_keys (id, name, hash, hint, created_at) "
                "VALUES ('key_1', 'app', 'aa', 'whet-', 1), ('key_2', 'old', 'bb', 'whet-', 2)"
            )
        )
    migrate(database)
    with reading(database) as connection:
        found = connection.execute(select(api_keys.c.id, api_keys.c.group_name)).all()
        assert sorted(found) == [("key_1", "key_1"), ("key_2", "key_2")]
        assert compare_metadata(_configure(connection), metadata) == []
    database.dispose()


def test_a_database_newer_than_the_code_is_refused_and_untouched(context: Context) -> None:
    with writing(context.database) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match="newer version"):
        migrate(context.database)
    assert schema_state(context.database)[0] == "9999"
