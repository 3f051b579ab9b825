"""The parity check for fingerprints of one dtype, which versions have that were stored before
`training/models/fingerprint.py` recorded the noise of bfloat16: mean and largest difference, with bounds
that lie in the fingerprint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Mean difference from the base, in nats: below it "did it load at all" cannot be told from rounding
NEAR_IDENTITY = 1e-3
# Of the expected difference from the base; an adapter that is not applied shows none at all
APPLIED_SHARE = 0.25
# Cosine of two effects that are one adapter's at two strengths: above it for half and double, as
# tried with trained adapters
_ALIKE = 0.8
_OTHER_SCALE = 0.1  # distance of their ratio from 1, beyond what rounding makes of it
# Ten times what was measured between trainer and engine on a bfloat16 base
_DEFAULT_TOLERANCE = {"mean": 0.05, "max": 0.5}


@dataclass(frozen=True, slots=True)
class Differences:
    """Absolute differences of log-probabilities, in nats: the engine's from the trainer's, and the
    adapter's from the base's on either side."""

    tokens: int
    mean: float
    largest: float
    base_mean: float
    base_largest: float
    effect: float  # mean difference of the engine's adapter from its base
    expected_effect: float  # the same in training

    @classmethod
    def measure(
        cls,
        adapter: Sequence[float],
        base: Sequence[float],
        trained: Sequence[float],
        trained_base: Sequence[float],
    ) -> Differences:
        """Compare the engine's numbers with the trainer's, token by token."""
        return cls(
            len(trained),
            *mean_and_largest(adapter, trained),
            *mean_and_largest(base, trained_base),
            mean_and_largest(adapter, base)[0],
            mean_and_largest(trained, trained_base)[0],
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "measured": True,
            "tokens": self.tokens,
            "mean": round(self.mean, 5),
            "max": round(self.largest, 5),
            "base_mean": round(self.base_mean, 5),
            "base_max": round(self.base_largest, 5),
            "difference_from_base": round(self.effect, 5),
            "expected_difference_from_base": round(self.expected_effect, 5),
        }


def check_by_tolerance(
    label: str,
    given: Mapping[str, float],
    adapter: Sequence[float],
    base: Sequence[float],
    trained: Sequence[float],
    trained_base: Sequence[float],
) -> tuple[dict[str, Any], str]:
    """(what was measured, why it is refused or ""): the engine's `adapter` and `base` against the
    trainer's `trained` and `trained_base`; `given` is the fingerprint's own `mean` and `max`."""
    tolerance = {**_DEFAULT_TOLERANCE, **given}
    seen = Differences.measure(adapter, base, trained, trained_base)
    allowed = {"mean": tolerance["mean"], "max": tolerance["max"]}
    parity = {**seen.as_json(), "tolerance": allowed}
    found = (
        f"mean difference {{:.4f}} (allowed {tolerance['mean']}), largest {{:.3f}} (allowed"
        f" {tolerance['max']})"
    )
    if seen.base_mean > tolerance["mean"] or seen.base_largest > tolerance["max"]:
        return (
            parity,
            (
                f"The engine's base answers unlike the base {label} was trained on:"
                f" {found.format(seen.base_mean, seen.base_largest)}. Check WHET_BASE_MODEL and the"
                " engine's model."
            ),
        )
    if seen.expected_effect > NEAR_IDENTITY and seen.effect < APPLIED_SHARE * seen.expected_effect:
        return parity, not_applied(label, seen.effect, seen.expected_effect)
    if seen.mean > tolerance["mean"] or seen.largest > tolerance["max"]:
        effects = [a - b for a, b in zip(adapter, base, strict=True)]
        cause = _cause(effects, [a - b for a, b in zip(trained, trained_base, strict=True)])
        return (
            parity,
            (
                f"{label} answers unlike it did in training:"
                f" {found.format(seen.mean, seen.largest)}. The base agrees, so {cause}. It is not"
                " served."
            ),
        )
    return parity, ""


def not_applied(label: str, effect: float, expected: float) -> str:
    return (
        f"{label} answers like the base: it differs by {effect:.5f} where {expected:.5f} was "
        "measured in training. It is not applied."
    )


def _cause(found: Sequence[float], expected: Sequence[float]) -> str:
    """Why an adapter on the right base moves log-probabilities otherwise than in training: the same
    way but more or less, or another way.
    """
    product, ours, theirs = (
        sum(a * b for a, b in pairs)
        for pairs in (
            zip(found, expected, strict=True),
            zip(found, found, strict=True),
            zip(expected, expected, strict=True),
        )
    )
    if product > _ALIKE * math.sqrt(ours * theirs) and abs(product / theirs - 1) > _OTHER_SCALE:
        return (
            f"its scale is wrong: it works {product / theirs:.2f} times as strongly as in training"
            " (lora_alpha, r or use_rslora in its configuration)"
        )
    return "its weights, the layers they are applied to, or by far its scale are other ones"


def mean_and_largest(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Mean and largest absolute difference."""
    differences = [abs(a - b) for a, b in zip(first, second, strict=True)]
    return (sum(differences) / len(differences), max(differences)) if differences else (0.0, 0.0)
