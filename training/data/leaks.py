"""Find rows of one part that repeat rows of another, and drop them: no train/test leakage.

Two rows repeat each other when they are the same, ask the same question, are nearly the same
(`training/data/similar.py`), belong to one conversation (`group`), continue one, or when one is
what a synthetic row was made from. Rows of one user count only on request.

What is dropped is dropped from the held-out part first: a test row less costs less than a training
row less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from training.data.datasets import Dataset
from training.data.rows import BadLine, Row
from training.data.similar import Shape, twins
from whet.errors import InputError

_SHOWN = 20  # leaks that a message lists
MIN_TEST_ROWS = 10  # fewer held-out rows say nothing (`min_rows` of training/evaluation/gate.py)
# Share of a file's rows above which a command asks before it goes on without them.
MOST_DROPPED = 0.1


class LargeLossError(InputError):
    """So many rows would be dropped that somebody has to say that this is meant."""


@dataclass(frozen=True, slots=True)
class Leak:
    """A row, and the row of another part that it repeats."""

    row: Row
    other: Row
    why: str
    part: str = "train"  # the part that the row was in
    other_part: str = "test"

    def __str__(self) -> str:
        return (
            f"line {self.row.line} ({self.row.id}) of {self.part}: {self.why} as "
            f"line {self.other.line} ({self.other.id}) of {self.other_part}"
        )

    def as_bad_line(self) -> BadLine:
        """The row among those that a run leaves out."""
        return BadLine(
            self.row.line,
            f"{self.why} as the {self.other_part} row {self.other.id}",
            f"a {self.part} row that no {self.other_part} row repeats",
        )


# What repeats a row, strongest first: (words, keys of the row).
_Keys = Callable[[Shape], Iterable[str | None]]
_KEYS: tuple[tuple[str, _Keys], ...] = (
    ("the same row", lambda shape: [shape.row.digest]),
    ("the same question", lambda shape: [shape.question]),
    ("the same conversation", lambda shape: [shape.row.group]),
)
_BY_USER: tuple[str, _Keys] = ("the same user", lambda shape: [shape.row.user])


def find_leaks(
    rows: Sequence[Row],
    others: Sequence[Row],
    *,
    by_user: bool = False,
    part: str = "train",
    other_part: str = "test",
) -> list[Leak]:
    """List every one of `rows` that repeats one of `others`, in order, with the first reason."""
    if not rows or not others:
        return []
    shapes, compared = [Shape(row) for row in rows], [Shape(row) for row in others]
    found: dict[int, tuple[Row, str]] = {}
    for why, keys in (*_KEYS, *([_BY_USER] if by_user else [])):
        known = {
            key: shape.row for shape in reversed(compared) for key in keys(shape) if key is not None
        }
        _note(found, shapes, known, why, keys)
    # Made from one row, or one made from the other.
    made_from = {key: row for row in others for key in (row.parent, row.id) if key is not None}
    _note(found, shapes, made_from, "made from the same row", lambda shape: [shape.row.parent])
    parents = {row.parent: row for row in others if row.parent is not None}
    _note(found, shapes, parents, "made from the same row", lambda shape: [shape.row.id])
    # One conversation cut at several turns: the shorter one is how the longer one begins.
    last_turns = {shape.turns[-1]: shape.row for shape in compared}
    _note(found, shapes, last_turns, "the same conversation", lambda shape: shape.turns)
    turns = {key: shape.row for shape in compared for key in shape.turns}
    _note(found, shapes, turns, "the same conversation", lambda shape: shape.turns[-1:])
    left = [position for position in range(len(rows)) if position not in found]
    for position, other in twins([rows[position] for position in left], others).items():
        found[left[position]] = (others[other], "nearly the same")
    return [Leak(rows[position], *found[position], part, other_part) for position in sorted(found)]


def _note(
    found: dict[int, tuple[Row, str]],
    shapes: Sequence[Shape],
    known: dict[str, Row],
    why: str,
    keys: _Keys,
) -> None:
    for position, shape in enumerate(shapes):
        if position not in found and (
            twin := next((known[key] for key in keys(shape) if key in known), None)
        ):
            found[position] = (twin, why)


def drop_leaks(parts: dict[str, list[Row]], *, by_user: bool = False) -> list[Leak]:
    """Drop rows until no part repeats another; returns what was dropped. Changes `parts`.

    Synthetic training rows go first, then rows of the test part, then of the validation part. Where
    the test part would fall below MIN_TEST_ROWS and the training rows that repeat it are few, those
    go instead.
    """
    dropped: list[Leak] = []

    def find(part: str, other_part: str, rows: Sequence[Row] | None = None) -> list[Leak]:
        return find_leaks(
            parts[part] if rows is None else rows,
            parts[other_part],
            by_user=by_user,
            part=part,
            other_part=other_part,
        )

    def drop(part: str, leaks: Sequence[Leak]) -> None:
        gone = {id(leak.row) for leak in leaks}
        parts[part] = [row for row in parts[part] if id(row) not in gone]
        dropped.extend(leaks)

    for held_out in ("test", "validation"):
        made = [row for row in parts["train"] if row.origin == "synthetic"]
        drop("train", find("train", held_out, made))
    drop("validation", find("validation", "test"))
    in_test = find("test", "train")
    is_too_small = in_test and len(parts["test"]) - len(in_test) < MIN_TEST_ROWS
    in_train = find("train", "test") if is_too_small else []
    if in_train and _costs_less(len(in_train), len(in_test), of=len(parts["train"])):
        drop("train", in_train)
    else:
        drop("test", in_test)
    drop("validation", find("validation", "train"))
    return dropped


def _costs_less(in_train: int, in_test: int, *, of: int) -> bool:
    """Whether few of the training rows would have to go instead of the test rows."""
    return in_train < of and (in_train < in_test or in_train <= MOST_DROPPED * of)


def without_leaks(
    dataset: Dataset, *, drop: bool, by_user: bool = False
) -> tuple[Dataset, list[Leak]]:
    """Return the dataset as it may be trained on and judged by, and what was dropped.

    Raises LargeLossError when more than MOST_DROPPED of the training or of the test rows would go
    and `drop` is not set, InputError when nothing would be left or when the test set holds
    synthetic rows.
    """
    if synthetic := [row for row in dataset.test if row.origin == "synthetic"]:
        raise InputError(
            f"{len(synthetic)} rows of the test set are synthetic (the first: line "
            f"{synthetic[0].line}, {synthetic[0].id}); a version is judged by real ones.",
            hint="Take them out of the test set.",
        )
    parts = {name: list(dataset.part(name)) for name in ("train", "validation", "test")}
    leaks = drop_leaks(parts, by_user=by_user)
    if leaks and not drop:
        _refuse_large_loss(dataset, leaks)
    if dataset.train and not parts["train"]:
        raise InputError(
            "Every training row repeats a test row.",
            hint="Give rows of other questions and conversations, or another test set.",
        )
    if dataset.test and not parts["test"]:
        raise InputError(
            "Every test row repeats a training row.",
            hint=(
                "Give test rows that ask other questions, or leave --test out: a part of FILE is "
                "held out then."
            ),
        )
    kept = replace(
        dataset, train=parts["train"], validation=parts["validation"], test=parts["test"]
    )
    return kept, leaks


def _refuse_large_loss(dataset: Dataset, leaks: Sequence[Leak]) -> None:
    for part in ("train", "validation", "test"):
        lost, total = sum(leak.part == part for leak in leaks), len(dataset.part(part))
        if lost <= MOST_DROPPED * total:
            continue
        shown = "\n".join(f"  {leak}" for leak in leaks[:_SHOWN])
        more = f"\n  … and {len(leaks) - _SHOWN} more" if len(leaks) > _SHOWN else ""
        raise LargeLossError(
            f"{lost} of {total} {part} rows ({100 * lost / total:.0f} %) would be dropped to"
            f" prevent train/test leakage:\n{shown}{more}",
            hint="Give other rows, or go on without these with --drop-leaks.",
        )
