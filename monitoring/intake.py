"""A file of interactions for `whet drift replay`: read, each request once, and what was not read.

Raises InputError where nothing in a table can be watched: silence about such a table would read
as good news.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd

from monitoring.coverage import Coverage, coverage_of, shares_of
from monitoring.detector.columns import EMBEDDING, Floats, Table
from monitoring.detector.names import UnreadColumn, is_read, unread_columns
from monitoring.detector.reading import load_frame
from monitoring.detector.replay import days_of
from monitoring.detector.settings import DetectorSettings
from monitoring.detector.signals import DailySignal, numbers_of, signals_of
from monitoring.detector.table import table_from_columns
from monitoring.signals.language import detect
from whet.errors import InputError
from whet.json_types import JsonObject

_MOST_UNREAD = 12  # written out; `--json` has all
_LOOKED_AT = (
    2_000  # answers whose language is found, evenly over the table: a share of 1 % shows in them
)
# Rows without an id are one request only where they say who asked what at which moment.
_TELLING = ("prompt", "answer", "user")


@dataclass(frozen=True)
class Intake:
    """A table and what is to be said about it."""

    table: Table
    rows: int  # of the file
    duplicates: int | None  # rows left out; None where they cannot be told
    unread: list[UnreadColumn]
    is_sorted: bool
    offsets: int  # different UTC offsets of the moments; 0 where none is written
    timezone: str
    coverage: list[Coverage]

    def as_json(self) -> JsonObject:
        return {
            "rows": self.rows,
            "duplicates": self.duplicates,
            "columns_not_read": [
                {"name": one.name, "likely": one.likely or None} for one in self.unread
            ],
            "sorted": self.is_sorted,
            "utc_offsets": self.offsets,
            "timezone": self.timezone,
            "notes": [*self.notes()],
            "aliases": [one.as_json() for one in self.coverage],
        }

    def notes(self) -> list[str]:
        """Sentences about the file; those about an alias are its coverage's."""
        found = [one.sentence for one in self.unread if one.likely]
        if renamed := [f"--column {one.name}={one.likely}" for one in self.unread if one.likely]:
            found.append(f"To read under another name: {' '.join(renamed)}")
        if others := [f"`{one.name}`" for one in self.unread if not one.likely]:
            more = f" and {len(others) - _MOST_UNREAD} more" if len(others) > _MOST_UNREAD else ""
            found.append(f"Not read: {', '.join(others[:_MOST_UNREAD])}{more}.")
        if self.duplicates:
            times = "1 row is" if self.duplicates == 1 else f"{self.duplicates:,} rows are"
            found.append(f"{times} in the table a second time and counted once.")
        elif self.duplicates is None:
            found.append("Rows that occur twice were not looked for: there is no column `id`.")
        if not self.is_sorted:
            found.append("Rows are not in the order of time; they were sorted.")
        if self.offsets > 1:
            found.append(
                f"Moments have {self.offsets} different UTC offsets; "
                f"days are those of {self.timezone}."
            )
        return found


def read_interactions(
    path: Path,
    renamed: Mapping[str, str] | None = None,
    timezone: str = "UTC",
    settings: DetectorSettings | None = None,
) -> Intake:
    """Read a file. `renamed`: column of the file → name it is read by. Raises InputError."""
    return take_in_frame(load_frame(path), renamed, timezone, settings)


def take_in_frame(
    frame: pd.DataFrame,
    renamed: Mapping[str, str] | None = None,
    timezone: str = "UTC",
    settings: DetectorSettings | None = None,
) -> Intake:
    """As `read_interactions`, of a DataFrame. `timezone`: whose midnight ends a day."""
    settings = settings or DetectorSettings()
    _check_timezone(timezone)
    frame = _rename(frame, renamed or {})
    unread = unread_columns(frame.columns)
    _require_signals(frame, unread)
    repeated = _repeated(frame)
    kept = frame if repeated is None else frame[~repeated].reset_index(drop=True)
    table = table_from_columns(kept, timezone)
    moments = frame["timestamp"] if "timestamp" in frame else frame["day"]
    return Intake(
        table,
        len(frame),
        None if repeated is None else int(repeated.sum()),
        unread,
        bool((np.diff(_order(table)) >= 0).all()),
        _offsets(moments),
        timezone,
        _coverage(table, settings),
    )


def renamed_columns(given: Sequence[str]) -> dict[str, str]:
    """Read `prompt_text=prompt` → {"prompt_text": "prompt"}. Raises InputError."""
    found = {}
    for text in given:
        name, separator, known = text.rpartition("=")
        if not separator or not name or (not is_read(known) and known != "timestamp"):
            raise InputError(
                f"--column {text!r}: expected a column of the table and the name it is read by, "
                "such as prompt_text=prompt.",
                hint="docs/monitoring.md lists the names.",
            )
        found[name] = known
    return found


def _check_timezone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise InputError(
            f"--timezone {name!r} is no time zone; expected a name such as Europe/Berlin or UTC."
        ) from error


def _rename(frame: pd.DataFrame, renamed: Mapping[str, str]) -> pd.DataFrame:
    if absent := [name for name in renamed if name not in frame.columns]:
        raise InputError(
            f"--column {absent[0]}={renamed[absent[0]]}: the table has no column {absent[0]!r}; "
            f"it has {', '.join(map(str, frame.columns))}."
        )
    if taken := [name for name in renamed.values() if name in frame.columns]:
        raise InputError(f"--column …={taken[0]}: the table already has a column {taken[0]!r}.")
    return frame.rename(columns=dict(renamed))


def _require_signals(frame: pd.DataFrame, unread: Sequence[UnreadColumn]) -> None:
    """Refuse a table in which nothing would be watched. Raises InputError."""
    names = {str(name) for name in frame.columns}
    if any(name.startswith(f"{EMBEDDING}_") for name in names):
        names.add(EMBEDDING)
    if signals_of(names) or not len(frame):
        return
    likely = " ".join(f"--column {one.name}={one.likely}" for one in unread if one.likely)
    raise InputError(
        "Nothing in this table can be watched. "
        f"Its columns are {', '.join(map(str, frame.columns))}; "
        "expected at least one such as `prompt`, `answer`, `refusal`, `ttft_ms` or `thumb`.",
        hint=f"Probably: {likely}" if likely else "docs/monitoring.md lists the columns.",
    )


def _repeated(frame: pd.DataFrame) -> Any:
    """Rows that an earlier row says already; None where nobody can tell them apart."""
    time = "timestamp" if "timestamp" in frame.columns else "day"
    if time not in frame.columns:
        return None
    if "id" in frame.columns:
        known = frame["id"].notna()
        return frame.duplicated(["id", time], keep="last") & known
    if time == "day" or not any(name in frame.columns for name in _TELLING):
        return None
    whole = frame[[name for name in frame.columns if not str(name).startswith(EMBEDDING)]]
    lists = [name for name in whole.columns if whole[name].dtype == object]
    return whole.assign(**{str(name): whole[name].astype(str) for name in lists}).duplicated(
        keep="last"
    )


def _order(table: Table) -> Floats:
    hours = table.get("hour")
    return np.asarray(24.0 * table.columns["day"] + (0 if hours is None else hours))


def _offsets(moments: Any) -> int:
    """Different offsets in texts such as `2026-01-05T10:00:00+09:00`."""
    if moments.dtype != object:
        return 0
    found = moments.astype(str).str.extract(
        r"T?\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?([zZ]|[+-]\d{2}:?\d{2})$"
    )[0]
    same = found.dropna().str.replace(":", "").str.upper().replace({"Z": "+0000"})
    return int(same.nunique())


def _coverage(table: Table, settings: DetectorSettings) -> list[Coverage]:
    """What is known of each alias, in alphabetical order."""
    signals = signals_of(set(table.columns))
    days: dict[str, list[int]] = {}
    values: dict[str, dict[str, list[int]]] = {}
    for day, alias, rows in days_of(table):
        days.setdefault(alias, []).append(day)
        counts = values.setdefault(alias, {signal.name: [] for signal in signals})
        for signal in signals:
            counts[signal.name].append(_known(signal, rows))
    spoken = _answer_languages(table)
    return [
        replace(
            coverage_of(alias, days[alias], values[alias], settings.min_rows), answers_in=spoken
        )
        for alias in sorted(days)
    ]


def _answer_languages(table: Table) -> dict[str, float]:
    """Language → share of answers, of some; empty where the table says itself what refuses."""
    answers = table.get("answer")
    if answers is None or "refusal" in table:
        return {}
    step = max(1, len(answers) // _LOOKED_AT)
    known = [answer for answer in answers[::step] if answer]
    return shares_of(Counter(map(detect, known)))


_TEXT_OF = {
    "language": "prompt", "answer_language": "answer", "refusal": "answer",
    "repetition": "answer", "empty": "answer",
}  # fmt: skip


def _known(signal: DailySignal, rows: Table) -> int:
    """Values of a signal in some rows, without reading any text."""
    if signal.shape in ("topics", "novelty"):
        source = EMBEDDING if EMBEDDING in rows else "prompt"
        found = rows.columns[source]
        return int(np.isfinite(found).all(1).sum()) if source == EMBEDDING else _filled(found)
    column = rows.get(signal.name)
    if column is None and signal.name in _TEXT_OF:
        column = rows.get(_TEXT_OF[signal.name])
    if column is None:
        numbers = numbers_of(signal, rows)
        return 0 if numbers is None else int(np.isfinite(numbers).sum())
    return _filled(column) if column.dtype == object else int(np.isfinite(column).sum())


def _filled(column: Any) -> int:
    return sum(value is not None for value in column)
