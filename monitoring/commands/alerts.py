"""`whet alerts list`."""

from __future__ import annotations

from monitoring.alert_store import list_alerts
from whet.cli import emit, opened
from whet.clock import iso
from whet.database import reading
from whet.registry import alias_filter


def list_all(*, alias: str | None, only_open: bool, limit: int, as_json: bool) -> None:
    """Alerts, open ones first."""
    with opened() as context, reading(context.database) as connection:
        chosen = alias_filter(connection, alias)
        found = list_alerts(connection, chosen, only_open=only_open, limit=limit)
    emit(
        [{**alert.as_json(), "opened": iso(alert.opened_at)} for alert in found],
        as_json,
        columns=["id", "opened", "alias", "kind", "severity", "state", "title"],
        title="alerts",
    )
