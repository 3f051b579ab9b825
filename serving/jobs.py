"""What the scheduler calls for serving: retention and erasure of the interaction log, its counts by
time, and its full-text index."""

from __future__ import annotations

from sqlalchemy import Connection, select

from serving.log.bucketing import count_late, count_recent, delete_buckets
from serving.log.pruning import prune_spool
from serving.search_index.indexing import (
    INDEX_EVERY_S,
    INDEX_JOB,
    INDEX_LATE_EVERY_S,
    INDEX_LATE_JOB,
    Indexer,
)
from whet.access import hash_key
from whet.context import Context
from whet.database import reading, truncate_wal, writing
from whet.plugins import Job
from whet.retention import CHECK_EVERY_S, DAY_MS, Cleaning, Needed, describe_run, run_nightly
from whet.tables import blame_verdicts, erasures, interaction_search, interactions, ratings
from whet.traffic_series import BUCKETS_JOB

_ERASE_EVERY_S = 60.0
_COUNT_EVERY_S = 20.0  # charts are at most so old
_COUNT_LATE_EVERY_S = 60.0
# Rows of an answer that was given before the erasure reach the database within this time, or, where
# the database was away for longer, are found by the nightly run.
_LATE_ROWS_MS = DAY_MS


def jobs(context: Context) -> list[Job]:
    """The jobs; each may run at any time, twice, or on two machines."""

    def clean(cleaning: Cleaning) -> None:
        cleaning.delete_rows("serving")
        for what, count in prune_spool(context.settings.home / "spool", cleaning.before).items():
            cleaning.count(what, count)
        with writing(context.database) as connection:
            cleaning.count("traffic_buckets", delete_buckets(connection, cleaning.before))
        _erase_since(context, cleaning, since=0)
        if interaction_search.name in cleaning.deleted:
            Indexer(context.database, cleaning.pace).compact()

    indexer = Indexer(context.database)

    def index_late(now: int) -> str | None:
        indexed, removed = indexer.index_late()
        return f"indexed {indexed:,}, took out {removed:,}" if indexed or removed else None

    def index_recent(now: int) -> None:
        indexer.index_recent(now)

    return [
        Job(
            "log-retention", CHECK_EVERY_S, lambda now: run_nightly(context, "serving", clean, now)
        ),
        Job("log-erasure", _ERASE_EVERY_S, lambda now: erase_conversations(context, now)),
        Job(BUCKETS_JOB, _COUNT_EVERY_S, lambda now: count_recent(context, now)),
        Job("traffic-buckets-late", _COUNT_LATE_EVERY_S, lambda now: count_late(context, now)),
        Job(INDEX_JOB, INDEX_EVERY_S, index_recent),
        Job(INDEX_LATE_JOB, INDEX_LATE_EVERY_S, index_late),
    ]


def erase_conversations(context: Context, now: int) -> str | None:
    """Delete conversations and ratings of users who were erased lately."""
    cleaning = Cleaning(context.database, now, Needed())
    _erase_since(context, cleaning, since=now - _LATE_ROWS_MS)
    if not cleaning.deleted:
        return None
    if interaction_search.name in cleaning.deleted:
        Indexer(context.database, cleaning.pace).compact()
    truncate_wal(context.database)
    return describe_run(
        {"deleted": cleaning.deleted, "kept_for_examples": 0, "kept_for_incidents": 0}
    )


def _erase_since(context: Context, cleaning: Cleaning, *, since: int) -> None:
    """Delete what users said before they were erased at `since` (ms) or later."""
    with reading(context.database) as connection:
        erased = _erased_users(connection, context.secret, since)
    for user, erased_at in erased.items():
        theirs = interactions.c.end_user == user, interactions.c.created_at <= erased_at
        with reading(context.database) as connection:
            ids = list(connection.scalars(select(interactions.c.id).where(*theirs)))
        for interaction_id in ids:  # few: one person's conversations
            with reading(context.database) as connection:
                query = select(ratings.c.id).where(ratings.c.interaction_id == interaction_id)
                cleaning.delete_keys(ratings.c.id, list(connection.scalars(query)))
        cleaning.delete_keys(blame_verdicts.c.interaction_id, ids)
        cleaning.delete_keys(interactions.c.id, ids)
        cleaning.delete_keys(interaction_search.c.interaction_id, ids)


def _erased_users(connection: Connection, secret: bytes, since: int) -> dict[str, int]:
    """User → when they were erased (ms), of those erased at `since` or later of whom there is
    something."""
    subjects = {
        row.subject_hash: row.created_at
        for row in connection.execute(
            select(erasures).where(erasures.c.created_at >= since).order_by(erasures.c.created_at)
        )
    }
    if not subjects:
        return {}
    users = connection.scalars(
        select(interactions.c.end_user).where(interactions.c.end_user.is_not(None)).distinct()
    )
    hashes = ((user, hash_key(user, secret)) for user in users)
    return {user: subjects[found] for user, found in hashes if found in subjects}
