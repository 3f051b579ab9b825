"""Rows of several sets in one, by weights rather than by copies: a repeated row would be one that a
model learns by heart.

Multi-task mixtures draw from set i at the rate p_i ∝ n_i^(1/T) (temperature-scaled mixing; C.
Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
2020, section 3.5.2). With T = 1 every row counts alike, and as T grows every set does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.data.labels import label, label_tasks
from training.data.row_fields import LEAST_WEIGHT, MOST_WEIGHT
from training.data.rows import Row
from training.data.similar import Shape
from whet.errors import InputError
from whet.json_types import Json, JsonObject
from whet.store import digest_bytes

# That a mixture gives a row: above it, a handful of rows would be learned by heart
MAX_WEIGHT = 10.0
_DIGITS = 4  # of a weight as it is written: the smallest that a row may have, 0.0001, is still one
_SHOWN = 5  # rows that a notice names


@dataclass(frozen=True)
class Mixed:
    """Rows with their weights, and how much of each set is in them."""

    rows: list[JsonObject]
    sets: dict[str, dict[str, float]]  # name -> {"rows", "taken", "rate", "weight"}
    notices: list[str]


def rates(sizes: Mapping[str, int], temperature: float) -> dict[str, float]:
    """Share of each set in the mixture, adding up to 1.

    Raises InputError for a temperature below 1.
    """
    if not temperature >= 1:
        raise InputError(
            f"The temperature is {temperature}; expected 1 or more.",
            hint="1 leaves every row its weight; 2 to 5 help small sets.",
        )
    # Relative to the largest, so that no power overflows.
    largest = max(sizes.values())
    scaled = {name: (size / largest) ** (1 / temperature) for name, size in sizes.items()}
    total = sum(scaled.values())
    return {name: value / total for name, value in scaled.items()}


def mix(sets: Mapping[str, Sequence[Row]], *, temperature: float = 1.0, rows: int = 0) -> Mixed:
    """All sets in one. `rows`: how many the mixture has at most; without it, all of them.

    A set that should give more rows than it has gives all of them with a greater weight; one that
    should give fewer gives those of the smallest hash (or, without `rows`, all with a smaller
    weight). So nothing depends on a seed, and nothing is repeated.
    """
    share = rates({name: len(members) for name, members in sets.items()}, temperature)
    total = rows or sum(map(len, sets.values()))
    out, facts, notices, bounded = [], {}, [], list[Row]()
    for name, members in sets.items():
        wanted = share[name] * total
        taken = (
            by_hash(members, max(1, round(wanted)))
            if rows and wanted < len(members)
            else list(members)
        )
        weight = wanted / len(taken)
        if weight > MAX_WEIGHT:
            notices.append(
                f"{name}: its rows would weigh {weight:.1f}; they weigh {MAX_WEIGHT:g}, the most"
                " that is given."
            )
            weight = MAX_WEIGHT
        out += [_weighed(row, weight, bounded, task=row.task or name) for row in taken]
        facts[name] = {
            "rows": len(members),
            "taken": len(taken),
            "rate": round(share[name], _DIGITS),
            "weight": round(weight, _DIGITS),
        }
    return Mixed(out, facts, notices + _about(bounded))


def by_hash(rows: Sequence[Row], count: int) -> list[Row]:
    """`count` rows in their order, the same ones whatever else is in the file; of each task in
    proportion.
    """
    by_task: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_task[row.task].append(row)
    # Each row's place within its task, from 0 to 1: taking the smallest places takes the same part
    # of every task.
    place: dict[int, tuple[float, str]] = {}
    for members in by_task.values():
        ordered = sorted(
            members, key=lambda row: (digest_bytes(f"sample:{row.digest}".encode()), row.line)
        )
        place |= {
            id(row): (number / len(members), row.digest) for number, row in enumerate(ordered)
        }
    chosen = {id(row) for row in sorted(rows, key=lambda row: place[id(row)])[:count]}
    return [row for row in rows if id(row) in chosen]


def replay(new: Sequence[Row], earlier: Sequence[Row], share: float) -> tuple[list[Row], list[Row]]:
    """(earlier rows that make up `share` of new and earlier together, earlier rows left out because
    new ones answer their question).
    """
    if not 0 < share < 1:
        raise InputError(
            f"The share of replayed rows is {share}; expected a number between 0 and 1.",
            hint="For example --share 0.2.",
        )
    asked = {Shape(row).question for row in new}
    replaced = [row for row in earlier if Shape(row).question in asked]
    gone = {id(row) for row in replaced}
    return (
        by_hash(
            [row for row in earlier if id(row) not in gone], round(len(new) * share / (1 - share))
        ),
        replaced,
    )


def balance(rows: Sequence[Row]) -> tuple[list[JsonObject], dict[str, float], list[str]]:
    """(rows with weights by which every label of a task, or, where answers are no labels, every
    task counts alike: N / (K · n); class -> weight; notices).

    N rows in K classes, n of them in the row's class; the mean weight stays 1 (save for
    MAX_WEIGHT).
    """
    labelled = label_tasks(rows)
    groups: list[tuple[list[Row], Any]] = [(members, label) for members in labelled.values()]
    named = {id(row) for members in labelled.values() for row in members}
    groups.append(([row for row in rows if id(row) not in named], lambda row: row.task))
    weight_of: dict[int, float] = {}
    classes: dict[str, float] = {}
    for members, name_of in groups:
        sizes = Counter(map(name_of, members))
        for row in members:
            name = name_of(row)
            weight_of[id(row)] = classes[
                f"{row.task}: {name}" if name_of is label else name or "(no task)"
            ] = min(MAX_WEIGHT, round(len(members) / (len(sizes) * sizes[name]), _DIGITS))
    bounded: list[Row] = []
    return [_weighed(row, weight_of[id(row)], bounded) for row in rows], classes, _about(bounded)


def _weighed(row: Row, weight: float, bounded: list[Row], **more: Json) -> JsonObject:
    """The row with its own weight times this one, within what a row may weigh; else it joins
    `bounded`.
    """
    raw = {**row.raw, **{name: value for name, value in more.items() if value}}
    product = row.weight * weight
    weight = round(min(MOST_WEIGHT, max(LEAST_WEIGHT, product)), _DIGITS)
    if not LEAST_WEIGHT <= product <= MOST_WEIGHT:
        bounded.append(row)
    return raw if weight == row.weight else {**raw, "weight": weight}


def _about(bounded: Sequence[Row]) -> list[str]:
    if not bounded:
        return []
    names = ", ".join(row.id for row in bounded[:_SHOWN]) + (", …" if len(bounded) > _SHOWN else "")
    return [
        f"{len(bounded)} rows would weigh less than {LEAST_WEIGHT:g} or more than {MOST_WEIGHT:g},"
        f" and weigh that: {names}."
    ]
