"""Erasure of one end user from feedback's tables, with a receipt.

The receipt goes to `erasures` with a keyed hash of the user's name, never the name. Serving's job
deletes the conversations and ratings: it compares `whet.access.hash_key(end_user, secret)` with
`erasures.subject_hash`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, insert, select, update

from feedback.dataset_store import read_rows
from whet.access import hash_key
from whet.auditlog import record
from whet.database import reading, writing
from whet.errors import InputError
from whet.ids import new_id
from whet.registry import merged_from
from whet.store import Store
from whet.tables import (
    adapters,
    datasets,
    erasures,
    examples,
    interactions,
    review_comments,
    review_items,
    reviews,
)

ERASED_ROW: dict[str, Any] = {"erased": True}  # what stays of an example: that there was one


def erased_subjects(connection: Connection) -> dict[str, int]:
    """Subject hash → when it was last erased (ms)."""
    return {
        row.subject_hash: row.created_at
        for row in connection.execute(select(erasures).order_by(erasures.c.created_at))
    }


def is_erased(erased: dict[str, int], end_user: str | None, created_at: int, secret: bytes) -> bool:
    """True for what an erased user said before the erasure; what comes later is a new relation."""
    return bool(end_user and erased) and created_at <= erased.get(
        hash_key(str(end_user), secret), -1
    )


def erase_user(
    database: Engine, store: Store, user: str, *, secret: bytes, actor: str, now: int
) -> dict[str, Any]:
    """Withdraw and blank everything feedback holds of the user.

    Dataset versions are immutable: those that contain the user's rows, reviewed or from files, stay
    as they are and are named in the receipt, as are the adapters trained on them. The next dataset
    version has none of the rows. Returns the receipt; raises InputError for an empty name.
    """
    if not user.strip():
        raise InputError(
            "No user was named.",
            hint="Use `whet erase --user ID`, with the id that the application sends as `user`.",
        )
    subject = hash_key(user, secret)
    interaction_ids = select(interactions.c.id).where(interactions.c.end_user == user)
    in_files = _versions_with_rows_of(database, store, user)
    with writing(database) as connection:
        theirs = examples.c.interaction_id.in_(interaction_ids) | (examples.c.end_user == user)
        found = connection.execute(
            select(examples.c.id, examples.c.interaction_id).where(theirs)
        ).all()
        receipt = _receipt(connection, subject, found, in_files)
        counts = receipt["erased"]
        standing = update(examples).where(theirs, examples.c.withdrawn_at.is_(None))
        connection.execute(standing.values(withdrawn_at=now))
        connection.execute(update(examples).where(theirs).values(row=ERASED_ROW, end_user=None))
        ids = [row.id for row in found]
        touched = interaction_ids.union(
            select(examples.c.interaction_id).where(examples.c.id.in_(ids))
        )
        texts = update(reviews).where(reviews.c.interaction_id.in_(touched))
        counts["review_texts"] = connection.execute(
            texts.values(answer=None, note=None, labels=None)
        ).rowcount
        items = update(review_items).where(review_items.c.interaction_id.in_(touched))
        counts["queued_conversations"] = connection.execute(
            items.where(review_items.c.state == "waiting").values(
                state="skipped", claimed_by=None, claimed_until=None
            )
        ).rowcount
        connection.execute(items.values(why="The end user asked to be erased."))
        theirs_items = select(review_items.c.id).where(review_items.c.interaction_id.in_(touched))
        counts["comments"] = connection.execute(
            delete(review_comments).where(review_comments.c.item_id.in_(theirs_items))
        ).rowcount
        written = {"id": receipt["id"], "subject_hash": subject, "receipt": receipt}
        connection.execute(insert(erasures).values(**written, requested_by=actor, created_at=now))
        detail = {"receipt": receipt["id"], **counts}
        record(
            connection, actor=actor, action="user.erase", subject=subject[:16], detail=detail,
            now=now,
        )  # fmt: skip
    return receipt


def _versions_with_rows_of(database: Engine, store: Store, user: str) -> set[str]:
    """Return the digests of dataset versions with a row that names the user."""
    with reading(database) as connection:
        paths = {row.digest: row.path for row in connection.execute(select(datasets))}
    return {
        digest
        for digest, path in paths.items()
        if any(row.get("user") == user for part in read_rows(store, path).values() for row in part)
    }


def _receipt(
    connection: Connection,
    subject: str,
    found: Sequence[Row[Any, Any]],
    in_files: set[str],
) -> dict[str, Any]:
    ids = {row.id for row in found}
    holding = [
        row
        for row in connection.execute(select(datasets).order_by(datasets.c.created_at))
        if row.digest in in_files or ids & set(row.example_ids)
    ]
    held = adapters.c.dataset_digest.in_([row.digest for row in holding])
    learned = set(connection.execute(select(adapters.c.digest).where(held)).scalars())
    learned |= merged_from(connection, learned)
    trained = connection.execute(
        select(adapters.c.name, adapters.c.version)
        .where(adapters.c.digest.in_(learned), adapters.c.removed_at.is_(None))
        .order_by(adapters.c.created_at, adapters.c.digest)
    ).all()
    return {
        "id": new_id("ers"),
        "subject_hash": subject,
        "erased": {"examples": len(ids)},
        "datasets_that_still_hold_rows": [f"{row.name}@{row.version}" for row in holding],
        "adapters_trained_on_them": [f"{row.name}@v{row.version}" for row in trained],
        "left_to_other_packages": [
            "interactions",
            "ratings",
            "the files of older dataset versions",
        ],
    }
