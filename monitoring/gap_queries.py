"""Reads of the stored gaps, without the detector's imports."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from sqlalchemy import Connection, RowMapping, func, select

from whet.errors import NotFoundError
from whet.json_types import JsonObject
from whet.records.monitoring import GAP_MEMBERS, GAP_WORDS
from whet.tables import retrieval_gaps

_EPOCH = date(1970, 1, 1)
_EXAMPLES = 5  # ids told of a gap


@dataclass(frozen=True)
class StoredGap:
    """A row of `retrieval_gaps`."""

    id: str
    alias: str
    collection: str
    words: list[str]
    members: list[str]  # interaction ids, most typical first
    questions: int
    share: float
    recent: int
    first_day: int  # since 1970-01-01
    last_day: int
    state: str  # open | dismissed
    changed_by: str | None
    changed_at: int | None
    updated_at: int

    def as_json(self) -> JsonObject:
        """Return the gap as people and scripts get it."""
        return {
            "id": self.id,
            "alias": self.alias,
            "collection": self.collection,
            "state": self.state,
            "words": [*self.words],
            "questions": self.questions,
            "recent": self.recent,
            "changed_by": self.changed_by,
            "share": round(self.share, 4),
            "first_seen": (_EPOCH + timedelta(days=self.first_day)).isoformat(),
            "last_seen": (_EPOCH + timedelta(days=self.last_day)).isoformat(),
            "examples": [*self.members[:_EXAMPLES]],
        }


def _gap_of(row: RowMapping) -> StoredGap:
    words, members = GAP_WORDS.decode(row["words"]), GAP_MEMBERS.decode(row["members"])
    return StoredGap(**{**row, "words": words, "members": members})


def find_gap(connection: Connection, gap_id: str) -> StoredGap:
    """Raises NotFoundError."""
    query = select(retrieval_gaps).where(retrieval_gaps.c.id == gap_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError(f"There is no gap {gap_id!r}.", hint="`whet drift gaps` prints them.")
    return _gap_of(row)


def list_gaps(connection: Connection, alias: str | None = None) -> list[StoredGap]:
    """Open ones first, then by how many asked in the last seven days."""
    query = select(retrieval_gaps)
    if alias:
        query = query.where(retrieval_gaps.c.alias == alias)
    gaps = [_gap_of(row) for row in connection.execute(query).mappings()]
    return sorted(gaps, key=lambda gap: (gap.state != "open", -gap.recent, -gap.questions))


def count_open_gaps(connection: Connection) -> dict[str, int]:
    """Alias → open gaps."""
    query = select(retrieval_gaps.c.alias, func.count().label("gaps"))
    grouped = query.where(retrieval_gaps.c.state == "open").group_by(retrieval_gaps.c.alias)
    return {row.alias: row.gaps for row in connection.execute(grouped)}
