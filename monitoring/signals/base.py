"""What a signal is: one plain value per interaction, with everything needed to compare it and to
say the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from monitoring.rows import Row

Value = float | bool | str | None
Kind = Literal["questions", "retrieval", "answers", "quality", "service"]
Shape = Literal["number", "rate", "category", "latency", "words", "novelty"]


@dataclass(frozen=True, slots=True)
class Signal:
    """A value read off each row. `None` leaves a row out of this signal."""

    name: str  # stable: stored in reports and exported as a label
    kind: Kind  # which alert it belongs to
    shape: Shape  # which test compares it
    label: str  # in sentences, as a subject: "questions", "time to first token"
    of: Callable[[Row], Value]
    unit: str = ""
    worse: Literal["both", "up"] = "both"  # `up`: only a rise is drift; a fall is good news
    is_optional: bool = False  # left out of a report where neither sample has a value of it


KIND_TITLES: dict[Kind, str] = {
    "questions": "questions changed",
    "retrieval": "retrieval changed",
    "answers": "answers changed",
    "quality": "ratings fell",
    "service": "answers got slower",
}
