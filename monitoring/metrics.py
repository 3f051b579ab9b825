"""Drift, alerts and the review queue for Prometheus, read from the database when it is scraped.

One process (the scheduler) offers them on `metrics_host:metrics_port`. Labels are finite: aliases,
the fixed signals, three severities.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError

from monitoring.gap_queries import count_open_gaps
from monitoring.queries import open_counts
from monitoring.report_store import latest_report
from monitoring.windows import list_aliases
from whet.clock import now_ms
from whet.context import Context
from whet.database import reading
from whet.health.action_items import find_action_items
from whet.health.reading import load_reading
from whet.health.records import HealthReading
from whet.tables import alerts, audit_weeks, drift_days, drift_hours, interactions, review_items

_log = logging.getLogger(__name__)
_started: dict[tuple[str, int], Any] = {}  # one endpoint per process and address
_start = threading.Lock()
SEVERITIES = ("information", "attention", "bad")


def start_metrics(context: Context, *, clock: Callable[[], int] = now_ms) -> bool:
    """Offer the metrics; False when the port is taken, which is logged and stops nothing else.

    Twice is once.
    """
    address = context.settings.metrics_host, context.settings.metrics_port
    with _start:
        if address in _started:
            return True
        registry = CollectorRegistry()
        registry.register(LoopCollector(context, clock))
        try:
            _started[address] = start_http_server(address[1], addr=address[0], registry=registry)
        except OSError as error:
            _log.warning(
                "Metrics are not offered: %s:%d cannot be opened (%s). Set WHET_METRICS_PORT to a"
                " free port.",
                *address,
                error.strerror,
            )
            return False
    return True


def stop_metrics(context: Context) -> None:
    """Close the endpoint, if this process has it open."""
    with _start:
        found = _started.pop((context.settings.metrics_host, context.settings.metrics_port), None)
    if found:
        server, thread = found
        server.shutdown()
        server.server_close()
        thread.join()


class LoopCollector(Collector):
    """Gauges as the database has them at the moment of the scrape."""

    def __init__(self, context: Context, clock: Callable[[], int]) -> None:
        self._context, self._clock = context, clock

    def describe(self) -> list[Any]:
        return []  # nothing is read when registering

    def collect(self) -> Iterator[GaugeMetricFamily]:
        up = GaugeMetricFamily(
            "whet_monitoring_up", "1 when the database could be read for this scrape."
        )
        try:
            with reading(self._context.database) as connection:
                found = [
                    *_drift(connection, self._clock()),
                    *_alerts(connection, self._clock()),
                    *_errors(connection),
                    *_review(connection, self._clock()),
                    *_gaps(connection),
                ]
            found += _health(load_reading(self._context, self._clock()))
        except SQLAlchemyError as error:
            _log.warning("Metrics could not be read: %s", error)
            found = []
        up.add_metric([], 1.0 if found else 0.0)
        yield up
        yield from found


def _drift(connection: Connection, now: int) -> Iterator[GaugeMetricFamily]:
    effect = GaugeMetricFamily(
        "whet_drift_signal_effect",
        "Effect size of each signal in the newest drift report.",
        labels=["alias", "signal"],
    )
    signal_drifted = GaugeMetricFamily(
        "whet_drift_signal_detected",
        "1 when the signal drifted in the newest drift report.",
        labels=["alias", "signal"],
    )
    detected = GaugeMetricFamily(
        "whet_drift_detected", "1 when the newest drift report says drift.", labels=["alias"]
    )
    enough = GaugeMetricFamily(
        "whet_drift_enough_data",
        "1 when the newest drift report had enough data for a verdict.",
        labels=["alias"],
    )
    age = GaugeMetricFamily(
        "whet_drift_report_age_seconds", "Age of the newest drift report.", labels=["alias"]
    )
    day_age = GaugeMetricFamily(
        "whet_drift_day_age_seconds",
        "Time since the end of the newest day that was judged against the alias's history or kept"
        " for it.",
        labels=["alias"],
    )
    hour_age = GaugeMetricFamily(
        "whet_drift_hour_age_seconds",
        "Time since the end of the newest hour that was judged, where the volume carries hours.",
        labels=["alias"],
    )
    last = GaugeMetricFamily(
        "whet_interaction_age_seconds", "Age of the newest logged interaction.", labels=["alias"]
    )
    for alias in list_aliases(connection):
        newest = connection.scalar(
            select(func.max(interactions.c.created_at)).where(interactions.c.alias == alias)
        )
        if newest is not None:
            last.add_metric([alias], (now - newest) / 1000)
        newest_day = connection.scalar(
            select(func.max(drift_days.c.day)).where(drift_days.c.alias == alias)
        )
        if newest_day is not None:
            day_age.add_metric([alias], now / 1000 - (newest_day + 1) * 86_400)
        newest_hour = connection.scalar(
            select(func.max(drift_hours.c.hour)).where(
                drift_hours.c.alias == alias, drift_hours.c.judged
            )
        )
        if newest_hour is not None:
            hour_age.add_metric([alias], now / 1000 - (newest_hour + 1) * 3_600)
        report = latest_report(connection, alias)
        if report is None:
            continue
        detected.add_metric([alias], float(report.verdict == "drift"))
        enough.add_metric([alias], float(report.verdict != "not_enough_data"))
        age.add_metric([alias], (now - report.created_at) / 1000)
        for signal in report.signals or ():
            if signal.effect is not None:
                effect.add_metric([alias, signal.name], signal.effect)
                signal_drifted.add_metric([alias, signal.name], float(signal.drifted))
    yield from (effect, signal_drifted, detected, enough, age, day_age, hour_age, last)


def _alerts(connection: Connection, now: int) -> Iterator[GaugeMetricFamily]:
    counts = open_counts(connection)
    total = GaugeMetricFamily(
        "whet_alerts_open", "Alerts that are open or acknowledged.", labels=["severity"]
    )
    for severity in SEVERITIES:
        total.add_metric([severity], counts.get(severity, 0))
    oldest = connection.scalar(
        select(func.min(alerts.c.opened_at)).where(
            alerts.c.state == "open", alerts.c.open_marker.is_not(None)
        )
    )
    age = GaugeMetricFamily(
        "whet_alert_unacknowledged_age_seconds",
        "Age of the oldest alert that nobody has acknowledged; 0 without one.",
    )
    age.add_metric([], (now - oldest) / 1000 if oldest is not None else 0.0)
    yield from (total, age)


def _errors(connection: Connection) -> Iterator[GaugeMetricFamily]:
    rate = GaugeMetricFamily(
        "whet_answer_error_rate",
        "Share of wrong answers in the newest week with judgements, by the random audit.",
        labels=["alias", "bound"],
    )
    judged = GaugeMetricFamily(
        "whet_answers_judged", "Answers drawn at random and judged, of that week.", labels=["alias"]
    )
    for alias in list_aliases(connection):
        query = (
            select(audit_weeks)
            .where(audit_weeks.c.alias == alias, audit_weeks.c.judged > 0)
            .order_by(audit_weeks.c.week.desc())
            .limit(1)
        )
        row = connection.execute(query).first()
        if row is not None:
            judged.add_metric([alias], row.judged)
            for bound, value in (("estimate", row.rate), ("low", row.low), ("high", row.high)):
                rate.add_metric([alias, bound], value)
    yield from (rate, judged)


def _review(connection: Connection, now: int) -> Iterator[GaugeMetricFamily]:
    waiting, oldest = connection.execute(
        select(func.count(), func.min(review_items.c.created_at)).where(
            review_items.c.state == "waiting"
        )
    ).one()
    count = GaugeMetricFamily("whet_review_waiting", "Conversations that wait for a reviewer.")
    count.add_metric([], waiting)
    age = GaugeMetricFamily(
        "whet_review_oldest_age_seconds", "Age of the longest waiting conversation; 0 without one."
    )
    age.add_metric([], (now - oldest) / 1000 if oldest is not None else 0.0)
    yield from (count, age)


def _health(found: HealthReading) -> list[GaugeMetricFamily]:
    """What needs a person, as Overview lists it; only codes that there are now."""
    count = GaugeMetricFamily(
        "whet_action_items",
        "Things that need a person, by kind, as the console's Overview lists them.",
        labels=["code"],
    )
    age = GaugeMetricFamily(
        "whet_action_item_age_seconds",
        "Age of the oldest of them, where since when is known.",
        labels=["code"],
    )
    items = find_action_items(found)
    for code in sorted({item.code for item in items}):
        mine = [item for item in items if item.code == code]
        count.add_metric([code], len(mine))
        begun = [item.since for item in mine if item.since is not None]
        if begun:
            age.add_metric([code], (found.now - min(begun)) / 1000)
    return [count, age]


def _gaps(connection: Connection) -> Iterator[GaugeMetricFamily]:
    gaps = GaugeMetricFamily(
        "whet_retrieval_gaps",
        "Subjects of questions that find nothing, not dismissed.",
        labels=["alias"],
    )
    for alias, count in sorted(count_open_gaps(connection).items()):
        gaps.add_metric([alias], count)
    yield gaps
