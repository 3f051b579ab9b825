"""Is what an engine answers with the adapter that was trained, on the base it was trained on?

Compares log-probabilities: the trainer's, which a version's card records in float32 and in bfloat16
(`training/models/fingerprint.py`), with those an engine gives for the same tokens, with and without the
adapter. Pure functions of plain data.

Rounding to bfloat16 moves the log-probability of a token by an amount that grows with the depth of
the model and with how unlikely the token is: log softmax passes an error of the logits on times
1 - p. So differences are divided by 1 - p of the token, which makes one number comparable over all
tokens, and their root mean square is the *deviation*. What is allowed follows from the deviation
that bfloat16 causes in this base and in this adapter, as the trainer measured it, and from the
deviation of the engine's base, measured on the same prompts at the same time: an engine that
computes in float32 shows hardly any, and its adapter is allowed hardly any.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import StatisticsError, correlation
from typing import Any

from serving.parity_by_tolerance import (
    APPLIED_SHARE,
    NEAR_IDENTITY,
    Differences,
    check_by_tolerance,
    mean_and_largest,
    not_applied,
)
from serving.parity_tokens import compare_tokens

# An engine may deviate this many times as much as the trainer's own bfloat16, and by what a root
# mean square of few tokens is uncertain. Measured with vLLM on SmolLM2: 1.07 and 0.96 times as much
# (base), 1.00, 0.77 and 1.15 times (adapters) on a processor with AMX, 1.42 times (an adapter) on
# one without; prompts of 90 tokens differ by 5 to 8 % from each other. A tenth off the scale is
# four times the noise there, two swapped layers are two to five.
_TIMES_NOISE, _TIMES_UNCERTAINTY = 1.6, 2.0
# An engine's base that deviates this part of the trainer's bfloat16 is taken to be in bfloat16.
_ROUNDS_AS_MUCH = 0.5
# Deviation that is allowed always: a hundredth of a token's distance from certainty changes no
# answer. Two float32 implementations differ by a ten-thousandth of it.
_ALWAYS_ALLOWED = 0.01
_LEAST_DISTANCE = 0.05  # of a probability from 1: below it the recorded decimals are too few
# The engine's effect of the adapter, regressed on the trainer's, has the slope 1: off by more than
# this, and by more than chance, it is another scale, even where every single token is in the noise.
_SLOPE_OFF, _STANDARD_ERRORS = 0.1, 4.0
_NOTHING = 0.02  # of the expected effect, or the engine's rounding: no part of the adapter shows
# The engine is at a recorded scale when it is as near to it as an adapter must be, or has this part
# of its distance to the right one: an adapter without every second layer is within a tenth of half.
_NEARER = 0.05
# Correlation of the token log-probabilities of two bases, from which on they are one model's. On
# SmolLM2 0.999 with weights moved by 1 % of their spread, 0.92 by 10 %, 0.92 to 0.94 quantized anew
# to four bits, -0.08 with other weights; two models that were both trained were not compared.
_ALIKE_BASES = 0.9
_WITHOUT_DIFFERENCE = "none of its weights match this model"


@dataclass(frozen=True, slots=True)
class EngineLogprobs:
    """Log-probabilities an engine gave for the prompts of a fingerprint, every token but the first,
    prompts joined.
    """

    adapter: Sequence[float]
    base: Sequence[float]
    # Tokens it made of the fingerprint's conversation and plain text; None: it does not say.
    asked: Sequence[int] | None = None
    text: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class ParityResult:
    """What was measured; `reason` is empty when the version may be served."""

    parity: dict[str, Any]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Reference:
    """The trainer's log-probabilities in float32, in the form of `EngineLogprobs`."""

    base: list[float]
    adapter: list[float]
    noise_base: float  # deviation of the trainer's bfloat16
    noise_adapter: float
    # By which it is known: a trainer to which bfloat16 is slow took fewer prompts
    noise_tokens: int
    scaled: dict[float, list[float]]  # factor of the scale → with it, of the first tokens, float32

    @classmethod
    def from_fingerprint(cls, fingerprint: Mapping[str, Any], limit: int) -> Reference | None:
        """Read `limit` tokens of each prompt. None: an older fingerprint, of one dtype alone."""
        if "dtype" not in fingerprint:
            return None
        prompts = fingerprint["prompts"]
        both = [prompt for prompt in prompts if "bfloat16" in prompt]
        rounded = [prompt["bfloat16"] for prompt in both]
        scaled = {
            float(found["factor"]): [
                float(value) for prompt in found["logprobs"] for value in prompt[1:limit]
            ]
            for found in fingerprint.get("scaled", [])
        }
        return cls(
            base=joined(prompts, "base_logprobs", limit),
            adapter=joined(prompts, "adapter_logprobs", limit),
            noise_base=deviation(
                joined(rounded, "base_logprobs", limit), joined(both, "base_logprobs", limit)
            ),
            noise_adapter=deviation(
                joined(rounded, "adapter_logprobs", limit), joined(both, "adapter_logprobs", limit)
            ),
            noise_tokens=len(joined(both, "base_logprobs", limit)),
            scaled=scaled,
        )


def joined(prompts: Sequence[Mapping[str, Any]], which: str, limit: int) -> list[float]:
    """The trainer's numbers of all prompts; `limit` tokens of each, without the first."""
    return [float(value) for prompt in prompts for value in prompt[which][1:limit]]


def check_parity(
    label: str, fingerprint: Mapping[str, Any] | None, measured: EngineLogprobs, *, limit: int
) -> ParityResult:
    """Compare what an engine measured with a version's fingerprint, cut to `limit` tokens."""
    effect = mean_and_largest(measured.adapter, measured.base)[0]
    if not fingerprint or not fingerprint.get("prompts"):
        parity = {
            "measured": False,
            "why": "The adapter was imported without a fingerprint.",
            "difference_from_base": round(effect, 6),
        }
        reason = (
            "" if effect > 0 else f"{label} answers exactly like the base: {_WITHOUT_DIFFERENCE}."
        )
        return ParityResult(parity, reason)
    other = compare_tokens(label, fingerprint, measured.asked, measured.text)
    template = {} if other is None else {"template": "other" if other else "same"}
    reference = Reference.from_fingerprint(fingerprint, limit)
    if reference is None:
        trained, base = (
            joined(fingerprint["prompts"], f"{of}_logprobs", limit) for of in ("adapter", "base")
        )
        parity, reason = check_by_tolerance(
            label,
            fingerprint.get("tolerance") or {},
            measured.adapter,
            measured.base,
            trained,
            base,
        )
    else:
        parity, reason = _check_by_noise(label, reference, measured)
    causes = [sentence for sentence in (other, reason) if sentence]
    return ParityResult({**parity, **template}, " ".join(causes))


def _check_by_noise(
    label: str, reference: Reference, measured: EngineLogprobs
) -> tuple[dict[str, Any], str]:
    """(what was measured, why it is refused)."""
    found = Deviations.measure(reference, measured)
    seen = Differences.measure(measured.adapter, measured.base, reference.adapter, reference.base)
    parity = {**seen.as_json(), **found.as_json()}
    if found.base > found.allowed_base:
        return (
            parity,
            (
                f"The engine's base answers unlike the base {label} was trained on: its deviation"
                f" is {found.base:.3f} (allowed {found.allowed_base:.3f}), the mean difference"
                f" {seen.base_mean:.4f}. Rounding does not explain it:"
                f" {_other_base(reference, measured)}. Check WHET_BASE_MODEL and the engine's"
                " model."
            ),
        )
    nothing = max(seen.base_mean, _NOTHING * seen.expected_effect)
    least = min(nothing, APPLIED_SHARE * seen.expected_effect)
    if seen.expected_effect > NEAR_IDENTITY and seen.effect < least:
        return parity, not_applied(label, seen.effect, seen.expected_effect)
    if found.adapter > found.allowed_adapter or found.is_slope_off:
        return (
            parity,
            (
                f"{label} answers unlike it did in training: its deviation is"
                f" {found.adapter:.3f} (allowed {found.allowed_adapter:.3f}), the mean difference"
                f" {seen.mean:.4f}, its effect {found.slope:.2f} times that of the training. The"
                f" base agrees, so {_cause(reference, measured, found)}. It is not served."
            ),
        )
    return parity, ""


@dataclass(frozen=True, slots=True)
class Deviations:
    """Root mean squares of differences over 1 - p, what is allowed of them, and the slope."""

    base: float
    adapter: float
    allowed_base: float
    allowed_adapter: float
    slope: float  # of the engine's effect of the adapter on the trainer's
    slope_error: float  # its standard error

    @classmethod
    def measure(cls, reference: Reference, measured: EngineLogprobs) -> Deviations:
        times = _TIMES_NOISE + _TIMES_UNCERTAINTY / math.sqrt(max(1, reference.noise_tokens))
        base = deviation(measured.base, reference.base)
        # 0: an engine that computes in float32, 0.1: in float16, about 1: in bfloat16
        share = base / reference.noise_base if reference.noise_base else 0.0
        if share >= _ROUNDS_AS_MUCH:
            share = max(1.0, share)
        noise = max(reference.noise_base, reference.noise_adapter)  # the surer of two estimates
        slope, slope_error = _slope(reference, measured)
        return cls(
            base=base,
            adapter=deviation(measured.adapter, reference.adapter),
            allowed_base=max(_ALWAYS_ALLOWED, times * reference.noise_base),
            allowed_adapter=max(_ALWAYS_ALLOWED, times * noise * share),
            slope=slope,
            slope_error=slope_error,
        )

    @property
    def is_slope_off(self) -> bool:
        return abs(self.slope - 1) > _SLOPE_OFF + _STANDARD_ERRORS * self.slope_error

    def as_json(self) -> dict[str, Any]:
        return {
            "deviation": {"base": round(self.base, 5), "adapter": round(self.adapter, 5)},
            "allowed": {
                "base": round(self.allowed_base, 5),
                "adapter": round(self.allowed_adapter, 5),
            },
            "slope": round(self.slope, 4),
            "slope_error": round(self.slope_error, 4),
        }


def deviation(found: Sequence[float], expected: Sequence[float]) -> float:
    """Root mean square of the differences, each over 1 - p of its token."""
    pairs = list(zip(found, expected, strict=True))
    squares = [((one - other) / _distance(other)) ** 2 for one, other in pairs]
    return math.sqrt(sum(squares) / len(squares)) if squares else 0.0


def _distance(logprob: float) -> float:
    """1 - p, and not below `_LEAST_DISTANCE`."""
    return max(_LEAST_DISTANCE, 1 - math.exp(min(0.0, logprob)))


def _slope(reference: Reference, measured: EngineLogprobs) -> tuple[float, float]:
    """(slope, standard error) of the weighted regression, through 0, of the engine's effects on the
    trainer's; (1, infinite) of an adapter without effect."""
    pairs = list(zip(reference.adapter, reference.base, strict=True))
    weights = [1 / _distance(min(pair)) for pair in pairs]
    expected = [weight * (one - other) for weight, (one, other) in zip(weights, pairs, strict=True)]
    found = [
        weight * (one - other)
        for weight, one, other in zip(weights, measured.adapter, measured.base, strict=True)
    ]
    total = sum(value * value for value in expected)
    if not total:
        return 1.0, math.inf
    slope = sum(a * b for a, b in zip(found, expected, strict=True)) / total
    left = [a - slope * b for a, b in zip(found, expected, strict=True)]
    spread = math.sqrt(sum(value * value for value in left) / max(1, len(left) - 1))
    return slope, spread / math.sqrt(total)


def _other_base(reference: Reference, measured: EngineLogprobs) -> str:
    """Which kind of other weights an engine's base has."""
    alike = _correlation(measured.base, reference.base)
    revision = "another revision, quantization or fine-tune of the same model"
    kind = revision if alike >= _ALIKE_BASES else "another model of the same shape"
    return f"its weights are those of {kind} (correlation {alike:.2f})"


def _correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's; 0 where one does not vary."""
    try:
        return correlation(first, second)
    except StatisticsError:
        return 0.0


def _cause(reference: Reference, measured: EngineLogprobs, found: Deviations) -> str:
    """Why an adapter on the right base moves log-probabilities otherwise than in training."""
    if found.adapter <= found.allowed_adapter:
        return (
            f"its scale is wrong: it works {found.slope:.2f} times as strongly as in training "
            "(lora_alpha, r or use_rslora in its configuration)"
        )
    for factor, scaled in reference.scaled.items():
        asked = measured.adapter[: len(scaled)]
        unscaled = deviation(asked, reference.adapter[: len(scaled)])
        if deviation(asked, scaled) <= max(found.allowed_adapter, _NEARER * unscaled):
            return (
                f"its scale is wrong: it works as in training at {factor:.2f} times the scale "
                "(lora_alpha, r or use_rslora in its configuration)"
            )
    return (
        "its weights or the layers they are applied to are other ones, some are missing, or its "
        "scale is off by an unusual factor"
    )
