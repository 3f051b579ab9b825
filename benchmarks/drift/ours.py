"""Whet's detector in the simulated services: false incidents, delays, attribution, CPU."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.drift.worlds import (
    FIRST_DAY,
    SEARCH_SHIFTS,
    SHIFTS,
    TENANT,
    TOPICS,
    Shift,
    World,
)
from monitoring.detector.coldstart import compare_two
from monitoring.detector.columns import Table
from monitoring.detector.incidents import Incident
from monitoring.detector.settings import DetectorSettings
from monitoring.detector.watch import Watch

WARM_UP = 42  # days before anything is judged
SHIFT_DAY = 63
FOLLOWED = 30  # days after a shift
_OF_TOPIC = 0.8  # of a named topic's examples that have to be of the new topic
Pause = Callable[[], None]


@dataclass(frozen=True)
class NullRun:
    """One stationary world."""

    world: str
    volume: int
    seed: int
    days: int  # judged
    incidents: list[dict[str, Any]]
    early: int  # of the weekly comparisons of the first six weeks, those that found something
    early_looks: int
    cpu_s_per_day: float

    def plain(self) -> dict[str, Any]:
        return self.__dict__ | {"cpu_s_per_day": round(self.cpu_s_per_day, 4)}


def run_null(
    world: str, volume: int, seed: int, days: int, *, texts: bool = False, searches: bool = False
) -> NullRun:
    """`days` judged days after the warm-up."""
    service = World(seed, volume, world, texts=texts, searches=searches)
    watch = Watch("null", DetectorSettings())
    spent = 0.0
    for day in range(WARM_UP + days):
        if service.is_missing(day):
            continue
        rows = service.day(day)
        began = time.process_time()
        watch.step(FIRST_DAY + day, rows)
        spent += time.process_time() - began
    found = [_short(incident) for incident in watch.stream.incidents]
    looks = WARM_UP // 7 - 1  # from the second week on
    return NullRun(
        world,
        volume,
        seed,
        watch.stream.judged_days,
        found,
        len(watch.early),
        looks,
        spent / (WARM_UP + days),
    )


def run_shifts(
    shifts: Sequence[str],
    volume: int,
    seed: int,
    *,
    texts: bool = False,
    world: str = "clustered, weekly",
    searches: bool = False,
) -> list[dict[str, Any]]:
    """Follow every shift in the same service, whose first nine weeks are simulated once.

    False incidents before the shift are counted apart.
    """
    known = [(SHIFTS | SEARCH_SHIFTS)[name] for name in shifts]
    runs: list[dict[str, Any]] = []
    # Services with tenants have more charts; other shifts are not found in them.
    for tenants in sorted({shift.tenant for shift in known}):
        service = World(seed, volume, world, texts=texts, searches=searches, tenants=tenants)
        watch = Watch("shifted", DetectorSettings())
        for day in range(SHIFT_DAY):
            watch.step(FIRST_DAY + day, service.day(day))
        more = {"volume": volume, "seed": seed, "false_before": len(watch.stream.incidents)}
        runs += [
            _follow(shift, copy.deepcopy(service), copy.deepcopy(watch)) | more
            for shift in known
            if shift.tenant == tenants
        ]
    return runs


def _follow(shift: Shift, service: World, watch: Watch) -> dict[str, Any]:
    service.shift, service.start = shift, SHIFT_DAY
    known = set(watch.stream.incidents)
    new_topic: set[str] = set()
    others: set[Incident] = set()  # incidents since the shift that do not hold one of its signals
    for day in range(SHIFT_DAY, SHIFT_DAY + FOLLOWED):
        rows = service.day(day)
        new_topic |= set(rows.columns["id"][rows.columns["truth_topic"] == TOPICS])
        changed, _ = watch.step(FIRST_DAY + day, rows)
        since_shift = [
            incident for incident in changed if incident.state == "open" and incident not in known
        ]
        for incident in since_shift:
            # The first incident that holds one of the shift's own signals is the find, on the day
            # that signal was in it.
            if set(incident.signals) & set(shift.signals):
                others |= set(since_shift)
                return {
                    "shift": shift.name,
                    "delay": day - SHIFT_DAY + 1,
                    "other_incidents": len(others - {incident}),
                    **_attribution(shift, incident, new_topic),
                }
        others |= set(since_shift)
    return {"shift": shift.name, "delay": None, "other_incidents": len(others)}


def _attribution(shift: Shift, incident: Incident, new_topic: set[str]) -> dict[str, Any]:
    """Whether one of the shift's signals is among the first three, and the new topic among the
    first three topics.
    """
    signals = incident.signals
    found: dict[str, Any] = {
        "signals": signals,
        "signal_in_top_3": bool(set(signals[:3]) & set(shift.signals)),
        "first_day_error": incident.since - FIRST_DAY - SHIFT_DAY,
        "summary": incident.as_json()["summary"],
        "cause": cause.kind if (cause := incident.explanation.cause) else None,
    }
    if shift.tenant:
        places = [(one.column, one.value) for one in incident.explanation.slices or []]
        found |= {"place_right": places[:1] == [("slice_tenant", TENANT)]}
    if shift.topic:
        shares = [
            sum(name in new_topic for name in topic.examples) / max(1, len(topic.examples))
            for topic in incident.explanation.topics[:3]
        ]
        found |= {
            "topic_in_top_3": any(share >= _OF_TOPIC for share in shares),
            "words": [topic.words for topic in incident.explanation.topics[:1]],
        }
    return found


def _short(incident: Incident) -> dict[str, Any]:
    return {
        "day": incident.opened - FIRST_DAY,
        "signals": incident.signals,
        "summary": incident.lead.effect.sentence,
    }


PAIRS = ((50, 20_000), (200, 200), (1_000, 1_000), (5_000, 5_000))


def run_pairs(before: int, after: int, pairs: int, first_seed: int, pause: Pause) -> dict[str, Any]:
    """Cold start: pairs of samples of the same distribution, the larger one first as a reference
    has it; any finding is false.
    """
    wrong: dict[str, int] = {}
    any_wrong, tests = 0, 0
    for seed in range(first_seed, first_seed + pairs):
        pause()
        service = World(seed, 1_000, "independent")
        first, second = service.draw(max(before, after)), service.draw(min(before, after))
        compared = compare_two(_blind(first), _blind(second), seed=seed)
        any_wrong += bool(compared.findings)
        tests = compared.tests
        for finding in compared.findings:
            wrong[finding.signal] = wrong.get(finding.signal, 0) + 1
    return {
        "sizes": [max(before, after), min(before, after)],
        "pairs": pairs,
        "false": any_wrong,
        "tests": tests,
        "by_signal": wrong,
    }


def run_power(n: int, pairs: int, first_seed: int, pause: Pause) -> dict[str, Any]:
    """Refusals 3 % against 6 % with `n` rows a side."""
    found = 0
    for seed in range(first_seed, first_seed + pairs):
        pause()
        service = World(seed, 1_000, "independent")
        compared = compare_two(
            _blind(service.draw(n, refusal=0.03)), _blind(service.draw(n, refusal=0.06)), seed=seed
        )
        found += any(finding.signal == "refusal" for finding in compared.findings)
    return {"rows": n, "pairs": pairs, "found": found}


def _blind(table: Table) -> Table:
    """Without the columns that only the generator knows, and without the day, which pairs do not
    have.
    """
    return Table(
        {
            name: values
            for name, values in table.columns.items()
            if name not in ("truth_topic", "day")
        }
    )


def summarise_nulls(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Per world and volume: false incidents per 100 days with their exact interval, and CPU."""
    from monitoring.detector.replay import poisson_interval

    rows = []
    for key in dict.fromkeys((run["world"], run["volume"]) for run in runs):
        mine = [run for run in runs if (run["world"], run["volume"]) == key]
        days, events = sum(run["days"] for run in mine), sum(len(run["incidents"]) for run in mine)
        low, high = poisson_interval(events, days)
        rows.append({
            "world": key[0], "volume": key[1], "seeds": len(mine), "days": days, "false_incidents": events, "per_100_days": round(100 * events / days, 3),
            "low": low, "high": high, "early": sum(run["early"] for run in mine), "early_looks": sum(run["early_looks"] for run in mine),
            "cpu_s_per_day": round(sum(run["cpu_s_per_day"] for run in mine) / len(mine), 4),
        })  # fmt: skip
    return rows


def summarise_shifts(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Per shift and volume: median and 90 % delay (not found counts as the longest), shares found
    within 7 and 30 days, attribution.
    """
    import numpy as np

    rows = []
    for key in dict.fromkeys((run["shift"], run["volume"]) for run in runs):
        mine = [run for run in runs if (run["shift"], run["volume"]) == key]
        delays = np.array([run["delay"] or np.inf for run in mine], dtype=float)
        right = ("signal_in_top_3", "topic_in_top_3", "place_right")
        found = [run for run in mine if run["delay"]]
        middle, late = (float(np.quantile(delays, share, method="higher")) for share in (0.5, 0.9))
        rows.append({
            "shift": key[0], "volume": key[1], "seeds": len(mine), "median_delay": middle if np.isfinite(middle) else None,
            "p90_delay": late if np.isfinite(late) else None, "within_7": float((delays <= 7).mean()), "within_30": float((delays <= FOLLOWED).mean()),
            "attributed": sum(all(run.get(name, True) for name in right) for run in found), "found": len(found),
            "median_first_day_error": float(np.median([abs(run["first_day_error"]) for run in found])) if found else None,
        })  # fmt: skip
    return rows
