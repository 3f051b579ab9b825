"""No training row may be known from the test set: found here, refused or removed by whoever trains.

A training row leaks when a test row is the same, asks the same question, is nearly the same (`training/data/similar.py`), belongs to the same
user or conversation, continues the same conversation, or is what a synthetic row was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from training.data.similar import Shape, twins
from training.datasets import Dataset
from training.rows import BadLine, Row
from whet.errors import InputError

_SHOWN = 20  # leaks that a message lists


@dataclass(frozen=True, slots=True)
class Leak:
    """A training row, and the test row that it is known from."""

    row: Row
    test: Row
    why: str

    def __str__(self) -> str:
        return f"line {self.row.line} ({self.row.id}): {self.why} as line {self.test.line} of the test set ({self.test.id})"

    def as_bad_line(self) -> BadLine:
        """The row among those that a run leaves out."""
        return BadLine(self.row.line, f"{self.why} as the test row {self.test.id}", "a training row that the test set does not give away")


# What gives a row away, strongest first: (words, keys of the row).
_KEYS: tuple[tuple[str, Callable[[Shape], Iterable[str | None]]], ...] = (
    ("the same row", lambda shape: [shape.row.digest]),
    ("the same question", lambda shape: [shape.question]),
    ("the same conversation", lambda shape: [shape.row.group]),
    ("the same user", lambda shape: [shape.row.user]),
    ("made from the same row", lambda shape: [shape.row.parent]),
)


def find_leaks(train: Sequence[Row], test: Sequence[Row]) -> list[Leak]:
    """Every training row that the test set gives away, in order, with the first reason that holds."""
    if not train or not test:
        return []
    shapes, others = [Shape(row) for row in train], [Shape(row) for row in test]
    found: dict[int, Leak] = {}
    for why, keys in _KEYS:
        known = {key: shape.row for shape in reversed(others) for key in keys(shape) if key is not None}
        if why == "made from the same row":
            known |= {row.id: row for row in test}
        _note(found, shapes, known, why, keys)
    # One conversation cut at several turns: the shorter one is how the longer one begins.
    _note(found, shapes, {shape.turns[-1]: shape.row for shape in others}, "the same conversation", lambda shape: shape.turns)
    _note(found, shapes, {key: shape.row for shape in others for key in shape.turns}, "the same conversation", lambda shape: shape.turns[-1:])
    left = [position for position in range(len(train)) if position not in found]
    for position, other in twins([train[position] for position in left], test).items():
        found[left[position]] = Leak(train[left[position]], test[other], "nearly the same")
    return [found[position] for position in sorted(found)]


def _note(found: dict[int, Leak], shapes: Sequence[Shape], known: dict[str, Row], why: str, keys: Callable[[Shape], Iterable[str | None]]) -> None:
    for position, shape in enumerate(shapes):
        if position not in found and (twin := next((known[key] for key in keys(shape) if key in known), None)):
            found[position] = Leak(shape.row, twin, why)


def without_leaks(dataset: Dataset, *, drop: bool) -> tuple[Dataset, list[Leak]]:
    """The dataset as it may be trained on, and what was taken out of its training and validation parts.

    Raises InputError with the list when there is something to take out and `drop` is not set, and when the test set holds synthetic rows.
    """
    if synthetic := [row for row in dataset.test if row.origin == "synthetic"]:
        raise InputError(
            f"{len(synthetic)} rows of the test set are synthetic (the first: line {synthetic[0].line}, {synthetic[0].id}); a version is judged by real ones.",
            hint="Take them out of the test set.",
        )
    leaks = find_leaks([*dataset.train, *dataset.validation], dataset.test)
    if leaks and not drop:
        shown = "\n".join(f"  {leak}" for leak in leaks[:_SHOWN])
        more = f"\n  … and {len(leaks) - _SHOWN} more" if len(leaks) > _SHOWN else ""
        raise InputError(
            f"{len(leaks)} training rows are known from the test set, so its scores would say little:\n{shown}{more}",
            hint="Take them out of one of the two, or have them taken out of training with --drop-leaks.",
        )
    gone = {id(leak.row) for leak in leaks}
    train, validation = ([row for row in part if id(row) not in gone] for part in (dataset.train, dataset.validation))
    if leaks and not train:
        raise InputError("Every training row is known from the test set.", hint="Give rows of other questions, users and conversations, or another test set.")
    return replace(dataset, train=train, validation=validation), leaks
