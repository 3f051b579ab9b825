"""Print incidents and changes of versions, as `whet drift days` and `replay` show them."""

from __future__ import annotations

import typer

from whet.json_types import JsonObject
from whet.records.monitoring import DeclaredChangeRecord, IncidentRecord

_EXAMPLES = 5  # ids printed below an incident; `--json` has more


def print_changes(changes: list[DeclaredChangeRecord]) -> None:
    """Print what moved with each new version, prompt template or document set."""
    for change in changes:
        head, *comparisons = change.sentences
        typer.echo(f"\n{head}")
        for sentence in comparisons:
            typer.echo(f"  {sentence}")


def print_examples(ids: list[str]) -> None:
    """Print the ids of the most telling conversations."""
    if ids:
        typer.echo(f"  {'Examples:':9} {', '.join(ids[:_EXAMPLES])}")


def incident_row(incident: IncidentRecord) -> JsonObject:
    """A row of the table of incidents: its signals, and the slices that carry the change."""
    slices = ", ".join(
        f"{one.column}={one.value} ({100 * one.share_of_change:.0f} % of the change)"
        for one in incident.slices or []
    )
    where = slices or ("" if incident.slices is None else "everywhere")
    summary = f"{incident.summary} {incident.hint}".strip()
    told: JsonObject = {"signals": ", ".join(incident.signals), "where": where, "summary": summary}
    return incident.as_json() | told
