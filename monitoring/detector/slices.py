"""Which values of the slice columns are watched as charts of their own: large tenants and routes.

A change in one tenant of a quarter is a small change of the whole, which takes weeks to show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from monitoring.detector.columns import Table
from monitoring.detector.settings import DetectorSettings

IN_SLICES = " in slices"  # ends the name of the group that a signal's slice charts are
# Of a signal's bearable false alarms that its charts of slices have together: the whole traffic
# keeps thresholds that are 3 % higher than without slices.
SLICE_SHARE = 0.25
MOST_VALUES = 4  # of each column
# More columns would share out the error budget until nothing is found in any.
_MOST_COLUMNS = 4
_FIRST_DAYS = 7  # with rows, before values are chosen
_WINDOW_DAYS = 28  # whose rows say which values are large
_CHOSEN_EVERY = 7  # days
# A watched value keeps its place unless another has half as many rows again: a chart that comes
# and goes has no history.
_KEPT = 1.5
_MOST_SHARE = 0.9  # of a column's rows; a value of more is the whole traffic again


def slice_columns(names: Iterable[str]) -> list[str]:
    """Columns of a table whose values may be watched."""
    known = set(names)
    own = sorted(name for name in known if name.startswith("slice_"))
    return [*(["route"] if "route" in known else []), *own][:_MOST_COLUMNS]


def slice_name(column: str, value: str) -> str:
    """`slice_tenant=acme`, as incidents name it."""
    return f"{column}={value}"


def split_name(name: str) -> tuple[str, str]:
    """(column, value) of what `slice_name` made."""
    column, _, value = name.partition("=")
    return column, value


def rows_in(name: str, table: Table) -> NDArray[np.bool_]:
    """Which rows are in a slice; none where the table does not have its column."""
    column, value = split_name(name)
    if column not in table:
        return np.zeros(len(table), dtype=np.bool_)
    found: NDArray[np.bool_] = np.equal(
        table.columns[column], np.array(value, dtype=object)
    ).astype(np.bool_)
    return found


def count_slices(sample: Table, most: int) -> dict[str, dict[str, int]]:
    """Column → value → rows of the sample; at most `most` values of each."""
    return {
        column: dict(
            Counter(str(one) for one in sample.columns[column] if one is not None).most_common(most)
        )
        for column in slice_columns(sample.columns)
    }


@dataclass
class WatchedSlices:
    """The choice, a function of the days it was given in order."""

    settings: DetectorSettings
    chosen: dict[str, tuple[str, ...]] = field(default_factory=dict)  # column → values
    _days: dict[int, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    _chosen_on: int | None = None

    def take_in(self, day: int, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Take in a day's rows per value; what is chosen then holds for the days after it."""
        if not counts:
            return  # a table without slice columns, or a day that was stored without them
        self._days[day] = counts
        self._days = {one: seen for one, seen in self._days.items() if one > day - _WINDOW_DAYS}
        is_due = self._chosen_on is None or day - self._chosen_on >= _CHOSEN_EVERY
        if is_due and len(self._days) >= _FIRST_DAYS:
            self._chosen_on = day
            columns = dict.fromkeys(name for seen in self._days.values() for name in seen)
            self.chosen = {name: found for name in columns if (found := self._largest(name))}

    def _largest(self, column: str) -> tuple[str, ...]:
        rows: Counter[str] = Counter()
        for seen in self._days.values():
            rows.update(seen.get(column, {}))
        least, most = self.settings.min_rows * len(self._days), _MOST_SHARE * rows.total()
        watched = self.chosen.get(column, ())
        large = [name for name, count in rows.items() if least <= count <= most]
        large.sort(key=lambda name: (-rows[name] * (_KEPT if name in watched else 1), name))
        return tuple(large[:MOST_VALUES])
