"""What a run is given to learn from: a file or a folder, its own held-out parts, test rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.data.bad_lines import BadLine, ranges
from training.data.formats import DEFAULTS, ReadOptions, part_path, parts_in, read_good
from training.data.rows import Reading, Row
from training.data.wanted import only_fitting
from training.recipes.methods import Method

TEST, VALIDATION = "test", "validation"


@dataclass(frozen=True)
class Given:
    """Rows as they were given. What is None is to be taken out of `rows`."""

    rows: list[Row]
    test: list[Row] | None
    validation: list[Row] | None
    notices: list[str]


def read_given(
    file: Path,
    test: Path | None,
    *,
    method: Method | None = None,
    own_parts: bool = True,
    skip_bad: bool = False,
    options: ReadOptions = DEFAULTS,
) -> Given:
    """Read a file of rows, or a folder whose parts `test` and `validation` are used as they are.

    `test`: a file of test rows, or the name of a part of the folder. Without `own_parts` the
    folder's held-out parts stay unread. Raises InputError for what cannot be read, for lines that
    are no rows and rows that the method does not learn from, unless they are to be skipped.
    """
    reading = read_good(file, skip_bad=skip_bad, options=options)
    notices = describe_reading(reading, str(file))
    rows = reading.rows
    if method is not None:
        rows, others = only_fitting(method, rows, skip_bad=skip_bad)
        notices += left_out(others, str(file))
    held_out = {
        part: read_good(path, skip_bad=skip_bad, options=options).rows
        for part, path in held_out_files(file, test, own_parts=own_parts).items()
    }
    return Given(rows, held_out.get(TEST), held_out.get(VALIDATION), notices)


def held_out_files(file: Path, test: Path | None, *, own_parts: bool = True) -> dict[str, Path]:
    """Return the files of held-out rows that are given: test rows that somebody named, or the
    folder's own parts."""
    parts = parts_in(file) if own_parts else []
    found = {part: file / part for part in (VALIDATION, TEST) if part in parts}
    named = part_path(file, test)
    return found if named is None else {**found, TEST: named}


def describe_reading(reading: Reading, source: str) -> list[str]:
    """Say what a person should know about a file that was accepted."""
    notices = [
        f"{source}: {what}" + (f" ({rows:,} rows)" if rows else "")
        for what, rows in reading.notices.items()
    ]
    notices += left_out(reading.bad, source)
    if reading.blank:
        notices.append(f"{source}: {len(reading.blank):,} empty lines.")
    if reading.unknown_fields:
        names = ", ".join(
            f"{name} ({rows:,} rows)" for name, rows in reading.unknown_fields.items()
        )
        notices.append(f"{source}: ignored columns: {names}.")
    return notices


def left_out(bad: list[BadLine], source: str) -> list[str]:
    """Say which lines are left out, and why the first of them."""
    if not bad:
        return []
    lines = ranges([line.line for line in bad])
    why = f"{bad[0].found}; expected {bad[0].expected}"
    return [f"{source}: {len(bad):,} {bad[0].unit}s are left out ({lines}), the first for {why}."]
