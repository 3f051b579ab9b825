"""Rows into train, validation and test, so that a row always lands in the same part and no part knows another.

A row's part follows from the hash of its own key: its group (conversation), else its user, else its question. Nothing that is added later can
move it, save where a task is so small that a part of it would be empty: that part borrows the nearest group, which goes back once others come.
What such rows have in common with a held-out part (nearly the same, the same question of another user, …) is not settled by
moving rows, which would move old ones too: the row nearer to training is held back and listed. A near-duplicate teaches little.

A split that exists (`parent`) binds: its rows keep their parts, whatever the shares or the other rule for the part are now.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from training.data.leaks import Leak, find_leaks
from training.datasets import PARTS, Shares
from training.rows import Row
from whet.errors import InputError
from whet.store import Store, digest_bytes, digest_json

_SPREAD = 16**12  # a position between 0 and 1 comes from 12 hexadecimal characters of a digest


@dataclass(frozen=True)
class Split:
    """Rows by part, in their order."""

    parts: dict[str, list[Row]]
    held_back: list[Leak]  # rows in no part, each with the held-out row that it is known from
    assigned: dict[str, str]  # key -> part, of the parent and of these rows: what a later split has to keep
    borrowed: dict[str, int] = field(default_factory=dict)  # held-out part -> its rows that only are there because it would be empty without them


def group_key(row: Row) -> str:
    """Rows that must not be parted: those of one named group, of one user, or with one question."""
    if row.group is not None:
        return digest_json(["group", row.group])
    return digest_json(["user", row.user]) if row.user is not None else row.prompt_digest


def split(rows: Sequence[Row], shares: Shares, *, parent: Mapping[str, str] | None = None, by_time: str = "") -> Split:
    """Put rows into parts. `parent`: parts that are settled, from an earlier split's `assigned`. `by_time`: a field of the rows with ISO 8601
    times or seconds since 1970; then the newest groups are held out instead of those that the hash chooses. Raises InputError for rows without it.

    Within each task a part that would stay empty borrows the group nearest to it, so a task of three groups or more is judged too. Such a group
    is not where its hash puts it: `parent` keeps it there, and without one a split of more rows, which no longer needs it, puts it elsewhere.
    Synthetic rows are for training alone.
    """
    real = [row for row in rows if row.origin != "synthetic"]
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in real:
        groups[group_key(row)].append(row)
    position = _by_time(groups, by_time) if by_time else {key: int(digest_bytes(key.encode())[:12], 16) / _SPREAD for key in groups}
    assigned = dict(parent or {})
    lent = [key for members in _by_task(groups).values() for key in _settle(members, position, shares, assigned)]
    borrowed = Counter({part: sum(len(groups[key]) for key in lent if assigned[key] == part) for part in PARTS})
    parts: dict[str, list[Row]] = {name: [] for name in PARTS}
    for row in rows:
        parts["train" if row.origin == "synthetic" else assigned[group_key(row)]].append(row)
    held_back = [] if not (shares.test or shares.validation or parent) else _hold_back(parts)
    return Split(parts, held_back, assigned, dict(+borrowed))


def _by_task(groups: Mapping[str, Sequence[Row]]) -> dict[str, list[str]]:
    """Keys by task: the task that most of a group's rows have."""
    found: dict[str, list[str]] = defaultdict(list)
    for key, members in groups.items():
        tasks = [row.task for row in members]
        found[max(sorted(set(tasks)), key=tasks.count)].append(key)
    return found


def _settle(keys: Sequence[str], position: Mapping[str, float], shares: Shares, assigned: dict[str, str]) -> list[str]:
    """Give each key of one task its part; returns those that a part borrowed."""
    fresh = [key for key in keys if key not in assigned]
    assigned.update({key: _part(position[key], shares) for key in fresh})
    borrowed: list[str] = []
    if len(keys) < 3:
        return borrowed
    for name, share, edge in (("test", shares.test, 0.0), ("validation", shares.validation, shares.test)):
        candidates = [key for key in fresh if assigned[key] == "train"]
        if share > 0 and not any(assigned[key] == name for key in keys) and len(candidates) > 1:
            borrowed.append(min(candidates, key=lambda key: abs(position[key] - edge)))
            assigned[borrowed[-1]] = name
    return borrowed


def _part(at: float, shares: Shares) -> str:
    return "test" if at < shares.test else "validation" if at < shares.test + shares.validation else "train"


def _by_time(groups: Mapping[str, Sequence[Row]], name: str) -> dict[str, float]:
    """A group's place from the newest (0) to the oldest (1), by rows: a group is as new as its newest row."""
    wrong = [row.line for members in groups.values() for row in members if _moment(row.raw.get(name)) is None]
    if wrong:
        lines = ", ".join(map(str, sorted(wrong)[:10])) + (", …" if len(wrong) > 10 else "")
        raise InputError(
            f"{len(wrong)} rows have no time in {name!r} (lines {lines}).", hint="Write ISO 8601, such as 2026-03-01T12:00:00Z, or seconds since 1970."
        )
    newest = {key: max(_moment(row.raw[name]) or 0.0 for row in members) for key, members in groups.items()}
    total, before, position = sum(map(len, groups.values())), 0, {}
    for key in sorted(groups, key=lambda key: (-newest[key], key)):
        position[key] = before / total
        before += len(groups[key])
    return position


def _moment(value: Any) -> float | None:
    """Seconds since 1970; a time without a zone is taken as UTC."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError, OverflowError):  # the last: a whole number that no float can hold
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _hold_back(parts: dict[str, list[Row]]) -> list[Leak]:
    """Take out of training what validation or test gives away, and out of validation what test gives away."""
    found: list[Leak] = []
    for name, others in (("validation", ("test",)), ("train", ("test", "validation"))):
        for other in others:
            leaks = find_leaks(parts[name], parts[other])
            gone = {id(leak.row) for leak in leaks}
            parts[name] = [row for row in parts[name] if id(row) not in gone]
            found += leaks
    return found


def settled_before(store: Store, path: str) -> dict[str, str] | None:
    """The parts that earlier splits under one name settled; None before the first."""
    return parent_from(store.read_json(path), path) if store.exists(path) else None


def parent_from(manifest: Any, source: str) -> dict[str, str]:
    """The settled parts in a manifest that `whet data split` wrote. Raises InputError when it is not one."""
    assigned = manifest.get("assigned") if isinstance(manifest, dict) else None
    if not isinstance(assigned, dict) or not all(part in PARTS for part in assigned.values()):
        raise InputError(f"{source} does not say which rows went where.", hint="Name a folder that `whet data split` wrote.")
    return assigned
