"""How far the days of each chart swing by themselves, as its sums feel it.

A signal whose level wanders (topics that turn with the season) makes no other signal slower, and a
category that a few busy users move makes no other category slower.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from monitoring.detector.cusum import USUAL_SPREAD, measured_spread
from monitoring.detector.daily import Chart
from monitoring.detector.slices import IN_SLICES

_LEAST_BLOCK = 4  # days of a week that make a block
_BLOCKS_KEPT = 52  # of a chart: a year


@dataclass
class Spreads:
    """Weekly sums of each chart's z, divided by the root of their days."""

    blocks: dict[Chart, list[float]] = field(default_factory=dict)
    _week: dict[Chart, tuple[int, float, int]] = field(default_factory=dict)  # number, sum, days

    def add(self, chart: Chart, z: float, day: int) -> None:
        """Take in a chart's day."""
        week, total, days = self._week.get(chart, (day // 7, 0.0, 0))
        if week != day // 7:
            if days >= _LEAST_BLOCK:
                kept = self.blocks.get(chart, [])[1 - _BLOCKS_KEPT :]
                self.blocks[chart] = [*kept, total / float(np.sqrt(days))]
            week, total, days = day // 7, 0.0, 0
        self._week[chart] = (week, total + z, days + 1)

    def by_signal(self) -> dict[str, float]:
        """Return the spread of each signal over all its charts, those of slices by themselves.

        A signal of few weeks is drawn towards the median of all.
        """
        pooled: dict[str, list[float]] = {}
        for chart, some in self.blocks.items():
            pooled.setdefault(chart.group, []).extend(some)
        weeks = dict.fromkeys(pooled, 0)
        for chart, some in self.blocks.items():
            weeks[chart.group] = max(weeks[chart.group], len(some))
        own = [
            measured_spread(np.array(some), weeks[name])
            for name, some in pooled.items()
            if not name.endswith(IN_SLICES)
        ]
        usual = max(USUAL_SPREAD, float(np.median(own))) if own else USUAL_SPREAD
        return {
            name: max(USUAL_SPREAD, measured_spread(np.array(some), weeks[name], usual))
            for name, some in pooled.items()
        }

    def of_chart(self, chart: Chart, by_signal: dict[str, float]) -> float:
        """Return a chart's spread, drawn towards its signal's where it has few weeks."""
        usual = by_signal.get(chart.group, USUAL_SPREAD)
        own = self.blocks.get(chart, [])
        return max(USUAL_SPREAD, measured_spread(np.array(own), len(own), usual))
