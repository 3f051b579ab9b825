"""How large a change is, whether that matters, and how it is said."""

from __future__ import annotations

from dataclasses import dataclass

from monitoring.detector.daily import Chart
from monitoring.detector.signals import DailySignal
from monitoring.detector.table import date_of

_LEAST_EVENTS = 5  # conversations more or fewer, below which a share has not moved for anybody
OTHER = "(other)"  # categories too rare for charts of their own


@dataclass(frozen=True, slots=True)
class Effect:
    """Usual level and level since the change, both in the signal's unit."""

    before: float
    now: float
    large: bool
    sentence: str

    @property
    def up(self) -> bool:
        return self.now >= self.before

    @property
    def relative(self) -> float | None:
        """Change as a share of the usual level; None where that is zero."""
        return (self.now - self.before) / abs(self.before) if self.before else None


def effect_of(signal: DailySignal, chart: Chart, before: float, now: float, *, values: int, rows_per_day: float, since: int) -> Effect:
    """`values`: sampled values since the change; `rows_per_day`: requests of a day, for "about … more a day"; `since`: day number."""
    change = now - before
    if signal.shape in ("rate", "category", "topics", "novelty"):
        room = min(before, 1 - before) if signal.shape == "rate" else before
        large = abs(change) >= max(signal.floor * room, signal.least) and abs(change) * values >= _LEAST_EVENTS
    elif signal.shape == "score":
        large = abs(change) >= signal.least
    else:
        large = before > 0 and abs(change) >= signal.floor * before
    wanted = signal.worse == "both" or change > 0
    return Effect(before, now, large and wanted, _sentence(signal, chart, before, now, rows_per_day, since))


def _sentence(signal: DailySignal, chart: Chart, before: float, now: float, rows_per_day: float, since: int) -> str:
    when = f"since {date_of(since).isoformat()}"
    who = f" ({chart.adapter})" if chart.adapter else ""
    if signal.shape == "novelty":
        return f"{signal.label}{who}: {_percent(now)} are farther from every known topic than 95 % of the first ones were, {when}; {_percent(before)} before."
    if signal.shape in ("rate", "category", "topics"):
        count = abs(now - before) * rows_per_day
        of = {"rate": "", "category": f"'{chart.part}' in ", "topics": f"topic {chart.part} in "}[signal.shape]
        more = f" (about {count:,.0f} {'more' if now > before else 'fewer'} a day)" if count >= 1 and signal.shape != "topics" else ""
        return f"{signal.label}{who}: {of}{_percent(now)} of conversations {when}, {_percent(before)} before{more}."
    part = {"p50": "median ", "p95": "95 % quantile "}.get(chart.part, "")
    unit = f" {signal.unit}" if signal.unit else ""
    if signal.shape == "score":
        return f"{signal.label}{who}: {now:.3f} {when}, {before:.3f} before."
    moved = f"{'up' if now > before else 'down'} {abs(now / before - 1):.0%}" if before > 0 else "moved"
    return f"{signal.label}{who}: {moved} {when}, {part}{_figure(now)}{unit} against {_figure(before)}{unit}."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
