"""What packages read of each other's tables: adapter versions, and which one is live under an
alias.

Only queries. Rows come back as frozen records; who writes them is said in `whet.tables`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, exists, func, select, union

from whet.errors import NotFoundError
from whet.tables import (
    adapters,
    alerts,
    datasets,
    drift_reports,
    evaluations,
    examples,
    interactions,
    review_items,
    rollouts,
    training_requests,
    training_runs,
)

# The linear layers on which the engine takes adapters: those of the Llama, Mistral, Qwen, Gemma and
# Phi families but the output head. With the head among them, the CPU engine dies as soon as a
# request for prompt log-probabilities meets any other in a batch (0.32.0: the head's adapter
# indices are per request, the rows per token). Experts are left out, because the CPU engine has no
# kernel for adapters on them.
ENGINE_LORA_MODULES = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
    "qkv_proj",
    "gate_up_proj",
)
# The only values that vLLM accepts for its largest rank.
ENGINE_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)

_EXACT = re.compile(r"(?P<name>.+)@v(?P<version>[0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Adapter:
    """One immutable adapter version."""

    digest: str
    name: str
    version: int
    path: str
    base_digest: str
    template_digest: str
    dataset_digest: str | None
    run_id: str | None
    rank: int
    gate: str
    card: dict[str, Any]
    created_at: int
    removed_at: int | None

    @property
    def label(self) -> str:
        """`support@v7`: how people and headers name it."""
        return f"{self.name}@v{self.version}"

    @property
    def engine_name(self) -> str:
        """`support--v7--ab12cd34`: how the engine knows it; never used for other content."""
        return engine_name(self.name, self.version, self.digest)


@dataclass(frozen=True, slots=True)
class Rollout:
    """What an alias points to in one generation."""

    id: str
    alias: str
    generation: int
    stable_digest: str | None
    candidate_digest: str | None
    candidate_share: float
    previous_digest: str | None
    pinned: bool
    state: str
    reason: str
    actor: str
    created_at: int


def engine_name(name: str, version: int, digest: str) -> str:
    return f"{name}--v{version}--{digest[:8]}"


def adapter_path(name: str, version: int, digest: str) -> str:
    """Folder in the store."""
    return f"adapters/{name}/v{version}--{digest[:8]}"


def parse_model(model: str) -> tuple[str, int | None]:
    """`support@v7` → ("support", 7); `support` → ("support", None)."""
    match = _EXACT.fullmatch(model)
    return (match["name"], int(match["version"])) if match else (model, None)


# Where a name of an alias comes to be; `interactions` is only asked about one name, for its size.
_ALIAS_COLUMNS = (
    rollouts.c.alias,
    adapters.c.name,
    datasets.c.name,
    examples.c.alias,
    review_items.c.alias,
    training_requests.c.alias,
    training_runs.c.alias,
    drift_reports.c.alias,
    alerts.c.alias,
)


def known_aliases(connection: Connection) -> list[str]:
    """Return the aliases that something is known of besides traffic, in order."""
    names = union(*(select(column) for column in _ALIAS_COLUMNS)).subquery()
    return sorted(str(name) for name in connection.execute(select(names)).scalars())


def require_alias(connection: Connection, alias: str) -> str:
    """Return the alias. Raises NotFoundError where nothing is known of it, nor any traffic."""
    columns = (*_ALIAS_COLUMNS, interactions.c.alias)
    if any(connection.execute(select(exists().where(c == alias))).scalar() for c in columns):
        return alias
    known = known_aliases(connection)
    hint = f"Known: {', '.join(known[:20])}."
    raise NotFoundError(
        f"There is no alias {alias[:80]!r}.",
        hint=hint if known else "`whet train run --help` says how a first version is made.",
    )


def alias_filter(connection: Connection, alias: str | None) -> str | None:
    """Return the alias that rows are to be of, or None for those of all.

    Raises NotFoundError for an alias of which nothing is known: an empty list would say that it
    exists and has nothing.
    """
    return require_alias(connection, alias) if alias else None


def list_adapters(
    connection: Connection, name: str | None = None, *, removed: bool = False
) -> list[Adapter]:
    """Adapter versions, newest first."""
    query = select(adapters).order_by(adapters.c.created_at.desc(), adapters.c.version.desc())
    if name is not None:
        query = query.where(adapters.c.name == name)
    if not removed:
        query = query.where(adapters.c.removed_at.is_(None))
    return [Adapter(**row._mapping) for row in connection.execute(query)]


def merged_from(connection: Connection, digests: set[str]) -> set[str]:
    """Digests of the versions that were merged from any of these, directly or through others."""
    rows = connection.execute(select(adapters.c.digest, adapters.c.card["merged"]["from"])).all()
    sources = {digest: {part["digest"] for part in parts} for digest, parts in rows if parts}
    found: set[str] = set()
    while more := {
        digest
        for digest, parts in sources.items()
        if digest not in found and parts & (digests | found)
    }:
        found |= more
    return found


def find_adapter(connection: Connection, reference: str) -> Adapter:
    """By label (`support@v7`), name (its newest version), digest or the first 8 characters of one.

    Raises NotFoundError.
    """
    name, version = parse_model(reference)
    query = (
        select(adapters).where(adapters.c.removed_at.is_(None)).order_by(adapters.c.version.desc())
    )
    if version is not None:
        query = query.where(adapters.c.name == name, adapters.c.version == version)
    elif re.fullmatch(r"[0-9a-f]{8,64}", reference):
        query = query.where(
            adapters.c.digest.startswith(reference) | (adapters.c.name == reference)
        )
    else:
        query = query.where(adapters.c.name == reference)
    row = connection.execute(query.limit(1)).first()
    if row is None:
        raise NotFoundError(
            f"There is no adapter {reference!r}.", hint="`whet adapters list` prints what there is."
        )
    return Adapter(**row._mapping)


def signature(connection: Connection, digest: str) -> dict[str, Any] | None:
    """Who answers for the reviewed conversations that a version breaks: `{"by", "reason",
    "evaluation", "conversations"}`.

    None when nobody does, or when an evaluation after the signature failed: what it found was not
    signed for.
    """
    query = (
        select(evaluations.c.verdict, evaluations.c.thresholds)
        .where(
            evaluations.c.adapter_digest == digest, evaluations.c.verdict.in_(("signed", "fail"))
        )
        .order_by(evaluations.c.created_at.desc(), evaluations.c.id.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return dict(row.thresholds["signed"]) if row is not None and row.verdict == "signed" else None


def objection(connection: Connection, adapter: Adapter) -> str:
    """Why a person has to answer for it before a version may go live, or nothing: its newest
    evaluation (its gate, where there is none later) failed, or broke reviewed conversations, and
    nobody signed for those.
    """
    query = select(evaluations.c.verdict, evaluations.c.metrics).where(
        evaluations.c.adapter_digest == adapter.digest
    )
    newest = connection.execute(
        query.order_by(evaluations.c.created_at.desc(), evaluations.c.id.desc()).limit(1)
    ).first()
    verdict = adapter.gate if newest is None else newest.verdict
    if verdict == "fail":
        return "failed its gate"
    if newest is None or verdict == "signed":
        return ""
    signed = signature(connection, adapter.digest)
    broken = (newest.metrics.get("regression") or {}).get("broken_ids", [])
    unsigned = sorted(set(broken) - set(signed["conversations"] if signed else []))
    if not unsigned:
        return ""
    return (
        f"breaks {len(unsigned)} reviewed conversations that nobody signed for"
        f" ({', '.join(unsigned[:5])}{', …' if len(unsigned) > 5 else ''})"
    )


def current_rollouts(connection: Connection) -> dict[str, Rollout]:
    """Alias → its newest generation."""
    newest = (
        select(rollouts.c.alias, func.max(rollouts.c.generation).label("generation"))
        .group_by(rollouts.c.alias)
        .subquery()
    )
    query = select(rollouts).join(
        newest,
        (rollouts.c.alias == newest.c.alias) & (rollouts.c.generation == newest.c.generation),
    )
    return {row.alias: Rollout(**row._mapping) for row in connection.execute(query)}


def rollout_history(connection: Connection, alias: str, limit: int = 100) -> list[Rollout]:
    """Generations of one alias, newest first."""
    query = (
        select(rollouts)
        .where(rollouts.c.alias == alias)
        .order_by(rollouts.c.generation.desc())
        .limit(limit)
    )
    return [Rollout(**row._mapping) for row in connection.execute(query)]
