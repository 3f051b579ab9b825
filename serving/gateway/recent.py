"""Ratings that this process took in a moment ago, which may not be in the database yet."""

from __future__ import annotations

from collections import deque

from serving.log.records import RatingRecord

# The database has a rating within a second; each is up to 64 KiB of text, so these are 16 MiB.
_KEPT = 256


class RecentRatings:
    """The newest ratings, whatever became of them since."""

    def __init__(self) -> None:
        self._records: deque[RatingRecord] = deque(maxlen=_KEPT)

    def add(self, record: RatingRecord) -> None:
        self._records.append(record)

    def of(self, interaction_id: str) -> list[RatingRecord]:
        """Oldest first; the same rating may be there twice."""
        return [record for record in self._records if record.interaction_id == interaction_id]
