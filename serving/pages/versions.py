"""What the Adapters pages show: versions of a name, their scores, their share of the traffic, where
they are ready.

`board` reads; everything after it is a pure function of what it returns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from serving.pages.paired import GROUPS, PairedRows, evidence_sentence, find_paired, index_pairs
from whet.health.version_summary import VersionSummary
from whet.registry import Adapter, Rollout, current_rollouts, list_adapters
from whet.tables import evaluations, replicas

_DIGEST = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{56}\b")
LINE_SHOWN = 12  # versions on the line; more do not fit a screen, the table below has them all


@dataclass(frozen=True)
class Version:
    """One adapter version as an alias sees it. `share`: of the alias's traffic, 0 to 1."""

    adapter: Adapter
    evaluation: dict[str, Any] | None
    share: float
    role: str  # live | candidate | previous | ""
    ready: list[str]  # replica URLs
    refused: dict[str, str]  # replica URL -> reason

    def score(self, group: str) -> float | None:
        metrics = (self.evaluation or {}).get("metrics") or {}
        value = (metrics.get(group) or {}).get("candidate")
        return float(value) if value is not None else None


@dataclass(frozen=True)
class Board:
    """An alias (or a name that no alias serves yet) with its versions, newest first."""

    alias: str
    rollout: Rollout | None
    versions: list[Version]
    replicas: list[dict[str, Any]] = field(default_factory=list)
    pairs: PairedRows = field(default_factory=dict)
    traffic: Mapping[str | None, VersionSummary] = field(default_factory=dict)

    @property
    def live(self) -> Version | None:
        return next((version for version in self.versions if version.role == "live"), None)

    @property
    def candidate(self) -> Version | None:
        return next((version for version in self.versions if version.role == "candidate"), None)

    def by_digest(self, digest: str | None) -> Version | None:
        return next(
            (version for version in self.versions if version.adapter.digest == digest), None
        )


def boards(connection: Connection) -> list[Board]:
    """Every alias and every adapter name, those with traffic first."""
    rollouts = current_rollouts(connection)
    adapters = list_adapters(connection)
    names = sorted(
        {*rollouts, *(adapter.name for adapter in adapters)},
        key=lambda name: (name not in rollouts, name),
    )
    evaluated, engines = _evaluations(connection), _replicas(connection)
    return [_board(name, rollouts.get(name), adapters, evaluated, engines) for name in names]


def board(connection: Connection, alias: str) -> Board:
    """Return one alias with its versions."""
    return _board(
        alias,
        current_rollouts(connection).get(alias),
        list_adapters(connection),
        _evaluations(connection),
        _replicas(connection),
    )


def _board(
    alias: str,
    rollout: Rollout | None,
    adapters: list[Adapter],
    evaluated: list[dict[str, Any]],
    engines: list[dict[str, Any]],
) -> Board:
    scores = {row["adapter_digest"]: row for row in evaluated}
    pointed = (
        {rollout.stable_digest, rollout.candidate_digest, rollout.previous_digest} - {None}
        if rollout
        else set()
    )
    mine = sorted(
        (adapter for adapter in adapters if adapter.name == alias or adapter.digest in pointed),
        key=lambda adapter: -adapter.version,
    )
    versions = [
        Version(
            adapter,
            scores.get(adapter.digest),
            share_of(rollout, adapter.digest),
            role_of(rollout, adapter.digest),
            [
                engine["url"]
                for engine in engines
                if engine["state"] == "ready" and adapter.digest in (engine["ready"] or {})
            ],
            {
                engine["url"]: engine["refused"][adapter.digest]
                for engine in engines
                if adapter.digest in (engine["refused"] or {})
            },
        )
        for adapter in mine
    ]
    return Board(alias, rollout, versions, engines, index_pairs(evaluated))


def role_of(rollout: Rollout | None, digest: str) -> str:
    if rollout is None:
        return ""
    if digest == rollout.stable_digest:
        return "live"
    if digest == rollout.candidate_digest:
        return "candidate"
    return "previous" if digest == rollout.previous_digest else ""


def share_of(rollout: Rollout | None, digest: str) -> float:
    if rollout is None:
        return 0.0
    trial = rollout.candidate_share if rollout.candidate_digest else 0.0
    return {"live": 1.0 - trial, "candidate": trial}.get(role_of(rollout, digest), 0.0)


def _evaluations(connection: Connection) -> list[dict[str, Any]]:
    """Every evaluation, oldest first."""
    query = select(evaluations).order_by(evaluations.c.created_at, evaluations.c.id)
    return [dict(row._mapping) for row in connection.execute(query)]


def _replicas(connection: Connection) -> list[dict[str, Any]]:
    return [
        dict(row._mapping) for row in connection.execute(select(replicas).order_by(replicas.c.url))
    ]


# --- sentences -----------------------------------------------------------------------------------------------------


def short_label(version: Version | None) -> str:
    return version.adapter.label if version else "the base model"


def headline(found: Board) -> str:
    """What answers under this name now."""
    if found.rollout is None:
        newest = found.versions[0].adapter.label if found.versions else "nothing"
        return f"Nothing answers as {found.alias} yet; {newest} is the newest version"
    live = found.live.adapter.label if found.live else "The base model"
    if found.candidate:
        return (
            f"{live} answers {found.alias}; {found.candidate.adapter.label} is on trial with"
            f" {100 * found.rollout.candidate_share:.0f} %"
        )
    held = ", pinned" if found.rollout.pinned else ""
    back = " after a rollback" if found.rollout.state == "rolled_back" else ""
    return f"{live} answers {found.alias}{held}{back}"


def evidence(found: Board, first: str | None, second: str | None) -> str:
    """What is known of two versions (None: the base) by rows and traffic that both had."""
    names = short_label(found.by_digest(first)), short_label(found.by_digest(second))
    paired = find_paired(found.pairs, first, second)
    return evidence_sentence(names, paired, (found.traffic.get(first), found.traffic.get(second)))


def promote_sentence(found: Board, version: Version) -> str:
    """What promoting does, before it is done."""
    label, alias = version.adapter.label, found.alias
    if found.rollout is None:
        said = f"{label} will answer every request for {alias} from now on."
    else:
        said = (
            f"{label} will answer every new request for {alias}."
            f" {found.live.adapter.label if found.live else 'The base model'} is kept: one press"
            " brings it back."
        )
    people = (version.evaluation or {}).get("people")
    # As training stores it: people who compared blind prefer the other version's answers
    if people and people["verdict"] == "worse":
        said = f"{people['sentence']} {said}"
    if found.rollout is not None and found.rollout.stable_digest != version.adapter.digest:
        said = f"{said} {evidence(found, version.adapter.digest, found.rollout.stable_digest)}"
    if version.adapter.gate == "fail":
        return f"{label} did not pass its gate. {said}"
    if version.adapter.gate in ("inconclusive", "none"):
        return (
            f"Nothing proves that {label} is better: its gate"
            f" {'could not decide' if version.adapter.gate == 'inconclusive' else 'had nothing to judge by'}."
            f" {said}"
        )
    return f"{said} Answers that are being written finish on the version they began with."


def rollback_sentence(found: Board) -> str:
    """What rolling back does; empty when there is nothing to go back to."""
    rollout = found.rollout
    if rollout is None or (rollout.stable_digest is None and not rollout.candidate_digest):
        return ""
    if found.candidate or rollout.candidate_digest:
        name = short_label(found.candidate) if found.candidate else "The candidate"
        return (
            f"{name} goes off trial and is not tried again by itself;"
            f" {short_label(found.live)} answers every request for {found.alias}."
            f" {evidence(found, rollout.candidate_digest, rollout.stable_digest)}"
        )
    before = found.by_digest(rollout.previous_digest)
    back = short_label(before) if before else "The base model"
    return (
        f"{back} answers every new request for {found.alias} again; {short_label(found.live)} is"
        f" not tried again by itself."
        f" {evidence(found, rollout.previous_digest, rollout.stable_digest)}"
    )


def pin_sentence(found: Board) -> str:
    trial = f" {found.candidate.adapter.label} goes off trial." if found.candidate else ""
    return (
        f"{found.alias} stays at {short_label(found.live)}: no rollout, by the policy or by hand,"
        f" moves it until it is unpinned.{trial}"
    )


def unpin_sentence(found: Board) -> str:
    return (
        f"Rollouts may move {found.alias} again: a newer version that passed its gate goes on trial"
        " by itself."
    )


def try_sentence(found: Board, version: Version, share: float) -> str:
    return (
        f"{version.adapter.label} answers {100 * share:.0f} % of the requests for {found.alias},"
        " the same users each time. It is promoted or taken back by what its answers show."
    )


def unpaired(first: Version, second: Version) -> list[dict[str, Any]]:
    """Each version's figures on its own test set; there is no difference between them."""
    rows = []
    for group, title in GROUPS:
        one, two = first.score(group), second.score(group)
        if one is None and two is None:
            continue
        counts = (_n(first, group), _n(second, group))
        rows.append({"title": title, "first": one, "second": two, "n": counts})
    return rows


def _n(version: Version, group: str) -> int | None:
    found = ((version.evaluation or {}).get("metrics") or {}).get(group, {}).get("n")
    return int(found) if found is not None else None


def recipe_differences(first: Adapter, second: Adapter) -> list[tuple[str, str, str]]:
    """Choices in which the two versions' recipes differ."""
    one, two = first.card.get("recipe") or {}, second.card.get("recipe") or {}
    return [
        (name, in_words(one.get(name, "")), in_words(two.get(name, "")))
        for name in sorted({*one, *two})
        if one.get(name) != two.get(name)
    ]


def in_words(value: Any) -> str:
    """A recipe's value for people: counts by name, lists, and of a digest what tells it from
    others.
    """
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items()) or "–"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _DIGEST.sub(r"\1", str(value)) or "–"
