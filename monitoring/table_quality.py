"""What quality did in the time of a replay's incident, from the table's own columns."""

from __future__ import annotations

from datetime import date

import numpy as np
from numpy.typing import NDArray

from monitoring.detector.columns import Floats, Table, day_number
from monitoring.detector.replay import aliases_of
from monitoring.quality import BASELINE_DAYS, Counted, Quality, Source, quality_of
from whet.records.monitoring import IncidentRecord

_COLUMNS: dict[Source, str] = {"thumbs": "thumb", "edited": "edited", "regenerated": "regenerated"}


def quality_in_table(table: Table, incident: IncidentRecord) -> Quality:
    """Compare an incident's days with the four weeks before."""
    first = day_number(date.fromisoformat(incident.first_day))
    closed = incident.closed_on
    last = day_number(date.fromisoformat(closed)) if closed else np.inf
    days = table.columns["day"]
    own = _is_of(table, incident.alias)
    before = own & (days >= first - BASELINE_DAYS) & (days < first)
    now = own & (days >= first) & (days < last)
    counts: dict[Source, list[Counted]] = {}
    for source, name in _COLUMNS.items():
        values = table.get(name)
        if values is not None:
            counts[source] = [_count(source, values[rows]) for rows in (before, now)]
    return quality_of(counts)


def _is_of(table: Table, alias: str) -> NDArray[np.bool_]:
    names = table.get("alias")
    if names is None or aliases_of(table) == [alias]:
        return np.ones(len(table), dtype=bool)
    return np.array([(name or "default") == alias for name in names])


def _count(source: Source, values: Floats) -> Counted:
    known = values[np.isfinite(values)]
    if source == "thumbs":
        rated = known[known != 0]
        return Counted(int((rated < 0).sum()), len(rated))
    return Counted(int(known.sum()), len(known))
