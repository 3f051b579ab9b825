"""Loads a health reading: bounded queries, and one look at this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, RowMapping, Select, case, func, select

from whet.context import Context
from whet.database import reading
from whet.health.machine import read_machine
from whet.health.records import (
    HealthReading,
    Machine,
    SampleRate,
    ScheduledJob,
    UndeliveredNotification,
)
from whet.health.version_summary import AliasState, load_alias_states
from whet.outcomes import service_failed
from whet.registry import current_rollouts, list_adapters
from whet.settings import Settings
from whet.tables import (
    alerts,
    audit_weeks,
    datasets,
    drift_reports,
    evaluations,
    interactions,
    leases,
    notifications,
    replicas,
    review_items,
    scheduled_jobs,
    training_requests,
    training_runs,
)
from whet.urls import notification_service, notification_target

HOUR_MS = 3_600_000
_DAY_MS = 24 * HOUR_MS
_SAMPLE_DAYS = 28  # an older week says nothing of now
# Lower end of the interval from which a person has to know: one answer in ten is wrong for certain
SAMPLE_WRONG = 0.1
_UNDELIVERED = 200


def load_reading(
    context: Context, now: int, aliases: list[AliasState] | None = None
) -> HealthReading:
    """Read everything. Raises OperationalError when the database does not answer.

    `aliases`: those of an earlier reading, where they are young enough; they cost the most.
    """
    machine = read_machine(Path(context.settings.home))
    with reading(context.database) as connection:
        return read_database(connection, context.settings, now, machine, aliases)


def read_database(
    connection: Connection,
    settings: Settings,
    now: int,
    machine: Machine,
    aliases: list[AliasState] | None = None,
) -> HealthReading:
    """Read the database's part, beside what the machine says."""
    answers, failed, failing_since = connection.execute(_last_hour(now)).one()
    last = select(interactions.c.created_at).order_by(interactions.c.created_at.desc()).limit(1)
    waiting, since = connection.execute(
        select(func.count(), func.min(review_items.c.created_at)).where(
            review_items.c.state == "waiting"
        )
    ).one()
    versions, rollouts = list_adapters(connection), current_rollouts(connection)
    return HealthReading(
        now=now,
        last_answer_at=connection.execute(last).scalar(),
        answers=answers,
        failed=failed,
        failing_since=failing_since,
        alerts=_open_alerts(connection),
        drift=_newest_drift(connection),
        waiting=waiting,
        waiting_since=since,
        dataset=_newest_dataset(connection),
        runs=_recent_runs(connection),
        requests=_open_requests(connection),
        rollouts=rollouts,
        adapters=versions,
        gate_reasons=_gate_reasons(connection, [version.digest for version in versions[:20]]),
        replicas=_rows(connection, select(replicas).order_by(replicas.c.url)),
        leases={row["name"]: row for row in _leases(connection)},
        jobs=_jobs(connection),
        undelivered=load_undelivered(connection, settings),
        samples=_samples(connection, now),
        aliases=(
            load_alias_states(connection, rollouts, versions, now) if aliases is None else aliases
        ),
        machine=machine,
    )


def _rows(connection: Connection, query: Select[*tuple[object, ...]]) -> Sequence[RowMapping]:
    return connection.execute(query).mappings().all()


def _first(connection: Connection, query: Select[*tuple[object, ...]]) -> RowMapping | None:
    return connection.execute(query.limit(1)).mappings().first()


def _last_hour(now: int) -> Select[int, int, int | None]:
    return select(
        func.count(),
        func.coalesce(func.sum(case((service_failed(), 1), else_=0)), 0),
        func.min(case((service_failed(), interactions.c.created_at))),
    ).where(interactions.c.created_at > now - HOUR_MS)


def _open_alerts(connection: Connection) -> Sequence[RowMapping]:
    query = select(alerts).where(alerts.c.open_marker.is_not(None))
    return _rows(connection, query.order_by(alerts.c.opened_at.desc()).limit(50))


def _newest_drift(connection: Connection) -> RowMapping | None:
    query = select(drift_reports.c.verdict, drift_reports.c.created_at, drift_reports.c.alias)
    return _first(connection, query.order_by(drift_reports.c.created_at.desc()))


def _newest_dataset(connection: Connection) -> RowMapping | None:
    """Versions made in one go share their time; the higher one is the newer."""
    order = (datasets.c.created_at.desc(), datasets.c.version.desc())
    return _first(connection, select(datasets).order_by(*order))


def _recent_runs(connection: Connection) -> Sequence[RowMapping]:
    left_out = ("curve", "recipe", "estimate")
    columns = [column for column in training_runs.c if column.name not in left_out]
    query = select(*columns).order_by(training_runs.c.started_at.desc())
    return _rows(connection, query.limit(10))


def _open_requests(connection: Connection) -> Sequence[RowMapping]:
    begun = select(training_runs.c.id).where(training_runs.c.request_id == training_requests.c.id)
    query = select(training_requests).where(~begun.exists())
    return _rows(connection, query.order_by(training_requests.c.created_at).limit(10))


def _gate_reasons(connection: Connection, digests: list[str]) -> dict[str, str]:
    query = (
        select(evaluations.c.adapter_digest, evaluations.c.reason)
        .where(evaluations.c.adapter_digest.in_(digests))
        .order_by(evaluations.c.created_at)
    )
    return {row.adapter_digest: row.reason for row in connection.execute(query)}


def _leases(connection: Connection) -> Sequence[RowMapping]:
    """Those that say something of processes; of trainings their runs tell more."""
    query = select(leases).where(~leases.c.name.like("training:%"))
    return _rows(connection, query.order_by(leases.c.name).limit(20))


def _jobs(connection: Connection) -> list[ScheduledJob]:
    query = select(scheduled_jobs).order_by(scheduled_jobs.c.name)
    return [ScheduledJob(**row) for row in _rows(connection, query)]


def load_undelivered(
    connection: Connection, settings: Settings, alert_id: str = ""
) -> list[UndeliveredNotification]:
    """Read messages that were refused and are still tried, oldest first."""
    services = {
        notification_target(url): notification_service(url) for url in settings.notify_urls.split()
    }
    query = (
        select(notifications, alerts.c.title, alerts.c.severity)
        .join(alerts, alerts.c.id == notifications.c.alert_id)
        .where(
            notifications.c.delivered_at.is_(None),
            notifications.c.attempts > 0,
            notifications.c.target.in_(list(services)),
            *([notifications.c.alert_id == alert_id] if alert_id else []),
        )
        .order_by(notifications.c.created_at)
        .limit(_UNDELIVERED)
    )
    return [
        UndeliveredNotification(
            row.alert_id,
            row.title,
            row.severity,
            row.event,
            services[row.target],
            row.attempts,
            row.error or "",
            row.created_at,
            row.next_at,
        )
        for row in connection.execute(query)
    ]


def _samples(connection: Connection, now: int) -> list[SampleRate]:
    query = (
        select(audit_weeks)
        .where(
            audit_weeks.c.rate.is_not(None),
            audit_weeks.c.week >= now // _DAY_MS - _SAMPLE_DAYS,
        )
        .order_by(audit_weeks.c.alias, audit_weeks.c.week.desc())
    )
    found: dict[str, SampleRate] = {}
    ended: set[str] = set()
    for row in connection.execute(query):
        if row.alias not in found:
            begin = row.week * _DAY_MS
            found[row.alias] = SampleRate(row.alias, row.judged, row.rate, row.low, row.high, begin)
        elif row.alias not in ended and row.low >= SAMPLE_WRONG:
            one = found[row.alias]
            found[row.alias] = SampleRate(
                one.alias, one.judged, one.rate, one.low, one.high, row.week * _DAY_MS
            )
            continue
        if row.low < SAMPLE_WRONG:
            ended.add(row.alias)
    return list(found.values())
