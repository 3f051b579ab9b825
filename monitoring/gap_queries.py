"""Reads of the stored gaps, without the detector's imports."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from sqlalchemy import Connection, func, select

from whet.errors import NotFoundError
from whet.tables import retrieval_gaps

_EPOCH = date(1970, 1, 1)
_EXAMPLES = 5  # ids told of a gap


def find_gap(connection: Connection, gap_id: str) -> dict[str, Any]:
    """Raises NotFoundError."""
    query = select(retrieval_gaps).where(retrieval_gaps.c.id == gap_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError(f"There is no gap {gap_id!r}.", hint="`whet drift gaps` prints them.")
    return dict(row)


def list_gaps(connection: Connection, alias: str | None = None) -> list[dict[str, Any]]:
    """Open ones first, then by how many asked in the last seven days."""
    query = select(retrieval_gaps)
    if alias:
        query = query.where(retrieval_gaps.c.alias == alias)
    rows = [dict(row) for row in connection.execute(query).mappings()]
    return sorted(rows, key=lambda row: (row["state"] != "open", -row["recent"], -row["questions"]))


def count_open_gaps(connection: Connection) -> dict[str, int]:
    """Alias → open gaps."""
    query = select(retrieval_gaps.c.alias, func.count().label("gaps"))
    grouped = query.where(retrieval_gaps.c.state == "open").group_by(retrieval_gaps.c.alias)
    return {row.alias: row.gaps for row in connection.execute(grouped)}


def gap_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """One gap as people and scripts get it."""
    kept = ("id", "alias", "collection", "state", "words", "questions", "recent", "changed_by")
    return {
        **{name: row[name] for name in kept},
        "share": round(row["share"], 4),
        "first_seen": (_EPOCH + timedelta(days=row["first_day"])).isoformat(),
        "last_seen": (_EPOCH + timedelta(days=row["last_day"])).isoformat(),
        "examples": row["members"][:_EXAMPLES],
    }
