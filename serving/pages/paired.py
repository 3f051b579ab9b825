"""Compares two versions by evidence alone: an evaluation in which both answered the same rows, and
what traffic says of each.

Figures of two different evaluations are of different rows: between them there is no difference to
print, and none of them is the better one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from whet.health.version_summary import VersionSummary
from whet.web.filters import number, percent

# Groups of an evaluation's test rows, in the order of the page. All hold shares of right answers
# but the last.
GROUPS = (
    ("old", "Accuracy on existing test rows"),
    ("new", "Accuracy on new test rows"),
    ("regression", "Accuracy on past corrections"),
    ("all", "Accuracy on the whole test set"),
    ("text", "Probability of a byte of the test set's texts"),
)
PairedRows = Mapping[tuple[str, str | None], Mapping[str, Any]]


@dataclass(frozen=True)
class PairedGroup:
    """Both versions on the same rows; `difference` is first minus second, with its interval."""

    title: str
    n: int
    first: float
    second: float
    difference: float | None
    low: float | None
    high: float | None

    @property
    def better(self) -> str:
        """Which is better beyond chance: first | second | "" (the interval holds zero)."""
        if self.low is None or self.high is None:
            return ""
        return "first" if self.low > 0 else "second" if self.high < 0 else ""


@dataclass(frozen=True)
class PairedEvaluation:
    """The newest evaluation that has both versions."""

    id: str
    created_at: int
    groups: list[PairedGroup]


def index_pairs(rows: list[dict[str, Any]]) -> dict[tuple[str, str | None], dict[str, Any]]:
    """Index evaluations, oldest first, by (version, version it was compared with)."""
    return {(row["adapter_digest"], row["against_digest"]): row for row in rows}


def find_paired(rows: PairedRows, first: str | None, second: str | None) -> PairedEvaluation | None:
    """Return the newest evaluation of both, whichever was the candidate. None: the base."""
    forward = rows.get((first, second)) if first is not None else None
    backward = rows.get((second, first)) if second is not None else None
    row = max(
        (one for one in (forward, backward) if one is not None),
        key=lambda one: one["created_at"],
        default=None,
    )
    if row is None:
        return None
    groups = [
        group if row is forward else _swap(group)
        for name, title in GROUPS
        if (group := _group(title, (row["metrics"] or {}).get(name))) is not None
    ]
    return PairedEvaluation(row["id"], row["created_at"], groups) if groups else None


def _group(title: str, found: Mapping[str, Any] | None) -> PairedGroup | None:
    if not found or found.get("candidate") is None or found.get("against") is None:
        return None
    difference, low, high = (found.get(name) for name in ("difference", "low", "high"))
    return PairedGroup(
        title, found["n"], found["candidate"], found["against"], difference, low, high
    )


def _swap(one: PairedGroup) -> PairedGroup:
    return PairedGroup(
        one.title,
        one.n,
        one.second,
        one.first,
        None if one.difference is None else -one.difference,
        None if one.high is None else -one.high,
        None if one.low is None else -one.low,
    )


def evidence_sentence(
    names: tuple[str, str],
    paired: PairedEvaluation | None,
    traffic: tuple[VersionSummary | None, VersionSummary | None],
) -> str:
    """Say what is known of two versions, for the question before a promotion or a rollback."""
    first, second = names
    if paired is None:
        said = [f"No evaluation has {first} and {second} on the same rows."]
    else:
        said = [_group_sentence(first, second, group) for group in paired.groups[:2]]
    thumbs = [_thumbs(name, one) for name, one in zip(names, traffic, strict=True)]
    errors = [_errors(name, one) for name, one in zip(names, traffic, strict=True)]
    if any(traffic):
        said += [f"Thumbs up: {', '.join(thumbs)}.", f"Failed: {', '.join(errors)}."]
    return " ".join(said)


def _group_sentence(first: str, second: str, group: PairedGroup) -> str:
    values = f"{first} {percent(group.first, 1)}, {second} {percent(group.second, 1)}"
    if group.difference is None or group.low is None or group.high is None:
        return f"{group.title} ({group.n:,}, paired): {values}."
    points = (
        f"{100 * group.difference:+.1f} points, {100 * group.low:+.1f} to {100 * group.high:+.1f}"
    )
    return f"{group.title} ({group.n:,}, paired): {values} ({points})."


def _thumbs(name: str, one: VersionSummary | None) -> str:
    if one is None or not one.rated:
        return f"{name} not rated"
    return f"{name} {percent(one.thumbs_up / one.rated)} of {number(one.rated)}"


def _errors(name: str, one: VersionSummary | None) -> str:
    return f"{name} {percent(one.failed / one.n, 1)} of {number(one.n)}" if one else f"{name} –"
