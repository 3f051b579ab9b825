"""The verdict on context reliance: does a version still follow the passages that it is given?

Both sides answered the same questions, each with passages that say otherwise than the original
ones. Pure functions of numbers. Shares have Wilson's interval (E. Wilson, "Probable inference, the
law of succession, and statistical inference", 1927), the paired difference the gate's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from training.evaluation.gate import FAIL, INCONCLUSIVE, PASS, Finding, Thresholds, interval
from training.store.evaluation_types import GroupMetrics

GROUP = "reliance"  # of the gate's metrics
_MOST_NEEDED = 2_000  # questions; where more would be needed, more of them is no advice
_NOTHING_ASKED: GroupMetrics = {
    "n": 0, "measure": "follows the passage", "candidate": None, "against": None,
    "difference": None, "low": None, "high": None, "broken": 0, "fixed": 0,
}  # fmt: skip
_ADVICE = (
    "Mix rows in whose passages say otherwise (--counterfactual-share 0.15), and look for rows"
    " whose answer contradicts their passages."
)


@dataclass(frozen=True, slots=True)
class ReliancePair:
    """What both sides answered to one question whose passages say otherwise."""

    candidate: bool  # gives the value of the passages
    against: bool
    candidate_keeps: bool = False  # gives the value that the passages no longer have
    against_keeps: bool = False


def judge_reliance(pairs: Sequence[ReliancePair], limits: Thresholds, *, against: str) -> Finding:
    """Return metrics, verdict and sentence.

    It fails where the upper bound of the paired difference is below the margin: the loss is then
    larger than the margin, not only the estimate of it. It passes where the lower bound is not.
    """
    count = len(pairs)
    if not count:
        verdict, opening, advice = _verdict(pairs, limits, -1.0, 1.0, against)
        return Finding(_NOTHING_ASKED.copy(), verdict, f"{opening}. {advice}")
    differences = [float(pair.candidate) - float(pair.against) for pair in pairs]
    low, high = interval(differences, limits.confidence)
    ours, theirs = sum(pair.candidate for pair in pairs), sum(pair.against for pair in pairs)
    ends = {
        side: wilson(right, count, limits.confidence)
        for side, right in (("candidate", ours), ("against", theirs))
    }
    metrics: GroupMetrics = {
        "n": count,
        "measure": "follows the passage",
        "candidate": round(ours / count, 4),
        "against": round(theirs / count, 4),
        "difference": round((ours - theirs) / count, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "broken": sum(pair.against and not pair.candidate for pair in pairs),
        "fixed": sum(pair.candidate and not pair.against for pair in pairs),
        "candidate_low": round(ends["candidate"][0], 4),
        "candidate_high": round(ends["candidate"][1], 4),
        "against_low": round(ends["against"][0], 4),
        "against_high": round(ends["against"][1], 4),
        "candidate_keeps": round(sum(pair.candidate_keeps for pair in pairs) / count, 4),
        "against_keeps": round(sum(pair.against_keeps for pair in pairs) / count, 4),
    }
    verdict, opening, advice = _verdict(pairs, limits, low, high, against)
    opening += (
        f": {_share(ours, count, ends['candidate'])} against"
        f" {_share(theirs, count, ends['against'])}, difference {100 * low:+.1f} to"
        f" {100 * high:+.1f} points"
    )
    return Finding(metrics, verdict, " ".join(filter(None, [f"{opening}.", advice])))


def _verdict(
    pairs: Sequence[ReliancePair], limits: Thresholds, low: float, high: float, against: str
) -> tuple[str, str, str]:
    """Return (verdict, opening of the sentence, what to do)."""
    count, margin = len(pairs), limits.reliance_margin
    asked, points = f"{count} questions whose passages say otherwise", f"{100 * margin:g} points"
    if count < limits.reliance_min_rows:
        return (
            INCONCLUSIVE,
            f"Only {asked} to see whether it follows its passages",
            (
                f"{limits.reliance_min_rows - count} more are needed: rows with `context` whose"
                " answer states a number, date, code or name of it."
            ),
        )
    if low >= -margin:
        return (
            PASS,
            f"Follows its passages not less than {against} by more than {points} ({asked})",
            "",
        )
    if high < -margin:
        return (
            FAIL,
            f"Follows its passages less than {against} by more than {points} ({asked})",
            _ADVICE,
        )
    return (
        INCONCLUSIVE,
        (
            f"{asked} are too few to rule out that it follows them less than {against} by more than"
            f" {points}"
        ),
        _more(pairs, limits),
    )


def _more(pairs: Sequence[ReliancePair], limits: Thresholds) -> str:
    needed = questions_needed(pairs, limits)
    if needed is None:
        return f"The loss is about that large, so more questions will hardly tell. {_ADVICE}"
    return f"About {needed - len(pairs)} more are needed."


def questions_needed(pairs: Sequence[ReliancePair], limits: Thresholds) -> int | None:
    """Return how many questions would bring one bound to the margin, if they went on like these;
    None where that is more than 2,000."""
    count = len(pairs)
    differences = [float(pair.candidate) - float(pair.against) for pair in pairs]
    mean = sum(differences) / count
    variance = sum(difference**2 for difference in differences) / count - mean**2
    gap = abs(mean + limits.reliance_margin)
    reach = NormalDist().inv_cdf(limits.confidence)
    needed = math.ceil(reach**2 * variance / gap**2) + 2 if gap else _MOST_NEEDED + 1
    return max(needed, count + 1) if needed <= _MOST_NEEDED else None


def wilson(right: int, count: int, confidence: float) -> tuple[float, float]:
    """Return one-sided bounds, each at `confidence`, of a share of independent answers, 0 to 1."""
    if not count:
        return 0.0, 1.0
    spread = NormalDist().inv_cdf(confidence) ** 2 / count
    share = right / count
    centre = (share + spread / 2) / (1 + spread)
    reach = math.sqrt(spread * share * (1 - share) + spread**2 / 4) / (1 + spread)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def _share(right: int, count: int, ends: tuple[float, float]) -> str:
    return f"{100 * right / count:.1f} % ({100 * ends[0]:.0f} to {100 * ends[1]:.0f})"
