"""What each engine replica should have loaded, and whether what it has is what was trained:
functions of plain data.

A version gets traffic on a replica only after that very process answered through it with the
log-probabilities that the trainer computed (the card's fingerprint). A replica that restarted
starts from nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from whet.registry import Adapter, Rollout

PROBE_EVERY_MS = 3_000  # with the deadline below, a hung engine leaves rotation within 10 s
# A busy engine starts a new request within a few steps; a CPU engine's step under load takes up to
# a second
PROBE_TIMEOUT_S = 6.0
# How long an engine that computes may stay silent before it counts as hung: a prompt that fills its
# context, on a processor, or a grammar at its limits.
BUSY_LIMIT_S = 60.0
# Between two looks at the engine's health; loads run between its steps and hold up running answers
LOADS_PER_TICK = 4


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which versions a replica should have, most important first, and why others cannot be served
    at all.
    """

    versions: tuple[Adapter, ...]
    refused: Mapping[str, str]  # digest -> sentence


@dataclass(slots=True)
class ReplicaState:
    """What is known of one replica; the `replicas` table holds the same."""

    url: str
    state: str = "starting"  # starting | ready | hung | gone
    detail: str = ""
    # Digest, or "base" -> {"engine_name","proved_at","parity"?}
    ready: dict[str, dict[str, Any]] = field(default_factory=dict)
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
    """In which part two bases differ, in words; both are `whet.store.base_model_parts`.

    Empty when the version's parts are not known.
    """
    if not trained_on:
        return ""
    parts = [
        part for part in sorted({*trained_on, *served}) if trained_on.get(part) != served.get(part)
    ]
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
    """Every version that may be addressed: what aliases point to first, then the newest, at most
    `max_resident`.

    `differences`: digest of a version on another base → `base_difference`.
    """
    pointed = {
        digest
        for rollout in rollouts.values()
        for digest in (rollout.stable_digest, rollout.candidate_digest, rollout.previous_digest)
        if digest
    }
    refused: dict[str, str] = {}
    fitting = []
    for adapter in adapters:
        if base_digest is not None and adapter.base_digest != base_digest:
            refused[adapter.digest] = (
                f"{adapter.label} was trained on base {adapter.base_digest[:8]}, this installation"
                f" serves base {base_digest[:8]}. {(differences or {}).get(adapter.digest, '')}Set"
                " WHET_BASE_MODEL to the base it was trained on, or train it anew."
            )
        elif adapter.rank > max_rank:
            refused[adapter.digest] = (
                f"{adapter.label} has rank {adapter.rank}, the engine was started for ranks up to"
                f" {max_rank}: raise WHET_ENGINE_MAX_LORA_RANK and restart the engine."
            )
        else:
            fitting.append(adapter)
    fitting.sort(
        key=lambda adapter: (adapter.digest not in pointed, -adapter.created_at, -adapter.version)
    )
    for adapter in fitting[max_resident:]:
        refused[adapter.digest] = (
            f"{adapter.label} is one more than the {max_resident} versions an engine keeps"
            " resident: remove old versions, or raise WHET_ENGINE_MAX_CPU_LORAS."
        )
    return Wanted(tuple(fitting[:max_resident]), refused)


def plan(
    state: ReplicaState,
    served: Collection[str],
    wanted: Wanted,
    *,
    removed: Collection[str],
    now: int,
) -> Plan:
    """`served`: names the engine answers to. `removed`: engine names of versions that were removed."""
    proved = [proof["engine_name"] for proof in state.ready.values()]
    if any(name not in served for name in proved):
        return Plan(restarted=True)
    probe = "base" not in state.ready or now - state.probed_at >= PROBE_EVERY_MS
    open_ones = [
        version
        for version in wanted.versions
        if version.digest not in state.ready and version.digest not in state.refused
    ]
    due = tuple(open_ones[:LOADS_PER_TICK])
    return Plan(
        probe=probe,
        unload=tuple(name for name in removed if name in served),
        load=tuple(version for version in due if version.engine_name not in served),
        prove=due,
    )
