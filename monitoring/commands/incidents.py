"""Print incidents and changes of versions, as `whet drift days` and `replay` show them."""

from __future__ import annotations

from typing import Any

import typer

_EXAMPLES = 5  # ids printed below an incident; `--json` has more


def print_changes(changes: list[dict[str, Any]]) -> None:
    """Print what moved with each new version, prompt template or document set."""
    for change in changes:
        head, *comparisons = change["sentences"]
        typer.echo(f"\n{head}")
        for sentence in comparisons:
            typer.echo(f"  {sentence}")


def print_examples(ids: list[str]) -> None:
    """Print the ids of the most telling conversations."""
    if ids:
        typer.echo(f"  {'Examples:':9} {', '.join(ids[:_EXAMPLES])}")


def incident_row(incident: dict[str, Any]) -> dict[str, Any]:
    """A row of the table of incidents: its signals, and the slices that carry the change."""
    slices = ", ".join(
        f"{one['column']}={one['value']} ({100 * one['share_of_change']:.0f} % of the change)"
        for one in incident.get("slices", [])
    )
    where = slices or ("everywhere" if "slices" in incident else "")
    summary = f"{incident['summary']} {incident['hint']}".strip()
    return {
        **incident, "signals": ", ".join(incident["signals"]), "where": where, "summary": summary
    }  # fmt: skip
