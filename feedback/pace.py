"""How fast is too fast: a decision that took less time than reading the answer takes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from sqlalchemy import ColumnElement, and_, func, or_

from whet.tables import interactions, reviews

# 1,800 words a minute: four to five times what people read with comprehension (Brysbaert 2019 finds
# 238 for English), so nobody who reads is asked.
CHARACTERS_PER_S = 150
SHORTEST_S = 0.8  # to see a text, decide and press a key
LONGEST_S = 8.0  # a long answer can be wrong in its first line
ASK_AFTER = 12  # hasty decisions in a row: one or two of them are duplicates or known questions


def least_seconds(characters: int) -> float:
    """Return the time below which a decision on an answer of so many characters is hasty."""
    return min(LONGEST_S, max(SHORTEST_S, characters / CHARACTERS_PER_S))


def count_hasty(newest: Sequence[tuple[float | None, int]]) -> int:
    """Count the hasty decisions since the last careful one.

    `newest`: (seconds, characters of the answer), newest first. A decision without a time, as
    programs send them, is careful.
    """
    hasty = takewhile(lambda one: one[0] is not None and one[0] < least_seconds(one[1]), newest)
    return sum(1 for _ in hasty)


def is_hasty() -> ColumnElement[bool]:
    """`least_seconds` as a condition on `reviews` joined with `interactions`."""
    characters = func.coalesce(func.length(interactions.c.response_text), 0)
    return or_(
        reviews.c.seconds < SHORTEST_S,
        and_(
            reviews.c.seconds < LONGEST_S,
            reviews.c.seconds * CHARACTERS_PER_S < characters,
        ),
    )
