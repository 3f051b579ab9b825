"""What becomes of the gaps that were known when the questions of another night are clustered. Pure.

A gap is a subject of questions that find nothing. It stays the same gap while its questions or its
words do, so that what somebody dismissed stays dismissed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from monitoring.gap_queries import StoredGap
from whet.json_types import JsonObject
from whet.records.monitoring import GAP_MEMBERS, GAP_WORDS

MAX_MEMBERS = 200  # conversations kept of a gap, as of an alert
_SAME_MEMBERS = 0.3  # shared / all: most of four weeks' questions are there the next night too
_SAME_WORDS = 0.5  # of the shorter list, and at least two


@dataclass(frozen=True)
class FoundGap:
    """A cluster of the newest night. `questions` and `recent` are estimates for all traffic."""

    collection: str
    words: list[str]
    members: list[str]  # interaction ids, most typical first
    questions: int
    share: float
    recent: int
    first_day: int
    last_day: int

    def values(self) -> JsonObject:
        """Columns of `retrieval_gaps` that follow from the night."""
        return {
            **vars(self),
            "words": GAP_WORDS.encode(self.words),
            "members": GAP_MEMBERS.encode(self.members[:MAX_MEMBERS]),
        }


@dataclass(frozen=True)
class GapChanges:
    """What to write."""

    new: list[FoundGap] = field(default_factory=list)
    updated: list[tuple[str, FoundGap]] = field(default_factory=list)  # id, as it is now
    gone: list[str] = field(default_factory=list)  # ids of open gaps that nobody asks about now


def plan_gaps(known: Sequence[StoredGap], found: Sequence[FoundGap]) -> GapChanges:
    """Match the clusters of a night with the gaps that are stored.

    A dismissed gap is kept while it is not found, since it may come back; an open one goes.
    """
    left = list(known)
    new: list[FoundGap] = []
    updated: list[tuple[str, FoundGap]] = []
    for gap in sorted(found, key=lambda one: -one.questions):
        likeness, place = max(
            ((_likeness(stored, gap), -place) for place, stored in enumerate(left)),
            default=(0.0, 0),
        )
        if likeness > 0:
            stored = left.pop(-place)
            first = min(stored.first_day, gap.first_day)
            updated.append((stored.id, replace(gap, first_day=first)))
        else:
            new.append(gap)
    gone = [stored.id for stored in left if stored.state == "open"]
    return GapChanges(new, updated, gone)


def _likeness(stored: StoredGap, gap: FoundGap) -> float:
    """How far two are the same gap, 0 to 2; 0: they are not."""
    if stored.collection != gap.collection:
        return 0.0
    was, now = set(stored.members), set(gap.members[:MAX_MEMBERS])
    members = len(was & now) / max(1, len(was | now))
    words, least = set(stored.words) & set(gap.words), min(len(stored.words), len(gap.words))
    common = len(words) / max(1, least)
    is_same = members >= _SAME_MEMBERS or (len(words) > 1 and common >= _SAME_WORDS)
    return members + common if is_same else 0.0
