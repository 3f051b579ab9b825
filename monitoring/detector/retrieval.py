"""Questions that find nothing: which they are, and from which score on.

A search returns its nearest passages however far they are, so "nothing" is a best score below what
nineteen of twenty questions of the collection had in its first days, or no passage at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from monitoring.detector.columns import Floats, Table

MISS = "retrieval_miss"
LOW_QUANTILE = 0.05  # of a collection's first best scores
_LEAST_SCORES = 200  # ten of them lie below the quantile
_ANY = ""  # the collection of a table that does not name them


def has_unknown(table: Table, known: Mapping[str, float]) -> bool:
    """Tell whether the table has scores of a collection whose low score is not known."""
    if "retrieval_score" not in table:
        return False
    names = table.get("collection")
    return (
        _ANY not in known
        if names is None
        else bool({str(one) for one in names if one} - set(known))
    )


def low_scores_of(
    days: Iterable[Table], known: Mapping[str, float], least_days: int
) -> dict[str, float]:
    """Return the low score of each collection that has been searched on `least_days` days.

    Those in `known` stay as they are: a threshold that followed the scores would hide their fall.
    """
    seen: dict[str, list[Floats]] = {}
    for table in days:
        scores = table.get("retrieval_score")
        if scores is None:
            continue
        for name, rows in _by_collection(table).items():
            if name not in known and (found := scores[rows & np.isfinite(scores)]).size:
                seen.setdefault(name, []).append(found)
    made = dict(known)
    for name, parts in seen.items():
        pooled = np.concatenate(parts)
        if len(parts) >= least_days and len(pooled) >= _LEAST_SCORES:
            made[name] = float(np.quantile(pooled, LOW_QUANTILE))
    return made


def with_misses(table: Table, low_scores: Mapping[str, float]) -> Table:
    """Return the table with the flag `retrieval_miss`, where it can be told and is not given.

    A row whose collection has no low score yet, whose search failed, or that searched for nothing,
    is not known.
    """
    scores, empty = table.get("retrieval_score"), table.get("retrieval_empty")
    if MISS in table or not low_scores or (scores is None and empty is None):
        return table
    missed = np.full(len(table), np.nan)
    for name, rows in _by_collection(table).items():
        if name not in low_scores:
            continue
        if empty is not None:
            missed[rows & (empty == 1)] = 1.0
        if scores is not None:
            known = rows & np.isfinite(scores)
            missed[known] = scores[known] < low_scores[name]
    return Table({**table.columns, MISS: missed})


def _by_collection(table: Table) -> dict[str, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    names = table.get("collection")
    if names is None:
        return {_ANY: np.ones(len(table), dtype=bool)}
    return {
        str(name): np.asarray(np.equal(names, name), dtype=bool)
        for name in dict.fromkeys(names.tolist())
        if name is not None
    }
