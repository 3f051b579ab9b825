"""What needs a person, decided from a health reading: dearest to leave waiting first.

Pure. First what is dead or refuses, then what answers wrong, then decisions, then the queue.
"""

from __future__ import annotations

from whet.health.operation import find_operation_items
from whet.health.quality import find_quality_items
from whet.health.records import ActionItem, HealthReading
from whet.health.versions import find_training_items, find_version_items
from whet.web.filters import clip, plural

_HEADLINE_LENGTH = 160


def find_action_items(reading: HealthReading) -> list[ActionItem]:
    """Return everything that waits for a person, most urgent first."""
    found = [
        *find_operation_items(reading),
        *find_quality_items(reading),
        *_alert_items(reading),
        *find_training_items(reading),
        *find_version_items(reading),
    ]
    if reading.waiting:
        verb = "waits" if reading.waiting == 1 else "wait"
        found.append(
            ActionItem(
                "review_queue",
                40,
                "attention",
                f"{plural(reading.waiting, 'conversation')} {verb} for review.",
                "/review",
                reading.waiting_since,
            )
        )
    return sorted(found, key=lambda item: (-item.cost, item.since or 0))


def _alert_items(reading: HealthReading) -> list[ActionItem]:
    """Open alerts, and below them those that somebody looks after already."""
    costs = {"bad": 85, "attention": 60}
    found = []
    for alert in reading.alerts:
        title = alert["title"].rstrip()
        sentence = title if title.endswith((".", "!", "?")) else f"{title}."
        cost, kind = costs.get(alert["severity"], 20), alert["severity"]
        if alert["state"] == "acknowledged":
            by = f" by {alert['changed_by']}" if alert["changed_by"] else ""
            sentence, cost, kind = f"{sentence} Acknowledged{by}.", 10, "information"
        if alert["owner"]:
            sentence = f"{sentence} {alert['owner']} looks after it."
        if (alert["snoozed_until"] or 0) > reading.now:
            sentence, cost, kind = f"{sentence} Snoozed.", 5, "information"
        found.append(
            ActionItem(
                "alert",
                cost,
                kind if kind in ("bad", "attention") else "information",
                sentence,
                f"/drift/incidents/{alert['id']}",
                alert["opened_at"],
            )
        )
    return found


def headline(reading: HealthReading, items: list[ActionItem]) -> str:
    """Return the sentence people come for."""
    if reading.is_new and not items:
        return "Nothing has been asked yet"
    urgent = [item for item in items if item.cost > _ACKNOWLEDGED_COST]
    return clip(urgent[0].sentence, _HEADLINE_LENGTH).rstrip(".") if urgent else "Nothing needs you"


def headline_since(items: list[ActionItem]) -> int | None:
    """Return since when the headline is so; None where it tells of nothing or that is unknown."""
    return items[0].since if items and items[0].cost > _ACKNOWLEDGED_COST else None


_ACKNOWLEDGED_COST = 10
