"""The gate: may this candidate go live? A pure function of paired scores, with a reason in words.

Each row was answered by the candidate and by what is in production (or the base), so differences
are paired. For right-or-wrong scores the interval is Agresti and Min's (Statistics in Medicine,
2005): half a row is added to each cell of the 2 x 2 table, which keeps its promise for 20 rows too
and never shrinks to nothing; for other scores it is a seeded bootstrap over rows.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import NamedTuple, cast

from scipy.special import stdtrit

from training.data.datasets import REGRESSION
from training.store.evaluation_types import GroupMetrics, Metrics, ThresholdsJson

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
_RESAMPLES = 2000
# How far answers to questions of one pattern go together where the rows cannot tell yet, and the
# number of patterns at which they have as much to say (benchmarks/training/GATE.md).
_PRIOR_CORRELATION, _PRIOR_PATTERNS = 0.4, 10


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What the gate asks for; stored with every decision."""

    margin: float = 0.05  # by how much a group may be worse and still count as "not worse"
    # Of each one-sided bound; a canary on live traffic follows, so the gate need not be the last
    # word
    confidence: float = 0.9
    # Share of reviewed conversations that production answers right; with fewer kept it fails, with
    # any broken it does not pass
    kept: float = 0.98
    kept_all_below: int = 50  # with fewer such conversations a single broken one fails it
    reliance_margin: float = 0.1  # by how much fewer passages may be followed that say otherwise
    reliance_min_rows: int = 20  # fewer such questions say nothing
    min_rows: int = 10  # fewer pairs in a group say nothing
    # Without checks, when neither side gets more than this right to the letter, word overlap
    # decides
    few_correct: float = 0.05


@dataclass(frozen=True, slots=True)
class Pair:
    """Scores of one row, 0 to 1."""

    candidate: float
    against: float
    candidate_f1: float
    against_f1: float
    # The row says itself what a right answer contains, so nothing else may decide
    checked: bool = False
    id: str = ""  # of the row, so that a person can be shown what was broken
    pattern: int | None = None  # of the question: rows of one pattern are right or wrong together


@dataclass(frozen=True, slots=True)
class Decision:
    verdict: str  # pass | fail | inconclusive
    reason: str
    # Group → {"n","measure","candidate","against","difference","low","high","broken","fixed"}
    metrics: Metrics
    thresholds: ThresholdsJson
    failed: tuple[str, ...] = ()  # groups whose rule failed: what a person may have to sign for


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one group that has a rule of its own."""

    metrics: GroupMetrics
    verdict: str  # pass | fail | inconclusive
    sentence: str


def decide(
    groups: dict[str, list[Pair]],
    *,
    first: bool,
    against: str,
    thresholds: Thresholds | None = None,
    further: Mapping[str, Finding] | None = None,
) -> Decision:
    """`groups`: old, new, regression.

    `first`: nothing is in production, so the candidate must beat the base.

    `further`: verdicts on groups with a rule of their own; where there are such groups alone, they
    decide.
    """
    limits = thresholds or Thresholds()
    pairs = {**groups, "all": [*groups.get("old", []), *groups.get("new", [])]}
    metrics = {name: measure(rows, limits) for name, rows in pairs.items()}
    findings: dict[str, tuple[str, str]] = {}
    if further and not any(groups.values()):
        pass  # nothing was asked
    elif first:
        findings["all"] = _beats(metrics["all"], against, limits)
    else:
        findings["old"] = _not_worse(
            "old", metrics.get("old", measure([], limits)), against, limits
        )
        if metrics.get("new", {"n": 0})["n"]:
            findings["new"] = _not_worse("new", metrics["new"], against, limits)
    if groups.get(REGRESSION):
        findings[REGRESSION] = _kept(groups[REGRESSION], against, limits)
        metrics[REGRESSION]["broken_ids"] = [
            pair.id for pair in groups[REGRESSION] if _broken(pair)
        ]
    for name, found in (further or {}).items():
        metrics[name], findings[name] = found.metrics, (found.verdict, found.sentence)
    verdicts = [verdict for verdict, _ in findings.values()]
    verdict = FAIL if FAIL in verdicts else INCONCLUSIVE if INCONCLUSIVE in verdicts else PASS
    failed = tuple(group for group, (found, _) in findings.items() if found == FAIL)
    return Decision(
        verdict,
        " ".join(sentence for _, sentence in findings.values()),
        metrics,
        cast(ThresholdsJson, asdict(limits)),
        failed,
    )


def measure(pairs: list[Pair], limits: Thresholds) -> GroupMetrics:
    """Means, paired difference and its one-sided bounds for one group."""
    count = len(pairs)
    if not count:
        return {
            "n": 0,
            "measure": "correct",
            "candidate": None,
            "against": None,
            "difference": None,
            "low": None,
            "high": None,
            "broken": 0,
            "fixed": 0,
        }
    candidate, against = (
        _mean([pair.candidate for pair in pairs]),
        _mean([pair.against for pair in pairs]),
    )
    by_words = max(candidate, against) <= limits.few_correct and not any(
        pair.checked for pair in pairs
    )
    if by_words:
        candidate, against = (
            _mean([pair.candidate_f1 for pair in pairs]),
            _mean([pair.against_f1 for pair in pairs]),
        )
        differences = [pair.candidate_f1 - pair.against_f1 for pair in pairs]
    else:
        differences = [pair.candidate - pair.against for pair in pairs]
    low, high = interval(differences, limits.confidence)
    expected = None if by_words else score_interval(pairs)
    return {
        "n": count,
        "measure": "word overlap" if by_words else "correct",
        "candidate": round(candidate, 4),
        "against": round(against, 4),
        "difference": round(candidate - against, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "candidate_f1": round(_mean([pair.candidate_f1 for pair in pairs]), 4),
        "against_f1": round(_mean([pair.against_f1 for pair in pairs]), 4),
        "candidate_low": round(expected[0], 4) if expected else None,
        "candidate_high": round(expected[1], 4) if expected else None,
        "broken": sum(pair.candidate < pair.against for pair in pairs),
        "fixed": sum(pair.candidate > pair.against for pair in pairs),
    }


def interval(differences: list[float], confidence: float) -> tuple[float, float]:
    """One-sided bounds, each at `confidence`, of the mean of paired differences."""
    count = len(differences)
    if all(value in (-1.0, 0.0, 1.0) for value in differences):
        worse, better = differences.count(-1.0) + 0.5, differences.count(1.0) + 0.5
        total = count + 2
        centre = (better - worse) / total
        error = math.sqrt(max(better + worse - (better - worse) ** 2 / total, 0.0)) / total
        reach = NormalDist().inv_cdf(confidence) * error
        return max(-1.0, centre - reach), min(1.0, centre + reach)
    draw = random.Random(count)
    means = sorted(sum(draw.choices(differences, k=count)) / count for _ in range(_RESAMPLES))
    edge = round((1 - confidence) * _RESAMPLES)
    return means[edge], means[-1 - edge]


def score_interval(pairs: Sequence[Pair], confidence: float = 0.9) -> tuple[float, float] | None:
    """Bounds, 0 to 1, of the candidate's share of right answers to other questions of this kind.

    Questions of one pattern are right or wrong together, so they count as fewer independent ones:
    the design effect 1 + (m - 1) rho of m questions with the intra-class correlation rho (L. Kish,
    "Survey Sampling", 1965). Wilson's interval of the effective number, with Student's t for as
    many patterns (E. Korn and B. Graubard, "Confidence intervals for proportions with small
    expected number of positive counts estimated from survey data", 1998). Rows without a pattern
    are independent. None without rows, or where answers are partly right.
    """
    if not pairs or any(pair.candidate not in (0.0, 1.0) for pair in pairs):
        return None
    clusters: dict[object, list[float]] = {}
    for number, pair in enumerate(pairs):
        key = ("alone", number) if pair.pattern is None else pair.pattern
        clusters.setdefault(key, []).append(pair.candidate)
    groups = list(clusters.values())
    total = len(pairs)
    share = _mean([pair.candidate for pair in pairs])
    size = sum(len(group) ** 2 for group in groups) / total
    effective = max(1.0, total / (1 + (size - 1) * _correlation(groups)))
    z = float(stdtrit(max(1, len(groups) - 1), (1 + confidence) / 2))
    spread = z**2 / effective
    centre = (share + spread / 2) / (1 + spread)
    reach = math.sqrt(spread * share * (1 - share) + spread**2 / 4) / (1 + spread)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def _correlation(groups: Sequence[Sequence[float]]) -> float:
    """Intra-class correlation, 0 to 1, by analysis of variance, drawn towards _PRIOR_CORRELATION."""
    total, count = sum(map(len, groups)), len(groups)
    if total == count:
        return 0.0
    estimate = _PRIOR_CORRELATION
    mean = sum(map(sum, groups)) / total
    between = sum(len(group) * (_mean(group) - mean) ** 2 for group in groups)
    within = sum((value - _mean(group)) ** 2 for group in groups for value in group)
    if count > 1 and between + within > 0:
        size = (total - sum(len(group) ** 2 for group in groups) / total) / (count - 1)
        a, b = between / (count - 1), within / (total - count)
        estimate = min(1.0, max(0.0, (a - b) / (a + (size - 1) * b)))
    weight = count / (count + _PRIOR_PATTERNS)
    return weight * estimate + (1 - weight) * _PRIOR_CORRELATION


def _beats(group: GroupMetrics, against: str, limits: Thresholds) -> tuple[str, str]:
    if group["n"] < limits.min_rows:
        return (
            INCONCLUSIVE,
            (
                f"Only {group['n']} held-out rows; {limits.min_rows} are needed to tell whether it"
                f" beats {against}."
            ),
        )
    shown = _shown(group, against)
    figures = _figures(group)
    if figures.low > 0:
        return PASS, f"Better than {against} on {group['n']} held-out rows: {shown}."
    if figures.difference <= 0:
        return FAIL, f"No better than {against} on {group['n']} held-out rows: {shown}."
    return (
        INCONCLUSIVE,
        (
            f"Perhaps better than {against}, but {group['n']} held-out rows are too few to tell:"
            f" {shown}."
        ),
    )


def _not_worse(name: str, group: GroupMetrics, against: str, limits: Thresholds) -> tuple[str, str]:
    if group["n"] < limits.min_rows:
        return (
            INCONCLUSIVE,
            (
                f"Only {group['n']} held-out {name} rows; {limits.min_rows} are needed to compare"
                f" with {against}."
            ),
        )
    shown, allowed = _shown(group, against), f"{100 * limits.margin:g} points"
    figures = _figures(group)
    if figures.low > 0:
        return PASS, f"Better on {group['n']} {name} rows: {shown}."
    if figures.low >= -limits.margin:
        return PASS, f"Not worse on {group['n']} {name} rows by more than {allowed}: {shown}."
    if figures.high < 0 or figures.difference < -limits.margin:
        return FAIL, f"Worse on {group['n']} {name} rows: {shown}."
    return (
        INCONCLUSIVE,
        f"{group['n']} {name} rows are too few to rule out a loss of more than {allowed}: {shown}.",
    )


def _kept(pairs: list[Pair], against: str, limits: Thresholds) -> tuple[str, str]:
    right = [pair for pair in pairs if pair.against >= 1.0]
    kept = sum(pair.candidate >= 1.0 for pair in right)
    if not right:
        return (
            PASS,
            (
                f"{against} answered none of the {len(pairs)} reviewed conversations right, so none"
                " could be broken."
            ),
        )
    words = (
        f"{kept} of {len(right)} reviewed conversations that {against} answers right are still"
        " right"
    )
    if kept == len(right):
        return PASS, f"{words}."
    broken = len(right) - kept
    if len(right) < limits.kept_all_below or kept < math.ceil(limits.kept * len(right)):
        return FAIL, f"Only {words}: {broken} broke, none may without a signature."
    # A retrained model answers one in a hundred otherwise by chance; that is no verdict on it, but
    # it is for a person to look at.
    return (
        INCONCLUSIVE,
        f"{words}: {broken} broke, too few to condemn it, but a person has to look at them.",
    )


def _broken(pair: Pair) -> bool:
    return pair.against >= 1.0 and pair.candidate < 1.0


def _shown(group: GroupMetrics, against: str) -> str:
    figures = _figures(group)
    return (
        f"{100 * figures.candidate:.1f} % against {100 * figures.against:.1f} %"
        f" {group['measure']} (difference between {100 * figures.low:+.1f} and"
        f" {100 * figures.high:+.1f} points)"
    )


class _Figures(NamedTuple):
    candidate: float
    against: float
    difference: float
    low: float
    high: float


def _figures(group: GroupMetrics) -> _Figures:
    """Return the figures of a group that has rows."""
    candidate, against = group["candidate"], group["against"]
    difference, low, high = group["difference"], group["low"], group["high"]
    assert candidate is not None and against is not None
    assert difference is not None and low is not None and high is not None
    return _Figures(candidate, against, difference, low, high)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
