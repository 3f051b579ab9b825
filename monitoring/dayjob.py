"""The daily job: every day that is over goes through the detector of its alias once, and its
incidents become alerts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, or_

from monitoring.alert_store import Alert, alerts_where
from monitoring.alerting import plan_incident
from monitoring.coverage import Coverage
from monitoring.days import DAY_MS, next_day, read_day, rows_of_day
from monitoring.daystore import decide, expected_incidents, last_day, open_watch, store_day
from monitoring.detector.columns import date_of
from monitoring.detector.incidents import Incident
from monitoring.detector.replay import poisson_interval
from monitoring.detector.signals import Side, signal_of
from monitoring.detector.watch import Watch
from monitoring.each import for_each_alias
from monitoring.gapjob import refresh_gaps
from monitoring.history_store import newest_days
from monitoring.queries import read_coverage
from monitoring.run import apply
from monitoring.windows import require_alias
from whet.context import Context
from whet.database import reading
from whet.json_types import JsonObject
from whet.records.monitoring import DeclaredChangeRecord, IncidentRecord
from whet.tables import alerts

# After midnight (UTC): answers that began before it and their rows have arrived by then
_GRACE_MS = 3_600_000
_SERIES_DAYS = 63  # shown in an incident's chart


def run_days(context: Context, now: int) -> str | None:
    """Take in every day that is over, of each alias."""

    def one(alias: str) -> str:
        days, changed = run_alias(context, alias, now)
        said = f"{days} {'day' if days == 1 else 'days'}" if days else ""
        return (
            f"{said}, {changed} {'change' if changed == 1 else 'changes'} of incidents"
            if days and changed
            else said
        )

    return for_each_alias(context, "Judging the days", one)


def run_alias(context: Context, alias: str, now: int) -> tuple[int, int]:
    """(days taken in, incidents that opened, grew or closed). Each day is committed by itself."""
    newest = (now - _GRACE_MS) // DAY_MS - 1
    with reading(context.database) as connection:
        last = last_day(connection, alias)
        day = next_day(connection, alias, 0 if last is None else last + 1)
    if day is None or day > newest:
        return 0, 0
    watch = open_watch(context, alias)
    days = incidents = 0
    while day is not None and day <= newest:
        changed = _take_in(context, watch, day, now)
        days, incidents = days + 1, incidents + changed
        with reading(context.database) as connection:
            day = next_day(connection, alias, day + 1)
    refresh_gaps(context, alias, now)
    return days, incidents


def _take_in(context: Context, watch: Watch, day: int, now: int) -> int:
    with reading(context.database) as connection:
        decide(watch, expected_incidents(connection, watch.alias), day, (day + 1) * DAY_MS)
        requests = rows_of_day(connection, watch.alias, day)
        rows = read_day(connection, watch.alias, day, requests, watch.settings, context.secret)
    changed, remembered = watch.step(day, rows, requests)

    # Their charts go on
    standing_open = (incident for incident in watch.stream.incidents if incident.state == "open")

    def open_alerts(connection: Connection) -> None:
        to_alerts(connection, watch, [*changed, *standing_open], now)

    store_day(context, watch, remembered, now, open_alerts)
    return len(changed)


def to_alerts(
    connection: Connection, watch: Watch, incidents: Iterable[Incident], now: int
) -> None:
    """Open, extend or resolve the alerts of some incidents."""
    for incident in dict.fromkeys(incidents):
        change = plan_incident(
            watch.alias,
            kind_of(incident),
            incident.record(),
            series_of(watch, incident),
            _known(connection, incident),
        )
        if change is not None:
            apply(connection, watch.alias, change, now)


def kind_of(incident: Incident) -> Side:
    """The alert's kind: the side of the signal that speaks for the incident."""
    return signal_of(incident.lead.chart.signal).side


def series_of(watch: Watch, incident: Incident) -> dict[str, list[list[float]]]:
    """Place of each piece of evidence, as `as_json` orders it → its level day by day."""
    memory, made = watch.stream.memory, {}
    for place, one in enumerate(incident.ranked):
        points = {day: point.level for day, point in memory.points.get(one.chart, {}).items()}
        for day, counts in (
            memory.shares.get(one.chart._replace(part=""), {}).items() if not points else ()
        ):
            points[day] = counts.get(one.chart.part, 0) / max(1, sum(counts.values()))
        made[str(place)] = [
            [day * DAY_MS, round(level, 6)]
            for day, level in sorted(points.items())
            if day > one.day - _SERIES_DAYS
        ]
    return made


def _known(connection: Connection, incident: Incident) -> list[Alert]:
    """The alias's open alerts, and those that were opened since the incident began, whatever became
    of them.
    """
    since = alerts.c.opened_at >= incident.opened * DAY_MS
    is_known = or_(alerts.c.open_marker.is_not(None), since)
    return alerts_where(connection, alerts.c.alias == incident.alias, is_known)


@dataclass(frozen=True)
class Standing:
    """What the days of an alias have shown so far. `facts`: figures, by name."""

    facts: JsonObject
    incidents: list[IncidentRecord]
    changes: list[DeclaredChangeRecord]
    coverage: Coverage | None

    def as_json(self) -> JsonObject:
        if not self.facts["days"]:
            return {**self.facts, "incidents": []}
        return {
            **self.facts,
            "changes": [one.as_json() for one in self.changes],
            "coverage": self.coverage.as_json() if self.coverage else None,
            "incidents": [one.as_json() for one in self.incidents],
        }


def standing(context: Context, alias: str) -> Standing:
    """What the days of an alias have shown so far, and how often it alarmed beside what was
    bearable. Raises NotFoundError for an unknown alias.
    """
    with reading(context.database) as connection:
        require_alias(connection, alias)
        covered = read_coverage(connection, alias)
        newest = newest_days(connection, alias, 1)
    watch = open_watch(context, alias)
    stream = watch.stream
    facts: JsonObject = {"alias": alias, "days": len(stream.memory.days)}
    if not stream.memory.days:
        facts |= {"judged_days": 0, "target_per_100_days": watch.settings.target}
        return Standing(facts, [], [], None)
    found = len(stream.incidents)
    first, last = stream.memory.days[0], stream.memory.days[-1]
    facts |= {
        "first_day": date_of(first).isoformat(),
        "last_day": date_of(last).isoformat(),
        "judged_days": stream.judged_days,
        "days_until_judged": max(0, watch.settings.cold_days - (last - first)),
        "target_per_100_days": watch.settings.target,
        "incidents_per_100_days": round(100 * found / stream.judged_days, 2)
        if stream.judged_days
        else None,
        "incidents_per_100_days_95": [*poisson_interval(found, stream.judged_days)],
        "spread": {name: round(value, 2) for name, value in stream.spreads.by_signal().items()},
        "thresholds": {name: round(value, 2) for name, value in stream.last_limits.items()},
        "declared": [
            {**one, "day": date_of(int(str(one["day"]))).isoformat()} for one in stream.declared
        ],
        "judged_hours": watch.hours.judged_hours,
    }
    incidents = [incident.record() for incident in stream.incidents]
    return Standing(facts, incidents, newest[-1].statistics.changes, covered)
