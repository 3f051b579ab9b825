"""How large a change is, whether that matters, and how it is said."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monitoring.detector.columns import date_of
from monitoring.detector.daily import Chart
from monitoring.detector.signals import DailySignal, Shape

_LEAST_EVENTS = 5  # requests more or fewer, below which a share has not moved for anybody
SHARES = ("rate", "category", "topics", "novelty")  # shapes whose level is a share of the requests
_OF_SOME = ("thumb_down", "schema_failure")
OTHER = "(other)"  # categories too rare for charts of their own


@dataclass(frozen=True, slots=True)
class Effect:
    """Usual level and level since the change, both in the signal's unit."""

    before: float
    now: float
    large: bool
    sentence: str
    values: int = 0  # sampled values since the change that `now` is of; 0 where not known

    @property
    def up(self) -> bool:
        return self.now >= self.before

    @property
    def relative(self) -> float | None:
        """Change as a share of the usual level; None where that is zero."""
        return (self.now - self.before) / abs(self.before) if self.before else None

    def size(self, shape: Shape) -> float:
        """How large the change is on a scale that shares and other levels have in common.

        Cohen's h for shares (Cohen 1988, "Statistical Power Analysis", chapter 6), the logarithm of
        the ratio for positive levels, the difference for scores.
        """
        if shape in SHARES:
            low, high = (
                float(np.arcsin(np.sqrt(np.clip(p, 0, 1)))) for p in (self.before, self.now)
            )
            return 2 * abs(high - low)
        if shape == "score" or min(self.before, self.now) <= 0:
            return abs(self.now - self.before)
        return abs(float(np.log(self.now / self.before)))


def effect_of(
    signal: DailySignal,
    chart: Chart,
    before: float,
    now: float,
    *,
    values: int,
    rows_per_day: float,
    since: int,
) -> Effect:
    """`values`: sampled values since the change; `rows_per_day`: requests of a day, for "about …
    more a day"; `since`: day number.
    """
    change = now - before
    if signal.shape in SHARES:
        room = min(before, 1 - before) if signal.shape == "rate" else before
        large = (
            abs(change) >= max(signal.floor * room, signal.least)
            and abs(change) * values >= _LEAST_EVENTS
        )
    elif signal.shape == "score":
        large = abs(change) >= signal.least
    else:
        large = before > 0 and abs(change) >= signal.floor * before
    wanted = signal.worse == "both" or change > 0
    sentence = _sentence(signal, chart, before, now, rows_per_day, since)
    return Effect(before, now, large and wanted, sentence, values)


def _sentence(
    signal: DailySignal, chart: Chart, before: float, now: float, rows_per_day: float, since: int
) -> str:
    """Say the change: the level now, the baseline, the first day."""
    when = f"since {date_of(since).isoformat()}"
    name = _name(signal, chart)
    if signal.shape in SHARES:
        # Shares of some requests only, such as of those with a rating, are no count of all.
        is_of_all = signal.name not in _OF_SOME and not signal.name.startswith("retrieval_")
        count = (now - before) * rows_per_day
        a_day = f" ({count:+,.0f} requests a day)" if abs(count) >= 1 and is_of_all else ""
        return f"{name} {percent_text(now)}, baseline {percent_text(before)}, {when}{a_day}."
    if signal.shape == "score":
        return f"{name} {now:.3f}, baseline {before:.3f}, {when}."
    levels = [
        f"{figure_text(level)}{f' {signal.unit}' if signal.unit else ''}" for level in (now, before)
    ]
    moved = f" ({100 * (now / before - 1):+.0f} %)" if before > 0 else ""
    return f"{name} {levels[0]}, baseline {levels[1]}{moved}, {when}."


def _name(signal: DailySignal, chart: Chart) -> str:
    """What a chart shows: `TTFT p95 in route=7 (adapter v3)`."""
    name = signal.label
    if chart.part in ("p50", "p95"):
        name = f"{name} {chart.part}"
    elif signal.name == "finish_reason":
        name = f"{name}={chart.part}"
    elif signal.shape == "category":
        name = f"{name}: {chart.part}"
    elif signal.shape == "topics":
        name = f"{name}: topic {chart.part}"
    elif signal.shape == "positive":
        name = f"{name} (geometric mean)"
    place = f" in {chart.slice}" if chart.slice else ""
    return f"{name}{place}{f' (adapter {chart.adapter})' if chart.adapter else ''}"


def percent_text(share: float) -> str:
    """A share as people read it: one decimal below 10 %."""
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def figure_text(value: float) -> str:
    """A level with three digits, or whole."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
