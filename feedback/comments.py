"""What reviewers tell each other about an item. The only writer of `review_comments`."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Engine, delete, exists, insert, select, update

from whet.database import writing
from whet.errors import ConflictError, InputError, NotFoundError
from whet.ids import new_id
from whet.tables import review_comments, review_items

_MOST_TEXT = 4000


@dataclass(frozen=True, slots=True)
class Comment:
    id: str
    author: str
    text: str
    created_at: int


def add_comment(database: Engine, item_id: str, text: str, *, author: str, now: int) -> str:
    """Keep a comment on an item; returns its id. Raises InputError, NotFoundError."""
    said = text.replace("\r\n", "\n").strip()
    if not 0 < len(said) <= _MOST_TEXT:
        raise InputError(f"The comment has {len(said)} characters; expected 1 to {_MOST_TEXT}.")
    comment_id = new_id("com", at=now)
    with writing(database) as connection:
        known = select(review_items.c.id).where(review_items.c.id == item_id)
        if connection.execute(known).first() is None:
            raise NotFoundError(f"There is no review item {item_id[:80]!r}.")
        connection.execute(
            insert(review_comments).values(
                id=comment_id, item_id=item_id, author=author, text=said, created_at=now
            )
        )
    return comment_id


def remove_comment(
    database: Engine, comment_id: str, *, actor: str, now: int, may_remove_others: bool = False
) -> str:
    """Take a comment back; returns its item. Raises NotFoundError, ConflictError."""
    with writing(database) as connection:
        row = connection.execute(
            select(review_comments).where(
                review_comments.c.id == comment_id, review_comments.c.removed_at.is_(None)
            )
        ).first()
        if row is None:
            raise NotFoundError(f"There is no comment {comment_id[:80]!r}.")
        if row.author != actor and not may_remove_others:
            raise ConflictError(f"This comment is {row.author}'s.")
        connection.execute(
            update(review_comments)
            .where(review_comments.c.id == comment_id)
            .values(removed_at=now, text="")
        )
    return str(row.item_id)


def list_comments(connection: Connection, item_id: str) -> list[Comment]:
    """Return the comments on an item, the oldest first."""
    kept = review_comments.c
    query = (
        select(kept.id, kept.author, kept.text, kept.created_at)
        .where(kept.item_id == item_id, kept.removed_at.is_(None))
        .order_by(kept.created_at, kept.id)
    )
    return [Comment(**row._mapping) for row in connection.execute(query)]


def prune(connection: Connection) -> None:
    """Delete the comments of items that are gone."""
    there = exists().where(review_items.c.id == review_comments.c.item_id)
    connection.execute(delete(review_comments).where(~there))
