"""What an incident concerns: how many users and requests, which version since when, what else
changed around then, and which other incidents are like it. Bounded queries, for its page.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from monitoring.alert_store import Alert, load_alerts
from whet.health.version_summary import VersionSummary, live_since, summarise_versions
from whet.registry import Rollout, current_rollouts, list_adapters
from whet.tables import alerts, audit, documents, interactions, traffic_buckets
from whet.traffic_marks import Mark, load_marks

_HOUR_MS = 3_600_000
_AROUND_MS = 24 * _HOUR_MS  # before an incident began: what may have caused it
_AFTER_MS = _HOUR_MS  # an instant that is only known to the hour
_NEWEST = 20_000  # conversations of which users are counted: one index walk
_SIMILAR_MS = 90 * 86_400_000
_SIMILAR = 20
# Entries of the audit log that change what is asked or answered, by their beginning
_CAUSES = ("retrieval.", "collection.", "document.", "settings.", "review.guideline")


@dataclass(frozen=True, slots=True)
class Affected:
    """Who asked while an incident went on."""

    requests: int
    users: int
    is_at_least: bool  # more conversations than were looked at: `users` is a lower bound
    shown: int  # conversations that show the change and are kept
    shown_users: int


@dataclass(frozen=True, slots=True)
class LiveVersion:
    """What answers the alias, and what a roll-back would do; `summaries`: the version's and the
    other's figures of the last days.
    """

    rollout: Rollout
    label: str
    since: int
    back: str  # what answers after a roll-back; empty: there is nothing to go back to
    summaries: list[VersionSummary]

    @property
    def sentence(self) -> str:
        """What rolling back does."""
        alias = self.rollout.alias
        if self.rollout.candidate_digest:
            return (
                f"The version on trial gets no more requests; {self.back} answers all of {alias}."
            )
        return f"{self.back} answers every new request of {alias} again, instead of {self.label}."


def count_affected(connection: Connection, alert: Alert, since_at: int, now: int) -> Affected:
    """Count requests and users of the alias since the incident began, to its end or now."""
    end = now if alert.is_open else alert.changed_at
    begin = since_at // _HOUR_MS * _HOUR_MS
    counted = select(func.coalesce(func.sum(traffic_buckets.c.requests), 0)).where(
        traffic_buckets.c.width_ms == _HOUR_MS,
        traffic_buckets.c.alias == alert.alias,
        traffic_buckets.c.start_at.between(begin, end),
    )
    newest = (
        select(interactions.c.end_user)
        .where(interactions.c.alias == alert.alias, interactions.c.created_at.between(begin, end))
        .order_by(interactions.c.created_at.desc())
        .limit(_NEWEST)
        .subquery()
    )
    looked, users = connection.execute(
        select(func.count(), func.count(newest.c.end_user.distinct())).select_from(newest)
    ).one()
    kept = alert.detail.interaction_ids
    shown = connection.scalar(
        select(func.count(interactions.c.end_user.distinct())).where(interactions.c.id.in_(kept))
    )
    requests = max(int(connection.scalar(counted) or 0), int(looked))
    return Affected(requests, int(users), looked == _NEWEST, len(kept), int(shown or 0))


def load_live_version(connection: Connection, alias: str, now: int) -> LiveVersion | None:
    """Read what answers the alias; None without a rollout."""
    rollout = current_rollouts(connection).get(alias)
    if rollout is None:
        return None
    versions = list_adapters(connection, alias, removed=True)
    labels: dict[str | None, str] = {one.digest: f"v{one.version}" for one in versions}
    labels[None] = "the base"
    by_digest = summarise_versions(connection, alias, labels, now)

    def label(digest: str | None) -> str:
        return labels.get(digest, str(digest)[:8])

    on_trial = rollout.candidate_digest
    other = rollout.stable_digest if on_trial else rollout.previous_digest
    can_go_back = bool(on_trial or rollout.stable_digest)
    concerned = [on_trial or rollout.stable_digest, other]
    return LiveVersion(
        rollout=rollout,
        label=label(on_trial or rollout.stable_digest),
        since=rollout.created_at if on_trial else live_since(connection, rollout),
        back=label(other) if can_go_back else "",
        summaries=[by_digest[one] for one in dict.fromkeys(concerned) if one in by_digest],
    )


def load_changes(connection: Connection, alias: str, since_at: int) -> list[Mark]:
    """Read what else changed around the time, the newest first: versions, datasets, documents,
    settings, guidelines.
    """
    start, end = since_at - _AROUND_MS, since_at + _AFTER_MS
    marks = [mark for mark in load_marks(connection, start, end, alias) if mark.kind != "incident"]
    entries = (
        select(audit.c.action, audit.c.actor, audit.c.subject, audit.c.created_at)
        .where(audit.c.created_at.between(start, end))
        .order_by(audit.c.sequence.desc())
        .limit(500)
    )
    for row in connection.execute(entries):
        if row.action.startswith(_CAUSES):
            text = f"{row.action} {row.subject[:80]}, by {row.actor}"
            marks.append(
                Mark(row.created_at, "audit", text, f"/settings/audit?action={row.action}")
            )
    added = (
        select(documents.c.collection, func.count().label("n"), func.max(documents.c.added_at))
        .where(documents.c.added_at.between(start, end))
        .group_by(documents.c.collection)
    )
    for collection, count, at in connection.execute(added):
        what = "document" if count == 1 else "documents"
        marks.append(
            Mark(
                at, "documents", f"{count} {what} added to {collection}", f"/documents/{collection}"
            )
        )
    return sorted(marks, key=lambda mark: (-mark.at, mark.text))


def list_similar(connection: Connection, alert: Alert) -> list[Alert]:
    """Return other alerts of the alias with the same kind and leading signal, the newest first."""
    query = (
        select(alerts)
        .where(
            alerts.c.alias == alert.alias,
            alerts.c.kind == alert.kind,
            alerts.c.id != alert.id,
            alerts.c.opened_at > alert.opened_at - _SIMILAR_MS,
        )
        .order_by(alerts.c.opened_at.desc())
        .limit(5 * _SIMILAR)
    )
    mine = leading_signal(alert)
    found = load_alerts(connection, query)
    return [one for one in found if leading_signal(one) == mine][:_SIMILAR]


def leading_signal(alert: Alert) -> str:
    """Name of the signal that an alert is about; empty where it has none."""
    by_day = alert.detail.incident
    names = [by_day.signal if by_day else "", *(one.name for one in alert.detail.signals[:1])]
    return next((name for name in names if name), "")


def group_similar(found: list[Alert]) -> list[list[Alert]]:
    """Put alerts of one alias, kind and leading signal together, each group in the given order."""
    groups: dict[tuple[str, str, str], list[Alert]] = {}
    for alert in found:
        key = alert.alias, alert.kind, leading_signal(alert)
        groups.setdefault(key, []).append(alert)
    return list(groups.values())
