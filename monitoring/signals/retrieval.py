"""What a request's search for passages came to; rows that searched for nothing have no value."""

from __future__ import annotations

from monitoring.rows import Row
from monitoring.signals.base import Signal


def _score(row: Row) -> float | None:
    return row.retrieval.best_score if row.retrieval else None


def _gap(row: Row) -> float | None:
    return row.retrieval.score_gap if row.retrieval else None


def _support(row: Row) -> float | None:
    return row.retrieval.support if row.retrieval else None


def _empty(row: Row) -> bool | None:
    """Of searches that worked, whether nothing was found."""
    searched = row.retrieval and row.retrieval.outcome in ("found", "empty")
    return row.retrieval.outcome == "empty" if row.retrieval and searched else None


def _failed(row: Row) -> bool | None:
    """A collection that the key may not read is the client's mistake, and no failure."""
    allowed = row.retrieval and row.retrieval.outcome != "forbidden"
    return row.retrieval.outcome == "failed" if row.retrieval and allowed else None


def _latency(row: Row) -> float | None:
    return row.retrieval.took_ms if row.retrieval else None


RETRIEVAL = (
    Signal("retrieval_score", "retrieval", "number", "score of the best passage", _score,
           is_optional=True),
    Signal("retrieval_gap", "retrieval", "number", "score gap between the first two passages", _gap,
           is_optional=True),
    Signal("context_overlap", "answers", "number",
           "share of the answer that the passages support", _support, is_optional=True),
    Signal("retrieval_empty", "retrieval", "rate", "empty retrievals", _empty, worse="up",
           is_optional=True),
    Signal("retrieval_failed", "retrieval", "rate", "failed retrievals", _failed, worse="up",
           is_optional=True),
    Signal("retrieval_ms", "retrieval", "latency", "retrieval latency", _latency, "ms", worse="up",
           is_optional=True),
)  # fmt: skip
