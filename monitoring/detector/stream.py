"""The detector of one alias: day statistics in, incidents out.

It keeps numbers only, no conversations.

The state is a function of the days and decisions it was given, in order: feeding stored
DayStatistics again gives it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from monitoring.detector.baseline import (
    WEEKDAY_SHIFT,
    History,
    Usual,
    quiet_weekdays,
    usual,
    weekday_of,
    z_score,
)
from monitoring.detector.cusum import Cusum, change_begin, run_lengths, threshold_for
from monitoring.detector.daily import Chart, DayStatistics, Point
from monitoring.detector.effects import Effect, effect_of
from monitoring.detector.incidents import Evidence, Incident
from monitoring.detector.jumps import charts_that_jumped, without_single_jumps
from monitoring.detector.series import Column, Memory
from monitoring.detector.settings import DetectorSettings
from monitoring.detector.signals import (
    FLOOR_WITHOUT_USERS,
    OF_USERS,
    DailySignal,
    signal_of,
)
from monitoring.detector.slices import SLICE_SHARE
from monitoring.detector.spreads import Spreads
from whet.json_types import JsonObject

# Of the class's usual: a weekday with fewer requests may be a holiday and is judged as either class
_LOW_VOLUME = 0.7
# Latest days of an excursion that its size is read from: a ramp is larger now than it was on
# average
_EFFECT_DAYS = 7
# Within which another chart of a signal in an incident is more of the same: another language gives
# way slowly
_SAME_SIGNAL_DAYS = 28
_FOLLOWING_DAYS = 2  # days after it was found within which other signals may follow a change
_ABSENT_DAYS = 14  # days without a signal after which it no longer keeps an incident open
_NORMAL = 1.0  # mean z of the last days within which a chart is back to normal
# Days before today from which a topic's level is compared with now: within two to four weeks a
# season turns a topic by less than a third, and what is new changes it at once.
_TURN_DAYS = (14, 28)
_LEAST_TURN_DAYS = 5
# Shares of a new template at which the level is learned anew
_TEMPLATE_STEPS = (0.05, 0.25, 0.5, 0.75, 0.95)
_ALL = "all"
# An excursion that has not become an incident by then is not kept out of the history any longer
_FROZEN_DAYS = 28


@dataclass
class Judged:
    """A chart on the day at hand."""

    chart: Chart
    signal: DailySignal
    point: Point
    known: Usual
    quiet: bool
    z: float
    recent: float | None = None  # level of a topic some weeks ago; None for other signals


@dataclass(frozen=True, slots=True)
class _Step:
    """A day of an excursion. `usual`: the level it was judged by, as people are told."""

    day: int
    point: Point
    usual: float
    z: float


@dataclass
class Stream:
    """State of one alias.

    `step` is the only way in, besides the decisions `declare` and `expected`.
    """

    alias: str
    settings: DetectorSettings
    memory: Memory = field(default_factory=Memory)
    incidents: list[Incident] = field(default_factory=list)
    declared: list[JsonObject] = field(default_factory=list)
    cusums: dict[Chart, Cusum] = field(default_factory=dict)
    spreads: Spreads = field(default_factory=Spreads)
    judged_days: int = 0
    share: float = 1.0  # of the target that is the days' own; hours.py has the rest
    # Group of charts → threshold of the last judged day
    last_limits: dict[str, float] = field(default_factory=dict)
    # Charts of open incidents → (day, z) since
    _back: dict[Chart, list[tuple[int, float]]] = field(default_factory=dict)
    _trail: dict[Chart, list[_Step]] = field(default_factory=dict)  # days of the excursions
    # (side, signal or `all`; adapter) → first days of segments
    _breaks: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    # Template → steps of its rise that were seen
    _templates: dict[str, int] = field(default_factory=dict)

    # --- decisions -------------------------------------------------------------------------------------------------

    def declare(self, day: int, reason: str, *, side: str = _ALL, adapter: str = "") -> None:
        """A known change begins on `day`: levels are learned anew from then on, for one side's
        signals or for all.
        """
        self._breaks.setdefault((side, adapter), []).append(day)
        self.declared.append({"day": day, "reason": reason, "signals": side, "adapter": adapter})
        for chart in [chart for chart in self.cusums if day in self.segment_days(chart)]:
            self.cusums[chart] = Cusum()
            self._trail.pop(chart, None)

    def expected(self, incident: Incident, day: int) -> None:
        """The incident's change is wanted: it closes, and its signals learn their level anew from
        `day` on.
        """
        self._close(incident, day, "expected")
        for signal in incident.signals:
            self.declare(day, f"{incident.name} is expected", side=signal)

    # --- a day -----------------------------------------------------------------------------------------------------

    def step(
        self, today: DayStatistics, confirm: Callable[[Evidence], bool] | None = None
    ) -> list[Incident]:
        """Take in a day; returns the incidents that opened, grew or closed on it.

        Days have to come in order.

        `confirm` is asked about every chart that crossed its threshold by enough; without it,
        crossing is enough.
        """
        self.inherit(today)
        self.memory.add(today)
        self.new_templates(today)
        if today.day - self.memory.days[0] < self.settings.cold_days:
            return []
        self.judged_days += 1
        judged = list(self.judge(today))
        changed = self._recovered(today.day)
        crossed = without_single_jumps(
            [one for one in self._crossed(judged, today) if confirm is None or confirm(one)]
        )
        return (
            list(dict.fromkeys([*changed, *self._assign(crossed, today.day)]))
            if crossed or changed
            else []
        )

    def judge(self, today: DayStatistics) -> Iterator[Judged]:
        quiet_days = self.quiet_days
        for column in self.memory.columns(today, self.settings):
            signal = signal_of(column.chart.signal)
            if not today.has_users and signal.name in OF_USERS:
                signal = replace(signal, floor=max(signal.floor, FLOOR_WITHOUT_USERS))
            if column.chart.slice and signal.bad == "up":
                # Fewer refusals of all may be an adapter that is not applied; of one tenant they
                # are good news.
                signal = replace(signal, worse="up")
            history = self._history(column, today.day, quiet_days)
            known = usual(history, self.settings.min_history)
            if known is None:
                continue
            quiet = weekday_of(today.day) in quiet_days
            z = z_score(column.today.value, column.today.error, quiet, known, self.settings.clip)
            if self._low_volume(today, quiet, quiet_days) and min(known.days) > 0:
                other = z_score(
                    column.today.value, column.today.error, not quiet, known, self.settings.clip
                )
                z = min(z, other, key=abs)
            recent = _recent_level(column, today.day) if signal.shape == "topics" else None
            yield Judged(column.chart, signal, column.today, known, quiet, z, recent)

    @property
    def quiet_days(self) -> frozenset[int]:
        """Weekdays of the quiet class, by the days before the last one."""
        return quiet_weekdays(self.memory.days[:-1], self.memory.rows[:-1])

    def _low_volume(self, today: DayStatistics, quiet: bool, quiet_days: frozenset[int]) -> bool:
        like = [
            rows
            for day, rows in zip(self.memory.days[-29:-1], self.memory.rows[-29:-1], strict=True)
            if (weekday_of(day) in quiet_days) == quiet
        ]
        return bool(like) and today.rows < _LOW_VOLUME * float(np.median(like))

    def _history(self, column: Column, today: int, quiet_days: frozenset[int]) -> History:
        settings, days = self.settings, column.days
        incident = self.incident_of(column.chart)
        since = self.cusums.get(column.chart, Cusum()).since
        # Frozen while the incident is open
        newest = today - 1 if incident is None else incident.since - 1
        if since is not None and today - since <= _FROZEN_DAYS:
            # What looks like the beginning of a change is not history
            newest = min(newest, since - 1)
        starts = sorted({day for day in self.segment_days(column.chart) if day <= today})
        segment = np.searchsorted(np.array(starts, dtype=np.int64), days, side="right")
        current = segment == len(starts)
        last = min(newest, today - settings.gap_days)
        if starts and (current & (days <= last)).sum() < 2 * settings.rebase_days:
            last = newest  # shortly after a declared change there is nothing older to judge by
        kept = (
            (days <= last)
            & (days > last - settings.history_days + settings.gap_days)
            & ~self.hidden(column.chart.signal, days)
        )
        quiet = np.isin((days + WEEKDAY_SHIFT) % 7, list(quiet_days))
        arrays = (
            column.values[kept],
            column.errors[kept],
            column.levels[kept],
            column.counts[kept],
        )
        return History(*arrays, quiet[kept], segment[kept], len(starts))

    def segment_days(self, chart: Chart) -> list[int]:
        side = signal_of(chart.signal).side
        keys = {
            (key, adapter) for key in (_ALL, side, chart.signal) for adapter in ("", chart.adapter)
        }
        return [day for key in keys for day in self._breaks.get(key, ())]

    def segment_start(self, chart: Chart, day: int) -> int | None:
        """First day of the segment that `day` is in; None where nothing was declared yet."""
        return max((start for start in self.segment_days(chart) if start <= day), default=None)

    def hidden(self, signal: str, days: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Days of closed incidents of a signal: what was wrong then is no history."""
        hidden = np.zeros(len(days), dtype=bool)
        for incident in self.incidents:
            if incident.closed is not None and any(
                chart.signal == signal for chart in incident.evidence
            ):
                hidden |= (days >= incident.since) & (days < incident.closed)
        return hidden

    # --- sums and thresholds ---------------------------------------------------------------------------------------

    def _crossed(self, judged: list[Judged], today: DayStatistics) -> list[Evidence]:
        sides = sides_of(judged)
        limits = self.limits(sides, [one.chart for one in judged])
        jumped = charts_that_jumped(judged, limits, self.settings.slack)
        found = []
        for one in judged:
            if self.incident_of(one.chart) is not None:
                self._back.setdefault(one.chart, []).append((today.day, one.z))
                continue
            self.spreads.add(one.chart, one.z, today.day)
            limit = limits[one.chart]
            sums = self.cusums.get(one.chart, Cusum()).step(
                one.z, today.day, self.settings.slack, 2 * limit
            )
            if one.signal.worse == "up":
                sums = sums.without_fall()
            self.cusums[one.chart] = sums
            if sums.since is None:
                self._trail.pop(one.chart, None)
                continue
            trail = self._trail.setdefault(one.chart, [])
            trail.append(_Step(today.day, one.point, one.known.told[one.quiet], one.z))
            strength = max(sums.up, sums.down) / limit
            if strength < 1 and one.chart not in jumped:
                continue
            began = change_begin(np.array([step.z for step in trail]), sums.up >= sums.down)
            shown = trail[began if strength >= 1 else -1 :]
            effect = self._effect(one, shown)
            # The sum says that it moved, the sizes say by how much; they have to agree on the
            # direction.
            if effect.large and effect.up == (sums.up >= sums.down):
                found.append(
                    Evidence(
                        one.chart,
                        today.day,
                        shown[0].day,
                        strength,
                        effect,
                        _chances(one.chart, sides),
                    )
                )
        return found

    def limits(self, sides: dict[str, int], charts: Iterable[Chart]) -> dict[Chart, float]:
        """Return the threshold of each chart; keeps those at the spread of whole groups to tell."""
        by_signal = self.spreads.by_signal()
        wanted = run_lengths(sides, self.share * self.settings.target)

        def limit(group: str, spread: float) -> float:
            found = threshold_for(wanted[group], self.settings.slack, round(spread, 2))
            return max(self.settings.least_threshold, found)

        self.last_limits = {name: limit(name, by_signal.get(name, 1.0)) for name in sides}
        return {
            chart: limit(chart.group, self.spreads.of_chart(chart, by_signal)) for chart in charts
        }

    def _effect(self, one: Judged, shown: list[_Step]) -> Effect:
        latest = shown[-_EFFECT_DAYS:]
        weights = [max(1, step.point.n) for step in latest]
        before = float(np.average([step.usual for step in latest], weights=weights))
        if one.recent is not None:
            before = one.recent
        now = float(np.average([step.point.level for step in latest], weights=weights))
        rows = float(np.mean(self.memory.rows[-len(latest) :]))
        rows *= self._share_of_slice(one.chart, [step.day for step in latest])
        return effect_of(
            one.signal,
            one.chart,
            before,
            now,
            values=sum(weights),
            rows_per_day=rows,
            since=shown[0].day,
        )

    def _share_of_slice(self, chart: Chart, days: list[int]) -> float:
        """Return the share of the requests that a chart's slice has on some days."""
        if not chart.slice:
            return 1.0
        seen, whole = self.memory.points[chart], self.memory.points[chart._replace(slice="")]
        return sum(seen[day].n for day in days) / max(1, sum(whole[day].n for day in days))

    # --- incidents -------------------------------------------------------------------------------------------------

    def take(self, crossed: list[Evidence], day: int) -> list[Incident]:
        """What hours of `day` show, before the day itself is judged; returns the incidents that
        opened or grew.
        """
        return list(dict.fromkeys(self._assign(crossed, day)))

    def incident_of(self, chart: Chart) -> Incident | None:
        return next(
            (
                incident
                for incident in self.incidents
                if incident.state == "open" and chart in incident.evidence
            ),
            None,
        )

    def _assign(self, crossed: list[Evidence], day: int) -> list[Incident]:
        """Charts that crossed join the open incident that began at about their time, or open one
        together.
        """
        changed = []
        for one in sorted(crossed, key=lambda item: -item.strength):
            near = [
                incident
                for incident in self.incidents
                if incident.state == "open" and self._belongs(one, incident)
            ]
            if near:
                near[-1].evidence[one.chart] = one
                changed.append(near[-1])
            else:
                self.incidents.append(
                    Incident(self.alias, day, one.since, {one.chart: one}, hour=one.hour)
                )
                changed.append(self.incidents[-1])
            self.cusums[one.chart] = Cusum()
            self._trail.pop(one.chart, None)
        return changed

    def _belongs(self, one: Evidence, incident: Incident) -> bool:
        near = self.settings.join_days
        # What began days after the incident was found is another change; what hours found is seen
        # in other signals when the day is over.
        is_later = one.since > incident.opened + _FOLLOWING_DAYS
        same = one.day - incident.opened <= _SAME_SIGNAL_DAYS and any(
            chart.signal == one.chart.signal for chart in incident.evidence
        )
        is_near = abs(one.since - incident.since) <= near or abs(one.day - incident.opened) <= near
        return same or (is_near and not is_later)

    def _recovered(self, day: int) -> list[Incident]:
        closed = []
        for incident in self.incidents:
            if incident.state == "open" and all(
                self._is_back(chart, day, incident) for chart in incident.evidence
            ):
                self._close(incident, day, "resolved")
                closed.append(incident)
        return closed

    def _is_back(self, chart: Chart, day: int, incident: Incident) -> bool:
        seen = self._back.get(chart, [])
        last = seen[-1][0] if seen else incident.opened
        if day - last >= _ABSENT_DAYS:
            return True
        recent = [z for _, z in seen[-self.settings.resolve_days :]]
        return len(recent) >= self.settings.resolve_days and abs(float(np.mean(recent))) <= _NORMAL

    def _close(self, incident: Incident, day: int, state: str) -> None:
        incident.state, incident.closed = ("expected" if state == "expected" else "resolved"), day
        for chart in incident.evidence:
            self._back.pop(chart, None)
            self.cusums[chart] = Cusum()

    # --- declared changes that the table shows ---------------------------------------------------------------------

    def inherit(self, today: DayStatistics) -> None:
        """An adapter never seen before takes over the history of the one before it, as a declared
        change of what it answers.
        """
        for adapter, before in self.memory.successors(today).items():
            self.memory.copy(before, adapter)
            for side in ("answers", "quality", "service"):
                self._breaks.setdefault((side, adapter), []).append(today.day)
            self.declared.append(
                {
                    "day": today.day,
                    "reason": f"adapter {adapter} answers for the first time",
                    "signals": "answers, quality, service",
                    "adapter": adapter,
                }
            )

    def new_templates(self, today: DayStatistics) -> None:
        total = max(1, sum(today.templates.values()))
        first = today.day - self.memory.days[0] < self.settings.codebook_days
        for template, count in today.templates.items():
            reached = sum(count / total >= step for step in _TEMPLATE_STEPS)
            if first and count:
                self._templates[template] = len(_TEMPLATE_STEPS)
            elif reached > self._templates.get(template, 0):
                self._templates[template] = reached
                self.declare(
                    today.day, f"template {template} in {count / total:.0%} of conversations"
                )


def _recent_level(column: Column, today: int) -> float | None:
    """Return a topic's share some weeks ago; None where too few days are known."""
    first, last = today - _TURN_DAYS[1], today - _TURN_DAYS[0]
    kept = (column.days > first) & (column.days <= last)
    if kept.sum() < _LEAST_TURN_DAYS:
        return None
    return float(np.average(column.levels[kept], weights=np.maximum(column.counts[kept], 1)))


def sides_of(judged: list[Judged]) -> dict[str, int]:
    """Group of charts → one-sided sums over them."""
    sides: dict[str, int] = {}
    for one in judged:
        group = one.chart.group
        sides[group] = sides.get(group, 0) + (2 if one.signal.worse == "both" else 1)
    return sides


def _chances(chart: Chart, sides: dict[str, int]) -> int:
    """One-sided sums among which a chart crossed, as the second test by users counts them."""
    return round(sides[chart.group] / (SLICE_SHARE if chart.slice else 1))
