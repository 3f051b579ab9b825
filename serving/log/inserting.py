"""Insert records of the interaction log; one that is there already is left as it is."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import JSON, Column, Connection, Dialect, Engine, MetaData, Table
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.types import UserDefinedType

from serving.log.records import InteractionRecord, RatingRecord, Record, without_nul
from whet.database import error_text, insert_ignore, writing
from whet.tables import interactions, ratings

# The database does not take these values, and will not later. All else means that it is away.
_REFUSALS = (DataError, IntegrityError, ValueError, OverflowError)


class Refused(msgspec.Struct, frozen=True, array_like=True):
    """A record that the database does not take."""

    place: int  # in the batch
    why: str


class _JsonText(UserDefinedType):  # type: ignore[type-arg]
    """A JSON column that is given JSON text, so that nothing is parsed and written again; None is
    NULL."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "JSON"


def _as_text(table: Table) -> Table:
    columns = (
        Column(
            column.name,
            _JsonText() if isinstance(column.type, JSON) else column.type,
            primary_key=column.primary_key,
        )
        for column in table.columns
    )
    return Table(table.name, MetaData(), *columns)


_TABLES: dict[type, Table] = {
    InteractionRecord: _as_text(interactions),
    RatingRecord: _as_text(ratings),
}


def _value(value: object) -> object:
    """A field of a record as its column takes it."""
    if isinstance(value, msgspec.Raw):
        text = bytes(value)
        return None if text == b"null" else without_nul(text).decode()
    if isinstance(value, str) and "\0" in value:
        return value.replace("\0", "\ufffd")
    return value


@lru_cache
def _insert_statement(dialect: Dialect, kind: type[Record]) -> str:
    """The database's own text of the statement that inserts what is not there yet.

    SQLAlchemy writes it once; writing it for each batch costs as much as 20 rows, and filling it in
    for each row as much as the database itself.
    """
    names = kind.__struct_fields__
    statement = insert_ignore(dialect, _TABLES[kind])
    compiled = statement.compile(dialect=dialect, column_keys=list(names))
    if compiled.positional:
        assert compiled.positiontup == list(names), "columns stand in the order of the fields"
    return str(compiled)


def insert_records(connection: Connection, records: Iterable[Record]) -> None:
    """Insert each record that is not there yet."""
    groups: dict[type[Record], list[Record]] = {}
    for record in records:
        groups.setdefault(type(record), []).append(record)
    for kind, found in groups.items():
        rows: list[Any] = [tuple(map(_value, msgspec.structs.astuple(each))) for each in found]
        if not connection.dialect.positional:
            rows = [dict(zip(kind.__struct_fields__, row, strict=True)) for row in rows]
        connection.exec_driver_sql(_insert_statement(connection.dialect, kind), rows)


def insert_or_refuse(engine: Engine, records: list[Record]) -> list[Refused]:
    """Insert in one transaction; return those that the database does not take.

    One that is refused does not hold back the others. Raises SQLAlchemyError while the database is
    away.
    """
    try:
        with writing(engine) as connection:
            insert_records(connection, records)
    except _REFUSALS:
        return [
            Refused(place, why)
            for place, record in enumerate(records)
            if (why := _refusal(engine, record))
        ]
    return []


def _refusal(engine: Engine, record: Record) -> str:
    """Insert one record; return why the database does not take it, "" when it does."""
    try:
        with writing(engine) as connection:
            insert_records(connection, [record])
    except _REFUSALS as error:
        return error_text(engine, error)
    return ""
