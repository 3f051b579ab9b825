"""Check and convert columns as users have them to a Table, with pandas."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monitoring.detector.columns import EMBEDDING, Table, kind_of
from monitoring.detector.messages import plain_texts
from monitoring.detector.names import unread_columns
from whet.errors import InputError

_TIMES = ("timestamp", "day")
_FLAGS = {
    "true": 1.0,
    "false": 0.0,
    "1": 1.0,
    "0": 0.0,
    "1.0": 1.0,
    "0.0": 0.0,
    "yes": 1.0,
    "no": 0.0,
}
_BLANK = {"", "nan", "none", "null", "na", "<na>"}
# Sizes that tell the unit: 1e11 seconds are the year 5138 and 1e11 milliseconds are 1973, and so
# on.
_EPOCH_UNITS = (("s", 1e11), ("ms", 1e14), ("us", 1e17), ("ns", float("inf")))
_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_LAST_SECOND = 9e9  # the year 2255: beyond it a number is no moment
_ZONE = r"(?:[zZ]|[+-]\d{2}:?\d{2})\s*$"
_LAST_DAY = date(2200, 1, 1).toordinal() - date(1970, 1, 1).toordinal()


def table_from_columns(columns: Mapping[str, Any], timezone: str = "UTC") -> Table:
    """Check and convert columns as users have them (lists, arrays, pandas Series or a DataFrame) to
    a Table.

    Raises InputError that names the column, the row and the value for anything that is not what
    COLUMNS says. Columns that are not documented are left out. `timezone`: of moments without one,
    and of days.
    """
    frame = columns if isinstance(columns, pd.DataFrame) else _frame(columns)
    if len(frame) == 0:
        raise InputError("The table has no rows.", hint="One row per answered request is expected.")
    made: dict[str, NDArray[Any]] = _time(frame, timezone)
    for name in map(str, frame.columns):
        kind = kind_of(name)
        if kind is not None:
            made[name] = _CONVERTERS[kind](frame[name], name)
    made["id"] = _ids(made.get("id"), len(frame))
    embedding = _embedding(frame)
    if embedding is not None:
        made[EMBEDDING] = embedding
    _check_ranges(made)
    return Table(made)


def _frame(columns: Mapping[str, Any]) -> Any:
    lengths = {str(name): len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"Columns of a table have one length, and these have several: {lengths}.")
    ready = {
        name: list(values) if isinstance(values, np.ndarray) and values.ndim > 1 else values
        for name, values in columns.items()
    }
    return pd.DataFrame(ready)


def _time(frame: Any, timezone: str) -> dict[str, NDArray[np.int64]]:
    """`day`, and `hour` where the moments have one: dates alone are all at midnight."""
    name = next((name for name in _TIMES if name in frame.columns), None)
    if name is None:
        likely = [f"`{one.name}`" for one in unread_columns(frame.columns) if one.likely in _TIMES]
        raise InputError(
            "The table has neither a column `timestamp` nor a column `day`, and says not when its "
            f"rows were.{f' Probably it is {likely[0]}.' if likely else ''}",
            hint=(
                "`timestamp`: ISO 8601 (without a zone: UTC), or seconds or milliseconds since "
                "1970. `day`: YYYY-MM-DD, or a number of days."
            ),
        )
    column = frame[name]
    if name == "day" and pd.api.types.is_numeric_dtype(column):
        return {"day": _numbered_days(column)}
    moments = _moments(column, name, timezone)
    _refuse(
        moments.isna().to_numpy(),
        column,
        name,
        "a moment: ISO 8601, or seconds or milliseconds since 1970",
    )
    # A day of midnights was a date, not a moment: it stays the day that was written.
    zone = "UTC" if name == "day" else timezone
    local = moments.dt.tz_convert(zone).dt.tz_localize(None)
    seconds = np.asarray(local.to_numpy().astype("datetime64[s]").astype(np.int64))
    days, of_day = np.divmod(seconds, 86_400)
    _refuse((days < 0) | (days > _LAST_DAY), column, name, "a moment between 1970 and 2200")
    return {"day": days, "hour": of_day // 3600} if of_day.any() else {"day": days}


def _moments(column: Any, name: str, timezone: str) -> Any:
    """Instants in UTC, NaT where a cell holds none. Texts without a zone are of `timezone`."""
    zone = "UTC" if name == "day" else timezone
    if pd.api.types.is_datetime64_any_dtype(column):
        return _in_utc(column, zone)
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.notna().any() and bool((numbers.notna() | _blank(column)).all()):
        size = float(numbers.abs().median())
        unit = next(unit for unit, most in _EPOCH_UNITS if size <= most)
        known = np.asarray(numbers.to_numpy(dtype=float, na_value=np.nan) / _PER_SECOND[unit])
        _refuse(
            np.abs(known) > _LAST_SECOND,
            column,
            name,
            "seconds, milliseconds, microseconds or nanoseconds since 1970",
        )
        return pd.to_datetime(pd.Series(known), unit="s", utc=True, errors="coerce")
    has_zone = column.astype(str).str.contains(_ZONE, regex=True)
    if zone == "UTC" or bool(has_zone.all()):
        return pd.to_datetime(column, utc=True, errors="coerce", format="ISO8601")
    moments = pd.to_datetime(column.where(has_zone), utc=True, errors="coerce", format="ISO8601")
    plain = pd.to_datetime(column.where(~has_zone), errors="coerce", format="ISO8601")
    return moments.fillna(_in_utc(plain, zone))


def _in_utc(column: Any, zone: str) -> Any:
    """Moments in UTC. An hour that a clock shows twice, or not at all, moves by an hour at most."""
    if column.dt.tz is not None:
        return column.dt.tz_convert("UTC")
    placed = column.dt.tz_localize(zone, ambiguous=False, nonexistent="shift_forward")
    return pd.Series(placed).dt.tz_convert("UTC")


def _numbered_days(column: Any) -> NDArray[np.int64]:
    """Whole numbers count days since 1970-01-01; a simulation may as well count from its own first
    day.
    """
    values = column.to_numpy(dtype=float, na_value=np.nan)
    _refuse(
        ~((values >= 0) & (values <= _LAST_DAY) & (values == np.floor(values))),
        column,
        "day",
        "YYYY-MM-DD, or a whole number of days between 0 and 84006",
    )
    return np.asarray(values, dtype=np.int64)


def _refuse(wrong: NDArray[np.bool_], column: Any, name: str, expected: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        count = int(wrong.sum())
        more = f" ({count} rows are like that)" if count > 1 else ""
        raise InputError(
            f"Column `{name}`, row {row + 1}: expected {expected}, "
            f"found {_shown(column.iloc[row])}{more}."
        )


def _shown(value: Any) -> str:
    """A value as its user wrote it: no type of ours around it."""
    plain = value.item() if isinstance(value, np.generic) else value
    is_number = isinstance(plain, float)
    if plain is None or (is_number and np.isnan(plain)) or plain == "":
        return "nothing"
    return f"{plain:.15g}" if is_number else repr(plain)[:80]


def _blank(column: Any) -> NDArray[np.bool_]:
    return np.asarray(
        column.isna().to_numpy()
        | column.astype(str).str.strip().str.lower().isin(_BLANK).to_numpy()
    )


def _numbers(column: Any, name: str) -> NDArray[Any]:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    if column.dtype == object or not pd.api.types.is_numeric_dtype(column):
        _refuse(np.isnan(numbers) & ~_blank(column), column, name, "a number or nothing")
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _flags(column: Any, name: str) -> NDArray[Any]:
    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_numeric_dtype(column):
        values = column.to_numpy(dtype=float, na_value=np.nan)
    else:
        values = column.astype(str).str.strip().str.lower().map(_FLAGS).to_numpy(dtype=float)
        _refuse(np.isnan(values) & ~_blank(column), column, name, "true, false, 1, 0 or nothing")
    _refuse(
        ~np.isnan(values) & (values != 0) & (values != 1),
        column,
        name,
        "true, false, 1, 0 or nothing",
    )
    return np.asarray(values)


def _texts(column: Any, name: str) -> NDArray[Any]:
    return _categories(plain_texts(column, name), name)


def _categories(column: Any, name: str) -> NDArray[Any]:
    missing = column.isna().to_numpy()
    values = column.astype(str).to_numpy(dtype=object)
    values[missing | (values == "")] = None
    return np.asarray(values)


_CONVERTERS = {"number": _numbers, "flag": _flags, "category": _categories, "text": _texts}


def _ids(given: NDArray[Any] | None, rows: int) -> NDArray[Any]:
    made = np.array([f"row-{number}" for number in range(1, rows + 1)], dtype=object)
    return (
        made
        if given is None
        else np.array(
            [own if own is not None else name for own, name in zip(given, made, strict=True)],
            dtype=object,
        )
    )


def _check_ranges(made: Mapping[str, NDArray[Any]]) -> None:
    for name, low, high in (
        ("prompt_tokens", 0, np.inf), ("completion_tokens", 0, np.inf), ("ttft_ms", 0, np.inf), ("time_per_token_ms", 0, np.inf),
        ("queue_ms", 0, np.inf),
        ("retrieval_ms", 0, np.inf), ("logprob", -np.inf, 0), ("logprob_min", -np.inf, 0), ("context_overlap", 0, 1), ("thumb", -1, 1),
    ):  # fmt: skip
        if name in made:
            values = made[name]
            _refuse(
                (values < low) | (values > high),
                pd.Series(values),
                name,
                f"a number between {low:g} and {high:g}",
            )


def _embedding(frame: Any) -> NDArray[np.float32] | None:

    numbered = sorted(
        (name for name in frame.columns if str(name).removeprefix(f"{EMBEDDING}_").isdigit()),
        key=lambda name: int(str(name).split("_")[1]),
    )
    if numbered:
        return np.column_stack([_numbers(frame[name], str(name)) for name in numbered]).astype(
            np.float32
        )
    if EMBEDDING not in frame.columns:
        return None
    column, rows = frame[EMBEDDING], []
    for number, value in enumerate(column.tolist(), start=1):
        try:
            row = (
                None
                if value is None or (isinstance(value, float) and pd.isna(value)) or value == ""
                else value
            )
        except ValueError:  # an array, which is not one truth value
            row = value
        try:
            rows.append(
                None
                if row is None
                else np.asarray(json.loads(row) if isinstance(row, str) else row, dtype=np.float32)
            )
        except (TypeError, ValueError) as error:
            raise InputError(
                f"Column `{EMBEDDING}`, row {number}: expected a list of numbers, found"
                f" {str(value)[:60]!r}."
            ) from error
    sizes = {row.shape for row in rows if row is not None}
    if len(sizes) != 1 or len(next(iter(sizes))) != 1:
        raise InputError(
            f"Column `{EMBEDDING}`: every row needs a list of the same length, found shapes"
            f" {sorted(sizes)[:5]}."
        )
    nothing = np.full(next(iter(sizes)), np.nan, dtype=np.float32)
    return np.stack([nothing if row is None else row for row in rows])
