"""What users think of the answers: the only signal here that can see answers turn wrong while
questions stay the same.
"""

from __future__ import annotations

from monitoring.rows import Row
from monitoring.signals.base import Signal


def _unhappy(row: Row) -> bool | None:
    """Of the rows that carry a thumb, whether it points down.

    Ratings arrive late, so *whether* a row is rated is not compared.
    """
    return row.rating < 0 if row.rating else None


RATINGS = (
    Signal(
        "thumbs_down", "quality", "rate", "thumbs-down rate among ratings", _unhappy, worse="up"
    ),
)
