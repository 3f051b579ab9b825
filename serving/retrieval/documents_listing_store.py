"""Queries behind the console's Documents pages: filtered, paged, never a table whole."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlencode

import msgspec
from sqlalchemy import ColumnElement, Connection, Text, cast, func, or_, select

from serving.retrieval.documents_store import FAILED, INDEXED
from serving.retrieval.records import Document, Passage
from whet.tables import documents, interactions, passages

PAGE_ROWS = 50  # two screens
PASSAGE_ROWS = 50  # of one document; a table may have a passage for each of its rows
# Answers with passages that are looked through for those of one document. Each is read whole by
# the database, which has no index into them.
SCANNED_ANSWERS = 20_000
SHOWN_ANSWERS = 200
STATES = (INDEXED, FAILED, "warnings")


@dataclass(frozen=True)
class DocumentFilters:
    """What the address of a list says. Unknown values count as not given."""

    find: str = ""  # in address and title
    state: str = ""
    after: str = ""  # the last address seen

    def query(self, **changes: str) -> str:
        """Return these filters with some of them changed, as the query of an address."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        given = values | {"after": ""} | changes
        return urlencode({name: value for name, value in given.items() if value})


@dataclass(frozen=True)
class ListedDocument:
    """A document as a list shows it."""

    document: Document
    tokens: int  # of all its passages


@dataclass(frozen=True)
class PassageUse:
    """An answer that had a passage in its prompt."""

    interaction_id: str
    created_at: int
    request: dict[str, Any]
    passage_id: str
    number: int  # in the prompt, from 1
    score: float
    is_cited: bool


def list_documents(
    connection: Connection, collection: str, filters: DocumentFilters
) -> tuple[list[ListedDocument], str]:
    """Return a page of documents by address, and the `after` of the next one; empty: the last."""
    chosen = select(documents).where(*_conditions(collection, filters))
    if filters.after:
        chosen = chosen.where(documents.c.address > filters.after)
    rows = connection.execute(chosen.order_by(documents.c.address).limit(PAGE_ROWS + 1)).all()
    shown = [_document(row._mapping) for row in rows[:PAGE_ROWS]]
    sizes = count_tokens_of(connection, [one.id for one in shown])
    listed = [ListedDocument(one, sizes.get(one.id, 0)) for one in shown]
    return listed, shown[-1].address if len(rows) > PAGE_ROWS else ""


def count_documents(connection: Connection, collection: str, filters: DocumentFilters) -> int:
    """Return how many documents match, whatever page is shown."""
    chosen = select(func.count()).select_from(documents)
    return connection.execute(chosen.where(*_conditions(collection, filters))).scalar_one()


def count_tokens_of(connection: Connection, document_ids: list[str]) -> dict[str, int]:
    """Return {document id: tokens of its passages}."""
    total = func.sum(passages.c.tokens)
    chosen = select(passages.c.document_id, total).where(passages.c.document_id.in_(document_ids))
    rows = connection.execute(chosen.group_by(passages.c.document_id))
    return {document_id: int(tokens) for document_id, tokens in rows}


def list_passages(connection: Connection, document_id: str, first: int) -> list[Passage]:
    """Return a page of a document's passages from position `first` on."""
    chosen = select(passages).where(
        passages.c.document_id == document_id, passages.c.position >= first
    )
    rows = connection.execute(chosen.order_by(passages.c.position).limit(PASSAGE_ROWS))
    return [msgspec.convert(_values(row._mapping), Passage) for row in rows]


def position_of(connection: Connection, document_id: str, passage_id: str) -> int | None:
    """Return where a passage stands in its document; None: it is not in it any more."""
    chosen = select(passages.c.position).where(
        passages.c.document_id == document_id, passages.c.id == passage_id
    )
    return connection.execute(chosen).scalar()


def list_uses(connection: Connection, document_id: str, passage_id: str = "") -> list[PassageUse]:
    """Return which of the last answers had a passage of this document in their prompt.

    Newest first, one for each passage. `passage_id`: only that one.
    """
    recent = (
        select(
            interactions.c.id, interactions.c.created_at, interactions.c.request,
            interactions.c.retrieved, interactions.c.retrieval,
        )
        .where(cast(interactions.c.retrieved, Text) != "null")
        .order_by(interactions.c.created_at.desc())
        .limit(SCANNED_ANSWERS)
        .subquery()
    )  # fmt: skip
    held = cast(recent.c.retrieved, Text).contains(passage_id or document_id, autoescape=True)
    chosen = select(recent).where(held).order_by(recent.c.created_at.desc()).limit(SHOWN_ANSWERS)
    return [
        use
        for row in connection.execute(chosen)
        for use in _uses(row._mapping, document_id)
        if passage_id in ("", use.passage_id)
    ]


def _uses(row: Any, document_id: str) -> list[PassageUse]:
    cited = (row["retrieval"] or {}).get("cited") or []
    return [
        PassageUse(
            interaction_id=row["id"],
            created_at=row["created_at"],
            request=row["request"],
            passage_id=hit.get("passage_id", ""),
            number=number,
            score=hit.get("score", 0.0),
            is_cited=number in cited,
        )
        for number, hit in enumerate(row["retrieved"] or [], start=1)
        if hit.get("document_id") == document_id
    ]


def _conditions(collection: str, filters: DocumentFilters) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [documents.c.collection == collection]
    if filters.find:
        conditions.append(
            or_(
                documents.c.address.icontains(filters.find, autoescape=True),
                documents.c.title.icontains(filters.find, autoescape=True),
            )
        )
    if filters.state in (INDEXED, FAILED):
        conditions.append(documents.c.state == filters.state)
    elif filters.state:
        conditions += [documents.c.state == INDEXED, cast(documents.c.notices, Text) != "[]"]
    return conditions


def _document(mapping: Any) -> Document:
    return msgspec.convert(_values(mapping), Document)


def _values(mapping: Any) -> dict[str, object]:
    # SQLAlchemy's keys are of a subclass of str, which msgspec does not take.
    return {str(key): value for key, value in mapping.items()}
