"""What Overview says: the state of the circle, what needs a person, and how each alias is doing.

`look` reads the database with bounded queries; `stations`, `needs` and `headline` are pure
functions of what it found.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, and_, case, func, select

from whet.access import same_group
from whet.outcomes import service_failed
from whet.registry import Adapter, Rollout, current_rollouts, list_adapters, rollout_history
from whet.tables import (
    alerts,
    datasets,
    drift_reports,
    evaluations,
    examples,
    interactions,
    leases,
    ratings,
    replicas,
    review_items,
    training_requests,
    training_runs,
)
from whet.web.filters import clip, plural

HOUR_MS = 3_600_000
# Newest answers of an alias that a comparison looks at: enough for an interval of a point, read in
# well under a second
_MOST = 20_000
_RUN_SILENT_MS = 120_000  # a run whose heartbeat is older than this has lost its worker
# The reconciler looks every few seconds; a minute without a look means nobody looks
_REPLICA_SILENT_MS = 60_000
_ERRORS_BAD = 0.02  # share of failed answers that needs a person …
_ERRORS_FEW = 3  # … unless there are fewer than these: one failure in a quiet hour is no trend


@dataclass(frozen=True)
class Facts:
    """Plain data; everything below is computed from it. Times in ms."""

    now: int
    last_answer_at: int | None = None
    answers: int = 0  # in the last hour
    failed: int = 0
    alerts: list[dict[str, Any]] = field(default_factory=list)
    drift: dict[str, Any] | None = None
    waiting: int = 0
    waiting_since: int | None = None
    dataset: dict[str, Any] | None = None
    new_examples: int = 0
    runs: list[dict[str, Any]] = field(default_factory=list)  # newest first
    requests: list[dict[str, Any]] = field(default_factory=list)  # not yet claimed
    rollouts: dict[str, Rollout] = field(default_factory=dict)
    adapters: list[Adapter] = field(default_factory=list)
    gate_reasons: dict[str, str] = field(default_factory=dict)
    replicas: list[dict[str, Any]] = field(default_factory=list)
    leases: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Station:
    """One of the six. `kind`: good | attention | bad | information | plain."""

    name: str
    icon: str
    href: str
    value: str
    unit: str
    state: str
    kind: str
    at: int | None
    at_means: str


@dataclass(frozen=True)
class Need:
    """Something that waits for a person. `cost`: higher first."""

    cost: int
    kind: str
    sentence: str
    href: str
    at: int | None


def look(connection: Connection, now: int) -> Facts:
    """Read everything Overview shows."""
    hour = select(
        func.count(),
        func.coalesce(func.sum(case((interactions.c.status.in_(("error", "cut")), 1), else_=0)), 0),
    ).where(interactions.c.created_at > now - HOUR_MS)
    answers, failed = connection.execute(hour).one()
    last = connection.execute(
        select(interactions.c.created_at).order_by(interactions.c.created_at.desc()).limit(1)
    ).scalar()
    waiting, since = connection.execute(
        select(func.count(), func.min(review_items.c.created_at)).where(
            review_items.c.state == "waiting"
        )
    ).one()
    newest_dataset = _first(connection, select(datasets).order_by(datasets.c.created_at.desc()))
    fresh = select(func.count()).where(
        examples.c.withdrawn_at.is_(None),
        examples.c.created_at > (newest_dataset["created_at"] if newest_dataset else 0),
    )
    unclaimed = select(training_requests).where(
        ~select(training_runs.c.id)
        .where(training_runs.c.request_id == training_requests.c.id)
        .exists()
    )
    versions = list_adapters(connection)
    run_columns = [
        column for column in training_runs.c if column.name not in ("curve", "recipe", "estimate")
    ]
    return Facts(
        now=now,
        last_answer_at=last,
        answers=answers,
        failed=failed,
        alerts=_all(
            connection,
            select(alerts)
            .where(alerts.c.open_marker.is_not(None))
            .order_by(alerts.c.opened_at.desc())
            .limit(50),
        ),
        drift=_first(
            connection,
            select(
                drift_reports.c.verdict, drift_reports.c.created_at, drift_reports.c.alias
            ).order_by(drift_reports.c.created_at.desc()),
        ),
        waiting=waiting,
        waiting_since=since,
        dataset=newest_dataset,
        new_examples=connection.execute(fresh).scalar_one(),
        runs=_all(
            connection, select(*run_columns).order_by(training_runs.c.started_at.desc()).limit(10)
        ),
        requests=_all(connection, unclaimed.order_by(training_requests.c.created_at).limit(10)),
        rollouts=current_rollouts(connection),
        adapters=versions,
        gate_reasons=_gate_reasons(connection, [version.digest for version in versions[:20]]),
        replicas=_all(connection, select(replicas).order_by(replicas.c.url)),
        leases=_all(
            connection,
            select(leases)
            .where(leases.c.owner != "", ~leases.c.name.like("training:%"))
            .order_by(leases.c.name)
            .limit(20),
        ),
    )


def _all(connection: Connection, query: Any) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in connection.execute(query)]


def _first(connection: Connection, query: Any) -> dict[str, Any] | None:
    row = connection.execute(query.limit(1)).first()
    return dict(row._mapping) if row else None


def _gate_reasons(connection: Connection, digests: list[str]) -> dict[str, str]:
    query = (
        select(evaluations.c.adapter_digest, evaluations.c.reason)
        .where(evaluations.c.adapter_digest.in_(digests))
        .order_by(evaluations.c.created_at)
    )
    return {row.adapter_digest: row.reason for row in connection.execute(query)}


def stations(facts: Facts) -> list[Station]:
    """The six, in the order of the circle."""
    traffic_state = (
        ("none in the last hour", "plain")
        if not facts.answers
        else (
            (f"{facts.failed} failed", "bad" if _failing(facts) else "attention")
            if facts.failed
            else ("none failed", "good")
        )
    )
    traffic = Station(
        "Traffic",
        "traffic",
        "/traffic",
        f"{facts.answers:,}",
        "answers in the last hour",
        *traffic_state,
        facts.last_answer_at,
        "last",
    )
    return [
        traffic,
        _signals(facts),
        _review(facts),
        _dataset(facts),
        _training(facts),
        _rollout(facts),
    ]


def _failing(facts: Facts) -> bool:
    return facts.failed >= _ERRORS_FEW and facts.failed / facts.answers > _ERRORS_BAD


def _signals(facts: Facts) -> Station:
    bad = any(alert["severity"] == "bad" for alert in facts.alerts)
    words = {
        "drift": ("drift", "attention"),
        "no_drift": ("no drift", "good"),
        "not_enough_data": ("not enough data yet", "plain"),
    }
    state, kind = (
        words.get(facts.drift["verdict"], (facts.drift["verdict"], "plain"))
        if facts.drift
        else ("not looked yet", "plain")
    )
    if bad:
        kind = "bad"
    return Station(
        "Signals",
        "drift",
        "/drift",
        str(len(facts.alerts)),
        "open alert" if len(facts.alerts) == 1 else "open alerts",
        state,
        kind,
        facts.drift["created_at"] if facts.drift else None,
        "looked",
    )


def _review(facts: Facts) -> Station:
    state, kind = (
        ("waiting for a person", "attention") if facts.waiting else ("nothing waits", "good")
    )
    return Station(
        "Review",
        "review",
        "/review",
        f"{facts.waiting:,}",
        "in the queue",
        state,
        kind,
        facts.waiting_since,
        "oldest",
    )


def _dataset(facts: Facts) -> Station:
    if facts.dataset is None:
        return Station(
            "Dataset",
            "dataset",
            "/datasets",
            str(facts.new_examples),
            "new examples",
            "no version yet",
            "plain",
            None,
            "built",
        )
    state = (
        f"{facts.dataset['name']} v{facts.dataset['version']},"
        f" {sum(facts.dataset['rows'].values()):,} rows"
    )
    return Station(
        "Dataset",
        "dataset",
        "/datasets",
        f"{facts.new_examples:,}",
        "new examples since",
        state,
        "plain",
        facts.dataset["created_at"],
        "built",
    )


def _training(facts: Facts) -> Station:
    running = next((run for run in facts.runs if run["state"] == "running"), None)
    if running:
        progress = running["progress"]
        share = progress.get("step", 0) / max(progress.get("steps", 0), 1)
        silent = facts.now - running["heartbeat_at"] > _RUN_SILENT_MS
        state, kind = (
            ("its worker is silent", "bad")
            if silent
            else (progress.get("stage", "running"), "information")
        )
        return Station(
            "Training",
            "runs",
            f"/runs/{running['id']}",
            f"{100 * share:.0f} %",
            f"of {running['alias']}",
            state,
            kind,
            running["started_at"],
            "started",
        )
    if facts.requests:
        return Station(
            "Training",
            "runs",
            "/runs",
            str(len(facts.requests)),
            "waiting for a worker",
            "requested",
            "attention",
            facts.requests[0]["created_at"],
            "asked",
        )
    if not facts.runs:
        return Station(
            "Training", "runs", "/runs", "0", "runs", "nothing trained yet", "plain", None, "ended"
        )
    last = facts.runs[0]
    kind = {"succeeded": "good", "failed": "bad"}.get(last["state"], "plain")
    return Station(
        "Training",
        "runs",
        f"/runs/{last['id']}",
        "0",
        "running",
        f"last one {last['state']}",
        kind,
        last["finished_at"],
        "ended",
    )


def _rollout(facts: Facts) -> Station:
    if not facts.rollouts:
        return Station(
            "Rollout",
            "adapters",
            "/adapters",
            "0",
            "aliases live",
            "the base answers everything",
            "plain",
            None,
            "changed",
        )
    newest = max(facts.rollouts.values(), key=lambda rollout: rollout.created_at)
    names = {adapter.digest: f"v{adapter.version}" for adapter in facts.adapters}
    if newest.candidate_digest:
        value, unit = (
            f"{100 * newest.candidate_share:.0f} %",
            (
                f"of {newest.alias} to"
                f" {names.get(newest.candidate_digest, newest.candidate_digest[:8])}"
            ),
        )
        return Station(
            "Rollout",
            "adapters",
            f"/adapters/{newest.alias}",
            value,
            unit,
            "trying a new version",
            "information",
            newest.created_at,
            "changed",
        )
    value = names.get(newest.stable_digest or "", "base")
    state, kind = (
        ("rolled back", "attention")
        if newest.state == "rolled_back"
        else ("pinned", "information")
        if newest.pinned
        else ("live", "good")
    )
    return Station(
        "Rollout",
        "adapters",
        f"/adapters/{newest.alias}",
        value,
        f"answers {newest.alias}",
        state,
        kind,
        newest.created_at,
        "since",
    )


def needs(facts: Facts) -> list[Need]:
    """What waits for a person, dearest first: answers that fail, then decisions, then the queue."""
    found: list[Need] = []
    ready = [replica for replica in facts.replicas if replica["state"] == "ready"]
    if facts.replicas and not ready:
        found.append(
            Need(
                100,
                "bad",
                "No engine replica can answer: every request fails.",
                "/adapters",
                max(replica["seen_at"] for replica in facts.replicas),
            )
        )
    elif len(ready) < len(facts.replicas):
        lost = [
            replica["url"] for replica in facts.replicas if replica["state"] in ("hung", "gone")
        ]
        if lost:
            found.append(
                Need(
                    80,
                    "bad",
                    f"{plural(len(lost), 'engine replica')} of {len(facts.replicas)} does not"
                    f" answer: {', '.join(lost)}.",
                    "/adapters",
                    None,
                )
            )
    if _failing(facts):
        found.append(
            Need(
                90,
                "bad",
                f"{facts.failed} of {facts.answers:,} answers failed in the last hour.",
                "/traffic?status=error",
                facts.last_answer_at,
            )
        )
    for alert in facts.alerts:
        if alert["state"] == "open":
            cost, kind = (
                (85, "bad")
                if alert["severity"] == "bad"
                else (60, "attention")
                if alert["severity"] == "attention"
                else (20, "information")
            )
            found.append(
                Need(
                    cost,
                    kind,
                    (
                        alert["title"]
                        if alert["title"].endswith((".", "!", "?"))
                        else f"{alert['title']}."
                    ),
                    "/drift",
                    alert["opened_at"],
                )
            )
    found += _needs_of_training(facts) + _needs_of_versions(facts)
    if facts.waiting:
        verb = "waits" if facts.waiting == 1 else "wait"
        found.append(
            Need(
                40,
                "attention",
                f"{plural(facts.waiting, 'conversation')} {verb} for review.",
                "/review",
                facts.waiting_since,
            )
        )
    return sorted(found, key=lambda need: (-need.cost, need.at or 0))


def _needs_of_training(facts: Facts) -> list[Need]:
    found = []
    seen: set[str] = set()
    for run in facts.runs:
        if run["state"] == "running" and facts.now - run["heartbeat_at"] > _RUN_SILENT_MS:
            found.append(
                Need(
                    55,
                    "bad",
                    f"The run that trains {run['alias']} is silent: its worker may be gone.",
                    f"/runs/{run['id']}",
                    run["heartbeat_at"],
                )
            )
        # Only when nothing newer trained that alias
        if run["state"] == "failed" and run["alias"] not in seen:
            found.append(
                Need(
                    50,
                    "attention",
                    f"The last run for {run['alias']} failed: {clip(run['error'], 120)}",
                    f"/runs/{run['id']}",
                    run["finished_at"],
                )
            )
        seen.add(run["alias"])
    return found


def _needs_of_versions(facts: Facts) -> list[Need]:
    """Newest versions that somebody must decide about, and versions that a replica refused."""
    found = []
    for alias, rollout in facts.rollouts.items():
        newest = next((adapter for adapter in facts.adapters if adapter.name == alias), None)
        if newest is None or newest.digest in (
            rollout.stable_digest,
            rollout.candidate_digest,
            rollout.previous_digest,
        ):
            continue
        stable = next(
            (adapter for adapter in facts.adapters if adapter.digest == rollout.stable_digest), None
        )
        if stable is not None and stable.version > newest.version:
            continue
        if newest.gate == "inconclusive":
            found.append(
                Need(
                    45,
                    "attention",
                    f"The gate could not decide on {newest.label}:"
                    f" {facts.gate_reasons.get(newest.digest, 'no reason recorded')}",
                    f"/adapters/{alias}",
                    newest.created_at,
                )
            )
        if newest.gate == "pass" and rollout.pinned:
            found.append(
                Need(
                    45,
                    "attention",
                    f"{newest.label} passed its gate, but {alias} is pinned.",
                    f"/adapters/{alias}",
                    newest.created_at,
                )
            )
    labels = {adapter.digest: (adapter.label, adapter.name) for adapter in facts.adapters}
    for replica in facts.replicas:
        for digest, reason in (replica["refused"] or {}).items():
            label, name = labels.get(digest, (digest[:8], ""))
            found.append(
                Need(
                    58,
                    "bad",
                    f"{replica['url']} refuses {label}: {clip(reason, 160)}",
                    f"/adapters/{name}" if name else "/adapters",
                    replica["seen_at"],
                )
            )
    return found


def headline(facts: Facts, found: list[Need]) -> str:
    """The sentence people come for."""
    if facts.last_answer_at is None and not facts.adapters:
        return "Nothing has been asked yet"
    if not found:
        return "Nothing needs you"
    first = clip(found[0].sentence, 140).rstrip(".")
    return first


def is_new(facts: Facts) -> bool:
    """An installation that was never used: Overview then teaches the first steps."""
    return facts.last_answer_at is None and not facts.adapters


@dataclass(frozen=True)
class Doing:
    """How one version of an alias did: over `n` answers."""

    label: str
    n: int
    failed: int
    rated: int
    liked: int
    ttft_ms: float | None


@dataclass(frozen=True)
class AliasState:
    alias: str
    rollout: Rollout
    live_since: int
    live: str
    candidate: str
    doing: list[Doing]


def alias_states(connection: Connection, facts: Facts) -> list[AliasState]:
    """Every alias with what is live and how the versions did on the alias's newest answers."""
    labels: dict[str | None, str] = {
        adapter.digest: f"v{adapter.version}" for adapter in facts.adapters
    }
    labels[None] = "base"
    found = []
    for alias, rollout in sorted(facts.rollouts.items()):
        since = rollout.created_at
        for older in rollout_history(connection, alias):
            if older.stable_digest != rollout.stable_digest:
                break
            since = older.created_at
        wanted: list[str | None] = [rollout.candidate_digest] if rollout.candidate_digest else []
        wanted += [rollout.stable_digest, rollout.previous_digest]
        doing = doing_of(connection, alias, facts.now)
        order = [digest for index, digest in enumerate(wanted) if digest not in wanted[:index]]
        rows = [
            Doing(labels.get(digest, str(digest)[:8]), *doing[digest])
            for digest in order
            if digest in doing
        ]
        live = labels.get(rollout.stable_digest, str(rollout.stable_digest)[:8])
        candidate = (
            labels.get(rollout.candidate_digest, rollout.candidate_digest[:8])
            if rollout.candidate_digest
            else ""
        )
        found.append(AliasState(alias, rollout, since, live, candidate, rows))
    return found


def doing_of(
    connection: Connection, alias: str, now: int, days: int = 7
) -> dict[str | None, tuple[int, int, int, int, float | None]]:
    """Adapter digest (None: the base) → (answers, failed, rated, liked, mean time to first byte in
    ms), over the newest answers.
    """
    newest = (
        select(
            interactions.c.id,
            interactions.c.adapter_digest,
            interactions.c.api_key_id,
            interactions.c.ttft_ms,
            service_failed().label("failed"),
        )
        .where(interactions.c.alias == alias, interactions.c.created_at > now - days * 24 * HOUR_MS)
        .order_by(interactions.c.created_at.desc())
        .limit(_MOST)
        .subquery()
    )
    failed = func.sum(case((newest.c.failed, 1), else_=0))
    counts = select(
        newest.c.adapter_digest,
        func.count().label("n"),
        failed.label("failed"),
        func.avg(newest.c.ttft_ms).label("ttft"),
    ).group_by(newest.c.adapter_digest)
    voted = (
        select(
            newest.c.adapter_digest,
            func.count().label("rated"),
            func.sum(case((ratings.c.rating > 0, 1), else_=0)).label("liked"),
        )
        .join(ratings, and_(ratings.c.interaction_id == newest.c.id, ratings.c.rating != 0))
        .where(same_group(ratings.c.api_key_id, newest.c.api_key_id))
        .group_by(newest.c.adapter_digest)
    )
    votes = {
        row.adapter_digest: (int(row.rated), int(row.liked)) for row in connection.execute(voted)
    }
    return {
        row.adapter_digest: (
            int(row.n),
            int(row.failed),
            *votes.get(row.adapter_digest, (0, 0)),
            float(row.ttft) if row.ttft is not None else None,
        )
        for row in connection.execute(counts)
    }
