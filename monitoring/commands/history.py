"""`whet drift days`: what an alias's own history has shown."""

from __future__ import annotations

import typer

from monitoring.commands.incidents import incident_row, print_changes
from monitoring.dayjob import run_alias, standing
from whet.cli import emit, opened
from whet.clock import now_ms

_ONLY_JSON = ("thresholds", "declared", "spread")  # figures for experts


def show_days(*, alias: str | None, as_json: bool) -> None:
    """Take in the days that are over, and print what an alias's own history has shown and how often
    it alarmed.
    """
    with opened() as context:
        name = alias or context.settings.default_alias
        run_alias(context, name, now_ms())
        found = standing(context, name)
    if as_json:
        emit(found.as_json(), True)
        return
    shown = {name: value for name, value in found.facts.items() if name not in _ONLY_JSON}
    emit(shown, False)
    for note in found.coverage.notes() if found.coverage else ():
        typer.echo(f"- {note}")
    print_changes(found.changes)
    emit(
        [incident_row(one) for one in found.incidents],
        False,
        columns=["detected_on", "first_day", "closed_on", "state", "signals", "where", "summary"],
        title="incidents",
    )
