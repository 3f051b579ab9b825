"""A table of interactions, day by day, as if it had been watched: `replay(table)` returns the
incidents.

The same code watches a service as it runs: nothing here looks at a later day than the one it
judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from monitoring.detector.coldstart import ALPHA
from monitoring.detector.columns import Table, date_of, day_number
from monitoring.detector.hours import HOURS
from monitoring.detector.incidents import Incident
from monitoring.detector.settings import DetectorSettings
from monitoring.detector.signals import signals_of
from monitoring.detector.watch import Early, Watch, states
from whet.errors import InputError
from whet.json_types import Json, JsonObject
from whet.records.monitoring import DeclaredChangeRecord

_DEFAULT_ALIAS = "default"
_SIDES = ("all", "questions", "retrieval", "answers", "quality", "service")


@dataclass(frozen=True, slots=True)
class Declared:
    """A change somebody announced: levels are learned anew from `day` on.

    `alias` empty: every alias.
    """

    day: date
    reason: str = "declared"
    alias: str = ""
    side: str = "all"  # one of _SIDES, or the name of a signal


@dataclass(frozen=True)
class ReplayedAlias:
    """What a person needs to trust the result: what was watched, how sensitively, and what was
    declared.
    """

    alias: str
    first_day: str
    last_day: str
    judged_days: int
    incidents: int
    thresholds: dict[str, float]
    spread: dict[str, float]
    declared: list[Json]
    changes: list[DeclaredChangeRecord]
    hours: tuple[int, float] | None  # judged, and their spread; None: none was judged

    def as_json(self) -> JsonObject:
        found: JsonObject = {
            "alias": self.alias,
            "first_day": self.first_day,
            "last_day": self.last_day,
            "judged_days": self.judged_days,
            "incidents": self.incidents,
            "thresholds": {**self.thresholds},
            "spread": {**self.spread},
            "declared": self.declared,
            "changes": [one.as_json() for one in self.changes],
        }
        if self.hours is not None:
            found["judged_hours"], found["spread_of_hours"] = self.hours
        return found


@dataclass(frozen=True)
class Replayed:
    """What a replay found.

    `judged_days` counts days on which an alias was judged: false alarms are a rate per 100 of
    these.
    """

    incidents: list[Incident]
    early: list[Early]  # from the first six weeks: information
    aliases: list[ReplayedAlias] = field(default_factory=list)
    days: int = 0
    judged_days: int = 0
    target: float = 0.0

    @property
    def rate(self) -> float | None:
        """Incidents per 100 judged days; None without one."""
        found = len(self.incidents)
        return round(100 * found / self.judged_days, 3) if self.judged_days else None

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """95 % interval of the rate."""
        return poisson_interval(len(self.incidents), self.judged_days)

    def as_json(self) -> JsonObject:
        return {
            "days": self.days,
            "judged_days": self.judged_days,
            "target_per_100_days": self.target,
            "incidents_per_100_days": self.rate,
            "incidents_per_100_days_95": [*self.interval],
            "incidents": [incident.as_json() for incident in self.incidents],
            "information": [_early_json(one) for one in self.early],
            "aliases": [one.as_json() for one in self.aliases],
        }


def replay(
    table: Table, settings: DetectorSettings | None = None, declared: Sequence[Declared] = ()
) -> Replayed:
    """Run the detector over a table's days in order.

    Raises InputError for an empty table, or a declared change of what it does not hold.

    Days without rows are days without evidence. Rows within a day need no order. Where their hours
    are known, each hour with enough of them is judged before its day is.
    """
    settings = settings or DetectorSettings()
    if not len(table):
        raise InputError("The table has no rows.", hint="One row per answered request is expected.")
    watches: dict[str, Watch] = {}
    waiting = {alias: _declared_for(alias, declared) for alias in aliases_of(table)}
    for one in declared:
        _check(one, set(waiting), table)
    total = 0
    for day, alias, rows in days_of(table):
        watch = watches.setdefault(alias, Watch(alias, settings))
        due = [one for one in waiting[alias] if day_number(one.day) <= day]
        waiting[alias] = waiting[alias][len(due) :]
        # A change declared for a day without rows begins with the next one that has some
        for one in due:
            watch.stream.declare(day, one.reason, side=one.side)
        for hour, part in _hours_of(day, rows):
            watch.step_hour(hour, part)
        watch.step(day, rows)
        total += 1
    early = [one for watch in watches.values() for one in watch.early]
    judged = sum(watch.stream.judged_days for watch in watches.values())
    return Replayed(
        states(watches),
        early,
        [_replayed(watch) for watch in watches.values()],
        total,
        judged,
        settings.target,
    )


def aliases_of(table: Table) -> list[str]:
    """The aliases of a table, sorted; `default` for rows without one."""
    return sorted({str(name) for name in _aliases(table)})


def days_of(table: Table) -> Iterator[tuple[int, str, Table]]:
    """(day, alias, its rows), days ascending, aliases in alphabetical order within a day."""
    names, codes = np.unique(_aliases(table).astype(str), return_inverse=True)
    days = table.columns["day"]
    order = np.lexsort((codes, days))
    cuts = np.flatnonzero((np.diff(days[order]) != 0) | (np.diff(codes[order]) != 0)) + 1
    for part in np.split(order, cuts):
        yield int(days[part[0]]), str(names[codes[part[0]]]), table.take(part)


def _hours_of(day: int, rows: Table) -> Iterator[tuple[int, Table]]:
    """(hour since 1970-01-01, its rows) in order; nothing where the hours are not known."""
    hours = rows.get("hour")
    for hour in np.unique(hours) if hours is not None else ():
        yield day * HOURS + int(hour), rows.take(hours == hour)


def _aliases(table: Table) -> NDArray[Any]:
    given = table.get("alias")
    if given is None:
        return np.full(len(table), _DEFAULT_ALIAS, dtype=object)
    return np.array([name or _DEFAULT_ALIAS for name in given], dtype=object)


def _declared_for(alias: str, declared: Sequence[Declared]) -> list[Declared]:
    return sorted((one for one in declared if one.alias in ("", alias)), key=lambda one: one.day)


def _check(one: Declared, aliases: set[str], table: Table) -> None:
    if one.alias and one.alias not in aliases:
        raise InputError(
            f"A change of alias {one.alias!r} was declared, and the table holds"
            f" {', '.join(sorted(aliases))}."
        )
    known = {*_SIDES, *(signal.name for signal in signals_of(set(table.columns)))}
    if one.side not in known:
        raise InputError(
            f"A change of {one.side!r} was declared; expected one of {', '.join(sorted(known))}."
        )


def poisson_interval(
    events: int, days: int, level: float = 0.95
) -> tuple[float | None, float | None]:
    """Exact interval of a rate per 100 days (Garwood 1936); (None, None) without days."""
    if days == 0:
        return None, None
    tail = (1 - level) / 2
    low = 0.0 if events == 0 else float(chi2.ppf(tail, 2 * events) / 2)
    return round(100 * low / days, 3), round(
        100 * float(chi2.isf(tail, 2 * events + 2) / 2) / days, 3
    )


def _early_json(one: Early) -> JsonObject:
    found: list[Json] = [
        {
            "signal": item.signal,
            "adjusted_p_value": item.adjusted_p,
            "before": item.before,
            "now": item.now,
            "sentence": item.sentence,
        }
        for item in one.findings
    ]
    return {
        "alias": one.alias,
        "severity": "information",
        "day": date_of(one.day).isoformat(),
        "users_before": one.rows[0],
        "users_last_week": one.rows[1],
        "chance_of_any_false_finding": ALPHA,
        "findings": found,
    }


def _replayed(watch: Watch) -> ReplayedAlias:
    stream, hours = watch.stream, watch.hours
    declared: list[Json] = [
        {**one, "day": date_of(int(str(one["day"]))).isoformat()} for one in stream.declared
    ]
    return ReplayedAlias(
        watch.alias,
        date_of(stream.memory.days[0]).isoformat(),
        date_of(stream.memory.days[-1]).isoformat(),
        stream.judged_days,
        len(stream.incidents),
        stream.last_limits,
        {name: round(value, 2) for name, value in stream.spreads.by_signal().items()},
        declared,
        [one.record() for one in watch.changes.values()],
        (hours.judged_hours, round(hours.spread, 2)) if hours.judged_hours else None,
    )
