"""The days a stream remembers, as one column of values per chart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from monitoring.detector.columns import Floats
from monitoring.detector.daily import Chart, DayStatistics, Point, share_point
from monitoring.detector.effects import OTHER
from monitoring.detector.settings import DetectorSettings

_OWN_CHART = 0.01  # share of the history from which a category has a chart of its own
_MOST_CHARTS = 12  # of one categorical signal, the rest is one chart
_TOPICS = "prompt_topics"
# Days within which another adapter of the alias must have answered to hand its history on
_PREDECESSOR_DAYS = 14


@dataclass(frozen=True)
class Column:
    """One chart's earlier days, oldest first, and its point of today."""

    chart: Chart
    days: NDArray[np.int64]
    values: Floats
    errors: Floats
    levels: Floats
    counts: Floats
    today: Point


@dataclass
class Memory:
    """Every day of a stream; `days` and `rows` belong together."""

    days: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    points: dict[Chart, dict[int, Point]] = field(default_factory=dict)
    shares: dict[Chart, dict[int, dict[str, int]]] = field(default_factory=dict)
    # Adapter → day → values, to find predecessors
    _answered: dict[str, dict[int, int]] = field(default_factory=dict)

    def add(self, today: DayStatistics) -> None:
        """Raises ValueError for a day that is not after the last one: the caller's mistake, not the
        data's.
        """
        if self.days and today.day <= self.days[-1]:
            raise ValueError(f"day {today.day} does not come after day {self.days[-1]}")
        self.days.append(today.day)
        self.rows.append(today.rows)
        for chart, point in today.points.items():
            self.points.setdefault(chart, {})[today.day] = point
            if not chart.slice:
                self._answered.setdefault(chart.adapter, {})[today.day] = point.n
        for chart, counts in today.counts.items():
            self.shares.setdefault(chart, {})[today.day] = counts
            self._answered.setdefault(chart.adapter, {})[today.day] = sum(counts.values())

    def successors(self, today: DayStatistics) -> dict[str, str]:
        """Adapters of today that never answered before → the adapter whose history they take over."""
        new = (
            {chart.adapter for chart in (*today.points, *today.counts)} - set(self._answered) - {""}
        )
        recent = {
            name: sum(n for day, n in seen.items() if day >= today.day - _PREDECESSOR_DAYS)
            for name, seen in self._answered.items()
            if name
        }
        before = max(recent, key=lambda name: recent[name], default="")
        return dict.fromkeys(new, before) if before and recent[before] else {}

    def copy(self, source: str, target: str) -> None:
        """Give adapter `target` the past of adapter `source`."""
        for chart in [chart for chart in self.points if chart.adapter == source]:
            self.points[chart._replace(adapter=target)] = dict(self.points[chart])
        for chart in [chart for chart in self.shares if chart.adapter == source]:
            self.shares[chart._replace(adapter=target)] = dict(self.shares[chart])

    def columns(self, today: DayStatistics, settings: DetectorSettings) -> Iterator[Column]:
        """Every chart of today with its past."""
        for chart, point in today.points.items():
            earlier = [(day, found) for day, found in self.points[chart].items() if day < today.day]
            if earlier:
                table = np.array(
                    [(found.value, found.error, found.level, found.n) for _, found in earlier]
                )
                days = np.array([day for day, _ in earlier])
                yield Column(chart, days, table[:, 0], table[:, 1], table[:, 2], table[:, 3], point)
        for chart, counts in today.counts.items():
            yield from self._categories(chart, counts, today.day, settings)

    def _categories(
        self, chart: Chart, counts: dict[str, int], today: int, settings: DetectorSettings
    ) -> Iterator[Column]:
        earlier = [(day, found) for day, found in self.shares[chart].items() if day < today]
        if not earlier:
            return
        days = np.array([day for day, _ in earlier])
        totals = np.array([sum(found.values()) for _, found in earlier], dtype=float)
        usual: dict[str, int] = {}
        for day, found in earlier:
            if today - settings.history_days <= day <= today - settings.gap_days:
                for name, count in found.items():
                    usual[name] = usual.get(name, 0) + count
        whole = sum(usual.values())
        most = len(usual) if chart.signal == _TOPICS else _MOST_CHARTS
        named = [
            name
            for name, count in sorted(usual.items(), key=lambda item: (-item[1], item[0]))
            if count >= _OWN_CHART * whole
        ][:most]
        matrix = np.array(
            [[found.get(name, 0) for name in named] for _, found in earlier], dtype=float
        ).reshape(len(earlier), len(named))
        now = [counts.get(name, 0) for name in named]
        if chart.signal != _TOPICS:
            rest, rest_now = totals - matrix.sum(1), sum(counts.values()) - sum(now)
            if rest.any() or rest_now:
                matrix, named, now = (
                    np.column_stack([matrix, rest]),
                    [*named, OTHER],
                    [*now, rest_now],
                )
            # Shares that add up to one are one chart, and the rarer one says more
            if len(named) == 2:
                matrix, named, now = matrix[:, 1:], named[1:], now[1:]
        total = sum(counts.values())
        for position, name in enumerate(named):
            values = 2 * np.arcsin(np.sqrt((matrix[:, position] + 0.375) / (totals + 0.75)))
            yield Column(
                chart._replace(part=name),
                days,
                values,
                1 / np.sqrt(totals),
                matrix[:, position] / totals,
                totals,
                share_point(now[position], total),
            )
