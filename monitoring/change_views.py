"""What the Drift page shows of declared changes: what moved with a new version. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from monitoring.history_store import StoredDay


@dataclass(frozen=True)
class ComparisonView:
    """One comparison: with whom, and what moved."""

    heading: str
    moves: list[str]  # sentences; empty: nothing that these answers can show


@dataclass(frozen=True)
class ChangeView:
    """A new version, prompt template or document set."""

    name: str
    heading: str
    comparisons: list[ComparisonView]


def change_views(stored: Sequence[StoredDay]) -> list[ChangeView]:
    """`stored`: rows of `drift_days`, oldest first; the newest one tells of this week's changes."""
    found = stored[-1].statistics.changes if stored else []
    return [
        ChangeView(
            one.name,
            one.sentences[0],
            [
                ComparisonView(
                    made.heading,
                    [move.sentence for move in made.moves if move.is_clear],
                )
                for made in one.comparisons
            ],
        )
        for one in found
    ]


def change_headline(changes: Sequence[ChangeView]) -> tuple[str, str] | None:
    """What the page says first where nothing else needs anybody; None where nothing moved."""
    for change in changes:
        moves = [move for one in change.comparisons for move in one.moves]
        if moves:
            return f"Something moved with {change.name}", moves[0]
    return None
