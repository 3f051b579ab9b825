"""The hourly job: every hour that is over goes through the detector of its alias once, before its
day does; what it shows becomes an alert as a day's does.
"""

from __future__ import annotations

from sqlalchemy import Connection

from monitoring.dayjob import run_alias as run_days_of
from monitoring.dayjob import to_alerts
from monitoring.days import HOUR_MS, next_hour, read_hour, rows_of_hour
from monitoring.daystore import decide, detector_settings, expected_incidents, last_day, open_watch
from monitoring.detector.hours import HOURS, RememberedHour
from monitoring.detector.watch import Watch
from monitoring.each import for_each_alias
from monitoring.hourstore import last_hour, store_hour
from whet.context import Context
from whet.database import reading

# After the hour: its answers are complete and their rows are in the log by then
_GRACE_MS = 900_000
# Taken in by one run: what nine weeks of a log hold is history after some hours, without holding
# the scheduler up
_MOST_HOURS = 48


def run_hours(context: Context, now: int) -> str | None:
    """Take in every hour that is over, of each alias."""

    def one(alias: str) -> str:
        _, changed = run_alias(context, alias, now)
        return (
            f"{changed} {'change' if changed == 1 else 'changes'} of incidents" if changed else ""
        )

    return for_each_alias(context, "Judging the hours", one)


def run_alias(context: Context, alias: str, now: int) -> tuple[int, int]:
    """(hours taken in, incidents that opened or grew). Each hour is committed by itself.

    An hour is judged when its volume carries it and its day was not judged before; else it is
    history, or only counted.
    """
    newest, settings = (now - _GRACE_MS) // HOUR_MS - 1, detector_settings(context)
    hour = _next(context, alias, newest - settings.history_days * HOURS)
    if hour is None or hour > newest:
        return 0, 0
    run_days_of(context, alias, now)  # a day that is over comes before the hours of the next
    watch: Watch | None = None
    hours = changed = 0
    while hour is not None and hour <= newest and hours < _MOST_HOURS:
        with reading(context.database) as connection:
            requests = rows_of_hour(connection, alias, hour)
        if requests < settings.hour_rows:
            store_hour(context, alias, RememberedHour(hour, requests), now, lambda _: None)
            if watch is not None:
                watch.resume_hour(RememberedHour(hour, requests))
        else:
            watch = watch or open_watch(context, alias)
            found, kept = _take_in(context, watch, hour, requests, now)
            changed += found
            watch = watch if kept else None
        hours += 1
        hour = _next(context, alias, hour + 1)
    return hours, changed


def _next(context: Context, alias: str, oldest: int) -> int | None:
    with reading(context.database) as connection:
        last = last_hour(connection, alias)
        return next_hour(connection, alias, oldest if last is None else max(oldest, last + 1))


def _take_in(
    context: Context, watch: Watch, hour: int, requests: int, now: int
) -> tuple[int, bool]:
    """(incidents that opened or grew, whether the hour counts)."""
    with reading(context.database) as connection:
        decide(watch, expected_incidents(connection, watch.alias), hour // HOURS, now)
        day = last_day(connection, watch.alias)
        rows = read_hour(connection, watch.alias, hour, requests, watch.settings, context.secret)
    changed, remembered = watch.step_hour(
        hour, rows, requests, judge=day is None or hour // HOURS > day
    )

    def open_alerts(connection: Connection) -> None:
        to_alerts(connection, watch, changed, now)

    kept = store_hour(context, watch.alias, remembered, now, open_alerts)
    return (len(changed), True) if kept else (0, False)
