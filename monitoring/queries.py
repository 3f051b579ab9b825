"""What the commands, pages and metrics read: drift reports and alerts, always bounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, case, func, or_, select

from monitoring.coverage import Coverage, coverage_of_days
from whet.errors import NotFoundError
from whet.settings import Settings
from whet.tables import (
    alerts,
    audit_weeks,
    drift_days,
    drift_hours,
    drift_reports,
    notifications,
    review_items,
)
from whet.urls import notification_service, notification_target

_COVERED_DAYS = 28  # newest days that tell what is watched now
_AUDITED_WEEKS = 5  # within which a judged answer counts as watching quality
_LIGHT = [column for column in drift_reports.c if column.name != "signals"]


def list_reports(
    connection: Connection,
    alias: str | None = None,
    *,
    limit: int = 50,
    signals: bool = False,
    until: int | None = None,
) -> list[dict[str, Any]]:
    """Newest first; `signals` includes what each signal said, `until` (ms) leaves out newer ones."""
    query = (
        select(*(drift_reports.c if signals else _LIGHT))
        .order_by(drift_reports.c.created_at.desc(), drift_reports.c.id.desc())
        .limit(limit)
    )
    if alias:
        query = query.where(drift_reports.c.alias == alias)
    if until is not None:
        query = query.where(drift_reports.c.created_at <= until)
    return [dict(row) for row in connection.execute(query).mappings()]


def find_report(connection: Connection, report_id: str) -> dict[str, Any]:
    """Raises NotFoundError."""
    row = (
        connection.execute(select(drift_reports).where(drift_reports.c.id == report_id))
        .mappings()
        .first()
    )
    if row is None:
        raise NotFoundError(
            f"There is no drift report {report_id!r}.", hint="`whet drift list` prints them."
        )
    return dict(row)


def last_snapshot_at(connection: Connection, alias: str) -> int | None:
    """When Evidently's report was last stored for an alias (ms)."""
    at: int | None = connection.scalar(
        select(func.max(drift_reports.c.created_at)).where(
            drift_reports.c.alias == alias, drift_reports.c.report_path.is_not(None)
        )
    )
    return at


def report_if_there(connection: Connection, report_id: str) -> dict[str, Any] | None:
    row = (
        connection.execute(select(*_LIGHT).where(drift_reports.c.id == report_id))
        .mappings()
        .first()
    )
    return dict(row) if row else None


def aliases_with_reports(connection: Connection) -> list[str]:
    """One index step per alias, however many reports there are."""
    found, last = [], ""
    while (
        following := connection.scalar(
            select(func.min(drift_reports.c.alias)).where(drift_reports.c.alias > last)
        )
    ) is not None:
        found.append(following)
        last = following
    return found


def latest_report(connection: Connection, alias: str) -> dict[str, Any] | None:
    found = list_reports(connection, alias, limit=1, signals=True)
    return found[0] if found else None


def newest_days(connection: Connection, alias: str, limit: int) -> list[dict[str, Any]]:
    """The newest days of an alias, oldest first."""
    query = (
        select(drift_days)
        .where(drift_days.c.alias == alias)
        .order_by(drift_days.c.day.desc())
        .limit(limit)
    )
    return [dict(row) for row in connection.execute(query).mappings()][::-1]


def first_day(connection: Connection, alias: str) -> int | None:
    """The first day of an alias that was ever taken in."""
    query = select(func.min(drift_days.c.day)).where(drift_days.c.alias == alias)
    found: int | None = connection.scalar(query)
    return found


def read_coverage(connection: Connection, alias: str) -> Coverage | None:
    """What is watched of an alias and what is not; None without a day."""
    stored = newest_days(connection, alias, _COVERED_DAYS)
    first = first_day(connection, alias)
    if not stored or first is None:
        return None
    weeks = newest_weeks(connection, alias, _AUDITED_WEEKS)
    is_audited = any(row["judged"] for row in weeks)
    return coverage_of_days(alias, stored, first, is_audited)


def newest_hours(connection: Connection, alias: str, since: int) -> list[dict[str, Any]]:
    """The hours of an alias from `since` (hours since 1970-01-01) on, oldest first: their requests,
    and whether they were judged.
    """
    query = select(drift_hours.c.hour, drift_hours.c.rows, drift_hours.c.judged).where(
        drift_hours.c.alias == alias, drift_hours.c.hour >= since
    )
    return [dict(row) for row in connection.execute(query.order_by(drift_hours.c.hour)).mappings()]


def newest_weeks(connection: Connection, alias: str, limit: int) -> list[dict[str, Any]]:
    """The newest weeks of an alias's error rate, oldest first, without their populations by day."""
    columns = [column for column in audit_weeks.c if column.name != "population"]
    query = (
        select(*columns)
        .where(audit_weeks.c.alias == alias)
        .order_by(audit_weeks.c.week.desc())
        .limit(limit)
    )
    return [dict(row) for row in connection.execute(query).mappings()][::-1]


def list_alerts(
    connection: Connection,
    alias: str | None = None,
    *,
    only_open: bool = False,
    only_closed: bool = False,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """Open ones first, then newest first."""
    query = (
        select(alerts)
        .order_by(alerts.c.open_marker.is_(None), alerts.c.opened_at.desc(), alerts.c.id.desc())
        .limit(limit)
    )
    if alias:
        query = query.where(alerts.c.alias == alias)
    if only_open:
        query = query.where(alerts.c.open_marker.is_not(None))
    if only_closed:
        query = query.where(alerts.c.open_marker.is_(None))
    return [dict(row) for row in connection.execute(query).mappings()]


def find_alert(connection: Connection, alert_id: str) -> dict[str, Any]:
    """Raises NotFoundError."""
    row = connection.execute(select(alerts).where(alerts.c.id == alert_id)).mappings().first()
    if row is None:
        raise NotFoundError(
            f"There is no alert {alert_id!r}.", hint="`whet alerts list` prints them."
        )
    return dict(row)


def review_states(
    connection: Connection, alert_id: str, interaction_ids: Sequence[str]
) -> dict[str, int]:
    """State → the alert's conversations in the review queue, whatever brought them there; `brought`:
    those that the alert did.
    """
    is_its_own = review_items.c.alert_id == alert_id
    query = (
        select(
            review_items.c.state,
            func.count().label("items"),
            func.sum(case((is_its_own, 1), else_=0)).label("brought"),
        )
        .where(or_(is_its_own, review_items.c.interaction_id.in_(list(interaction_ids))))
        .group_by(review_items.c.state)
    )
    rows = connection.execute(query).all()
    found = {str(row.state): int(row.items) for row in rows}
    return found | {"brought": sum(int(row.brought) for row in rows)} if rows else {}


def list_notifications(
    connection: Connection, alert_id: str, settings: Settings
) -> list[dict[str, Any]]:
    """Messages about one alert with their delivery, oldest first. The address is not shown."""
    services = {
        notification_target(url): notification_service(url) for url in settings.notify_urls.split()
    }
    query = select(notifications).where(notifications.c.alert_id == alert_id)
    order = (notifications.c.created_at, notifications.c.event.desc())
    return [
        {**row, "service": services.get(row["target"], "an address that was removed")}
        for row in connection.execute(query.order_by(*order)).mappings()
    ]


def open_counts(connection: Connection) -> dict[str, int]:
    """Severity → open or acknowledged alerts."""
    query = (
        select(alerts.c.severity, func.count().label("open"))
        .where(alerts.c.open_marker.is_not(None))
        .group_by(alerts.c.severity)
    )
    return {row.severity: row.open for row in connection.execute(query)}
