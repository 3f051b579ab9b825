"""How many of a week's answers are wrong, from the few that people judged. Pure.

Some of each day's answers are drawn at random for review. Their judgements alone give an unbiased
error rate; what is known of *every* answer (whether it was rated, and how) sharpens it: the rate
that such answers had in earlier weeks is taken as a prediction for all of them, and the judged ones
correct it (difference estimator; Särndal, Swensson and Wretman 1992, chapter 6; as
prediction-powered inference with a tuned weight, Angelopoulos, Duchi and Zrnic 2023,
arXiv:2311.01453). The prediction uses no judgement of the week itself, so it cannot bias the
estimate.

The interval is Wilson's (1927) with the number of independent judgements that the estimate's
variance amounts to, as is usual for rates from surveys (Korn and Graubard 1998, with Wilson's
limits in place of the exact ones): days are weighted by their traffic, and a sample that is a large
part of the week is worth more. It holds with no error found too, where a normal interval has no
width.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

# Of an answer: rated as bad by somebody, only rated as good, not rated
CELLS = ("down", "up", "quiet")
MIN_JUDGED = 30  # judgements below which an interval is too wide to say anything with
LEVEL = 0.95
# One comparison a week: a false alarm in 200 weeks of an alias, 0.07 per 100 days, where the days
# may have 0.5 in all.
_ALARM_P = 0.005
_LEAST_POINTS, _LEAST_RELATIVE = 0.02, 0.25  # a smaller rise is no reason to wake somebody
# Spread of the error rate between weeks of an unchanged service, relative to the rate, and how many
# weeks' worth of belief it is: an assumption, under which stationary weeks of the drift benchmark's
# services are called worse in about one of a hundred; `called_worse` in its results counts them.
_BELIEVED_SPREAD, _BELIEF_WEEKS = 0.2, 4.0
# Judgements' worth of belief that a cell errs as often as all answers do, until it has shown
# otherwise
_SHRINK = 20.0
BASELINE_WEEKS = 8


@dataclass(frozen=True, slots=True)
class Judged:
    """One drawn answer that a person judged."""

    day: int
    cell: str  # one of CELLS
    wrong: bool
    interaction_id: str = ""


@dataclass(frozen=True, slots=True)
class Week:
    """What is known of one week (or any span of days)."""

    population: Mapping[int, Mapping[str, int]]  # day → cell → complete answers
    judged: Sequence[Judged]


@dataclass(frozen=True, slots=True)
class Estimate:
    """An error rate with its 95 % interval. `effective`: independent judgements that it amounts to."""

    rate: float
    low: float
    high: float
    judged: int
    wrong: int
    population: int
    effective: float


def estimate(
    week: Week, predicted: Mapping[str, float] | None = None, level: float = LEVEL
) -> Estimate | None:
    """The share of wrong answers; None without a judgement.

    `predicted`: cell → error rate, from earlier weeks (see `learn`).

    Days without a judgement are taken to be like the others.
    """
    judged = [one for one in week.judged if week.population.get(one.day, {}).get(one.cell, 0) > 0]
    if not judged:
        return None
    weights = _weights(week, judged)
    population = sum(sum(cells.values()) for cells in week.population.values())
    known = {cell: (predicted or {}).get(cell, 0.0) for cell in CELLS}
    everywhere = (
        sum(
            count * known[cell]
            for cells in week.population.values()
            for cell, count in cells.items()
        )
        / population
    )
    trust = _trust(judged, weights, known, population)
    found = [one.wrong - trust * known[one.cell] for one in judged]
    rate = trust * everywhere + sum(
        weight * value for weight, value in zip(weights, found, strict=True)
    )
    rate = min(1.0, max(0.0, rate))
    effective = _effective(weights, found, rate, population)
    low, high = _wilson(rate, effective, max(1, len(judged) - 1), level)
    return Estimate(
        rate, low, high, len(judged), sum(one.wrong for one in judged), population, effective
    )


def _weights(week: Week, judged: Sequence[Judged]) -> list[float]:
    """What each judgement stands for, as a share of the week: a day counts as its traffic does,
    however many of it were judged.
    """
    per_day: dict[int, int] = defaultdict(int)
    for one in judged:
        per_day[one.day] += 1
    traffic = {day: sum(week.population[day].values()) for day in per_day}
    whole = sum(traffic.values())
    return [traffic[one.day] / per_day[one.day] / whole for one in judged]


def _trust(
    judged: Sequence[Judged], weights: Sequence[float], known: Mapping[str, float], population: int
) -> float:
    """How far to rely on the prediction, from 0 to 1: the weight that makes the variance smallest
    (power tuning).
    """
    mean_y = sum(weight * one.wrong for weight, one in zip(weights, judged, strict=True))
    mean_f = sum(weight * known[one.cell] for weight, one in zip(weights, judged, strict=True))
    together = sum(
        weight * (one.wrong - mean_y) * (known[one.cell] - mean_f)
        for weight, one in zip(weights, judged, strict=True)
    )
    alone = sum(
        weight * (known[one.cell] - mean_f) ** 2
        for weight, one in zip(weights, judged, strict=True)
    )
    return (
        0.0 if alone <= 0 else min(1.0, max(0.0, together / alone)) / (1 + len(judged) / population)
    )


def _effective(
    weights: Sequence[float], found: Sequence[float], rate: float, population: int
) -> float:
    """Independent judgements that the estimate is worth.

    A sample of everybody leaves nothing to chance.

    Users do not come in: answers are drawn one by one, so those of one user are no more alike than
    chance has them in the week itself.
    """
    count = len(weights)
    left = max(1 - count / population, 1e-6)  # finite population correction
    mean = sum(weight * value for weight, value in zip(weights, found, strict=True))
    variance = (
        left
        * sum((weight * (value - mean)) ** 2 for weight, value in zip(weights, found, strict=True))
        * count
        / max(1, count - 1)
    )
    if variance <= 0 or not 0 < rate < 1:
        # What the judgements are worth with nothing but their weights known
        return 1 / (left * sum(weight**2 for weight in weights))
    return rate * (1 - rate) / variance


def _wilson(rate: float, effective: float, freedom: int, level: float) -> tuple[float, float]:
    z = float(stats.t.ppf((1 + level) / 2, freedom))
    middle = (rate + z * z / (2 * effective)) / (1 + z * z / effective)
    half = (
        z
        / (1 + z * z / effective)
        * math.sqrt(rate * (1 - rate) / effective + z * z / (4 * effective * effective))
    )
    # The rate is inside also where rounding says otherwise
    return max(0.0, min(rate, middle - half)), min(1.0, max(rate, middle + half))


def learn(earlier: Sequence[Judged]) -> dict[str, float]:
    """Cell → error rate among earlier judgements; a cell with few of them is taken to be like all."""
    if not earlier:
        return dict.fromkeys(CELLS, 0.0)
    overall = sum(one.wrong for one in earlier) / len(earlier)
    rates = {}
    for cell in CELLS:
        found = [one.wrong for one in earlier if one.cell == cell]
        rates[cell] = (sum(found) + _SHRINK * overall) / (len(found) + _SHRINK)
    return rates


def _between_weeks(weeks: Sequence[Estimate], usual: float) -> float:
    """Variance of the error rate itself from week to week: requests cluster in users, so each week
    is another mix of them although nothing has changed.

    The method of moments of DerSimonian and Laird (1986), drawn towards what is believed before
    there are weeks to learn it from.
    """
    weights = [one.effective / max(usual * (1 - usual), 1e-9) for one in weeks]
    scatter = sum(
        weight * (one.rate - usual) ** 2 for weight, one in zip(weights, weeks, strict=True)
    )
    scale = sum(weights) - sum(weight**2 for weight in weights) / sum(weights)
    found = max(0.0, (scatter - (len(weeks) - 1)) / scale) if scale > 0 else 0.0
    believed = (_BELIEVED_SPREAD * usual) ** 2
    return (_BELIEF_WEEKS * believed + (len(weeks) - 1) * found) / (_BELIEF_WEEKS + len(weeks) - 1)


@dataclass(frozen=True, slots=True)
class Standing:
    """A week beside the weeks before it."""

    verdict: str  # worse | usual | better | unknown
    usual: float | None  # error rate of the weeks before
    sentence: str


def compare(week: Estimate | None, before: Sequence[Estimate]) -> Standing:
    """Whether errors became more.

    `before`: estimates of earlier weeks that were not worse themselves, newest last.
    """
    if week is None or week.judged < MIN_JUDGED:
        judged = 0 if week is None else week.judged
        return Standing(
            "unknown",
            None,
            f"{judged} of the answers drawn at random are judged; an error rate needs"
            f" {MIN_JUDGED}.",
        )
    said = (
        f"{_percent(week.rate)} of the answers are wrong ({_percent(week.low)} to"
        f" {_percent(week.high)}), by {week.judged} drawn at random and judged."
    )
    usable = [one for one in before if one.judged >= MIN_JUDGED][-BASELINE_WEEKS:]
    if not usable:
        return Standing("unknown", None, f"{said} There is no earlier week to compare with.")
    worth = sum(one.effective for one in usable)
    usual = sum(one.rate * one.effective for one in usable) / worth
    pooled = (week.rate * week.effective + usual * worth) / (week.effective + worth)
    chance = max(pooled * (1 - pooled), 1e-9)
    between = _between_weeks(usable, usual)
    z = (week.rate - usual) / math.sqrt(
        chance * (1 / week.effective + 1 / worth) + between * (1 + 1 / len(usable))
    )
    large = abs(week.rate - usual) >= max(_LEAST_POINTS, _LEAST_RELATIVE * usual)
    said += f" The weeks before had {_percent(usual)}."
    if large and stats.norm.sf(abs(z)) < _ALARM_P:
        return Standing("worse" if z > 0 else "better", usual, said)
    return Standing("usual", usual, said)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
