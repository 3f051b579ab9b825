"""One day of one stream as a few numbers: what the detector remembers of it.

Scales on which a day is judged, chosen so that the noise is near normal and its spread does not
depend on the level:

- shares: 2 arcsin sqrt(p), Anscombe's form for counts (Anscombe 1948), standard deviation about
  1/sqrt(n). Log-odds would do
  as well with many events; with 200 requests and no refusal on many days they are skewed and
  arcsine is not;
- positive values and latencies: logarithms (mean; median and 95 % quantile);
- novelty: mean logarithm of the distance to the nearest topic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monitoring.detector.codebook import Codebook
from monitoring.detector.columns import Floats, Table
from monitoring.detector.retrieval import with_misses
from monitoring.detector.sample import sample_of_day
from monitoring.detector.settings import DetectorSettings
from monitoring.detector.signals import DailySignal, categories_of, numbers_of, signals_of
from monitoring.detector.slices import IN_SLICES, count_slices, rows_in, slice_name
from whet.json_types import JsonObject
from whet.records.monitoring import DayRecord, DeclaredChangeRecord, StoredPoint, StoredSlicePoint

# Below every real duration, count and probability: the logarithm of zero would be none
_SMALLEST = 1e-6
_QUANTILES = {"p50": 0.50, "p95": 0.95}
_P95_ROWS = 100  # values of which a 95 % quantile is still five values from the top
_MOST_CATEGORIES = 60  # kept of a day
OF_ALIAS = ("questions", "retrieval")  # sides that no adapter has a part in


class Chart(NamedTuple):
    """One series of daily values, which is tested on its own."""

    signal: str
    part: str = ""  # `p50`, `p95`, or a category; a topic's number
    adapter: str = ""  # answers are watched for each adapter; questions for the alias
    slice: str = ""  # such as `slice_tenant=acme`; empty: all requests

    @property
    def group(self) -> str:
        """The charts that share an error budget: a signal's, or a signal's in slices."""
        return f"{self.signal}{IN_SLICES}" if self.slice else self.signal


@dataclass(frozen=True, slots=True)
class Point:
    """One chart on one day."""

    value: float  # on the scale of the chart
    error: float  # its standard error if rows were independent
    level: float  # what people are told: a share, tokens, milliseconds
    n: int  # values behind it


@dataclass(frozen=True)
class DayStatistics:
    """What is kept of a day: JSON-able, a few kilobytes."""

    day: int  # days since 1970-01-01
    rows: int  # requests of the day
    sampled: int  # rows after the cap per user
    points: dict[Chart, Point] = field(default_factory=dict)
    # Of a categorical signal: category → rows of the sample
    counts: dict[Chart, dict[str, int]] = field(default_factory=dict)
    # Of the sample: a new one is a declared change
    templates: dict[str, int] = field(default_factory=dict)
    has_users: bool = True  # false: nobody knows whose the rows are, and one busy user can be many
    # Collection → score below which a question found nothing.
    low_scores: dict[str, float] = field(default_factory=dict)
    # `collection state` → rows of the sample that searched it.
    documents: dict[str, int] = field(default_factory=dict)
    # Slice column → value → rows of the sample.
    slices: dict[str, dict[str, int]] = field(default_factory=dict)

    def as_json(self) -> JsonObject:
        return self.record().as_json()

    def record(self, changes: Sequence[DeclaredChangeRecord] | None = None) -> DayRecord:
        """Return what is stored of it. `changes`: of a day, those that were declared."""
        points: list[StoredPoint] = []
        in_slices: list[StoredSlicePoint] = []
        for (signal, part, adapter, name), one in self.points.items():
            figures = (one.value, one.error, one.level, one.n)
            if name:
                in_slices.append((signal, part, adapter, name, *figures))
            else:
                points.append((signal, part, adapter, *figures))
        counts = [(c.signal, c.part, c.adapter, found) for c, found in self.counts.items()]
        made = DayRecord(
            day=self.day, rows=self.rows, sampled=self.sampled, points=points, counts=counts,
            templates=self.templates, has_users=self.has_users, low_scores=self.low_scores,
            documents=self.documents, slices=self.slices, slice_points=in_slices,
        )  # fmt: skip
        return made if changes is None else made.model_copy(update={"changes": [*changes]})

    @staticmethod
    def from_record(made: DayRecord) -> DayStatistics:
        points = {Chart(*row[:3]): Point(*row[3:]) for row in made.points}
        points |= {Chart(*row[:4]): Point(*row[4:]) for row in made.slice_points}
        counts = {Chart(*row[:3]): row[3] for row in made.counts}
        return DayStatistics(
            made.day, made.rows, made.sampled, points, counts, made.templates, made.has_users,
            made.low_scores, made.documents, made.slices,
        )  # fmt: skip


def share_point(events: float, n: int) -> Point:
    """The point of a share."""
    value = 2 * np.arcsin(np.sqrt((events + 0.375) / (n + 0.75)))
    return Point(float(value), float(1 / np.sqrt(n)), events / n, n)


def summarise_day(
    table: Table,
    day: int,
    settings: DetectorSettings,
    codebook: Codebook | None,
    requests: int = 0,
    low_scores: Mapping[str, float] | None = None,
    watched: Mapping[str, tuple[str, ...]] | None = None,
) -> tuple[DayStatistics, Table]:
    """The statistics of one day's rows of one stream, and the sample they were taken from.

    `requests`: of the day, where `table` holds fewer. `low_scores`: as `with_misses` takes them.
    `watched`: slice column → values that have charts of their own.
    """
    kept = sample_of_day(table, settings.rows_per_user, 2 * settings.min_rows, settings.seed, day)
    sample = with_misses(kept, low_scores or {})
    points: dict[Chart, Point] = {}
    counts: dict[Chart, dict[str, int]] = {}
    signals = signals_of(set(sample.columns))
    least = settings.min_rows
    parts = [(adapter, rows, False) for adapter, rows in _by_adapter(sample, least).items()]
    for adapter, rows, is_of_alias in [*parts, ("", sample, True)]:
        slices = dict(_slice_rows(rows, watched or {}, least))
        for signal in signals:
            if (signal.side in OF_ALIAS) == is_of_alias:
                _add(signal, adapter, rows, least, points, counts, slices)
    if codebook is not None:
        _questions(sample, day, settings, codebook, points, counts)
    templates = (
        Counter(value for value in sample.columns["template"] if value is not None)
        if "template" in sample
        else Counter[str]()
    )
    statistics = DayStatistics(
        day, requests or len(table), len(sample), points, counts,
        dict(templates.most_common(_MOST_CATEGORIES)), "user" in table,
        dict(low_scores or {}), _documents(sample), count_slices(sample, _MOST_CATEGORIES),
    )  # fmt: skip
    return statistics, kept


def _documents(sample: Table) -> dict[str, int]:
    """States of the collections that were searched, with the rows of each."""
    states = sample.get("documents")
    if states is None:
        return {}
    names = sample.get("collection")
    pairs = zip(names if names is not None else [None] * len(states), states, strict=True)
    counts = Counter(f"{name or ''} {state}".strip() for name, state in pairs if state is not None)
    return dict(counts.most_common(_MOST_CATEGORIES))


def _by_adapter(sample: Table, least: int) -> dict[str, Table]:
    adapters = sample.get("adapter")
    if adapters is None:
        return {"": sample}
    names = {name: count for name, count in Counter(adapters).items() if count >= least}
    return {
        name or "": sample if count == len(sample) else sample.take(np.equal(adapters, name))
        for name, count in names.items()
    }


def _add(
    signal: DailySignal,
    adapter: str,
    rows: Table,
    least: int,
    points: dict[Chart, Point],
    counts: dict[Chart, dict[str, int]],
    slices: Mapping[str, NDArray[np.bool_]],
) -> None:
    """Add a signal's points and counts; `slices`: name → which rows are in it."""
    if signal.shape == "category":
        values = categories_of(signal, rows)
        known = (
            Counter(value for value in values if value is not None)
            if values is not None
            else Counter[str]()
        )
        if known.total() >= least:
            counts[Chart(signal.name, "", adapter)] = dict(known.most_common(_MOST_CATEGORIES))
    elif signal.shape not in ("topics", "novelty"):
        values = numbers_of(signal, rows)
        for part, point in _scalar_points(signal, values, least).items():
            points[Chart(signal.name, part, adapter)] = point
        if values is None:
            return
        for name, is_in in slices.items():
            for part, point in _slice_points(signal, values, is_in, least).items():
                points[Chart(signal.name, part, adapter, name)] = point


def _slice_points(
    signal: DailySignal, values: Floats, is_in: NDArray[np.bool_], least: int
) -> dict[str, Point]:
    """A slice against all other requests of the day: what moves both is no change of the slice."""
    own = _scalar_points(signal, values[is_in], least)
    others = _scalar_points(signal, values[~is_in], least)
    return {
        part: Point(
            point.value - others[part].value,
            float(np.hypot(point.error, others[part].error)),
            point.level,
            point.n,
        )
        for part, point in own.items()
        if part in others and part != "p95"  # a quantile of a slice's few values says little
    }


def _slice_rows(
    rows: Table, watched: Mapping[str, tuple[str, ...]], least: int
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """(name of a watched slice, which rows are in it), of those with enough rows."""
    for column, names in watched.items():
        for value in names:
            name = slice_name(column, value)
            is_in = rows_in(name, rows)
            if is_in.sum() >= least:
                yield name, is_in


def _scalar_points(signal: DailySignal, values: Floats | None, least: int) -> dict[str, Point]:
    """Part of the signal → its point; empty where the day has too few values."""
    if values is None:
        return {}
    values = values[np.isfinite(values)]
    n = len(values)
    if n < least:
        return {}
    if signal.shape == "rate":
        return {"": share_point(float(values.sum()), n)}
    if signal.shape == "score":
        return {
            "": Point(
                float(values.mean()), float(values.std() / np.sqrt(n)), float(values.mean()), n
            )
        }
    logs = np.log(np.maximum(values, _SMALLEST))
    deviation = float(logs.std() / np.sqrt(n))
    if signal.shape == "positive":
        return {"": Point(float(logs.mean()), deviation, float(np.exp(logs.mean())), n)}
    made = {}
    for name, share in _QUANTILES.items():
        if name == "p50" or n >= _P95_ROWS:
            quantile = float(np.quantile(logs, share))
            # Standard error of a normal's quantile: 1.25 times that of the mean at the median, 2.1
            # times at 95 %.
            made[name] = Point(
                quantile, deviation * (1.25 if name == "p50" else 2.1), float(np.exp(quantile)), n
            )
    return made


def _questions(
    sample: Table,
    day: int,
    settings: DetectorSettings,
    codebook: Codebook,
    points: dict[Chart, Point],
    counts: dict[Chart, dict[str, int]],
) -> None:
    if len(sample) > settings.texts_per_day:
        chosen = np.random.default_rng([settings.seed, day, 2]).choice(
            len(sample), settings.texts_per_day, replace=False
        )
        sample = sample.take(np.sort(chosen))
    vectors = codebook.vectors(sample)
    if vectors is None:
        return
    nearest, distance = codebook.assign(vectors)
    known = nearest >= 0
    n = int(known.sum())
    if n < settings.min_rows:
        return
    logs = np.log(distance[known])
    points[Chart("prompt_novelty")] = Point(
        float(logs.mean()),
        float(logs.std() / np.sqrt(n)),
        float((distance[known] > codebook.far).mean()),
        n,
    )
    found = np.bincount(nearest[known], minlength=len(codebook.centroids))
    counts[Chart("prompt_topics")] = {str(topic): int(count) for topic, count in enumerate(found)}
