"""A table of interactions from a file: CSV, JSON Lines or Parquet, each also compressed where
pandas can.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from monitoring.detector.columns import COLUMNS, EMBEDDING, PREFIXES, Table, kind_of
from monitoring.detector.replay import Declared
from monitoring.detector.table import table_from_columns
from whet.errors import InputError, NotFoundError

_FORMATS = ("csv", "jsonl", "ndjson", "parquet")


def read_table(path: Path) -> Table:
    """Read and check a file; its format follows from its name. Raises NotFoundError and InputError."""
    return table_from_columns(load_frame(path))


def load_frame(path: Path) -> Any:
    """The columns of a file as a pandas DataFrame, unchecked. Raises NotFoundError and InputError."""
    if not path.is_file():
        raise NotFoundError(f"There is no file {path}.")
    kind = next(
        (
            part
            for part in (suffix.lstrip(".").lower() for suffix in path.suffixes)
            if part in _FORMATS
        ),
        None,
    )
    if kind is None:
        raise InputError(
            f"{path.name}: expected a name that ends in .csv, .jsonl or .parquet (also .csv.gz,"
            " .jsonl.gz)."
        )
    try:
        return _load(path, kind)
    except InputError:
        raise
    except (ValueError, OSError, UnicodeDecodeError, KeyError) as error:
        raise InputError(f"{path.name} cannot be read as {kind}: {str(error)[:200]}") from error


def _load(path: Path, kind: str) -> Any:
    if kind == "csv":
        # Categories, texts and ids stay as written: a version `7` is a name, and `NA` may be one.
        texts = {
            name: str
            for name in pd.read_csv(path, nrows=0).columns
            if kind_of(str(name)) in ("category", "text")
        }
        return pd.read_csv(path, dtype=texts, keep_default_na=True, low_memory=False)
    if kind == "parquet":
        return pd.read_parquet(path)
    return pd.read_json(path, lines=True, convert_dates=False, dtype=False)


def declared_changes(given: Sequence[str]) -> list[Declared]:
    """`2026-03-01` or `2026-03-01:answers` → declared changes. Raises InputError."""
    found = []
    for text in given:
        day, _, side = text.partition(":")
        try:
            found.append(
                Declared(
                    date.fromisoformat(day), "declared on the command line", side=side or "all"
                )
            )
        except ValueError as error:
            raise InputError(
                f"--declared {text!r}: expected a day such as 2026-03-01, with or without what it"
                " concerns: 2026-03-01:answers."
            ) from error
    return found


def documented_columns() -> list[tuple[str, str, str]]:
    """(name, kind, what it is) of every column that is read: for the documentation and its test."""
    time = (
        "timestamp",
        "time",
        (
            "when the request came: ISO 8601 (without a zone: UTC), or seconds, milliseconds,"
            " microseconds or nanoseconds since 1970; or a column `day`: YYYY-MM-DD, or a whole"
            " number of days"
        ),
    )
    vector = (
        EMBEDDING,
        "vector",
        (
            f"of the question: a list of numbers, or columns `{EMBEDDING}_0`, `{EMBEDDING}_1`, …;"
            " made from `prompt` where it is missing"
        ),
    )
    own = {
        "rate_": "an application's own flag",
        "value_": "an application's own positive number, such as a price",
        "category_": "an application's own category",
        "slice_": "such as `slice_tenant`; its four largest values are watched by themselves",
    }
    return [
        time,
        *((name, kind, text) for name, (kind, text) in COLUMNS.items()),
        vector,
        *((f"{name}…", PREFIXES[name], text) for name, text in own.items()),
    ]
