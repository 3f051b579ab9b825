"""The thread that a conversation belongs to: the turns before and after it, each with its own row.

By the session that the application names in its metadata; without one, by what was said: a request
whose history ends with an answer of the log is the next turn of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from serving.pages import reading
from serving.search_index.entries import session_of
from serving.search_index.query import NumberRange, Phrase, SearchQuery, newest_hits
from serving.search_index.tokens import field_token
from whet.tables import interaction_search, interactions
from whet.web.filters import clip

MOST_TURNS = 100
_ALL_TIME = NumberRange(0, 2**62)

indexed = interaction_search.c


@dataclass(frozen=True, slots=True)
class ThreadTurn:
    """One row of the thread."""

    id: str
    at: int
    question: str
    status: str
    is_this: bool


@dataclass(frozen=True, slots=True)
class Thread:
    """Turns in their order, and where one goes from this one."""

    turns: list[ThreadTurn]
    previous: str  # id, or ""
    next: str
    session: str  # as the application named it, or ""


def load_thread(connection: Connection, item: dict[str, Any]) -> Thread | None:
    """Return the thread of a row of `interactions`; None where it stands alone."""
    session = session_of(item["metadata"])
    ids = _of_session(connection, session) if session else _of_history(connection, item["id"])
    if item["id"] not in ids or len(ids) < 2:
        return None
    columns = (
        interactions.c.id, interactions.c.created_at, interactions.c.request, interactions.c.status,
    )  # fmt: skip
    rows = connection.execute(select(*columns).where(interactions.c.id.in_(ids))).all()
    turns = [
        ThreadTurn(
            row.id, row.created_at, clip(reading.question(row.request), 90), row.status,
            row.id == item["id"],
        )
        for row in sorted(rows, key=lambda row: ids.index(row.id))
    ]  # fmt: skip
    here = next(at for at, turn in enumerate(turns) if turn.is_this)
    return Thread(
        turns,
        turns[here - 1].id if here else "",
        turns[here + 1].id if here + 1 < len(turns) else "",
        session,
    )


def _of_session(connection: Connection, session: str) -> list[str]:
    query = SearchQuery((Phrase((field_token("session", session),)),))
    numbers = newest_hits(connection, query, _ALL_TIME, MOST_TURNS)
    ids = select(indexed.interaction_id).where(indexed.number.in_(numbers))
    return list(connection.scalars(ids.order_by(indexed.number)))


def _of_history(connection: Connection, interaction_id: str) -> list[str]:
    columns = (indexed.number, indexed.interaction_id, indexed.turns_before, indexed.turns_after)
    here = connection.execute(
        select(*columns).where(indexed.interaction_id == interaction_id)
    ).first()
    if here is None:
        return []
    found, at = [here.interaction_id], here
    while at.turns_before and len(found) < MOST_TURNS:
        earlier = select(*columns).where(
            indexed.turns_after == at.turns_before, indexed.number < at.number
        )
        row = connection.execute(earlier.order_by(indexed.number.desc()).limit(1)).first()
        if row is None:
            break
        found.insert(0, row.interaction_id)
        at = row
    at = here
    while at.turns_after and len(found) < MOST_TURNS:
        later = select(*columns).where(
            indexed.turns_before == at.turns_after, indexed.number > at.number
        )
        row = connection.execute(later.order_by(indexed.number).limit(1)).first()
        if row is None:
            break
        found.append(row.interaction_id)
        at = row
    return found
