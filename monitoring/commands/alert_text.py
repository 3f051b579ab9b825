"""`whet alerts show`: one alert in full."""

from __future__ import annotations

import typer

from monitoring.alert_store import find_alert
from monitoring.commands.incidents import print_examples
from monitoring.incident_text import text_of_alert
from monitoring.quality_store import refresh_quality
from whet.cli import emit, opened
from whet.clock import now_ms
from whet.database import reading


def show(*, alert_id: str, as_json: bool) -> None:
    """One alert: what, what quality did, since when, how bad, where, and what to do."""
    with opened() as context:
        refresh_quality(context, now_ms(), [alert_id])
        with reading(context.database) as connection:
            alert = find_alert(connection, alert_id)
    text = text_of_alert(alert)
    if as_json:
        emit({**alert.as_json(), "text": text.as_json()}, True)
        return
    typer.echo(f"{alert.id}  {alert.state}, severity {alert.severity}")
    typer.echo(alert.title)
    for name, part in text.rows():
        typer.echo(f"  {name + ':':9}{part}")
    print_examples(alert.detail.interaction_ids)
