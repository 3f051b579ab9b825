"""`whet drift replay`: go through a table of interactions as if it had been watched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from monitoring.commands.incidents import incident_row, print_changes, print_examples
from monitoring.detector.reading import declared_changes
from monitoring.detector.replay import replay
from monitoring.detector.settings import DetectorSettings
from monitoring.incident_text import describe_incident
from monitoring.intake import read_interactions, renamed_columns
from monitoring.table_quality import quality_in_table
from whet.cli import emit


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
    found = replay(intake.table, settings, changes).as_json() | {"input": intake.as_json()}
    for incident in found["incidents"]:
        incident["quality"] = quality_in_table(intake.table, incident).as_json()
        incident["text"] = describe_incident(incident, incident["quality"]).as_json()
    if as_json:
        emit(found, True)
        return
    _print_replay(found)


def _print_replay(found: dict[str, Any]) -> None:
    """Print what was judged, what is not watched, the incidents, and what the first weeks tell."""
    low, high = found["incidents_per_100_days_95"]
    achieved = f"{found['incidents_per_100_days']} (95 % interval {low} to {high})"
    first = min(one["first_judged_day"] for one in found["input"]["aliases"])
    facts = {
        "rows": f"{found['input']['rows']:,}",
        "days": found["days"],
        "judged days": found["judged_days"],
        "first judged day": first,
        "target per 100 days": found["target_per_100_days"],
        "incidents per 100 days": achieved
        if found["judged_days"]
        else "no day could be judged: six weeks of history come first",
    }
    emit(facts, False)
    for note in _notes(found["input"]):
        typer.echo(f"- {note}")
    print_changes([change for one in found["aliases"] for change in one["changes"]])
    emit(
        [incident_row(one) for one in found["incidents"]],
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
    for one in found["incidents"]:
        typer.echo(f"\n{one['id']}")
        for name, text in describe_incident(one, one["quality"]).rows():
            typer.echo(f"  {name + ':':9}{text}")
        print_examples(one.get("examples", []))
    early = [
        {"day": one["day"], "alias": one["alias"], "finding": item["sentence"]}
        for one in found["information"]
        for item in one["findings"]
    ]
    if early:
        emit(early, False, title="information from the first six weeks")


def _notes(given: dict[str, Any]) -> list[str]:
    """What is said about a table; the alias's name stands before it where there are several."""
    aliases = given["aliases"]
    own = [
        f"{one['alias']}: {note}" if len(aliases) > 1 else note
        for one in aliases
        for note in one["notes"]
    ]
    return [*given["notes"], *own]
