"""Hours against the same hour of earlier days: gross changes within hours, where the volume carries
it.

An hour is judged as `stream.py` judges a day, by the days that this hour of the day had before: so
the rhythm of day and week is in the history, with declared changes, open incidents and holidays as
for days. What differs is how evidence adds up. Hours of one day share its swings, so their z values
lean to the same side, by how much nobody knows, and a sum with a small slack would take one odd day
for 24 pieces of evidence. The slack of these sums is therefore so large that an hour *alone*
exceeds it no oftener than the hours' share of the target allows (Bonferroni, over hours, signals
and charts). Whatever hours of a quiet service do together, at most those that exceed it can begin
an excursion, and a sum needs two hours to cross.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import ndtri

from monitoring.detector.codebook import Codebook
from monitoring.detector.columns import Table, date_of
from monitoring.detector.cusum import Cusum
from monitoring.detector.daily import Chart, DayStatistics, summarise_day
from monitoring.detector.effects import Effect, effect_of
from monitoring.detector.incidents import Evidence, hour_iso
from monitoring.detector.sample import capped
from monitoring.detector.settings import DetectorSettings
from monitoring.detector.signals import DailySignal, signal_of
from monitoring.detector.stream import Judged, Stream, sides_of
from whet.records.monitoring import DayRecord, HourOutcome, StoredCrossing, StoredSum

HOURS = 24
_ROOM = 1.5  # z above the slack that counts at most: one odd hour alone cannot cross
# Above _ROOM: an incident needs two hours of evidence, of 0.8 above the slack each
_THRESHOLD = 1.6
_CLIP = 12.0  # finite where the tail of Student's t is not
_GROSS = 2.0  # times the floors of days: what is smaller can wait for the day
# Newest judged hours that say how far hours usually are from their history
_NOISE_HOURS = 28 * HOURS
_LEAST_NOISE_HOURS = 48
_NOISE_CLIP = 3.0  # |z| that counts in that: a real change is not noise


@dataclass
class HourOfDay(Stream):
    """The days of one hour of the day.

    Its incidents are the alias's, and what was declared for the days holds for it.
    """

    days: Stream | None = None

    def segment_days(self, chart: Chart) -> list[int]:
        return [*super().segment_days(chart), *(self.days.segment_days(chart) if self.days else ())]

    def take_in(self, today: DayStatistics) -> None:
        self.inherit(today)
        self.memory.add(today)
        self.new_templates(today)


@dataclass(frozen=True)
class RememberedHour:
    """An hour as it is kept: everything that `Hours.resume` needs to stand where it stood after it."""

    hour: int  # since 1970-01-01, UTC
    rows: int  # requests
    statistics: DayStatistics | None = None  # `day` is the hour's day; None with too few rows
    judged: bool = False
    noise: float | None = None  # root mean square of its z, those of a real change counted little
    sums: Mapping[Chart, Cusum] = field(default_factory=dict)  # those that are not zero
    evidence: tuple[Evidence, ...] = ()  # charts that crossed

    def outcome(self) -> HourOutcome:
        """What besides hour, rows and statistics is stored."""
        sums: list[StoredSum] = [
            (c.signal, c.part, c.adapter, one.up, one.down, one.up_since, one.down_since)
            for c, one in self.sums.items()
        ]
        crossed: list[StoredCrossing] = [
            (
                one.chart.signal,  # hours have no charts of slices
                one.chart.part,
                one.chart.adapter,
                one.since_hour,
                one.strength,
                one.effect.before,
                one.effect.now,
                one.effect.sentence,
                one.sides,
                one.effect.values,
            )
            for one in self.evidence
            if one.since_hour is not None
        ]
        return HourOutcome(noise=self.noise, sums=sums, evidence=[*crossed])

    @staticmethod
    def from_record(
        hour: int, rows: int, judged: bool, statistics: DayRecord | None, made: HourOutcome
    ) -> RememberedHour:
        sums = {Chart(*row[:3]): Cusum(*row[3:]) for row in made.sums}
        evidence = tuple(
            Evidence(
                Chart(*row[:3]),
                hour // HOURS,
                row[3] // HOURS,
                row[4],
                # Earlier hours did not store how many values the effect is of: 0.
                Effect(row[5], row[6], True, row[7], sum(row[9:])),
                row[8],
                hour,
                row[3],
            )
            for row in made.evidence
        )
        return RememberedHour(
            hour,
            rows,
            DayStatistics.from_record(statistics) if statistics else None,
            judged,
            made.noise,
            sums,
            evidence,
        )


def summarise_hour(
    rows: Table,
    hour: int,
    settings: DetectorSettings,
    codebook: Codebook | None,
    low_scores: Mapping[str, float] | None = None,
) -> tuple[DayStatistics, Table] | None:
    """Statistics of an hour and the sample they were taken from; None where the sample is too small
    to judge by.

    At most `rows_per_user` rows of each user, and never more of them for want of others: what two
    people do in an hour is not the service. Times to answer are left out: rules on service
    objectives watch them by the minute.
    """
    sample = rows.take(
        capped(
            rows.get("user"),
            len(rows),
            settings.rows_per_user,
            np.random.default_rng([settings.seed, hour, 6]),
        )
    )
    if len(sample) < settings.hour_rows:
        return None
    found, sample = summarise_day(
        sample,
        hour,
        replace(settings, min_rows=settings.hour_rows),
        codebook,
        len(rows),
        low_scores,
    )
    points = {
        chart: point
        for chart, point in found.points.items()
        if signal_of(chart.signal).shape != "latency"
    }
    return replace(found, day=hour // HOURS, points=points), sample


@dataclass
class Hours:
    """State of one alias's hours, beside the `Stream` of its days."""

    settings: DetectorSettings
    days: Stream
    sums: dict[Chart, Cusum] = field(default_factory=dict)
    judged_hours: int = 0
    judged_days: set[int] = field(default_factory=set)  # days with an hour that was judged
    newest: RememberedHour | None = None
    _of_day: dict[int, HourOfDay] = field(default_factory=dict)  # hour of the day → its days
    _noise: list[float] = field(default_factory=list)

    def resume(self, hour: RememberedHour) -> None:
        """Take in an hour that was judged before, with the same outcome.

        What it showed has to be told to the days by the caller.
        """
        if hour.statistics is not None:
            self._stream(hour.hour).take_in(hour.statistics)
        self._remember(hour)

    def step(
        self, hour: int, rows: int, statistics: DayStatistics | None, *, judge: bool = True
    ) -> RememberedHour:
        """Take in an hour; they have to come in order.

        `judge`: whether it may raise something; an hour whose day was judged already may not.
        """
        if statistics is None:
            # An hour that cannot be judged ends what may have begun
            made = RememberedHour(hour, rows)
        else:
            stream = self._stream(hour)
            stream.take_in(statistics)
            ready = (
                judge
                and bool(self.days.memory.days)
                and statistics.day - self.days.memory.days[0] >= self.settings.cold_days
            )
            made = self._judged(
                hour, rows, statistics, list(stream.judge(statistics)) if ready else []
            )
        self._remember(made)
        return made

    @property
    def spread(self) -> float:
        """How far hours are from their history by themselves, in the standard deviations that were
        expected; 1 at least.
        """
        return (
            max(1.0, float(np.median(self._noise)))
            if len(self._noise) >= _LEAST_NOISE_HOURS
            else 1.0
        )

    def slack(self, signals: int, sides: int) -> float:
        """The z that an hour alone may exceed as often as the share of one of `sides` one-sided
        sums of one of `signals` signals allows.
        """
        chance = self.settings.hour_share * self.settings.target / 100 / HOURS / signals / sides
        return -float(ndtri(chance)) * self.spread

    def _stream(self, hour: int) -> HourOfDay:
        place = hour % HOURS
        if place not in self._of_day:
            self._of_day[place] = HourOfDay(
                self.days.alias,
                replace(self.settings, clip=_CLIP),
                incidents=self.days.incidents,
                days=self.days,
            )
        return self._of_day[place]

    def _judged(
        self, hour: int, rows: int, statistics: DayStatistics, judged: list[Judged]
    ) -> RememberedHour:
        if not judged:
            return RememberedHour(hour, rows, statistics)
        sides = sides_of(judged)
        judged = [one for one in judged if self.days.incident_of(one.chart) is None]
        sums, crossed = {}, []
        for one in judged:
            slack = self.slack(len(sides), sides[one.signal.name])
            z = float(np.clip(one.z, -slack - _ROOM, slack + _ROOM))
            total = self.sums.get(one.chart, Cusum()).step(z, hour, slack, 2 * _THRESHOLD)
            if one.signal.worse == "up":
                total = total.without_fall()
            strength = max(total.up, total.down) / _THRESHOLD
            effect = self._effect(one, total.since, statistics)
            if (
                strength >= 1
                and total.since is not None
                and effect.large
                and effect.up == (total.up >= total.down)
            ):
                crossed.append(
                    Evidence(
                        one.chart,
                        hour // HOURS,
                        total.since // HOURS,
                        strength,
                        effect,
                        sides[one.signal.name],
                        hour,
                        total.since,
                    )
                )
            elif strength > 0:
                sums[one.chart] = total
        noise = (
            float(
                np.sqrt(np.mean(np.clip([one.z for one in judged], -_NOISE_CLIP, _NOISE_CLIP) ** 2))
            )
            if judged
            else None
        )
        return RememberedHour(hour, rows, statistics, True, noise, sums, tuple(crossed))

    def _effect(self, one: Judged, since: int | None, statistics: DayStatistics) -> Effect:
        begin = since if since is not None else 0
        gross: DailySignal = replace(
            one.signal, floor=_GROSS * one.signal.floor, least=_GROSS * one.signal.least
        )
        rows = float(self.days.memory.rows[-1])  # of the last whole day, for "about … more a day"
        effect = effect_of(
            gross,
            one.chart,
            one.known.told[one.quiet],
            one.point.level,
            values=one.point.n,
            rows_per_day=rows,
            since=begin // HOURS,
        )
        day = date_of(begin // HOURS).isoformat()
        return replace(
            effect,
            sentence=effect.sentence.replace(
                f"since {day}", f"since {day} {hour_iso(begin)[11:16]} UTC"
            ),
        )

    def _remember(self, made: RememberedHour) -> None:
        self.newest, self.sums = made, dict(made.sums)
        if made.judged:
            self.judged_hours += 1
            self.judged_days.add(made.hour // HOURS)
        if made.noise is not None:
            self._noise = [*self._noise[1 - _NOISE_HOURS :], made.noise]
