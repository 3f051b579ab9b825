"""Signals: cheap, offline values read off each interaction.

One family per file; a new signal is one entry in its family.
"""

from __future__ import annotations

from monitoring.rows import Row
from monitoring.signals.answers import ANSWERS
from monitoring.signals.base import KIND_TITLES, Kind, Shape, Signal, Value
from monitoring.signals.questions import QUESTIONS
from monitoring.signals.ratings import RATINGS
from monitoring.signals.retrieval import RETRIEVAL
from monitoring.signals.service import SERVICE

SIGNALS: tuple[Signal, ...] = (*QUESTIONS, *RETRIEVAL, *ANSWERS, *RATINGS, *SERVICE)

__all__ = ["KIND_TITLES", "SIGNALS", "Kind", "Row", "Shape", "Signal", "Value", "values_of"]


def values_of(rows: list[Row]) -> dict[str, list[Value]]:
    """Every signal of every row, by signal name; the two text signals of one side share their text."""
    return {signal.name: [signal.of(row) for row in rows] for signal in SIGNALS}
