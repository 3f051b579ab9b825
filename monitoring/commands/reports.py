"""`whet drift list` and `show`: stored reports, as JSON or as tables."""

from __future__ import annotations

from monitoring.report_store import DriftReport, find_report, list_reports
from whet.cli import emit, opened
from whet.clock import iso
from whet.database import reading
from whet.registry import alias_filter


def list_all(*, alias: str | None, limit: int, as_json: bool) -> None:
    """Stored drift reports, newest first."""
    with opened() as context, reading(context.database) as connection:
        rows = list_reports(connection, alias_filter(connection, alias), limit=limit)
    emit(
        [{**row.values(), "created": iso(row.created_at)} for row in rows],
        as_json,
        columns=["id", "created", "alias", "verdict", "n_reference", "n_window", "summary"],
        title="drift reports",
    )


def show(*, report_id: str, as_json: bool) -> None:
    """One report with every signal."""
    with opened() as context, reading(context.database) as connection:
        found = find_report(connection, report_id)
    print_report(found, as_json)


def print_report(row: DriftReport, as_json: bool) -> None:
    """Print a report and its signals, or the row as JSON."""
    if as_json:
        emit(row.values(), True)
        return
    emit(
        {
            "id": row.id,
            "alias": row.alias,
            "verdict": row.verdict,
            "at": iso(row.created_at),
            "summary": row.summary,
        },
        False,
    )
    if row.signals:
        emit(
            [
                {
                    "signal": signal.name,
                    "state": signal.state,
                    "p": _small(signal.adjusted_p_value),
                    "finding": signal.sentence,
                }
                for signal in row.signals
            ],
            False,
        )


def _small(p_value: float | None) -> str:
    return "" if p_value is None else "< 0.0001" if p_value < 0.0001 else f"{p_value:.4f}"
