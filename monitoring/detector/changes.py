"""What moved with a declared change: a new version, prompt template or document set. Pure.

Answers since the change are compared with those of the version before, and, while both answer, with
those of the same days. Rows of one user are one piece of evidence; how days differ by themselves is
in the intervals of the first comparison, and does not matter in the second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from monitoring.detector.baseline import WEEKDAY_SHIFT
from monitoring.detector.columns import Floats, Table, concatenated, date_of
from monitoring.detector.daily import Chart
from monitoring.detector.effects import SHARES, effect_of, figure_text, percent_text
from monitoring.detector.explain import measure_of
from monitoring.detector.signals import DailySignal, categories_of, signals_of
from monitoring.detector.turnover import Difference, class_weights, clustered_difference
from monitoring.statistics import holm
from whet.json_types import JsonObject
from whet.records.monitoring import ComparisonRecord, DeclaredChangeRecord, MoveRecord

LOOKS = 7  # days after which a change is no longer told
BEFORE_DAYS = 14  # of the version before: two of each weekday
# Chance that anything is told of a change that moves nothing, over all signals and looks.
ALPHA = 0.01
_LEAST_DAYS = 3  # from which it is known how days differ by themselves
_MOST_CATEGORIES = 6
_LEAST_SHARE = 0.01  # of a category, in either sample
_LEVEL = 0.95  # of the intervals
ChangeKind = Literal["adapter", "template", "documents"]
# Kind → sides of signals that it can move; a template also makes prompts longer.
_SIDES: dict[ChangeKind, tuple[str, ...]] = {
    "adapter": ("answers", "quality", "service"),
    "template": ("questions", "retrieval", "answers", "quality", "service"),
    "documents": ("retrieval", "answers", "quality", "service"),
}
KIND_NAMES: dict[ChangeKind, str] = {
    "adapter": "Version", "template": "Prompt template", "documents": "Document set",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Move:
    """One number of a signal, before and since. `low`, `high`: 95 % interval of the difference.

    The difference is in points of a share, relative for positive levels, else in the signal's unit.
    """

    signal: str
    label: str  # begins a sentence
    unit: str
    shape: str
    before: float
    now: float
    n_before: int
    n_now: int
    low: float
    high: float
    is_clear: bool  # exceeds chance, by enough to matter

    @property
    def sentence(self) -> str:
        """`Refusal rate 20 % (n 205), baseline 4.0 % (n 2,810): +16 points, 95 % interval …`."""
        before, now = (self._level(value) for value in (self.before, self.now))
        return (
            f"{self.label} {now} (n {self.n_now:,}), baseline {before} (n {self.n_before:,}): "
            f"{self._difference(self.difference)}, 95 % interval {self._signed(self.low)} to "
            f"{self._difference(self.high)}."
        )

    @property
    def difference(self) -> float:
        """As `low` and `high`."""
        is_relative = self.shape in ("positive", "latency")
        return self.now / self.before - 1 if is_relative else self.now - self.before

    def _level(self, value: float) -> str:
        if self.shape in SHARES:
            return percent_text(value)
        return f"{figure_text(value)}{f' {self.unit}' if self.unit else ''}"

    def _signed(self, value: float) -> str:
        return f"{value:+.3f}" if self.shape == "score" else f"{100 * value:+.2g}"

    def _difference(self, value: float) -> str:
        unit = {"score": "", "positive": " %", "latency": " %"}.get(self.shape, " points")
        return f"{self._signed(value)}{unit}"

    def record(self) -> MoveRecord:
        """Return what is stored of it."""
        return MoveRecord(
            signal=self.signal, label=self.label, before=self.before, now=self.now,
            n_before=self.n_before, n_now=self.n_now, difference=self.difference, low=self.low,
            high=self.high, is_clear=self.is_clear, sentence=self.sentence,
        )  # fmt: skip


@dataclass(frozen=True)
class ComparedArms:
    """The new one beside another. `moves`: of every signal with enough values, largest first."""

    other: str
    is_concurrent: bool  # the other answered on the same days
    rows_other: int
    rows_new: int
    moves: tuple[Move, ...]

    @property
    def clear(self) -> list[Move]:
        return [move for move in self.moves if move.is_clear]

    @property
    def heading(self) -> str:
        """With whom it is compared, and what is said where nothing moved."""
        where = (
            f"Beside {self.other} on the same days"
            if self.is_concurrent
            else f"Compared with {self.other} in the {BEFORE_DAYS} days before"
        )
        if self.clear:
            return f"{where}:"
        return (
            f"{where}, nothing moved that {self.rows_new:,} sampled answers can show "
            f"({len(self.moves)} numbers compared)."
        )

    def record(self) -> ComparisonRecord:
        """Return what is stored of it."""
        return ComparisonRecord(
            other=self.other,
            heading=self.heading,
            when="same days" if self.is_concurrent else "days before",
            rows_other=self.rows_other,
            rows_new=self.rows_new,
            moves=[move.record() for move in self.moves],
        )


@dataclass(frozen=True)
class DeclaredChange:
    """A value that answered for the first time. `comparisons`: none while rows are too few."""

    kind: ChangeKind
    name: str
    other: str  # that it is compared with
    first_day: int
    last_day: int  # that is in the figures
    rows: int  # sampled
    comparisons: tuple[ComparedArms, ...]

    @property
    def sentences(self) -> list[str]:
        """What is said of it, the heading first."""
        kind = KIND_NAMES[self.kind]
        first = date_of(self.first_day).isoformat()
        until = f" until {date_of(self.last_day)}" if self.last_day > self.first_day else ""
        head = f"{kind} {self.name} is new since {first}"
        if not self.comparisons:
            return [f"{head}; too few answers to compare yet ({self.rows:,} sampled)."]
        said = [
            " ".join([one.heading, *(m.sentence for m in one.clear)]) for one in self.comparisons
        ]
        return [f"{head}; in its answers{until}:", *said]

    def as_json(self) -> JsonObject:
        return self.record().as_json()

    def record(self) -> DeclaredChangeRecord:
        """Return what is stored of it."""
        return DeclaredChangeRecord(
            kind=self.kind, name=self.name, other=self.other,
            first_day=date_of(self.first_day).isoformat(),
            last_day=date_of(self.last_day).isoformat(), rows=self.rows,
            sentences=self.sentences,
            comparisons=[one.record() for one in self.comparisons],
        )  # fmt: skip


def declared_changes(kept: Mapping[int, Table], today: int, least: int) -> list[DeclaredChange]:
    """Compare what answered for the first time within the last `LOOKS` days.

    `kept`: day → its rows, of the days that are kept. `least`: rows of either side.
    """
    found = []
    for kind in KIND_NAMES:
        days = {day: labels for day, table in kept.items() if (labels := _labels(kind, table))}
        first_seen: dict[str, int] = {}
        for day in sorted(days):
            for name in days[day]:
                first_seen.setdefault(name, day)
        for name, first in first_seen.items():
            if first > today - LOOKS and (other := _before(kind, name, days, first)):
                found.append(_compare(kind, name, other, kept, first, today, least))
    return sorted(found, key=lambda one: (one.first_day, one.kind, one.name))


def _labels(kind: ChangeKind, table: Table) -> Counter[str]:
    """Value → rows of a day."""
    return Counter(name for name in _names(kind, table) if name is not None)


def _names(kind: ChangeKind, table: Table) -> list[str | None]:
    values = table.get(kind)
    if values is None:
        return [None] * len(table)
    collections = table.get("collection") if kind == "documents" else None
    if collections is None:
        return [None if value is None else str(value) for value in values]
    # A state of documents is known by its beginning, as digests are.
    pairs = zip(collections, values, strict=True)
    return [f"{name or ''} {value[:12]}".strip() if value else None for name, value in pairs]


def _before(kind: ChangeKind, name: str, days: Mapping[int, Counter[str]], first: int) -> str:
    """What answered most in the two weeks before; empty where nothing did."""
    rows: Counter[str] = Counter()
    for day, labels in days.items():
        if first - BEFORE_DAYS <= day < first:
            rows.update(labels)
    if kind == "documents":  # of the same collection
        collection = name.rpartition(" ")[0]
        rows = Counter({one: n for one, n in rows.items() if one.rpartition(" ")[0] == collection})
    return rows.most_common(1)[0][0] if rows else ""


def _compare(
    kind: ChangeKind,
    name: str,
    other: str,
    kept: Mapping[int, Table],
    first: int,
    today: int,
    least: int,
) -> DeclaredChange:
    def rows_of(label: str, begin: int, end: int) -> Table:
        tables = [
            table.take(np.array([found == label for found in _names(kind, table)], dtype=bool))
            for day, table in kept.items()
            if begin <= day < end
        ]
        return concatenated([table for table in tables if len(table)])

    new = rows_of(name, first, today + 1)
    comparisons = []
    earlier, beside = rows_of(other, first - BEFORE_DAYS, first), rows_of(other, first, today + 1)
    for rows, is_concurrent in ((earlier, False), (beside, True)):
        is_over = is_concurrent and not len(rows_of(other, today, today + 1))
        if min(len(new), len(rows)) >= least and not is_over:
            moves = _moves(kind, rows, new, least, is_concurrent)
            comparisons.append(
                ComparedArms(other, is_concurrent, len(rows), len(new), tuple(moves))
            )
    return DeclaredChange(kind, name, other, first, today, len(new), tuple(comparisons))


@dataclass(frozen=True, slots=True)
class _Tested:
    move: Move
    p: float
    is_large: bool
    size: float


def _moves(
    kind: ChangeKind, before: Table, after: Table, least: int, is_concurrent: bool
) -> list[Move]:
    tested = []
    for signal in signals_of(set(before.columns) & set(after.columns)):
        if signal.side in _SIDES[kind] and signal.shape not in ("topics", "novelty"):
            for chart in _charts(signal, before, after):
                made = _test(signal, chart, before, after, least, is_concurrent)
                tested += [made] if made else []
    adjusted = holm([one.p for one in tested])
    tested = [
        replace(one, move=replace(one.move, is_clear=one.is_large and p < ALPHA / LOOKS))
        for one, p in zip(tested, adjusted, strict=True)
    ]
    return [one.move for one in sorted(tested, key=lambda one: -one.size)]


def _charts(signal: DailySignal, before: Table, after: Table) -> Iterator[Chart]:
    """The numbers of a signal: one, or one for each category that is not rare."""
    if signal.shape != "category":
        yield Chart(signal.name)
        return
    shares: dict[str, float] = {}
    for table in (before, after):
        values = categories_of(signal, table)
        known = [str(one) for one in values if one is not None] if values is not None else []
        for name, count in Counter(known).items():
            shares[name] = max(shares.get(name, 0.0), count / len(known))
    largest = sorted(shares, key=lambda name: (-shares[name], name))[:_MOST_CATEGORIES]
    largest = largest[1:] if len(shares) == 2 else largest  # two say the same; the rarer says more
    yield from (Chart(signal.name, name) for name in largest if shares[name] >= _LEAST_SHARE)


def _test(
    signal: DailySignal, chart: Chart, before: Table, after: Table, least: int, is_concurrent: bool
) -> _Tested | None:
    old, new = measure_of(chart, before, None), measure_of(chart, after, None)
    if old is None or new is None:
        return None
    quiet = [_quiet_days(table) for table in (before, after)]
    known = [np.isfinite(values) for values in (old, new)]
    n_before, n_now = (int(rows.sum()) for rows in known)
    if min(n_before, n_now) < least:
        return None
    users = [table.columns["user" if "user" in table else "id"] for table in (before, after)]
    found = clustered_difference(old, new, users[0], users[1], class_weights(quiet[0], quiet[1]))
    if found is None:
        return None
    error = _error(signal, found, n_before, n_now)
    if not is_concurrent:
        error = float(np.hypot(error, _error_of_days(old, before, new, after)))
    if error <= 0:
        return None
    change, half = found.after - found.before, float(norm.isf((1 - _LEVEL) / 2)) * error
    low, high = change - half, change + half
    level_before, level_now = found.before, found.after
    if signal.shape in ("positive", "latency"):
        level_before, level_now = float(np.exp(level_before)), float(np.exp(level_now))
        low, high = float(np.expm1(low)), float(np.expm1(high))
    effect = effect_of(
        replace(signal, worse="both"), chart, level_before, level_now,
        values=n_now, rows_per_day=0.0, since=0,
    )  # fmt: skip
    move = Move(
        signal.name, _label(signal, chart), signal.unit,
        "rate" if signal.shape == "category" else signal.shape,
        level_before, level_now, n_before, n_now, low, high, False,
    )  # fmt: skip
    return _Tested(
        move, 2 * float(norm.sf(abs(change) / error)), effect.large, effect.size(signal.shape)
    )


def _label(signal: DailySignal, chart: Chart) -> str:
    if signal.name == "finish_reason":
        return f"finish_reason={chart.part}"
    if signal.shape in ("positive", "latency"):
        return f"{signal.label} (geometric mean)"
    return f"{signal.label}: {chart.part}" if chart.part else signal.label


def _error(signal: DailySignal, found: Difference, n_before: int, n_now: int) -> float:
    """At least that of independent rows: of a share without an event, rows seem to vary nothing."""
    if signal.shape not in ("rate", "category"):
        return found.error
    events = found.before * n_before + found.after * n_now
    share = (events + 1) / (n_before + n_now + 2)
    return max(found.error, float(np.sqrt(share * (1 - share) * (1 / n_before + 1 / n_now))))


def _error_of_days(old: Floats, before: Table, new: Floats, after: Table) -> float:
    """Standard error of the difference that comes from how days differ by themselves."""
    days = before.columns["day"]
    means, noise = [], []
    for day in np.unique(days):
        values = old[(days == day) & np.isfinite(old)]
        if len(values) > 1:
            means.append(float(values.mean()))
            noise.append(float(values.var()) / len(values))
    if len(means) < _LEAST_DAYS:
        return 0.0
    between = max(0.0, float(np.var(means, ddof=1)) - float(np.mean(noise)))
    days_now = len(np.unique(after.columns["day"][np.isfinite(new)]))
    return float(np.sqrt(between * (1 / len(means) + 1 / max(1, days_now))))


def _quiet_days(table: Table) -> NDArray[np.bool_]:
    return np.asarray((table.columns["day"] + WEEKDAY_SHIFT) % 7 >= 5)
