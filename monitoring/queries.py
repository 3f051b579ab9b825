"""What the commands, pages and metrics count about alerts and reviews."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, case, func, or_, select

from monitoring.coverage import Coverage, coverage_of_days
from monitoring.history_store import first_day, newest_days, newest_weeks
from whet.json_types import JsonObject
from whet.settings import Settings
from whet.tables import (
    alerts,
    notifications,
    review_items,
)
from whet.urls import notification_service, notification_target

_COVERED_DAYS = 28  # newest days that tell what is watched now
_AUDITED_WEEKS = 5  # within which a judged answer counts as watching quality


def read_coverage(connection: Connection, alias: str) -> Coverage | None:
    """What is watched of an alias and what is not; None without a day."""
    stored = newest_days(connection, alias, _COVERED_DAYS)
    first = first_day(connection, alias)
    if not stored or first is None:
        return None
    weeks = newest_weeks(connection, alias, _AUDITED_WEEKS)
    is_audited = any(week.judged for week in weeks)
    return coverage_of_days(alias, stored, first, is_audited)


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
) -> list[JsonObject]:
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
