"""Which interactions a drift run compares: bounded reads of one alias, never the whole table.

The *reference* is the traffic right after the version that is live now went live (or after an
operator marked a change as expected); the *window* is the newest traffic of the same version. Both
are capped per end user, because requests cluster in users and tests that take them for independent
call every quiet day a drift.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Connection, func, select

from monitoring.rows import Row, row_from_record
from whet.access import same_group
from whet.errors import NotFoundError
from whet.registry import rollout_history
from whet.tables import alerts, interactions, ratings, rollouts

# Candidates looked at per row kept: enough when ten requests in eleven come from users already
# capped
_RAW_FACTOR = 10
# Ids per query: below SQLite's limit on variables, and a chunk of large requests still fits in
# memory
_CHUNK = 500
# How far back the history of an alias is read to find since when its version is live
_GENERATIONS = 1000


@dataclass(frozen=True, slots=True)
class Key:
    """What is needed of an interaction to decide whether it belongs to a window."""

    created_at: int
    id: str
    end_user: str | None


@dataclass(frozen=True, slots=True)
class Epoch:
    """Since when an alias has been what it is now: one version, one idea of normal."""

    since_at: int
    stable_digest: str | None
    has_rollout: bool


@dataclass(frozen=True)
class Windows:
    """The two samples, oldest row first. `shortage` is a sentence when they cannot be compared."""

    epoch: Epoch
    reference: list[Row] = field(default_factory=list)
    window: list[Row] = field(default_factory=list)
    shortage: str = ""


def list_aliases(connection: Connection) -> list[str]:
    """Every alias that has a rollout or traffic; one index step per alias, whatever the number of
    interactions.
    """
    found = set(connection.scalars(select(rollouts.c.alias).distinct()))
    last = ""
    while True:
        following = connection.scalar(
            select(func.min(interactions.c.alias)).where(interactions.c.alias > last)
        )
        if following is None:
            return sorted(found)
        found.add(following)
        last = following


def require_alias(connection: Connection, alias: str) -> None:
    """Raises NotFoundError for an alias that has neither traffic nor a rollout."""
    if alias not in list_aliases(connection):
        raise NotFoundError(
            f"There is no alias {alias!r}: it has neither traffic nor a rollout.",
            hint="`whet rollout show` prints the aliases.",
        )


def current_epoch(connection: Connection, alias: str) -> Epoch:
    """The stable version of `alias`, since it went live or since the newest change that a person
    marked as expected.
    """
    since_at, digest = 0, None
    history = rollout_history(connection, alias, limit=_GENERATIONS)
    for generation in history:
        if generation.stable_digest != history[0].stable_digest:
            break
        since_at, digest = generation.created_at, generation.stable_digest
    marked = connection.scalar(
        select(func.max(alerts.c.changed_at)).where(
            alerts.c.alias == alias, alerts.c.state == "expected"
        )
    )
    return Epoch(max(since_at, marked or 0), digest, bool(history))


def read_windows(
    connection: Connection,
    alias: str,
    *,
    now: int,
    size: int,
    min_rows: int,
    per_user: int,
    frozen: tuple[int, int] | None = None,
) -> Windows:
    """Read both samples of `alias`, at most `size` rows each and `per_user` rows of one user.

    `frozen` (from, to in ms) fixes the reference while an alert is open, so that a change cannot
    become the new normal by lasting. Too few rows, or samples that would overlap, give `shortage`
    instead of rows.
    """
    epoch = current_epoch(connection, alias)
    conditions = _eligible(alias, epoch, now)
    limit = size * _RAW_FACTOR
    newest = _keys(connection, conditions, limit, newest_first=True)
    if frozen and frozen[0] >= epoch.since_at:
        earliest = _keys(
            connection,
            [*conditions, interactions.c.created_at.between(*frozen)],
            limit,
            newest_first=False,
        )
        newest = [key for key in newest if key.created_at > frozen[1]]
        reference_keys, window_keys = (
            cap_per_user(earliest, per_user, size, min_rows),
            cap_per_user(newest, per_user, size, min_rows),
        )
    else:
        earliest = _keys(connection, conditions, limit, newest_first=False)
        reference_keys, window_keys = choose(
            earliest, newest, size=size, per_user=per_user, min_rows=min_rows
        )
    shortage = shortage_of(len(reference_keys), len(window_keys), min_rows)
    if shortage:
        return Windows(
            epoch,
            shortage=(
                f"{shortage} The live version has answered {_counted(len(newest), limit)} requests"
                " that count."
            ),
        )
    return Windows(
        epoch, fetch_rows(connection, reference_keys), fetch_rows(connection, window_keys)
    )


def shortage_of(n_reference: int, n_window: int, min_rows: int) -> str:
    """A sentence when either sample is below `min_rows`, else an empty string."""
    if min(n_reference, n_window) >= min_rows:
        return ""
    return (
        f"Not enough data: {n_reference} earlier and {n_window} recent conversations can be"
        f" compared, {min_rows} of each are needed."
    )


def choose(
    earliest: Sequence[Key], newest: Sequence[Key], *, size: int, per_user: int, min_rows: int
) -> tuple[list[Key], list[Key]]:
    """(reference, window) out of the oldest keys (oldest first) and the newest keys (newest first);
    never overlapping.

    While there is less traffic than two full samples, the traffic is split in the middle.
    """
    reference = cap_per_user(earliest, per_user, size, min_rows)
    window = cap_per_user(newest, per_user, size, min_rows)
    if (
        reference
        and window
        and _order(max(reference, key=_order)) >= _order(min(window, key=_order))
    ):
        everything = sorted({*earliest, *newest}, key=_order)
        middle = len(everything) // 2
        reference = cap_per_user(everything[:middle], per_user, size, min_rows)
        window = cap_per_user(
            everything[: middle - 1 if middle else None : -1], per_user, size, min_rows
        )
    return reference, window


def cap_per_user(keys: Sequence[Key], per_user: int, size: int, min_rows: int) -> list[Key]:
    """The first `size` keys with at most `per_user` of each end user, sorted by time.

    An application with a handful of users would never have enough rows; for it the cap is raised,
    doubling, until `min_rows` are there. The tests then correct for the resemblance of one user's
    rows.
    """
    allowed = per_user
    while True:
        kept = _capped(keys, allowed, size)
        if len(kept) >= min(min_rows, len(keys)) or allowed > len(keys):
            return sorted(kept, key=_order)
        allowed *= 2


def _capped(keys: Iterable[Key], per_user: int, size: int) -> list[Key]:
    seen: Counter[str] = Counter()
    kept: list[Key] = []
    for key in keys:
        if key.end_user:
            seen[key.end_user] += 1
            if seen[key.end_user] > per_user:
                continue
        kept.append(key)
        if len(kept) == size:
            break
    return kept


def _order(key: Key) -> tuple[int, str]:
    return key.created_at, key.id


def _counted(n: int, limit: int) -> str:
    return f"{n:,}" if n < limit else f"at least {limit:,}"


def _eligible(alias: str, epoch: Epoch, now: int) -> list[ColumnElement[bool]]:
    """Answers of the live version that were not called off.

    A candidate's answers are the rollout's to judge, not drift.
    """
    conditions = [
        interactions.c.alias == alias,
        interactions.c.created_at >= epoch.since_at,
        interactions.c.created_at <= now,
        interactions.c.status.in_(("complete", "cut")),
        interactions.c.http_status == 200,
        func.coalesce(interactions.c.arm, "stable") != "candidate",
    ]
    if epoch.has_rollout:
        digest = interactions.c.adapter_digest
        conditions.append(
            digest.is_(None) if epoch.stable_digest is None else digest == epoch.stable_digest
        )
    return conditions


def _keys(
    connection: Connection,
    conditions: Sequence[ColumnElement[bool]],
    limit: int,
    *,
    newest_first: bool,
) -> list[Key]:
    columns = interactions.c.created_at, interactions.c.id
    order = [column.desc() for column in columns] if newest_first else list(columns)
    query = (
        select(*columns, interactions.c.end_user).where(*conditions).order_by(*order).limit(limit)
    )
    return [Key(*row) for row in connection.execute(query)]


_COLUMNS = [
    interactions.c[name]
    for name in (
        "id",
        "created_at",
        "end_user",
        "status",
        "stream",
        "finish_reason",
        "request",
        "response",
        "response_text",
        "prompt_tokens",
        "completion_tokens",
        "ttft_ms",
        "duration_ms",
        "retrieved",
        "retrieval",
        "adapter",
        "version",
        "api_key_id",
    )
]


def fetch_rows(connection: Connection, keys: Sequence[Key]) -> list[Row]:
    """The rows behind `keys`, oldest first, each with its latest rating.

    Large requests are reduced as they arrive.
    """
    rows: list[Row] = []
    for start in range(0, len(keys), _CHUNK):
        ids = [key.id for key in keys[start : start + _CHUNK]]
        rated = (
            select(ratings.c.interaction_id, ratings.c.rating)
            .join(interactions, interactions.c.id == ratings.c.interaction_id)
            .where(
                ratings.c.interaction_id.in_(ids),
                same_group(ratings.c.api_key_id, interactions.c.api_key_id),
            )
            .order_by(ratings.c.created_at, ratings.c.id)
        )
        latest = {row.interaction_id: row.rating for row in connection.execute(rated)}
        found = connection.execute(
            select(*_COLUMNS).where(interactions.c.id.in_(ids)).execution_options(yield_per=50)
        )
        rows += [
            row_from_record(dict(record), latest.get(record["id"])) for record in found.mappings()
        ]
    return sorted(rows, key=lambda row: (row.created_at, row.id))
