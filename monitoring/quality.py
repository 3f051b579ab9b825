"""What quality did in the time of an incident: judged samples, thumbs and corrections. Pure.

Shares have Wilson's 95 % interval (1927) and differences Newcombe's hybrid of two of them (1998,
method 10). Answers are taken as independent; where few users give most ratings, the intervals are
too narrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.stats import binomtest
from statsmodels.stats.proportion import confint_proportions_2indep

from whet.json_types import JsonObject
from whet.records.monitoring import CountedRecord, QualityFigureRecord, QualityRecord

BASELINE_DAYS = 28  # before the incident: four of each weekday
_LEVEL = 0.95  # of the intervals that are shown
# Of the difference's interval that has to exclude zero: an incident looks at several sources, and
# again each hour.
_VERDICT_LEVEL = 0.99
_MOST_SOURCES = 3  # in a sentence
Source = Literal["reviews", "thumbs", "corrections", "edited", "regenerated"]
QualityVerdict = Literal["worse", "better", "no clear change", "no baseline", "not known"]
# What each source counts, most telling first: a random sample judged by people has no selection;
# who rates or corrects chooses to.
SOURCES: dict[Source, str] = {
    "reviews": "wrong answers in the random sample",
    "thumbs": "thumbs down among ratings",
    "corrections": "answers that users corrected",
    "edited": "answers that users edited",
    "regenerated": "answers that users asked for again",
}


@dataclass(frozen=True, slots=True)
class Counted:
    """`bad` of `n` answers. The interval is None without answers."""

    bad: int
    n: int

    @property
    def rate(self) -> float | None:
        return self.bad / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float] | None:
        if not self.n:
            return None
        found = binomtest(self.bad, self.n).proportion_ci(_LEVEL, method="wilson")
        return float(found.low), float(found.high)

    def record(self) -> CountedRecord:
        """Return the count as it is stored."""
        low, high = self.interval or (None, None)
        return CountedRecord(bad=self.bad, n=self.n, rate=self.rate, low=low, high=high)


@dataclass(frozen=True, slots=True)
class QualityFigure:
    """One source, before the incident and since."""

    source: Source
    before: Counted
    now: Counted

    @property
    def difference(self) -> tuple[float, float] | None:
        """95 % interval of the rate now minus the one before; None where one is not known."""
        return self._difference(_LEVEL)

    def _difference(self, level: float) -> tuple[float, float] | None:
        if not self.before.n or not self.now.n:
            return None
        counts = (self.now.bad, self.now.n, self.before.bad, self.before.n)
        low, high = confint_proportions_2indep(
            *counts, method="newcomb", compare="diff", alpha=1 - level
        )
        return float(low), float(high)

    @property
    def verdict(self) -> QualityVerdict:
        if not self.now.n:
            return "not known"
        found = self._difference(_VERDICT_LEVEL)
        if found is None:
            return "no baseline"
        low, high = found
        return "worse" if low > 0 else "better" if high < 0 else "no clear change"

    @property
    def sentence(self) -> str:
        """`wrong answers in the random sample 18 % (7 of 40, 95 % interval 9 to 32 %), …`."""
        low, high = self.now.interval or (0.0, 0.0)
        now = (
            f"{SOURCES[self.source]} {_percent(self.now.rate)} ({self.now.bad} of {self.now.n}, "
            f"95 % interval {_percent(low)} to {_percent(high)})"
        )
        if not self.before.n:
            return f"{now}, none in the {BASELINE_DAYS} days before"
        return (
            f"{now}, {_percent(self.before.rate)} ({self.before.bad} of {self.before.n}) in the "
            f"{BASELINE_DAYS} days before"
        )

    def record(self) -> QualityFigureRecord:
        """Return the figure as it is stored."""
        low, high = self.difference or (None, None)
        return QualityFigureRecord(
            source=self.source,
            label=SOURCES[self.source],
            verdict=self.verdict,
            sentence=self.sentence,
            before=self.before.record(),
            now=self.now.record(),
            difference_low=low,
            difference_high=high,
        )


@dataclass(frozen=True, slots=True)
class Quality:
    """Every source that has answers since the incident began, most telling first."""

    figures: tuple[QualityFigure, ...]

    @property
    def verdict(self) -> QualityVerdict:
        """The first clear verdict in the order of the sources; else that of the first."""
        verdicts = [figure.verdict for figure in self.figures]
        clear = [verdict for verdict in verdicts if verdict in ("worse", "better")]
        return next(iter([*clear, *verdicts]), "not known")

    @property
    def sentence(self) -> str:
        if not self.figures:
            return "Not known: no answer since then was judged, rated or corrected."
        begin = {
            "worse": "Worse",
            "better": "Better",
            "no baseline": "No baseline to compare with",
        }.get(self.verdict, "No clear change")
        clear = [figure for figure in self.figures if figure.verdict == self.verdict]
        shown = [*clear, *(figure for figure in self.figures if figure not in clear)]
        return f"{begin}: {'; '.join(figure.sentence for figure in shown[:_MOST_SOURCES])}."

    def record(self) -> QualityRecord:
        """Return the comparison as an alert keeps it."""
        figures = [figure.record() for figure in self.figures]
        return QualityRecord(verdict=self.verdict, sentence=self.sentence, figures=figures)

    def as_json(self) -> JsonObject:
        return self.record().as_json()


def quality_of(counts: Mapping[Source, Sequence[Counted]]) -> Quality:
    """Order the sources; those without an answer since then are left out.

    `counts`: source → (before, since).
    """
    figures = [QualityFigure(name, *counts[name]) for name in SOURCES if name in counts]
    return Quality(tuple(figure for figure in figures if figure.now.n))


def _percent(share: float | None) -> str:
    if share is None:
        return "not known"
    percent = 100 * share
    return f"{percent:.1f} %" if 0 < percent < 9.95 else f"{percent:.0f} %"
