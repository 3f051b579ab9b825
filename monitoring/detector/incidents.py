"""An incident: one change, whatever number of signals show it, from its first day to its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from monitoring.detector.daily import Chart
from monitoring.detector.effects import Effect
from monitoring.detector.signals import signal_of
from monitoring.detector.table import date_of

State = Literal["open", "resolved", "expected"]


@dataclass(frozen=True)
class Evidence:
    """One chart that crossed its threshold."""

    chart: Chart
    day: int  # on which it crossed
    since: int  # first day of its excursion
    strength: float  # sum over threshold, 1 or more
    effect: Effect
    sides: int = 2  # one-sided sums of its signal: how many chances it had
    hour: int | None = None  # since 1970-01-01, on which it crossed; None where a whole day was judged
    since_hour: int | None = None  # first hour of its excursion

    def as_json(self) -> dict[str, Any]:
        found = {
            "signal": self.chart.signal, "part": self.chart.part, "adapter": self.chart.adapter, "detected_on": _iso(self.day), "first_day": _iso(self.since),
            "direction": "up" if self.effect.up else "down", "before": self.effect.before, "now": self.effect.now,
            "relative_change": self.effect.relative, "strength": round(self.strength, 2), "sentence": self.effect.sentence,
        }  # fmt: skip
        return found | _hours_json(self.hour, self.since_hour)


@dataclass(eq=False)  # two incidents are never the same one
class Incident:
    """`evidence`: in the order in which charts crossed. `explanation`: what explain.py found, plain data."""

    alias: str
    opened: int
    since: int  # first day of change, of the chart that opened it
    evidence: dict[Chart, Evidence]
    state: State = "open"
    closed: int | None = None
    explanation: dict[str, Any] = field(default_factory=dict)
    hour: int | None = None  # in which it was found; None: when its day was over

    @property
    def lead(self) -> Evidence:
        """The chart that speaks for the incident: of those that crossed when it opened, the strongest."""
        first = [one for one in self.evidence.values() if (one.day, one.hour) == (self.opened, self.hour)]
        return max(first, key=lambda one: one.strength)

    @property
    def signals(self) -> list[str]:
        """Names of the signals, the lead's first, the others by strength."""
        ranked = sorted(self.evidence.values(), key=lambda one: (one.chart != self.lead.chart, -one.strength))
        return list(dict.fromkeys(one.chart.signal for one in ranked))

    @property
    def name(self) -> str:
        return f"{self.alias}-{_iso(self.opened)}-{self.lead.chart.signal}"

    def as_json(self) -> dict[str, Any]:
        lead = self.lead
        sides = {signal_of(signal).side for signal in self.signals}
        return {
            "id": self.name,
            "alias": self.alias,
            "state": self.state,
            "signal": lead.chart.signal,
            "signals": self.signals,
            "detected_on": _iso(self.opened),
            "first_day": _iso(self.since),
            "closed_on": None if self.closed is None else _iso(self.closed),
            **_hours_json(self.hour, lead.since_hour),
            "summary": lead.effect.sentence,
            "quality_moved": bool(sides & {"answers", "quality"}),
            "evidence": [one.as_json() for one in sorted(self.evidence.values(), key=lambda one: (one.chart != lead.chart, -one.strength))],
            **self.explanation,
        }


def _hours_json(hour: int | None, since: int | None) -> dict[str, str]:
    """Of what was found by the hour: the end of the hour that showed it, and the beginning of the first one. Nothing of what was found by the day."""
    return {} if hour is None or since is None else {"detected_at": hour_iso(hour + 1), "first_hour": hour_iso(since)}


def hour_iso(hour: int) -> str:
    """The beginning of an hour (since 1970-01-01) in UTC."""
    return f"{_iso(hour // 24)}T{hour % 24:02}:00Z"


def _iso(day: int) -> str:
    return date_of(day).isoformat()
