"""The audit log: who did what to which thing, append-only, each entry sealed with the hash of the
one before.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, insert, select

from whet.store import digest_json
from whet.tables import audit

_FIRST_HASH = "0" * 64


def record(
    connection: Connection,
    *,
    actor: str,
    action: str,
    subject: str,
    detail: Mapping[str, object] | None = None,
    now: int,
) -> None:
    """Append one entry inside the caller's transaction, so that the deed and its record stand or
    fall together.

    `action` is `<thing>.<verb>`, such as `rollout.promote`.
    """
    if connection.dialect.name == "postgresql":
        # Two writers would read the same last row; this serialises appends until commit.
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(823476512)")
    last = connection.execute(
        select(audit.c.sequence, audit.c.hash).order_by(audit.c.sequence.desc()).limit(1)
    ).first()
    entry = {
        "sequence": (last.sequence + 1) if last else 1,
        "actor": actor,
        "action": action,
        "subject": subject,
        "detail": detail or {},
        "created_at": now,
        "previous_hash": last.hash if last else _FIRST_HASH,
    }
    connection.execute(insert(audit).values(**entry, hash=digest_json(entry)))


def broken_at(connection: Connection) -> int | None:
    """Sequence number of the first entry that was altered, removed or inserted; None when the chain
    holds.
    """
    previous, expected = _FIRST_HASH, 1
    for row in connection.execute(select(audit).order_by(audit.c.sequence)):
        entry = {key: value for key, value in row._mapping.items() if key != "hash"}
        if (
            row.sequence != expected
            or row.previous_hash != previous
            or digest_json(entry) != row.hash
        ):
            return int(row.sequence)
        previous, expected = row.hash, expected + 1
    return None
