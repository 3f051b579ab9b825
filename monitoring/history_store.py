"""Reads what was kept of days, hours and weeks, always bounded. Imports nothing that computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from sqlalchemy import Connection, RowMapping, Select, func, select

from whet.json_types import JsonObject
from whet.records.monitoring import AUDIT_POPULATION, DAY_CONFIRMED, DAY_STATISTICS, DayRecord
from whet.tables import audit_weeks, drift_days, drift_hours


@dataclass(frozen=True)
class StoredDay:
    """A row of `drift_days`."""

    alias: str
    day: int  # since 1970-01-01
    rows: int
    statistics: DayRecord
    confirmed: list[list[str]]  # charts that crossed and were confirmed
    judged: bool
    sample_path: str | None
    created_at: int


class StoredHour(NamedTuple):
    """What pages show of an hour."""

    hour: int  # since 1970-01-01
    rows: int
    judged: bool


@dataclass(frozen=True)
class AuditWeek:
    """A row of `audit_weeks`: a week's error rate."""

    alias: str
    week: int  # its Monday, in days since 1970-01-01
    drawn: int
    judged: int
    wrong: int
    rate: float | None
    low: float | None
    high: float | None
    effective: float | None
    usual: float | None
    verdict: str
    sentence: str
    changed_at: int
    population: dict[str, dict[str, int]] | None = None  # None: it was not read

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the rate; 0 to 1 while nothing is judged."""
        return (
            0.0 if self.low is None else self.low,
            1.0 if self.high is None else self.high,
        )

    def as_json(self) -> JsonObject:
        """Return what programs are told, without the population."""
        return {name: value for name, value in asdict(self).items() if name != "population"}


def _day_of(row: RowMapping) -> StoredDay:
    statistics = DAY_STATISTICS.decode(row["statistics"])
    confirmed = DAY_CONFIRMED.decode(row["confirmed"])
    return StoredDay(**{**row, "statistics": statistics, "confirmed": confirmed})


def _load_days(connection: Connection, query: Select[*tuple[object, ...]]) -> list[StoredDay]:
    return [_day_of(row) for row in connection.execute(query).mappings()]


def all_days(connection: Connection, alias: str) -> list[StoredDay]:
    """Every day of an alias, oldest first."""
    query = select(drift_days).where(drift_days.c.alias == alias)
    return _load_days(connection, query.order_by(drift_days.c.day))


def newest_days(connection: Connection, alias: str, limit: int) -> list[StoredDay]:
    """The newest days of an alias, oldest first."""
    query = select(drift_days).where(drift_days.c.alias == alias)
    return _load_days(connection, query.order_by(drift_days.c.day.desc()).limit(limit))[::-1]


def first_day(connection: Connection, alias: str) -> int | None:
    """The first day of an alias that was ever taken in."""
    query = select(func.min(drift_days.c.day)).where(drift_days.c.alias == alias)
    found: int | None = connection.scalar(query)
    return found


def newest_hours(connection: Connection, alias: str, since: int) -> list[StoredHour]:
    """The hours of an alias from `since` (hours since 1970-01-01) on, oldest first: their requests,
    and whether they were judged.
    """
    query = select(drift_hours.c.hour, drift_hours.c.rows, drift_hours.c.judged).where(
        drift_hours.c.alias == alias, drift_hours.c.hour >= since
    )
    return [StoredHour(*row) for row in connection.execute(query.order_by(drift_hours.c.hour))]


def newest_weeks(connection: Connection, alias: str, limit: int) -> list[AuditWeek]:
    """The newest weeks of an alias's error rate, oldest first, without their populations by day."""
    columns = [column for column in audit_weeks.c if column.name != "population"]
    query = (
        select(*columns)
        .where(audit_weeks.c.alias == alias)
        .order_by(audit_weeks.c.week.desc())
        .limit(limit)
    )
    return [AuditWeek(**row) for row in connection.execute(query).mappings()][::-1]


def weeks_since(connection: Connection, alias: str, since: int) -> Sequence[AuditWeek]:
    """The weeks of an alias from the day `since` on, with their populations."""
    query = select(audit_weeks).where(audit_weeks.c.alias == alias, audit_weeks.c.week >= since)
    return [
        AuditWeek(**{**row, "population": AUDIT_POPULATION.decode(row["population"] or {})})
        for row in connection.execute(query).mappings()
    ]
