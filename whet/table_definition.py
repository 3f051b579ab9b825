"""How a table is defined: under one metadata, with one writer."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Index, MetaData, Table, UniqueConstraint

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

WRITERS: dict[str, str] = {}  # table name -> package that may write it


def define_table(writer: str, name: str, *parts: Column[Any] | Index | UniqueConstraint) -> Table:
    """Define a table that only the package `writer` writes."""
    WRITERS[name] = writer
    return Table(name, metadata, *parts)


def instant(name: str, nullable: bool = False) -> Column[Any]:
    """Return a column of milliseconds since 1970 UTC."""
    return Column(name, BigInteger, nullable=nullable)
