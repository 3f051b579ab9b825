"""Keeps in each open alert what quality did since it began."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection

from monitoring.alert_store import Alert, change_detail, open_alerts
from monitoring.quality import BASELINE_DAYS, Counted, Quality, Source, quality_of
from monitoring.quality_queries import DAY_MS, count_corrected, count_judged, count_thumbs
from whet.context import Context
from whet.database import reading, writing


def refresh_quality(context: Context, now: int, only: Collection[str] = ()) -> str | None:
    """Write into each open alert what quality did since it began. `only`: these alerts."""
    with reading(context.database) as connection:
        wanted = [alert for alert in open_alerts(connection) if not only or alert.id in only]
        fresh = {
            alert.id: read_quality(connection, alert.alias, _since(alert), now).record()
            for alert in wanted
        }
    changed = [alert for alert in wanted if alert.detail.quality != fresh[alert.id]]
    for alert in changed:
        # Read and written in one transaction: the days may extend the same alert meanwhile.
        with writing(context.database) as connection:
            change_detail(connection, alert.id, {"quality": fresh[alert.id]})
    return f"{len(changed)} incidents" if changed else None


def _since(alert: Alert) -> int:
    return alert.detail.since_at or alert.opened_at


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
