"""The verdict on plain texts: how well a model predicts held-out ones. Pure functions of numbers.

Nothing is asked and nothing answered there, so what counts is what the texts cost: their negative
log-likelihood, per byte (which compares models of any tokenizer) and per token (perplexity). Both
sides read the same texts, so differences are paired; bounds are percentiles of a seeded bootstrap
over texts, of the difference of two sums over all bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from training.evaluation.gate import FAIL, INCONCLUSIVE, PASS, Finding, Thresholds
from training.store.evaluation_types import GroupMetrics

GROUP = "text"  # of the gate's metrics
# By how much the cost of a byte may grow and still count as not worse, as a share of it. A choice,
# not a measurement: at 1 bit a byte and 4 bytes a token it is 2.8 % of the perplexity per token.
MARGIN = 0.01
_RESAMPLES = 2000
_SEED = 0


@dataclass(frozen=True, slots=True)
class TextPair:
    """What one held-out text costs both sides: negative log-likelihoods in nats."""

    bytes: int  # of the text in UTF-8
    tokens: int
    candidate: float
    against: float


def judge_texts(
    pairs: Sequence[TextPair], limits: Thresholds, *, against: str, must_beat: bool
) -> Finding:
    """Return the metrics, the verdict and the sentence on some held-out texts (at least one).

    `must_beat`: it has to be better than `against`; else it may not be worse by more than MARGIN.
    The metrics hold the mean probability of a byte (its geometric mean, 0 to 1), because other
    groups are shares too, and beside it bits per byte and perplexity per token.
    """
    size, tokens = sum(pair.bytes for pair in pairs), sum(pair.tokens for pair in pairs)
    ours, theirs = (sum(getattr(pair, side) for pair in pairs) for side in ("candidate", "against"))
    saved = (theirs - ours) / size
    low, high = _bounds(pairs, limits.confidence)
    before = math.exp(-theirs / size)
    metrics: GroupMetrics = {
        "n": len(pairs),
        "measure": "probability per byte",
        "candidate": round(math.exp(-ours / size), 4),
        "against": round(before, 4),
        "difference": round(math.exp(-ours / size) - before, 4),
        "low": round(before * math.exp(low) - before, 4),
        "high": round(before * math.exp(high) - before, 4),
        "broken": sum(pair.candidate > pair.against for pair in pairs),
        "fixed": sum(pair.candidate < pair.against for pair in pairs),
        "candidate_bits_per_byte": round(_bits(ours / size), 4),
        "against_bits_per_byte": round(_bits(theirs / size), 4),
        "candidate_perplexity": round(_perplexity(ours, tokens), 3),
        "against_perplexity": round(_perplexity(theirs, tokens), 3),
    }
    verdict, opening = _verdict(pairs, limits, saved, low, high, theirs / size, against, must_beat)
    said = (
        f"{metrics['candidate_bits_per_byte']:.3f} against {metrics['against_bits_per_byte']:.3f} "
        f"bits per byte (difference between {_bits(-high):+.3f} and {_bits(-low):+.3f}), "
        f"perplexity per token {metrics['candidate_perplexity']:.2f} against "
        f"{metrics['against_perplexity']:.2f}"
    )
    return Finding(metrics, verdict, f"{opening}: {said}.")


def _verdict(
    pairs: Sequence[TextPair], limits: Thresholds, saved: float, low: float, high: float,
    cost: float, against: str, must_beat: bool,
) -> tuple[str, str]:  # fmt: skip
    """Return (verdict, opening of the sentence). `saved`, `low`, `high` and `cost` are nats per
    byte; what is saved is the other's cost less the candidate's."""
    texts, margin = f"{len(pairs)} held-out texts", MARGIN * cost
    if len(pairs) < limits.min_rows:
        return INCONCLUSIVE, f"Only {texts}; {limits.min_rows} are needed to compare with {against}"
    if low > 0:
        return PASS, f"Predicts {texts} better than {against}"
    if must_beat:
        if saved <= 0:
            return FAIL, f"Predicts {texts} no better than {against}"
        return INCONCLUSIVE, f"Perhaps better than {against}, but {texts} are too few to tell"
    if low >= -margin:
        return PASS, f"Predicts {texts} not worse than {against} by more than {MARGIN:.0%}"
    if high < 0 or saved < -margin:
        return FAIL, f"Predicts {texts} worse than {against}"
    return INCONCLUSIVE, f"{texts} are too few to rule out a loss of more than {MARGIN:.0%}"


def _bounds(pairs: Sequence[TextPair], confidence: float) -> tuple[float, float]:
    """One-sided bounds of what is saved per byte, in nats."""

    saved = numpy.array([pair.against - pair.candidate for pair in pairs])
    size = numpy.array([pair.bytes for pair in pairs], dtype=float)
    drawn = numpy.random.default_rng(_SEED).integers(0, len(pairs), (_RESAMPLES, len(pairs)))
    found = numpy.sort(saved[drawn].sum(axis=1) / size[drawn].sum(axis=1))
    edge = round((1 - confidence) * _RESAMPLES)
    return float(found[edge]), float(found[-1 - edge])


def _bits(nats: float) -> float:
    return nats / math.log(2)


def _perplexity(nats: float, tokens: int) -> float:
    """Return exp of the mean cost of a token. Beyond 20 nats, which is worse than guessing in any
    vocabulary, only the number would grow."""
    return math.exp(min(nats / max(tokens, 1), 20.0))
