"""Keeps in each open alert what quality did since it began."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, select, update

from monitoring.quality import BASELINE_DAYS, Counted, Quality, Source, quality_of
from monitoring.quality_queries import DAY_MS, count_corrected, count_judged, count_thumbs
from whet.context import Context
from whet.database import reading, writing
from whet.tables import alerts


def refresh_quality(context: Context, now: int, only: Collection[str] = ()) -> str | None:
    """Write into each open alert what quality did since it began. `only`: these alerts."""
    with reading(context.database) as connection:
        query = select(alerts).where(alerts.c.open_marker.is_not(None))
        found = [dict(row) for row in connection.execute(query).mappings()]
        wanted = [alert for alert in found if not only or alert["id"] in only]
        fresh = {
            alert["id"]: read_quality(connection, alert["alias"], _since(alert), now).as_json()
            for alert in wanted
        }
    changed = [one for one in wanted if (one["detail"] or {}).get("quality") != fresh[one["id"]]]
    for alert in changed:
        _store(context, alert["id"], fresh[alert["id"]])
    return f"{len(changed)} incidents" if changed else None


def _store(context: Context, alert_id: str, quality: dict[str, Any]) -> None:
    """Read and write in one transaction: the days may extend the same alert meanwhile."""
    with writing(context.database) as connection:
        query = select(alerts.c.detail).where(alerts.c.id == alert_id).with_for_update()
        detail = {**(connection.scalar(query) or {}), "quality": quality}
        connection.execute(update(alerts).where(alerts.c.id == alert_id).values(detail=detail))


def _since(alert: dict[str, Any]) -> int:
    return int((alert["detail"] or {}).get("since_at") or alert["opened_at"])


def read_quality(connection: Connection, alias: str, since: int, until: int) -> Quality:
    """Compare the answers given since an instant (ms) with those of the four weeks before it."""
    spans = ((since - BASELINE_DAYS * DAY_MS, since), (since, until))
    counts: dict[Source, list[Counted]] = {
        "reviews": [Counted(*count_judged(connection, alias, span)) for span in spans],
        "thumbs": [Counted(*count_thumbs(connection, alias, span)) for span in spans],
        "corrections": [Counted(*count_corrected(connection, alias, span)) for span in spans],
    }
    # Nobody corrected anything: silence, and no sign that all was right.
    if not any(one.bad for one in counts["corrections"]):
        del counts["corrections"]
    return quality_of(counts)
