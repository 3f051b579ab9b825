"""How each version of an alias does on the traffic: the one definition of these figures."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, case, func, select

from whet.outcomes import lowest_ratings, service_failed
from whet.registry import Adapter, Rollout, rollout_history
from whet.tables import interactions

_DAY_MS = 86_400_000
DAYS = 7
# Newest answers of an alias that are counted: enough for an interval of a point, read in well
# under a second
NEWEST_ANSWERS = 20_000
_NEWEST_TIMES = 2_000  # of which the percentiles of TTFT are taken


@dataclass(frozen=True)
class VersionSummary:
    """One version's newest answers. `rated` and `thumbs_up` count answers, not ratings."""

    label: str
    n: int
    failed: int
    rated: int
    thumbs_up: int  # rated, and by nobody down
    ttft_p50_ms: float | None
    ttft_p95_ms: float | None


@dataclass(frozen=True)
class AliasState:
    """What is live under an alias, and how its versions do."""

    alias: str
    rollout: Rollout
    live_since: int
    live: str
    candidate: str
    versions: list[VersionSummary]


def load_alias_states(
    connection: Connection, rollouts: dict[str, Rollout], adapters: list[Adapter], now: int
) -> list[AliasState]:
    """Read every alias with what is live: candidate, live and previous version in this order."""
    labels: dict[str | None, str] = {one.digest: f"v{one.version}" for one in adapters}
    labels[None] = "base"
    found = []
    for alias, rollout in sorted(rollouts.items()):
        wanted: list[str | None] = [rollout.candidate_digest] if rollout.candidate_digest else []
        wanted += [rollout.stable_digest, rollout.previous_digest]
        by_digest = summarise_versions(connection, alias, labels, now)
        order = [digest for index, digest in enumerate(wanted) if digest not in wanted[:index]]
        candidate = rollout.candidate_digest
        found.append(
            AliasState(
                alias,
                rollout,
                live_since(connection, rollout),
                labels.get(rollout.stable_digest, str(rollout.stable_digest)[:8]),
                labels.get(candidate, candidate[:8]) if candidate else "",
                [by_digest[digest] for digest in order if digest in by_digest],
            )
        )
    return found


def live_since(connection: Connection, rollout: Rollout) -> int:
    """Return when the stable version of the alias became stable (ms)."""
    since = rollout.created_at
    for older in rollout_history(connection, rollout.alias, limit=1000):
        if older.stable_digest != rollout.stable_digest:
            break
        since = older.created_at
    return since


def summarise_versions(
    connection: Connection, alias: str, labels: dict[str | None, str], now: int
) -> dict[str | None, VersionSummary]:
    """Return adapter digest (None: the base) → summary of its answers to the alias in 7 days."""
    newest = (
        select(
            interactions.c.id,
            interactions.c.adapter_digest,
            interactions.c.api_key_id,
            service_failed().label("failed"),
        )
        .where(interactions.c.alias == alias, interactions.c.created_at > now - DAYS * _DAY_MS)
        .order_by(interactions.c.created_at.desc())
        .limit(NEWEST_ANSWERS)
        .subquery()
    )
    failed = func.sum(case((newest.c.failed, 1), else_=0))
    counts = select(
        newest.c.adapter_digest, func.count().label("n"), failed.label("failed")
    ).group_by(newest.c.adapter_digest)
    rated = (
        lowest_ratings(newest)
        .add_columns(newest.c.adapter_digest)
        .group_by(newest.c.adapter_digest)
        .subquery()
    )
    votes = select(
        rated.c.adapter_digest,
        func.count().label("rated"),
        func.sum(case((rated.c.lowest > 0, 1), else_=0)).label("up"),
    ).group_by(rated.c.adapter_digest)
    by_digest = {row.adapter_digest: row for row in connection.execute(votes)}
    times = _times(connection, alias, now)
    found = {}
    for row in connection.execute(counts):
        digest = row.adapter_digest
        vote = by_digest.get(digest)
        found[digest] = VersionSummary(
            labels.get(digest, str(digest)[:8]),
            int(row.n),
            int(row.failed),
            int(vote.rated) if vote else 0,
            int(vote.up) if vote else 0,
            percentile(times.get(digest, []), 0.5),
            percentile(times.get(digest, []), 0.95),
        )
    return found


def _times(connection: Connection, alias: str, now: int) -> dict[str | None, list[float]]:
    """Read times to the first token of the newest answers, ascending, by adapter digest."""
    query = (
        select(interactions.c.adapter_digest, interactions.c.ttft_ms)
        .where(interactions.c.alias == alias, interactions.c.created_at > now - DAYS * _DAY_MS)
        .order_by(interactions.c.created_at.desc())
        .limit(_NEWEST_TIMES)
    )
    found: dict[str | None, list[float]] = {}
    for row in connection.execute(query):
        if row.ttft_ms is not None:
            found.setdefault(row.adapter_digest, []).append(float(row.ttft_ms))
    return {digest: sorted(values) for digest, values in found.items()}


def percentile(ascending: list[float], share: float) -> float | None:
    """Return the smallest value that at least `share` of the values do not exceed."""
    if not ascending:
        return None
    return ascending[max(0, -(-len(ascending) * round(share * 100) // 100) - 1)]
