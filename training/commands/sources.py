"""The rows that a command is given, a file or a dataset version, and what a person should know
about them.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

from training.data import datasets
from training.data.datasets import Dataset, Shares
from training.data.formats import DEFAULTS, ReadOptions
from training.data.given import Given, read_given
from training.data.leaks import MIN_TEST_ROWS, LargeLossError
from training.data.repeats import merge_repeats
from training.data.rows import Row
from training.data.split import Split, settled_before, split
from training.data.warnings import warnings
from training.recipes.methods import Method
from training.store.requests import dataset_row
from whet.context import Context
from whet.database import reading
from whet.errors import InputError

# Training rows up to which a run looks through them first; the search for near-duplicates takes ten
# seconds then
_LOOKED_AT = 20_000
FOLDS = 5  # of a set that is too small for a test part


@dataclass(frozen=True)
class RowSource:
    """Where training rows come from, and how they are parted. One of `file` and `dataset` is set."""

    file: Path | None = None
    dataset: str = ""  # reference of a dataset version
    test: Path | None = None  # rows to judge by instead of a part of the file
    no_split: bool = False
    hold_out: str = "auto"
    by_time: str = ""  # field with a time; the newest rows are held out
    repeats: str = "keep"  # what becomes of exact repeats: see training/data/repeats.py
    skip_bad: bool = False
    remember: bool = False  # what is held out here stays held out in later runs of the alias
    accept_loss: bool = False  # go on however many rows are dropped
    folds: int | None = None  # of cross-validation; None: some where the test part is too small
    options: ReadOptions | None = None  # how files are read
    method: Method | None = None  # rows that it cannot learn from are refused or left out


@dataclass(frozen=True)
class SourceRows:
    """What a run is given: its dataset, what to say about it, and folds to judge it by (0: none)."""

    dataset: Any
    notices: list[str]
    folds: int = 0
    holds_out: bool = False  # the test rows were taken out of the rows that were given


@dataclass(frozen=True)
class PartedRows:
    """Rows by part, what to say about them, and folds to judge them by (0: none)."""

    parts: dict[str, list[Row]]
    notices: list[str]
    folds: int = 0
    holds_out: bool = False


def rows_of(context: Context, name: str, source: RowSource) -> SourceRows:
    """Read the rows and part them; the first notice says how many of them are used.

    Raises InputError for a source that cannot be read, and where more than MOST_DROPPED of the rows
    would not be used and nobody accepts that.
    """

    file = source.file
    if bool(file) == bool(source.dataset):
        raise InputError(
            "Expected either a FILE or --dataset NAME@vN, found "
            + ("both." if file else "neither."),
            hint="For example: whet train run rows.jsonl --alias support",
        )
    if source.dataset:
        if source.test or source.no_split:
            raise InputError(
                "--test and --no-split belong to a FILE; a dataset version has its test part"
                " already."
            )
        return SourceRows(find_dataset(context, source.dataset), [])
    assert file is not None
    given = read_given(
        file,
        source.test,
        method=source.method,
        own_parts=not source.no_split,
        skip_bad=source.skip_bad,
        options=source.options or DEFAULTS,
    )
    made = part_rows(context, name, given, source)
    saved = datasets.save(context.store, name, made.parts)
    return SourceRows(saved, made.notices, made.folds, made.holds_out)


def part_rows(context: Context, name: str, given: Given, source: RowSource) -> PartedRows:
    """Put rows that were read into parts, as `source` says; the files it names are not looked at.

    Raises InputError where more than MOST_DROPPED of the rows would not be used and nobody accepts
    that.
    """

    notices = list(given.notices)
    rows, merged = merge_repeats(given.rows, source.repeats)
    notices += [merged] if merged else []
    has_test = given.test is not None
    if source.folds and not has_test:
        return _folded(rows, source.folds, notices, is_wanted=True)
    shares = (
        datasets.Shares(0.0, 0.0)
        if source.no_split
        else datasets.default_shares(len(rows), separate_test=has_test)
    )
    if given.validation is not None:
        shares = datasets.Shares(0.0, shares.test)
    splits = f"splits/{name}.json"  # what earlier runs under this alias held out stays held out
    held_out_here = not source.no_split and not has_test
    made = split(
        rows,
        shares,
        parent=settled_before(context.store, splits) if held_out_here else None,
        hold_out=source.hold_out,
        by_time=source.by_time,
    )
    if not source.accept_loss:
        refuse_large_loss(made)
    parts = made.parts
    if held_out_here and source.folds is None and _is_test_too_small(made):
        return _folded(rows, FOLDS, notices, is_wanted=False)
    if held_out_here and source.remember:
        context.store.put_json(splits, {"assigned": made.assigned})
    if given.test is not None:
        parts["test"] = given.test
    if given.validation is not None:
        parts["validation"] = given.validation
    if not source.no_split:
        notices.insert(0, describe_split(made, shares))
    return PartedRows(parts, notices, holds_out=held_out_here)


def _folded(rows: list[Row], folds: int, notices: list[str], *, is_wanted: bool) -> PartedRows:
    """All rows for training; they are judged by cross-validation."""
    text = (
        f"Using {len(rows)} of {len(rows)} rows (100.0 %): all for training, judged by {folds}-fold"
        " cross-validation"
    )
    text += (
        "."
        if is_wanted
        else " because they are too few for a test part (--folds 0 trains without)."
    )
    return PartedRows({"train": rows, "validation": [], "test": []}, [text, *notices], folds)


def _is_test_too_small(made: Split) -> bool:
    """Whether the gate could say nothing, and cross-validation could."""

    rows = [row for part in made.parts.values() for row in part]
    if any(row.is_text for row in rows):
        return False  # texts are judged by their loss, however few
    asked = {row.prompt_digest for row in made.parts["test"]}
    return len(asked) < MIN_TEST_ROWS <= len({row.prompt_digest for row in rows})


def rows_or_ask(context: Context, name: str, source: RowSource, *, may_ask: bool) -> SourceRows:
    """Read the rows; at a terminal, ask before going on without many of them."""

    try:
        return rows_of(context, name, source)
    except LargeLossError as error:
        if not (may_ask and sys.stdin.isatty() and typer.confirm(f"{error} Go on without them?")):
            raise
        return rows_of(context, name, replace(source, accept_loss=True))


def describe_split(made: Split, shares: Shares) -> str:
    """Say how many rows are used and how they are parted, the loss first."""
    used = sum(map(len, made.parts.values()))
    text = f"Using {used} of {made.rows} rows ({100 * used / max(1, made.rows):.1f} %)"
    if made.dropped:
        reasons = Counter(leak.why for leak in made.dropped)
        text += (
            f"; {len(made.dropped)} are dropped to prevent train/test leakage ("
            + ", ".join(f"{count} {why}" for why, count in reasons.most_common())
            + "; --no-split uses them all, --hold-out chooses what is held out)"
        )
    text += ": " + ", ".join(f"{len(rows)} {part}" for part, rows in made.parts.items())
    text += f" (split {shares.words()} by {made.hold_out})." if made.hold_out else "."
    if not shares.validation:
        text += " No validation part below 2,000 rows; training stops by its own loss."
    return text + (f" {made.why[:1].upper()}{made.why[1:]}." if made.why else "")


def refuse_large_loss(made: Split) -> None:
    """Raises LargeLossError where more than MOST_DROPPED of the rows are in no part."""

    if not made.large_loss:
        return
    shown = "\n".join(f"  {leak}" for leak in made.dropped[:5])
    raise LargeLossError(
        f"{made.large_loss}:\n{shown}",
        hint=(
            "Hold out other rows (--hold-out pattern), train on all (--no-split, with --test FILE"
            " to judge by), or go on without these rows (--drop-leaks)."
        ),
    )


def warnings_of(rows: list[Row]) -> list[str]:
    """What `whet data check` would warn of in the rows that are learned."""

    if len(rows) > _LOOKED_AT:
        return [
            f"{len(rows):,} rows are too many to look through before each run: `whet data check`"
            " says what they would teach without a word."
        ]
    return [str(finding) for finding in warnings(rows)]


def find_dataset(context: Context, reference: str) -> Dataset:
    """A dataset version by `name@vN`, name (its newest version) or digest. Raises NotFoundError."""

    with reading(context.database) as connection:
        row = dataset_row(connection, reference)
    return datasets.load(context.store, row["path"], row["digest"], row["name"])
