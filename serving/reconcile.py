"""What each engine replica should have loaded, and whether what it has is what was trained: functions of plain data.

A version gets traffic on a replica only after that very process answered through it with the log-probabilities that
the trainer computed (the card's fingerprint). A replica that restarted starts from nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from whet.registry import Adapter, Rollout

PROBE_EVERY_MS = 3_000  # with the deadline below, a hung engine leaves rotation within 10 s
PROBE_TIMEOUT_S = 6.0  # a busy engine starts a new request within a few steps; a CPU engine's step under load takes up to a second
# How long an engine that computes may stay silent before it counts as hung: a prompt that fills its
# context, on a processor, or a grammar at its limits.
BUSY_LIMIT_S = 60.0
LOADS_PER_TICK = 4  # between two looks at the engine's health; loads run between its steps and hold up running answers
NEAR_IDENTITY = 1e-3  # mean difference from the base, in nats: below it "did it load at all" cannot be told from rounding
_ALIKE = 0.8  # cosine of two effects that are one adapter's at two strengths: above it for half and double, as tried with trained adapters
_OTHER_SCALE = 0.1  # distance of their ratio from 1, beyond what rounding makes of it
_APPLIED_SHARE = 0.25  # of the expected difference from the base; an adapter that is not applied shows none at all
_DEFAULT_TOLERANCE = {"mean": 0.05, "max": 0.5}  # ten times what was measured between trainer and engine on a bfloat16 base


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which versions a replica should have, most important first, and why others cannot be served at all."""

    versions: tuple[Adapter, ...]
    refused: Mapping[str, str]  # digest -> sentence


@dataclass(slots=True)
class ReplicaState:
    """What is known of one replica; the `replicas` table holds the same."""

    url: str
    state: str = "starting"  # starting | ready | hung | gone
    detail: str = ""
    ready: dict[str, dict[str, Any]] = field(default_factory=dict)  # digest, or "base" -> {"engine_name","proved_at","parity"?}
    refused: dict[str, str] = field(default_factory=dict)
    base_digest: str | None = None
    probed_at: int = 0  # the last time a real completion came back


def is_busy(silent_s: float, *, is_computing: bool) -> bool:
    """True for an engine that has not answered for `silent_s` seconds and is only busy: it stays in
    rotation, and what was proved of it stays true."""
    return is_computing and silent_s < BUSY_LIMIT_S


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do to one replica now, in this order."""

    restarted: bool = False  # everything known of it is void
    probe: bool = False
    unload: tuple[str, ...] = ()
    load: tuple[Adapter, ...] = ()  # names the engine does not have
    prove: tuple[Adapter, ...] = ()  # after loading; includes those just loaded


def base_difference(trained_on: Mapping[str, str], served: Mapping[str, str]) -> str:
    """In which part two bases differ, in words; both are `whet.store.base_model_parts`. Empty when the version's parts are not known."""
    if not trained_on:
        return ""
    parts = [part for part in sorted({*trained_on, *served}) if trained_on.get(part) != served.get(part)]
    return f"They differ in the {' and the '.join(parts or ['weights'])}. "


def wanted_versions(
    adapters: Sequence[Adapter],
    rollouts: Mapping[str, Rollout],
    *,
    base_digest: str | None,
    max_resident: int,
    max_rank: int,
    differences: Mapping[str, str] | None = None,
) -> Wanted:
    """Every version that may be addressed: what aliases point to first, then the newest, at most `max_resident`.

    `differences`: digest of a version on another base → `base_difference`.
    """
    pointed = {digest for rollout in rollouts.values() for digest in (rollout.stable_digest, rollout.candidate_digest, rollout.previous_digest) if digest}
    refused: dict[str, str] = {}
    fitting = []
    for adapter in adapters:
        if base_digest is not None and adapter.base_digest != base_digest:
            refused[adapter.digest] = (
                f"{adapter.label} was trained on base {adapter.base_digest[:8]}, this installation serves base {base_digest[:8]}. {(differences or {}).get(adapter.digest, '')}Set WHET_BASE_MODEL to the base it was trained on, or train it anew."
            )
        elif adapter.rank > max_rank:
            refused[adapter.digest] = (
                f"{adapter.label} has rank {adapter.rank}, the engine was started for ranks up to {max_rank}: raise WHET_ENGINE_MAX_LORA_RANK and restart the engine."
            )
        else:
            fitting.append(adapter)
    fitting.sort(key=lambda adapter: (adapter.digest not in pointed, -adapter.created_at, -adapter.version))
    for adapter in fitting[max_resident:]:
        refused[adapter.digest] = (
            f"{adapter.label} is one more than the {max_resident} versions an engine keeps resident: remove old versions, or raise WHET_ENGINE_MAX_CPU_LORAS."
        )
    return Wanted(tuple(fitting[:max_resident]), refused)


def plan(state: ReplicaState, served: Collection[str], wanted: Wanted, *, removed: Collection[str], now: int) -> Plan:
    """`served`: names the engine answers to. `removed`: engine names of versions that were removed."""
    proved = [proof["engine_name"] for proof in state.ready.values()]
    if any(name not in served for name in proved):
        return Plan(restarted=True)
    probe = "base" not in state.ready or now - state.probed_at >= PROBE_EVERY_MS
    open_ones = [version for version in wanted.versions if version.digest not in state.ready and version.digest not in state.refused]
    due = tuple(open_ones[:LOADS_PER_TICK])
    return Plan(
        probe=probe,
        unload=tuple(name for name in removed if name in served),
        load=tuple(version for version in due if version.engine_name not in served),
        prove=due,
    )


def _mean_and_largest(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    differences = [abs(a - b) for a, b in zip(first, second, strict=True)]
    return (sum(differences) / len(differences), max(differences)) if differences else (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Measured:
    """Log-probabilities an engine gave for the prompts of a fingerprint, every token but the first, prompts joined."""

    adapter: Sequence[float]
    base: Sequence[float]
    asked: Sequence[int] | None = None  # tokens it made of the fingerprint's conversation; None: it does not say


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is empty when the version may be served."""

    parity: dict[str, Any]
    reason: str = ""


def expected_logprobs(fingerprint: Mapping[str, Any], which: str, limit: int) -> list[float]:
    """The trainer's numbers in the same form as `Measured`; `limit` tokens of each prompt."""
    return [float(value) for prompt in fingerprint["prompts"] for value in prompt[which][1:limit]]


def _cause(found: Sequence[float], expected: Sequence[float]) -> str:
    """Why an adapter on the right base moves log-probabilities otherwise than in training: the same way but more or less, or another way."""
    product, ours, theirs = (
        sum(a * b for a, b in pairs) for pairs in (zip(found, expected, strict=True), zip(found, found, strict=True), zip(expected, expected, strict=True))
    )
    if product > _ALIKE * math.sqrt(ours * theirs) and abs(product / theirs - 1) > _OTHER_SCALE:
        return f"its scale is wrong: it works {product / theirs:.2f} times as strongly as in training (lora_alpha, r or use_rslora in its configuration)"
    return "its weights, the layers they are applied to, or by far its scale are other ones"


def _other_tokens(label: str, fingerprint: Mapping[str, Any], made: Sequence[int] | None) -> str | None:
    """Why the engine's template or tokenizer is not the one of the training; empty where it is, None where that is not known.

    Log-probabilities cannot show it: the engine is asked for those with token ids.
    """
    expected = (fingerprint.get("asked") or {}).get("token_ids")
    if expected is None or made is None:
        return None
    if list(made) == list(expected):
        return ""
    first = next((at for at, (ours, theirs) in enumerate(zip(made, expected, strict=False)) if ours != theirs), min(len(made), len(expected)))
    return (
        f"The engine turns a conversation into other tokens than {label} was trained with ({len(made)} where {len(expected)} are expected, other ones from token {first} on): "
        "it uses another chat template or tokenizer. Start it with those of the base's folder (--chat-template, --tokenizer)."
    )


def judge(label: str, fingerprint: Mapping[str, Any] | None, measured: Measured, *, limit: int) -> Verdict:
    """Is this the adapter that was trained, on the base it was trained on, and is it applied at all?"""
    effect, _ = _mean_and_largest(measured.adapter, measured.base)
    if not fingerprint or not fingerprint.get("prompts"):
        parity = {"measured": False, "why": "The adapter was imported without a fingerprint.", "difference_from_base": round(effect, 6)}
        reason = "" if effect > 0 else f"{label} answers exactly like the base: none of its weights match this model."
        return Verdict(parity, reason)
    tolerance = {**_DEFAULT_TOLERANCE, **(fingerprint.get("tolerance") or {})}
    trained, base = (expected_logprobs(fingerprint, which, limit) for which in ("adapter_logprobs", "base_logprobs"))
    base_mean, base_largest = _mean_and_largest(measured.base, base)
    mean, largest = _mean_and_largest(measured.adapter, trained)
    expected_effect, _ = _mean_and_largest(trained, base)
    parity = {
        "measured": True, "tokens": len(trained), "mean": round(mean, 5), "max": round(largest, 5), "base_mean": round(base_mean, 5), "base_max": round(base_largest, 5),
        "difference_from_base": round(effect, 5), "expected_difference_from_base": round(expected_effect, 5), "tolerance": {"mean": tolerance["mean"], "max": tolerance["max"]},
    }  # fmt: skip
    if (other := _other_tokens(label, fingerprint, measured.asked)) is not None:
        parity["template"] = "other" if other else "same"
    if other:
        return Verdict(parity, other)
    found = f"mean difference {{:.4f}} (allowed {tolerance['mean']}), largest {{:.3f}} (allowed {tolerance['max']})"
    if base_mean > tolerance["mean"] or base_largest > tolerance["max"]:
        return Verdict(
            parity,
            f"The engine's base answers unlike the base {label} was trained on: {found.format(base_mean, base_largest)}. Check WHET_BASE_MODEL and the engine's model.",
        )
    if expected_effect > NEAR_IDENTITY and effect < _APPLIED_SHARE * expected_effect:
        return Verdict(
            parity, f"{label} answers like the base: it differs by {effect:.5f} where {expected_effect:.5f} was measured in training. It is not applied."
        )
    if mean > tolerance["mean"] or largest > tolerance["max"]:
        cause = _cause([a - b for a, b in zip(measured.adapter, measured.base, strict=True)], [a - b for a, b in zip(trained, base, strict=True)])
        return Verdict(parity, f"{label} answers unlike it did in training: {found.format(mean, largest)}. The base agrees, so {cause}. It is not served.")
    return Verdict(parity)
