"""Leases: at most one holder of a name at a time, across processes and machines, by one row in the
database.

A holder that stops renewing loses the lease when it runs out; the token rises with every change of
owner, so a holder that was asleep can be told from the one that took over.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, delete, select, update

from whet.database import insert_ignore, reading, writing
from whet.tables import leases


@dataclass(frozen=True, slots=True)
class LeaseKind:
    """A lease that one process of many holds all the time, and for how long each renewal lasts."""

    name: str
    lasts_ms: int


# A killed holder is replaced after this; the gateway renews it every second
ENGINE_WATCHER = LeaseKind("reconciler", 5_000)
# The scheduler renews it every 4 s: three attempts before it runs out
SCHEDULER = LeaseKind("scheduler", 15_000)


def acquire(engine: Engine, name: str, owner: str, *, now: int, for_ms: int) -> int | None:
    """Take or renew the lease until `now + for_ms`.

    Returns the fencing token, or None while another holds it.
    """
    with writing(engine) as connection:
        connection.execute(
            insert_ignore(connection, leases).values(name=name, owner="", expires_at=0, token=0)
        )
        row = connection.execute(
            select(leases).where(leases.c.name == name).with_for_update()
        ).one()
        if row.owner != owner and row.expires_at > now:
            return None
        token = row.token if row.owner == owner else row.token + 1
        connection.execute(
            update(leases)
            .where(leases.c.name == name)
            .values(owner=owner, expires_at=now + for_ms, token=token)
        )
        return int(token)


def release(engine: Engine, name: str, owner: str, *, now: int = 0) -> None:
    """Give the lease back; a lease that somebody else took meanwhile is left alone.

    The row stays, so tokens only rise. `now`: kept as the end, so that pages can say since when
    nobody has held it; 0 for leases of which nobody asks that.
    """
    with writing(engine) as connection:
        connection.execute(
            update(leases)
            .where(leases.c.name == name, leases.c.owner == owner)
            .values(expires_at=now, owner="")
        )


def holder(engine: Engine, name: str, *, now: int) -> str | None:
    """Who holds the lease now."""
    with reading(engine) as connection:
        row = connection.execute(
            select(leases).where(leases.c.name == name, leases.c.expires_at > now)
        ).first()
    return row.owner if row else None


def forget(engine: Engine, name: str) -> None:
    """Drop a lease whose subject is gone for good (a finished training request)."""
    with writing(engine) as connection:
        connection.execute(delete(leases).where(leases.c.name == name))
