"""What the pages show of the error rate: the newest sentence, and every week with its interval as a
picture. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from monitoring.history_store import AuditWeek

WIDTH, HEIGHT = 720, 160  # viewBox units, as of the other charts
_EPOCH = date(1970, 1, 1)
# The axis never ends below 5 %, so that one wrong answer among many does not look like a wall
_LEAST_TOP = 0.05


@dataclass(frozen=True)
class WeekMark:
    """One week in SVG coordinates: a point and the line of its interval."""

    x: float
    y: float
    low: float
    high: float
    worse: bool
    title: str


@dataclass(frozen=True)
class Audit:
    """The section of one alias."""

    sentence: str
    hint: str
    marks: list[WeekMark]
    usual: float | None  # height of the rate of the weeks before
    top: str
    rows: list[tuple[str, AuditWeek]]  # (first day, the week), newest first


def audit_view(weeks: Sequence[AuditWeek]) -> Audit | None:
    """`weeks`: rows of `audit_weeks`, oldest first. None where nothing was drawn yet."""
    if not any(row.drawn for row in weeks):
        return None
    known = [(row, row.rate) for row in weeks if row.rate is not None]
    newest = known[-1][0] if known else weeks[-1]
    open_items = sum(row.drawn - row.judged for row in weeks[-2:])
    hint = (
        f"{open_items} drawn answer{'' if open_items == 1 else 's'} of the last two weeks wait for"
        " a reviewer."
        if open_items
        else "Everything drawn is judged."
    )
    top = max([_LEAST_TOP, *(row.interval[1] for row, _ in known)])

    def y(rate: float) -> float:
        return float(round(HEIGHT - 4 - (HEIGHT - 12) * rate / top, 1))

    step = WIDTH / max(1, len(known))
    marks = [
        WeekMark(
            round(step * (place + 0.5), 1),
            y(rate),
            y(row.interval[0]),
            y(row.interval[1]),
            row.verdict == "worse",
            f"Week of {_starts(row)}: {row.sentence}",
        )
        for place, (row, rate) in enumerate(known)
    ]
    usual = next((row.usual for row, _ in reversed(known) if row.usual is not None), None)
    rows = [(_starts(row), row) for row in reversed(weeks)]
    return Audit(
        newest.sentence,
        hint,
        marks,
        y(usual) if usual is not None else None,
        f"{100 * top:.0f} %",
        rows,
    )


def _starts(row: AuditWeek) -> str:
    return (_EPOCH + timedelta(days=row.week)).isoformat()
