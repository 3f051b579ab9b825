"""The rows that a command is given, a file or a dataset version, and what a person should know about them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from whet.context import Context
from whet.database import reading
from whet.errors import InputError

if TYPE_CHECKING:
    from training.data.formats import ReadOptions
    from training.methods.registry import Method

_LOOKED_AT = 20_000  # training rows up to which a run looks through them first; the search for near-duplicates takes ten seconds then


def rows_of(
    context: Context, name: str, file: Path | None, reference: str, test: Path | None, *, no_split: bool, skip_bad: bool, remember: bool = False,
    options: ReadOptions | None = None, method: Method | None = None,
) -> tuple[Any, list[str]]:
    """The dataset to train on, and what to say about how it came about. With `remember`, what is held out here stays held out in later runs of the alias."""
    from training import datasets
    from training.data.formats import DEFAULTS
    from training.data.given import read_given
    from training.data.split import settled_before, split

    if bool(file) == bool(reference):
        raise InputError(
            "Expected either a FILE or --dataset NAME@vN, found " + ("both." if file else "neither."),
            hint="For example: whet train run rows.jsonl --alias support",
        )
    if reference:
        if test or no_split:
            raise InputError("--test and --no-split belong to a FILE; a dataset version has its test part already.")
        return find_dataset(context, reference), []
    assert file is not None
    given = read_given(
        file, test, method=method, own_parts=not no_split, skip_bad=skip_bad, options=options or DEFAULTS
    )
    notices = given.notices
    has_test = given.test is not None
    shares = datasets.Shares(0.0, 0.0) if no_split else datasets.default_shares(len(given.rows), separate_test=has_test)
    if given.validation is not None:
        shares = datasets.Shares(0.0, shares.test)
    splits = f"splits/{name}.json"  # what earlier runs under this alias held out stays held out
    held_out_here = not no_split and not has_test
    made = split(given.rows, shares, parent=settled_before(context.store, splits) if held_out_here else None)
    parts = made.parts
    if held_out_here and remember:
        context.store.put_json(splits, {"assigned": made.assigned})
    if made.held_back:
        shown = "; ".join(map(str, made.held_back[:5])) + ("; …" if len(made.held_back) > 5 else "")
        notices.append(f"{len(made.held_back)} rows are in no part, because a held-out part gives them away: {shown}")
    if given.test is not None:
        parts["test"] = given.test
    if given.validation is not None:
        parts["validation"] = given.validation
    if not no_split:
        why = " (fewer than 2,000 rows: a validation part would cost more than it tells)" if not shares.validation else ""
        notices.append(
            f"Split {shares.words()} into train, validation and test{why}: " + ", ".join(f"{len(parts[part])} {part}" for part in datasets.PARTS) + " rows."
        )
    return datasets.save(context.store, name, parts), notices


def warnings_of(rows: list[Any]) -> list[str]:
    """What `whet data check` would warn of in the rows that are learned."""
    from training.data.warnings import warnings

    if len(rows) > _LOOKED_AT:
        return [f"{len(rows):,} rows are too many to look through before each run: `whet data check` says what they would teach without a word."]
    return [str(finding) for finding in warnings(rows)]


def find_dataset(context: Context, reference: str) -> Any:
    """A dataset version by `name@vN`, name (its newest version) or digest. Raises NotFoundError."""
    from training import datasets
    from training.requests import dataset_row

    with reading(context.database) as connection:
        row = dataset_row(connection, reference)
    return datasets.load(context.store, row["path"], row["digest"], row["name"])
