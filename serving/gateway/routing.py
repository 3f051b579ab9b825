"""Which version answers: a function of what is in memory and of who asks. No database, no clock.

An alias is split between its stable and its candidate version by a hash of the alias and the end
user, so a person keeps the version while the share stays, and only joins the candidate's side while
it grows. Without a user every request is hashed by its own id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.gateway.answers import ApiError
from serving.retrieval.defaults_store import RetrievalDefault
from whet.registry import Adapter, Rollout, parse_model


@dataclass(slots=True, eq=False)
class Replica:
    """One engine process as this gateway process sees it."""

    url: str
    base_model: str = ""  # the name under which it serves the base
    in_flight: int = 0
    max_model_len: int | None = None  # tokens of prompt and answer; None: it does not say


@dataclass(frozen=True, slots=True)
class Target:
    """One version (or the base) and where it is ready."""

    # The name the engine knows; empty for the base, whose name is the replica's own
    engine_model: str
    label: str  # `support@v7` or `base`: the x-whet-adapter header
    adapter: Adapter | None
    replicas: tuple[Replica, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """What one model name leads to."""

    stable: Target
    arm: str  # of `stable`: stable | pinned | exact | base
    alias: str | None = None
    generation: int | None = None
    candidate: Target | None = None
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Choice:
    target: Target
    arm: str
    alias: str | None
    generation: int | None


# Of a request that failed before it was known which version answers.
UNROUTED = Choice(Target("", "", None, ()), "base", None, None)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a request is decided by, replaced as a whole."""

    keys: Mapping[str, str] = field(default_factory=dict)  # hash -> key id
    routes: Mapping[str, Route] = field(default_factory=dict)  # model name -> route
    models_body: bytes = b'{"object":"list","data":[]}'
    cards: Mapping[str, bytes] = field(default_factory=dict)  # model name -> its card
    base_ready: bool = False
    # Collection -> ids of the keys that may read it; None: every key.
    readers: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    # Model name -> what it retrieves when a request says nothing.
    retrieval_defaults: Mapping[str, RetrievalDefault] = field(default_factory=dict)


def bucket(alias: str, unit: str) -> float:
    """Where `unit` (an end user, or an interaction) stands for this alias, in [0, 1)."""
    return int.from_bytes(
        hashlib.blake2b(f"{alias}\0{unit}".encode("utf-8", "replace"), digest_size=7).digest(),
        "big",
    ) / (1 << 56)


def choose(snapshot: Snapshot, model: str, unit: str) -> Choice:
    """Raises ApiError 404 for a name that leads nowhere.

    The target may have no ready replica; the caller waits or says so.
    """
    route = snapshot.routes.get(model)
    if route is None:
        raise ApiError(
            404,
            f"The model {model[:80]!r} does not exist here. GET /v1/models lists the names"
            " that do.",
            param="model",
            code="model_not_found",
        )
    candidate = route.candidate
    if (
        candidate is not None
        and candidate.replicas
        and bucket(route.alias or "", unit) < route.share
    ):
        return Choice(candidate, "candidate", route.alias, route.generation)
    return Choice(route.stable, route.arm, route.alias, route.generation)


def pick_replica(replicas: tuple[Replica, ...], avoid: Replica | None = None) -> Replica | None:
    """The least busy one, another than `avoid` if there is another."""
    best: Replica | None = None
    for replica in replicas:
        if replica is not avoid and (best is None or replica.in_flight < best.in_flight):
            best = replica
    return best or (avoid if avoid in replicas else None)


def build_routes(
    *,
    adapters: list[Adapter],
    rollouts: Mapping[str, Rollout],
    ready: Mapping[str, tuple[Replica, ...]],
    base_alias: str,
) -> dict[str, Route]:
    """Model name → route. `ready` maps a digest (or "base") to the replicas that proved it."""
    base = Target("", "base", None, ready.get("base", ()))
    targets = {
        adapter.digest: Target(
            adapter.engine_name, adapter.label, adapter, ready.get(adapter.digest, ())
        )
        for adapter in adapters
    }
    routes = {adapter.label: Route(targets[adapter.digest], "exact") for adapter in adapters}
    for alias, rollout in rollouts.items():
        stable = targets.get(rollout.stable_digest) if rollout.stable_digest else base
        if stable is None or parse_model(alias)[1] is not None:
            # Its stable version was removed: the name leads nowhere rather than to something else
            continue
        candidate = targets.get(rollout.candidate_digest) if rollout.candidate_digest else None
        routes[alias] = Route(
            stable,
            "pinned" if rollout.pinned else "stable",
            alias,
            rollout.generation,
            candidate,
            rollout.candidate_share if candidate else 0.0,
        )
    routes[base_alias] = Route(base, "base")
    return routes
