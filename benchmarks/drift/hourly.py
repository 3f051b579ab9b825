"""Hours in the simulated services: false incidents of hours and days together, and hours until a
gross change is found, beside the days' own delay.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.drift.ours import SHIFT_DAY, WARM_UP
from benchmarks.drift.worlds import FIRST_DAY, GROSS, Shift, World
from monitoring.detector.columns import Table
from monitoring.detector.hours import HOURS
from monitoring.detector.incidents import Incident
from monitoring.detector.settings import DetectorSettings
from monitoring.detector.watch import Watch

NOON = 12
FOLLOWED = 10  # days after a shift: what hours are for is over by then
# Hours after its end at which the product takes a day or an hour in
_DAY_LATE, _HOUR_LATE = 1.0, 0.25


def run_day(watch: Watch, day: int, rows: Table) -> list[tuple[int | None, Incident]]:
    """A day hour by hour, then as a whole; (hour of the day or None, incident that opened or grew)."""
    hours, found = rows.columns["hour"], []
    for hour in range(HOURS):
        changed, _ = watch.step_hour((FIRST_DAY + day) * HOURS + hour, rows.take(hours == hour))
        found += [(hour, incident) for incident in changed]
    changed, _ = watch.step(FIRST_DAY + day, rows)
    return [*found, *((None, incident) for incident in changed if incident.state == "open")]


def run_null(world: str, volume: int, seed: int, days: int) -> dict[str, Any]:
    """`days` judged days after the warm-up, by hours and days together, and how many hours of them
    were judged.
    """
    service, watch = World(seed, volume, world, hours=True), Watch("null", DetectorSettings())
    spent = 0.0
    for day in range(WARM_UP + days):
        rows = service.day(day)
        began = time.process_time()
        run_day(watch, day, rows)
        spent += time.process_time() - began
    found = [
        {
            "day": one.opened - FIRST_DAY,
            "hour": None if one.hour is None else one.hour % HOURS,
            "signals": one.signals,
            "summary": one.lead.effect.sentence,
        }
        for one in watch.stream.incidents
    ]
    return {
        "world": world, "volume": volume, "seed": seed, "days": watch.stream.judged_days, "judged_hours": watch.hours.judged_hours,
        "spread": round(watch.hours.spread, 3), "incidents": found, "cpu_s_per_day": round(spent / (WARM_UP + days), 3),
    }  # fmt: skip


def run_gross(shifts: Sequence[str], volume: int, seed: int) -> list[dict[str, Any]]:
    """Every gross change, from noon of a weekday on, in the same service, judged with hours and by
    days alone.
    """
    service, both, alone = (
        World(seed, volume, hours=True),
        Watch("both", DetectorSettings()),
        Watch("days", DetectorSettings()),
    )
    for day in range(SHIFT_DAY):
        rows = service.day(day)
        run_day(both, day, rows)
        alone.step(FIRST_DAY + day, rows)
    before = len(both.stream.incidents)
    return [
        {"volume": volume, "seed": seed, "false_before": before}
        | _follow(GROSS[name], *(copy.deepcopy(one) for one in (service, both, alone)))
        for name in shifts
    ]


def _follow(shift: Shift, service: World, both: Watch, alone: Watch) -> dict[str, Any]:
    """Hours from noon until each says so: the end of the hour or day that showed it, and the time
    at which the product takes it in.
    """
    service.shift, service.start, service.start_hour = shift, SHIFT_DAY, NOON
    known, found = (
        set(both.stream.incidents),
        dict[str, Any](shift=shift.name, hours=None, days=None, by_hour=False, other_incidents=0),
    )
    others: set[Incident] = set()
    for day in range(SHIFT_DAY, SHIFT_DAY + FOLLOWED):
        rows, begin = service.day(day), (day - SHIFT_DAY) * HOURS - NOON
        for hour, incident in run_day(both, day, rows) if found["hours"] is None else ():
            if incident in known:
                continue
            if set(incident.signals) & set(shift.signals):
                late = HOURS + _DAY_LATE if hour is None else hour + 1 + _HOUR_LATE
                found |= {
                    "hours": begin + late,
                    "by_hour": hour is not None,
                    "signals": incident.signals,
                    "summary": incident.lead.effect.sentence,
                }
                others.discard(incident)
                break
            others.add(incident)
        changed = alone.step(FIRST_DAY + day, rows)[0] if found["days"] is None else []
        if any(set(one.signals) & set(shift.signals) for one in changed if one.state == "open"):
            found["days"] = begin + HOURS + _DAY_LATE
        if found["hours"] is not None and found["days"] is not None:
            break
    return found | {"other_incidents": len(others)}


def summarise_nulls(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Per world and volume: false incidents per 100 days with their exact interval, and how many of
    them hours raised.
    """
    from monitoring.detector.replay import poisson_interval

    rows = []
    for key in dict.fromkeys((run["world"], run["volume"]) for run in runs):
        mine = [run for run in runs if (run["world"], run["volume"]) == key]
        days, incidents = (
            sum(run["days"] for run in mine),
            [one for run in mine for one in run["incidents"]],
        )
        low, high = poisson_interval(len(incidents), days)
        rows.append({
            "world": key[0], "volume": key[1], "seeds": len(mine), "days": days, "judged_hours": sum(run["judged_hours"] for run in mine),
            "false_incidents": len(incidents), "by_hour": sum(one["hour"] is not None for one in incidents), "per_100_days": round(100 * len(incidents) / days, 3),
            "low": low, "high": high, "cpu_s_per_day": round(sum(run["cpu_s_per_day"] for run in mine) / len(mine), 3),
        })  # fmt: skip
    return rows


def summarise_gross(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Per change and volume: median and longest hours with hours and by days alone; not found
    counts as the longest.
    """
    rows = []
    for key in dict.fromkeys((run["shift"], run["volume"]) for run in runs):
        mine = [run for run in runs if (run["shift"], run["volume"]) == key]
        made: dict[str, Any] = {
            "shift": key[0],
            "volume": key[1],
            "seeds": len(mine),
            "by_hour": sum(run["by_hour"] for run in mine),
        }
        for name in ("hours", "days"):
            delays = np.array([np.inf if run[name] is None else run[name] for run in mine])
            middle, longest = float(np.quantile(delays, 0.5, method="higher")), float(delays.max())
            made |= {
                f"median_{name}": middle if np.isfinite(middle) else None,
                f"longest_{name}": longest if np.isfinite(longest) else None,
            }
        rows.append(made | {"other_incidents": sum(run["other_incidents"] for run in mine)})
    return rows
