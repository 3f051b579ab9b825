"""Answers of which several properties jump on one day: what answers is another model.

A chart alone needs two days, since one odd day happens. That two properties of one version's
answers are both so far off on the same day, while the questions are as before, happens by chance
far more rarely than either reaches its threshold in two days.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from monitoring.detector.daily import Chart
from monitoring.detector.incidents import OF_ANOTHER_MODEL, PROPERTIES, Evidence
from monitoring.detector.signals import DailySignal

# Of its threshold that a chart's sum has to gain in the day: z of 4.6 at the least threshold, and
# out of reach of one day where the chart's weeks are known to swing.
_PART_OF_THRESHOLD = 0.7
_LEAST_PROPERTIES = 2
_USUAL_QUESTIONS = 4.0  # |z| of every chart of questions that day


class _Judged(Protocol):
    """What is needed of a chart on the day at hand."""

    chart: Chart
    signal: DailySignal
    z: float


def charts_that_jumped(
    judged: Iterable[_Judged], limits: Mapping[Chart, float], slack: float
) -> set[Chart]:
    """Return the charts of all versions of whose answers at least two properties jumped today."""
    charts = list(judged)
    if any(one.signal.side == "questions" and abs(one.z) >= _USUAL_QUESTIONS for one in charts):
        return set()
    far = [
        one.chart
        for one in charts
        if one.chart.signal in PROPERTIES
        and not one.chart.slice
        and abs(one.z) - slack >= _PART_OF_THRESHOLD * limits[one.chart]
    ]
    return {chart for chart in far if _is_other_model(chart.adapter, far)}


def without_single_jumps(crossed: list[Evidence]) -> list[Evidence]:
    """Drop what only crossed together with others that the second test then refused."""
    charts = [one.chart for one in crossed]
    return [
        one for one in crossed if one.strength >= 1 or _is_other_model(one.chart.adapter, charts)
    ]


def _is_other_model(adapter: str, charts: Iterable[Chart]) -> bool:
    """Whether the charts are of enough properties of a version, length or certainty among them."""
    found = {
        chart.signal
        for chart in charts
        if chart.adapter == adapter and chart.signal in PROPERTIES and not chart.slice
    }
    return len(found) >= _LEAST_PROPERTIES and bool(found & set(OF_ANOTHER_MODEL))
