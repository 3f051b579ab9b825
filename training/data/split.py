"""Split rows into train, validation and test, so that the held-out rows tell about new questions.

What is held out together (`HoldOut`) is chosen first (`training/data/hold_out.py`): whole patterns
of questions, questions, users, or the newest rows. Rows with one question, or of one group, are
never parted. What a held-out row still has in common with a training row (a near-duplicate, a
conversation that goes on) is settled by dropping rows, on the held-out side first: a test row less
costs less than a training row less.

A split that exists (`parent`) binds: its questions keep their parts, whatever the shares or the way
of holding out are now, and a new question of a pattern that was held out joins it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from training.data.datasets import PARTS, Shares
from training.data.hold_out import (
    AUTO,
    TIME,
    USER,
    Unit,
    choose_hold_out,
    choose_parts,
    require_choice,
    units_of,
)
from training.data.leaks import MOST_DROPPED, Leak, drop_leaks
from training.data.rows import Row
from whet.errors import InputError
from whet.json_types import Json
from whet.store import Store, digest_json


@dataclass(frozen=True)
class Split:
    """Rows by part, in their order."""

    parts: dict[str, list[Row]]
    dropped: list[Leak]  # rows in no part, each with the row of another part that it repeats
    assigned: dict[str, str]  # key -> part, of the parent and of these rows; a later split keeps it
    hold_out: str = ""  # what was held out together: pattern | question | user | time; "": nothing
    why: str = ""  # why `auto` chose that
    # Held-out part -> its rows that are there only because it would be too small without them.
    borrowed: dict[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows that were given."""
        return sum(map(len, self.parts.values())) + len(self.dropped)

    @property
    def large_loss(self) -> str:
        """Say how many rows would not be used where they are more than MOST_DROPPED, or nothing."""
        if self.dropped_share <= MOST_DROPPED:
            return ""
        return (
            f"{len(self.dropped)} of {self.rows} rows ({100 * self.dropped_share:.0f} %) would not"
            " be used, because they repeat rows of another part"
        )

    @property
    def dropped_share(self) -> float:
        """Share of the rows that are in no part, 0 to 1."""
        return len(self.dropped) / max(1, self.rows)


def group_key(row: Row, *, by_user: bool = False) -> str:
    """Key of the rows that are never parted: one group's (conversation's), or one question's.

    With `by_user` a user's rows stay together too.
    """
    if row.group is not None:
        return digest_json(["group", row.group])
    if by_user and row.user is not None:
        return digest_json(["user", row.user])
    return row.prompt_digest


def _question_of_user(row: Row) -> str:
    return digest_json(["user and question", row.user, group_key(row)])


def _known_key(row: Row, settled: Mapping[str, str]) -> str:
    """Return the key under which an earlier split settled the row, or nothing.

    A row's user may have been settled by one split and its question by another, to different parts:
    what was settled of this user's question goes first.
    """
    for key in (_question_of_user(row), group_key(row, by_user=True), group_key(row)):
        if key in settled:
            return key
    return ""


def split(
    rows: Sequence[Row],
    shares: Shares,
    *,
    parent: Mapping[str, str] | None = None,
    hold_out: str = AUTO,
    by_time: str = "",
) -> Split:
    """Put rows into parts.

    `parent`: parts that are settled, from an earlier split's `assigned`. `hold_out`: what is held
    out together, see `training/data/hold_out.py`. `by_time`: a field with ISO 8601 times or seconds
    since 1970; the newest rows are held out. Synthetic rows are for training alone.

    Within each task a part that would stay empty borrows what is nearest to it, and from 30
    questions on the test asks at least 10. What was borrowed is not where its hash puts it:
    `parent` keeps it there, and without one a later split of more rows puts it elsewhere.

    Raises InputError for rows without a time.
    """
    real = [row for row in rows if row.origin != "synthetic"]
    settled = dict(parent or {})
    is_split = bool(shares.test or shares.validation or parent)
    chosen, why = "", ""
    if by_time:
        chosen = TIME
    elif is_split:
        chosen, why = choose_hold_out(real, hold_out)
    else:  # nothing is held out, so nothing is looked for
        require_choice(real, hold_out)
    by_user = chosen == USER
    key_of = {id(row): _known_key(row, settled) or group_key(row, by_user=by_user) for row in real}
    keys: dict[str, list[Row]] = defaultdict(list)
    for row in real:
        keys[key_of[id(row)]].append(row)
    newest = _positions_by_time(keys, by_time) if by_time else None
    units = units_of(keys, chosen, newest)
    borrowed = choose_parts(units, shares, settled) if is_split else []
    for unit in units:
        settled.update({key: settled.get(key, unit.part or "train") for key in unit.keys})
    parts: dict[str, list[Row]] = {name: [] for name in PARTS}
    for row in rows:
        part = "train" if row.origin == "synthetic" else settled[key_of[id(row)]]
        parts[part].append(row)
        if row.origin != "synthetic" and row.user is not None:
            settled[_question_of_user(row)] = part
    dropped = drop_leaks(parts, by_user=by_user) if is_split else []
    return Split(parts, dropped, settled, chosen, why, _rows_by_part(borrowed))


def _rows_by_part(units: Sequence[Unit]) -> dict[str, int]:
    found = Counter({part: sum(unit.rows for unit in units if unit.part == part) for part in PARTS})
    return dict(+found)


def _positions_by_time(groups: Mapping[str, Sequence[Row]], name: str) -> dict[str, float]:
    """Place each group from the newest (0) to the oldest (1) by the time of its newest row."""
    wrong = [
        row.line
        for members in groups.values()
        for row in members
        if _seconds(row.raw.get(name)) is None
    ]
    if wrong:
        lines = ", ".join(map(str, sorted(wrong)[:10])) + (", …" if len(wrong) > 10 else "")
        raise InputError(
            f"{len(wrong)} rows have no time in {name!r} (lines {lines}).",
            hint="Write ISO 8601, such as 2026-03-01T12:00:00Z, or seconds since 1970.",
        )
    newest = {
        key: max(_seconds(row.raw[name]) or 0.0 for row in members)
        for key, members in groups.items()
    }
    total, before, position = sum(map(len, groups.values())), 0, {}
    for key in sorted(groups, key=lambda key: (-newest[key], key)):
        position[key] = before / total
        before += len(groups[key])
    return position


def _seconds(value: Json) -> float | None:
    """Seconds since 1970; a time without a zone is taken as UTC."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except (TypeError, ValueError, OverflowError):  # the last: a number that no float can hold
        return None
    if found is None:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def settled_before(store: Store, path: str) -> dict[str, str] | None:
    """The parts that earlier splits under one name settled; None before the first."""
    return parent_from(store.read_json(path), path) if store.exists(path) else None


def parent_from(manifest: Json, source: str) -> dict[str, str]:
    """The settled parts in a manifest that `whet data split` wrote.

    Raises InputError when it is not one.
    """
    assigned = manifest.get("assigned") if isinstance(manifest, dict) else None
    if not isinstance(assigned, dict) or not all(part in PARTS for part in assigned.values()):
        raise InputError(
            f"{source} does not say which rows went where.",
            hint="Name a folder that `whet data split` wrote.",
        )
    return {name: str(part) for name, part in assigned.items()}
