"""One alias from its first day on: conversations in, incidents with their explanation out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from monitoring.detector.baseline import WEEKDAY_SHIFT
from monitoring.detector.changes import DeclaredChange, declared_changes
from monitoring.detector.clusters import fit_codebook
from monitoring.detector.codebook import Codebook
from monitoring.detector.coldstart import Finding, compare_two
from monitoring.detector.columns import EMBEDDING, Table, concatenated
from monitoring.detector.daily import Chart, DayStatistics, summarise_day
from monitoring.detector.explain import beyond_others, explain, measure_of
from monitoring.detector.hours import HOURS, Hours, RememberedHour, summarise_hour
from monitoring.detector.incidents import Evidence, Incident
from monitoring.detector.kinds import kinds_of_requests
from monitoring.detector.retrieval import has_unknown, low_scores_of, with_misses
from monitoring.detector.settings import DetectorSettings
from monitoring.detector.slices import WatchedSlices
from monitoring.detector.stream import Stream
from monitoring.detector.turnover import class_weights, least_z, turnover_z
from whet.records.monitoring import Explanation

_EARLY_WINDOW = 7  # days compared with those before them while there is no history
_CONFIRMED_DAYS = 42  # days before the change whose users it is compared with
_LATEST_DAYS = 7  # of a change that its users are taken from
_EXPLAINED_DAYS = 14  # days before the change that explanations compare with


@dataclass(frozen=True)
class Early:
    """What two-sample tests say before there is a history: information, not an incident."""

    alias: str
    day: int
    findings: list[Finding]
    rows: tuple[int, int]  # users compared: before, last week


@dataclass(frozen=True)
class Remembered:
    """A day as it is kept: everything that `Watch.resume` needs to stand where it stood after the
    day.
    """

    statistics: DayStatistics
    # Charts whose crossing was confirmed with the conversations at hand
    confirmed: frozenset[Chart]
    kept: Table  # some of the day's conversations
    # What moved with versions, templates and document sets that are new this week
    changes: tuple[DeclaredChange, ...] = ()


@dataclass
class Watch:
    """State of one alias.

    Keeps `kept_per_day` conversations of each of the last nine weeks to explain with.

    `questions` tells the text of conversations by id, for kept tables that hold none; conversations
    it does not know are without text.
    """

    alias: str
    settings: DetectorSettings
    stream: Stream = field(init=False)
    hours: Hours = field(init=False)
    slices: WatchedSlices = field(init=False)
    codebook: Codebook | None = None
    questions: Callable[[list[str]], Mapping[str, str]] | None = None
    kept: dict[int, Table] = field(default_factory=dict)
    early: list[Early] = field(default_factory=list)
    low_scores: dict[str, float] = field(default_factory=dict)  # as `with_misses` takes them
    # (kind, name) → the change as it was told last
    changes: dict[tuple[str, str], DeclaredChange] = field(default_factory=dict)
    _first: list[Table] = field(default_factory=list)
    # Hour → its conversations, of a day that is not over
    _today: dict[int, Table] = field(default_factory=dict)
    _fitted: bool = False

    def __post_init__(self) -> None:
        self.stream = Stream(self.alias, self.settings)
        self.hours = Hours(self.settings, self.stream)
        self.slices = WatchedSlices(self.settings)
        self._fitted = self.codebook is not None

    def resume(self, day: Remembered) -> None:
        """Take in a day that was judged before, with the same outcome."""
        number = day.statistics.day
        self.low_scores = {**self.low_scores, **day.statistics.low_scores}
        self.kept[number] = day.kept
        self._forget(number)
        self._begin(number)
        self.stream.step(day.statistics, lambda evidence: evidence.chart in day.confirmed)
        self._learn(day.statistics)

    def step(self, day: int, rows: Table, requests: int = 0) -> tuple[list[Incident], Remembered]:
        """Take in one day's requests; returns the incidents that opened, grew or closed, and what
        is remembered of the day.

        `requests`: how many the day had, where `rows` is a sample of them.
        """
        statistics, sample = summarise_day(
            rows, day, self.settings, self.codebook, requests, self.low_scores, self.slices.chosen
        )
        self._keep(day, sample)
        self._begin(day)
        confirmed: set[Chart] = set()

        def confirm(evidence: Evidence) -> bool:
            if self.confirms(evidence):
                confirmed.add(evidence.chart)
            return evidence.chart in confirmed

        changed = self.stream.step(statistics, confirm)
        self._learn(statistics)
        first = self.stream.memory.days[0]
        if (
            day - first < self.settings.cold_days
            and (day - first + 1) % _EARLY_WINDOW == 0
            and day - first >= 2 * _EARLY_WINDOW - 1
        ):
            self._compare_early(day)
        for incident in changed:
            if incident.state == "open":
                incident.explanation = self.explanation(incident)
        found = declared_changes(self.kept, day, self.settings.min_rows)
        self.changes |= {(one.kind, one.name): one for one in found}
        return changed, Remembered(statistics, frozenset(confirmed), self.kept[day], tuple(found))

    def resume_hour(self, hour: RememberedHour) -> None:
        """Take in an hour that was judged before, with the same outcome."""
        self.hours.resume(hour)
        self.stream.take(list(hour.evidence), hour.hour // HOURS)

    def step_hour(
        self, hour: int, rows: Table, requests: int = 0, *, judge: bool = True
    ) -> tuple[list[Incident], RememberedHour]:
        """Take in one hour's requests, before the day that it belongs to; returns the incidents
        that opened or grew, and what is remembered.

        `requests` as in `step`; `judge` as in `Hours.step`.
        """
        found = summarise_hour(rows, hour, self.settings, self.codebook, self.low_scores)
        remembered = self.hours.step(
            hour, requests or len(rows), found[0] if found else None, judge=judge
        )
        if found and judge:
            self._today[hour] = found[1]
        changed = self.stream.take(list(remembered.evidence), hour // HOURS)
        for incident in changed:
            incident.explanation = self.explanation(incident)
        return changed, remembered

    def _begin(self, day: int) -> None:
        """A day that is over is judged by what its hours have left of the target."""
        self._today = {}
        self.stream.share = 1 - self.settings.hour_share if day in self.hours.judged_days else 1.0

    def explanation(self, incident: Incident) -> Explanation:
        """Slices, topics and conversations that carry the change, from the days that are kept."""
        first, since = incident.since - _EXPLAINED_DAYS, incident.since
        days = self.kept.items()
        before = self._joined([table for day, table in days if first <= day < since])
        late = [table for day, table in days if day >= since]
        after = self._joined([*late, *self._of_hours(incident)])
        return explain(
            incident, self._told(before), self._told(after), self.codebook, self.settings.seed
        )

    def _joined(self, tables: list[Table]) -> Table:
        """One table of all rows, which of them found nothing included."""
        return with_misses(concatenated(tables), self.low_scores)

    def _of_hours(self, incident: Incident) -> list[Table]:
        """Conversations since the change in a day that is not over."""
        begin = incident.lead.since_hour
        return (
            []
            if begin is None
            else [self._with_vectors(table) for hour, table in self._today.items() if hour >= begin]
        )

    def _told(self, table: Table) -> Table:
        """With the questions' texts, where the table was kept without them."""
        if self.questions is None or "prompt" in table or not len(table):
            return table
        known = self.questions([str(name) for name in table.columns["id"]])
        return Table(
            {
                **table.columns,
                "prompt": np.array(
                    [known.get(str(name)) for name in table.columns["id"]], dtype=object
                ),
            }
        )

    def confirms(self, evidence: Evidence) -> bool:
        """Whether a change is more than an exchange of users, or one of them who is busy.

        Without users in the table, every row is one, and so is every kind of requests: what one
        person may have brought is no change of the service.
        """
        chart, stream = evidence.chart, self.stream
        start = max(
            evidence.since - _CONFIRMED_DAYS, stream.segment_start(chart, evidence.day) or 0
        )
        usable = [
            day
            for day in self.kept
            if start <= day < evidence.since and not stream.hidden(chart.signal, np.array([day]))[0]
        ]
        late = [day for day in self.kept if day >= evidence.since][-_LATEST_DAYS:]
        before, after = (self._joined([self.kept[day] for day in days]) for days in (usable, late))
        if not len(before) or not len(after):
            return True
        old, new = (
            beyond_others(chart, table, self.codebook)
            if chart.slice
            else measure_of(chart, table, self.codebook)
            for table in (before, after)
        )
        if old is None or new is None:
            return True
        quiet_days = stream.quiet_days
        quiet_before, quiet_after = (
            np.isin((table.columns["day"] + WEEKDAY_SHIFT) % 7, list(quiet_days))
            for table in (before, after)
        )
        users_before, users_after = (
            table.columns["user" if "user" in table else "id"] for table in (before, after)
        )
        z = turnover_z(
            old, new, users_before, users_after, class_weights(quiet_before, quiet_after)
        )
        least = least_z(self.settings.least_turnover_z, evidence.sides)
        if z is not None and (z if evidence.effect.up else -z) < least:
            return False
        kinds = kinds_of_requests(chart, before, after, self.codebook)
        if kinds is None:
            return True
        weights = class_weights(quiet_before, quiet_after)
        z = turnover_z(old, new, kinds.before, kinds.after, weights)
        return z is None or (z if evidence.effect.up else -z) >= kinds.least_z(least)

    def _keep(self, day: int, sample: Table) -> None:
        if len(sample) > self.settings.kept_per_day:
            chosen = np.random.default_rng([self.settings.seed, day, 3]).choice(
                len(sample), self.settings.kept_per_day, replace=False
            )
            sample = sample.take(np.sort(chosen))
        self.kept[day] = self._with_vectors(sample)
        self._forget(day)

    def _forget(self, day: int) -> None:
        for old in [old for old in self.kept if old <= day - self.settings.history_days]:
            del self.kept[old]

    def _with_vectors(self, sample: Table) -> Table:
        """Texts become vectors once."""
        vectors = (
            self.codebook.vectors(self._told(sample))
            if self.codebook is not None and EMBEDDING not in sample
            else None
        )
        return sample if vectors is None else Table({**sample.columns, EMBEDDING: vectors})

    def _learn(self, today: DayStatistics) -> None:
        """Learn what a day completes: topics, slices to watch, the low score of a collection."""
        day = today.day
        self.slices.take_in(day, today.slices)
        self._learn_topics(day)
        if has_unknown(self.kept[day], self.low_scores):
            days = self.kept.values()
            self.low_scores = low_scores_of(days, self.low_scores, self.settings.codebook_days)

    def _learn_topics(self, day: int) -> None:
        """Fit the codebook when its days are over; what it was fitted on is no history of its
        signals.
        """
        if self._fitted:
            return
        self._first.append(self.kept[day])
        if day - self.stream.memory.days[0] >= self.settings.codebook_days - 1:
            self.codebook = fit_codebook(
                self._told(concatenated(self._first)), self.settings.topics, self.settings.seed
            )
            self._first, self._fitted = [], True
            self.kept = {kept: self._with_vectors(table) for kept, table in self.kept.items()}

    def _compare_early(self, day: int) -> None:
        first = day - _EARLY_WINDOW + 1
        before = self._joined([table for kept, table in self.kept.items() if kept < first])
        after = self._joined([table for kept, table in self.kept.items() if kept >= first])
        if len(before) and len(after):
            comparison = compare_two(before, after, seed=self.settings.seed)
            if comparison.findings:
                self.early.append(Early(self.alias, day, comparison.findings, comparison.rows))


def states(watches: Mapping[str, Watch]) -> list[Incident]:
    """Every incident of some aliases, oldest first."""
    return sorted(
        (incident for watch in watches.values() for incident in watch.stream.incidents),
        key=lambda one: (one.opened, one.name),
    )
