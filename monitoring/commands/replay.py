"""`whet drift replay`: go through a table of interactions as if it had been watched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from monitoring.commands.incidents import incident_row, print_changes, print_examples
from monitoring.detector.columns import date_of
from monitoring.detector.reading import declared_changes
from monitoring.detector.replay import Replayed, replay
from monitoring.detector.settings import DetectorSettings
from monitoring.incident_text import describe_incident
from monitoring.intake import Intake, read_interactions, renamed_columns
from monitoring.table_quality import quality_in_table
from whet.cli import emit
from whet.records.monitoring import IncidentRecord, QualityRecord


def replay_table(
    *,
    table: Path,
    target: float,
    declared: list[str],
    column: list[str],
    timezone: str,
    as_json: bool,
) -> None:
    """Go through a table of interactions day by day, as if it had been watched, and print the
    incidents.
    """
    settings = DetectorSettings(target=target)
    changes = declared_changes(declared)
    intake = read_interactions(table, renamed_columns(column), timezone, settings)
    result = replay(intake.table, settings, changes)
    records = [incident.record() for incident in result.incidents]
    incidents = [(one, quality_in_table(intake.table, one).record()) for one in records]
    if as_json:
        told = [
            one.as_json()
            | {"quality": quality.as_json(), "text": {**describe_incident(one, quality).as_json()}}
            for one, quality in incidents
        ]
        emit(result.as_json() | {"input": intake.as_json(), "incidents": told}, True)
        return
    _print_replay(result, intake, incidents)


def _print_replay(
    found: Replayed, intake: Intake, incidents: Sequence[tuple[IncidentRecord, QualityRecord]]
) -> None:
    """Print what was judged, what is not watched, the incidents, and what the first weeks tell."""
    low, high = found.interval
    first = min(one.first_judged_day for one in intake.coverage)
    facts = {
        "rows": f"{intake.rows:,}",
        "days": found.days,
        "judged days": found.judged_days,
        "first judged day": first.isoformat(),
        "target per 100 days": found.target,
        "incidents per 100 days": f"{found.rate} (95 % interval {low} to {high})"
        if found.judged_days
        else "no day could be judged: six weeks of history come first",
    }
    emit(facts, False)
    for note in _notes(intake):
        typer.echo(f"- {note}")
    print_changes([change for one in found.aliases for change in one.changes])
    emit(
        [incident_row(one) for one, _ in incidents],
        False,
        columns=[
            "detected_on",
            "first_day",
            "closed_on",
            "alias",
            "state",
            "signals",
            "where",
            "summary",
        ],
        title="incidents",
    )
    for one, quality in incidents:
        typer.echo(f"\n{one.id}")
        for name, text in describe_incident(one, quality).rows():
            typer.echo(f"  {name + ':':9}{text}")
        print_examples(one.examples)
    early = [
        {"day": date_of(one.day).isoformat(), "alias": one.alias, "finding": item.sentence}
        for one in found.early
        for item in one.findings
    ]
    if early:
        emit(early, False, title="information from the first six weeks")


def _notes(intake: Intake) -> list[str]:
    """What is said about a table; the alias's name stands before it where there are several."""
    has_many = len(intake.coverage) > 1
    own = [
        f"{one.alias}: {note}" if has_many else note
        for one in intake.coverage
        for note in one.notes()
    ]
    return [*intake.notes(), *own]
