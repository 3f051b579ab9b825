"""What monitoring deletes of old conversations: scores, samples of days, and drift reports.

Statistics of days and hours and closed alerts stay, since what is usual follows from them. They
hold numbers, and words that several users used, but no text of a conversation.
"""

from __future__ import annotations

from sqlalchemy import select, update

from monitoring.alert_store import open_alerts
from monitoring.rendering import forget_page
from whet.context import Context
from whet.database import reading, writing
from whet.retention import DAY_MS, Cleaning
from whet.tables import drift_days, drift_reports


def clean(context: Context, cleaning: Cleaning) -> None:
    """One night's work of the package."""
    cleaning.delete_rows("monitoring")
    _remove_samples(context, cleaning)
    _remove_reports(context, cleaning)


def _remove_samples(context: Context, cleaning: Cleaning) -> None:
    """Remove the samples of days that began before the limit: ids, vectors and hashes of users."""
    old = drift_days.c.day < -(-cleaning.before // DAY_MS), drift_days.c.sample_path.is_not(None)
    with reading(context.database) as connection:
        columns = drift_days.c.alias, drift_days.c.day, drift_days.c.sample_path
        found = connection.execute(select(*columns).where(*old)).all()
    for row in found:
        key = drift_days.c.alias == row.alias, drift_days.c.day == row.day
        with writing(context.database) as connection:  # first: a path without a file is an error
            connection.execute(update(drift_days).where(*key).values(sample_path=None))
        context.store.remove_folder(row.sample_path)
    cleaning.count("samples of days", len(found))


def _remove_reports(context: Context, cleaning: Cleaning) -> None:
    """Remove old drift reports with their files, except those that an open alert names."""
    with reading(context.database) as connection:
        named = {one for alert in open_alerts(connection) for one in alert.detail.reports}
        columns = drift_reports.c.id, drift_reports.c.report_path
        old = connection.execute(
            select(*columns).where(drift_reports.c.created_at < cleaning.before)
        ).all()
    gone = [row for row in old if row.id not in named]
    cleaning.delete_keys(drift_reports.c.id, [row.id for row in gone])
    for row in gone:
        forget_page(context, row.id)
        if row.report_path:
            context.store.remove_folder(row.report_path)
