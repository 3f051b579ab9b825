"""`whet drift days`: what an alias's own history has shown."""

from __future__ import annotations

import typer

from monitoring.commands.incidents import incident_row, print_changes
from monitoring.dayjob import run_alias, standing
from whet.cli import emit, opened
from whet.clock import now_ms


def show_days(*, alias: str | None, as_json: bool) -> None:
    """Take in the days that are over, and print what an alias's own history has shown and how often
    it alarmed.
    """
    with opened() as context:
        name = alias or context.settings.default_alias
        run_alias(context, name, now_ms())
        found = standing(context, name)
    if as_json:
        emit(found, True)
        return
    shown = [incident_row(one) for one in found.pop("incidents")]
    covered = found.pop("coverage", None)
    emit(
        {
            key: value
            for key, value in found.items()
            if key not in ("thresholds", "declared", "spread", "changes")
        },
        False,
    )
    for note in covered["notes"] if covered else ():
        typer.echo(f"- {note}")
    print_changes(found.get("changes", []))
    emit(
        shown,
        False,
        columns=["detected_on", "first_day", "closed_on", "state", "signals", "where", "summary"],
        title="incidents",
    )
