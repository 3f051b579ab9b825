"""Alerts told to people: chat, e-mail and webhooks through Apprise, and a Prometheus Alertmanager.

At least once: an event stands in `notifications` before it is sent and is marked after it was
accepted, so that a message can come twice after a kill between the two, and never not at all. Once
otherwise: alert, event and address are the row's key. The only writer of `notifications`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx
from sqlalchemy import Row, or_, select, update

from monitoring.alert_store import Alert, alerts_where, open_alerts
from monitoring.flapping import came_back, times_reopened
from monitoring.incident_text import text_of_alert
from monitoring.quality_store import refresh_quality
from monitoring.sending import Send, console_url, send_by_apprise
from whet.clock import iso
from whet.context import Context
from whet.database import insert_ignore, reading, writing
from whet.errors import NotificationError
from whet.json_types import JsonObject
from whet.settings import Settings
from whet.tables import alerts, notifications
from whet.urls import (
    mask_url,
    notification_target,
    split_credentials,
)

_log = logging.getLogger(__name__)
_ROUTED = {"bad": "page", "attention": "ticket", "information": "information"}
TOLD = ("attention", "bad")  # information waits for whoever opens the page
_FIRST_PAUSE_MS, _LONGEST_PAUSE_MS = 30_000, 3_600_000
# Messages of one run: a target that takes its time must not hold up the clock for minutes
_AT_ONCE = 20
_REMEMBERED_MS = 7 * 86_400_000  # after which nobody waits to hear that an alert is over
# A closed alert is told to Alertmanager again for so long, in case it was away
_REPEATED_MS = 3_600_000
_LASTS_S = 3_600  # Alertmanager calls an alert resolved when it has not heard of it for so long
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Event:
    """One thing to tell about an alert."""

    alert_id: str
    event: str  # open | closed; `reopened 1`, `closed 1` and so on for one that came back


def events_of(found: Sequence[Alert], told: Mapping[str, set[str]]) -> list[Event]:
    """What is to be told.

    `found`: alerts; `told`: alert id → events that were put down for some address already.

    An alert that begins as information is told when it becomes grave; its end is told when its
    beginning was.
    """
    made = []
    for alert in found:
        before, is_open = told.get(alert.id, set()), alert.is_open
        times = times_reopened(alert.detail)
        begun, ended = (f"reopened {times}", f"closed {times}") if times else ("open", "closed")
        if is_open and alert.severity in TOLD and begun not in before:
            made.append(Event(alert.id, begun))
        elif not is_open and begun in before and ended not in before:
            made.append(Event(alert.id, ended))
    return made


def run_notify(context: Context, now: int, *, send: Send | None = None) -> str | None:
    """Tell what has not been told.

    Raises NotificationError when an Alertmanager does not answer, after everything else was done.
    """
    _compare_quality(context, now)
    targets = {notification_target(url): url for url in context.settings.notify_urls.split()}
    done = _tell(context, targets, now, send or send_by_apprise) if targets else []
    if context.settings.alertmanager_url:
        tell_alertmanager(context, now)
    return ", ".join(done) or None


def _tell(context: Context, targets: Mapping[str, str], now: int, send: Send) -> list[str]:
    with writing(context.database) as connection:
        recent = or_(alerts.c.open_marker.is_not(None), alerts.c.changed_at >= now - _REMEMBERED_MS)
        found = alerts_where(connection, recent)
        told: dict[str, set[str]] = {}
        for row in connection.execute(
            select(notifications.c.alert_id, notifications.c.event).where(
                notifications.c.alert_id.in_([one.id for one in found])
            )
        ):
            told.setdefault(row.alert_id, set()).add(row.event)
        for event in events_of(found, told):
            for target in targets:
                values = {
                    "alert_id": event.alert_id,
                    "event": event.event,
                    "target": target,
                    "attempts": 0,
                    "next_at": now,
                    "created_at": now,
                }
                connection.execute(insert_ignore(connection, notifications).values(**values))
    by_id = {alert.id: alert for alert in found}
    with reading(context.database) as connection:
        due = select(notifications).where(
            notifications.c.delivered_at.is_(None),
            notifications.c.next_at <= now,
            notifications.c.target.in_(list(targets)),
        )
        waiting = connection.execute(
            due.order_by(notifications.c.created_at, notifications.c.event.desc()).limit(_AT_ONCE)
        ).all()
    done = []
    for row in waiting:
        alert = by_id.get(row.alert_id)
        if alert is None:
            continue
        title, text = message(alert, row.event, context.settings)
        try:
            error = (
                ""
                if send(targets[row.target], title, text, alert.severity)
                else "The address did not accept the message."
            )
        except NotificationError as unreadable:
            error = str(unreadable)
        _mark(context, row, error, now)
        done.append(f"{row.alert_id} {row.event}: {'not accepted' if error else 'told'}")
    return done


def _compare_quality(context: Context, now: int) -> None:
    """Let every open alert say what quality did, before anybody is told of it."""
    with reading(context.database) as connection:
        unknown = [alert.id for alert in open_alerts(connection) if alert.detail.quality is None]
    if unknown:
        refresh_quality(context, now, unknown)


def _mark(context: Context, row: Row[*tuple[object, ...]], error: str, now: int) -> None:
    attempts = row.attempts + 1
    pause = min(_LONGEST_PAUSE_MS, _FIRST_PAUSE_MS * 2 ** min(attempts - 1, 10))
    outcome = (
        {"next_at": now + pause, "error": error} if error else {"delivered_at": now, "error": None}
    )
    key = (
        notifications.c.alert_id == row.alert_id,
        notifications.c.event == row.event,
        notifications.c.target == row.target,
    )
    with writing(context.database) as connection:
        connection.execute(update(notifications).where(*key).values(attempts=attempts, **outcome))
    if error:
        _log.warning(
            "Alert %s could not be told (attempt %d); again in %d s. %s",
            row.alert_id,
            attempts,
            pause // 1000,
            error,
        )


def message(alert: Alert, event: str, settings: Settings) -> tuple[str, str]:
    """(title, text) of one event: what, since when, how bad, where, quality, what to do.

    No conversation is in it.
    """
    is_over = event.startswith("closed")
    if is_over:
        by = f" by {alert.changed_by}" if alert.changed_by else ""
        state = f"{alert.state.capitalize()}{by} {iso(alert.changed_at)}."
        lines = [f"{state} {alert.detail.resolution}".strip()]
    else:
        lines = [text_of_alert(alert).as_text()]
        if back := came_back(alert.detail):
            lines.insert(0, back)
    lines.append(f"{console_url(settings)}/drift/incidents/{alert.id}")
    return f"{'Over: ' if is_over else ''}{alert.title}"[:500], "\n".join(lines)


def tell_alertmanager(context: Context, now: int) -> None:
    """Post every open alert and those that closed within the hour (API v2).

    Alertmanager deduplicates by labels. Raises NotificationError.
    """
    with reading(context.database) as connection:
        recent = or_(alerts.c.open_marker.is_not(None), alerts.c.changed_at >= now - _REPEATED_MS)
        awake = or_(alerts.c.snoozed_until.is_(None), alerts.c.snoozed_until <= now)
        found = alerts_where(connection, recent, awake)
    if not found:
        return
    address, credentials = split_credentials(context.settings.alertmanager_url.rstrip("/"))
    told = [alertmanager_alert(alert, now, context.settings) for alert in found]
    try:
        # Without credentials in the URL, which httpx writes into its log and its errors.
        answer = httpx.post(
            f"{address}/api/v2/alerts", json=told, auth=credentials, timeout=_TIMEOUT_S
        )
        answer.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NotificationError(
            f"The Alertmanager at {mask_url(context.settings.alertmanager_url)} was not told: "
            f"{error}",
            hint="Check WHET_ALERTMANAGER_URL.",
        ) from error


def alertmanager_alert(alert: Alert, now: int, settings: Settings) -> JsonObject:
    """One alert in Alertmanager's form, with the severities of the rules in `deploy/`, by which it
    routes.
    """
    ends = iso(now + 1000 * _LASTS_S) if alert.is_open else iso(alert.changed_at)
    return {
        "labels": {
            "alertname": "WhetDrift",
            "alias": alert.alias,
            "kind": alert.kind,
            "alert": alert.id,
            "severity": _ROUTED[alert.severity],
        },
        "annotations": {
            "summary": alert.title,
            "description": text_of_alert(alert).as_text(),
            "state": alert.state,
        },
        "startsAt": iso(alert.opened_at),
        "endsAt": ends,
        "generatorURL": f"{console_url(settings)}/drift/incidents/{alert.id}",
    }
