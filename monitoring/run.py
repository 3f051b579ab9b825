"""One drift run of one alias: read two windows, judge, store the report, bring the alerts up to
date.

The only writer of `drift_reports` and `alerts`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, insert, select, update

from monitoring.alert_store import Alert, load_alerts, open_alerts
from monitoring.alerting import Change, Spans, dedup_key, plan
from monitoring.flapping import FLAP_MS
from monitoring.report_store import DriftReport
from monitoring.rows import Row
from monitoring.verdict import Rules, Verdict, judge
from monitoring.windows import Windows, current_epoch, read_windows, require_alias
from whet.context import Context
from whet.database import insert_ignore, reading, writing
from whet.errors import StoreError
from whet.ids import new_id
from whet.json_types import JsonObject
from whet.records.monitoring import ALERT_DETAIL
from whet.settings import Settings
from whet.tables import alerts, drift_reports, interactions

_log = logging.getLogger(__name__)
MONITORING = "monitoring"  # who closes and reopens alerts without a person

# (reference, window, verdict) → Evidently's stored snapshot; given from outside so that tests can
# do without its import.
Reporter = Callable[[Sequence[Row], Sequence[Row], Verdict], JsonObject | None]


def run_drift(
    context: Context, alias: str, now: int, *, reporter: Reporter | None = None
) -> DriftReport:
    """Judge the newest traffic of `alias` and return the stored report.

    `reporter` makes Evidently's report of the two windows; without one, none is stored. Raises
    NotFoundError for an alias that has neither traffic nor a rollout.
    """
    settings = context.settings
    with reading(context.database) as connection:
        require_alias(connection, alias)
        windows = read_windows(
            connection, alias, now=now, size=settings.drift_window, min_rows=settings.drift_min_rows,
            per_user=settings.drift_rows_per_user, frozen=_frozen_reference(connection, alias),
        )  # fmt: skip
    verdict = (
        Verdict("not_enough_data", windows.shortage)
        if windows.shortage
        else judge(windows.reference, windows.window, rules_of(settings))
    )
    report = _report_row(alias, windows, verdict, now)
    if reporter and verdict.findings:
        made = reporter(windows.reference, windows.window, verdict)
        report = report.with_path(_store_snapshot(context, report.id, made) if made else None)
    with writing(context.database) as connection:
        connection.execute(insert(drift_reports).values(**report.values()))
        known = _by_kind(connection, alias)
        for change in plan(
            alias,
            verdict,
            known,
            gone=_resolved_alerts(connection, alias, now),
            report_id=report.id,
            stable_digest=windows.epoch.stable_digest,
            spans=Spans(
                report.reference_from, report.reference_to, report.window_from, report.window_to
            ),
            now=now,
        ):
            apply(connection, alias, change, now)
    return report


def rules_of(settings: Settings) -> Rules:
    return Rules(alpha=settings.drift_alpha, min_rows=settings.drift_min_rows)


def has_news(context: Context, alias: str, now: int) -> bool:
    """Whether anything that a run would look at changed since the last report: new conversations,
    or another version.
    """
    with reading(context.database) as connection:
        last = connection.execute(
            select(drift_reports.c.created_at)
            .where(drift_reports.c.alias == alias)
            .order_by(drift_reports.c.created_at.desc())
            .limit(1)
        ).scalar()
        if last is None or current_epoch(connection, alias).since_at > last:
            return True
        # Answers take time, so one that began before the last run can have been completed after it.
        began = interactions.c.created_at.between(last - _LATE_MS, now)
        news = (
            select(interactions.c.id)
            .where(interactions.c.alias == alias, began, interactions.c.completed_at > last)
            .limit(1)
        )
        return connection.execute(news).first() is not None


def prune_snapshots(context: Context, alias: str) -> int:
    """Remove Evidently's snapshots of all but the newest reports and those that opened a standing
    alert; returns how many.

    Verdicts and signals stay: only the drill-down of old quiet runs goes.
    """
    with reading(context.database) as connection:
        kept = {
            report
            for alert in open_alerts(connection, alias)
            for report in alert.detail.reports[:1]
        }
        query = select(drift_reports.c.id, drift_reports.c.report_path).where(
            drift_reports.c.alias == alias, drift_reports.c.report_path.is_not(None)
        )
        old = connection.execute(
            query.order_by(drift_reports.c.created_at.desc()).offset(SNAPSHOTS_KEPT)
        ).all()
    removed = [row for row in old if row.id not in kept]
    for row in removed:
        # The row first: a path without a file would be an error page
        with writing(context.database) as connection:
            connection.execute(
                update(drift_reports).where(drift_reports.c.id == row.id).values(report_path=None)
            )
        context.store.remove_folder(row.report_path)
    return len(removed)


_LATE_MS = 900_000  # longest answer plus spool delay that is looked for
SNAPSHOTS_KEPT = 100  # per alias, 0.5 MB each: four days of hourly runs


def _frozen_reference(connection: Connection, alias: str) -> tuple[int, int] | None:
    """The reference of the oldest open alert: while it is open, what it was compared with stays
    what is normal.
    """
    found = [alert.detail for alert in _by_kind(connection, alias).values()]
    spans = [
        (detail.reference_from, detail.reference_to)
        for detail in found
        if detail.reference_from is not None and detail.reference_to is not None
    ]
    return min(spans, default=None)


def _by_kind(connection: Connection, alias: str) -> dict[str, Alert]:
    """Kind → its open alert; the newest where several are open."""
    return {alert.kind: alert for alert in open_alerts(connection, alias)}


def _resolved_alerts(connection: Connection, alias: str, now: int) -> dict[str, Alert]:
    """Read the newest alert of each kind that resolved itself a short while ago.

    What a person closed is not among them: the next change is news to that person.
    """
    query = select(alerts).where(
        alerts.c.alias == alias,
        alerts.c.state == "resolved",
        alerts.c.changed_by == MONITORING,
        alerts.c.changed_at > now - FLAP_MS,
    )
    found = load_alerts(connection, query.order_by(alerts.c.changed_at))
    return {alert.kind: alert for alert in found if alert.detail.incident is None}


def _report_row(alias: str, windows: Windows, verdict: Verdict, now: int) -> DriftReport:
    def span(rows: Sequence[Row]) -> tuple[int | None, int | None]:
        return (rows[0].created_at, rows[-1].created_at) if rows else (None, None)

    reference_from, reference_to = span(windows.reference)
    window_from, window_to = span(windows.window)
    return DriftReport(
        id=new_id("drf", at=now),
        alias=alias,
        reference_from=reference_from,
        reference_to=reference_to,
        window_from=window_from,
        window_to=window_to,
        n_reference=len(windows.reference),
        n_window=len(windows.window),
        verdict=verdict.state,
        summary=verdict.summary,
        signals=tuple(finding.record() for finding in verdict.findings),
        created_at=now,
    )


def _store_snapshot(context: Context, report_id: str, snapshot: JsonObject) -> str | None:
    """A full disk must not cost the verdict: the report is then without its drill-down, and the log
    says why.
    """
    try:
        return context.store.put_json(f"reports/drift/{report_id}.json", snapshot)
    except (OSError, StoreError) as error:
        _log.warning("The Evidently report of %s could not be stored: %s", report_id, error)
        return None


def apply(connection: Connection, alias: str, change: Change, now: int) -> None:
    """Carry out one planned change inside the run's transaction."""
    if change.deed == "open":
        key = change.key or dedup_key(alias, change.kind)
        row = {
            "dedup_key": key,
            "alias": alias,
            "kind": change.kind,
            "severity": change.severity,
            "title": change.title,
            "detail": ALERT_DETAIL.encode(change.detail),
        }
        standing = {
            "state": "open",
            "opened_at": now,
            "changed_at": now,
            "changed_by": None,
            "open_marker": key,
        }
        connection.execute(
            insert_ignore(connection, alerts).values(id=new_id("alr", at=now), **row, **standing)
        )
        return
    if change.deed == "reopen":
        _reopen(connection, change, now)
        return
    values: dict[str, object] = {
        "detail": ALERT_DETAIL.encode(change.detail),
        "title": change.title,
        **({"severity": change.severity} if change.severity else {}),
    }
    if change.deed == "resolve":
        values |= {
            "state": "resolved",
            "open_marker": None,
            "changed_at": now,
            "changed_by": MONITORING,
        }
    # Guarded by the marker: an operator may have closed it between reading and writing.
    connection.execute(
        update(alerts)
        .where(alerts.c.id == change.alert_id, alerts.c.open_marker.is_not(None))
        .values(**values)
    )


def _reopen(connection: Connection, change: Change, now: int) -> None:
    """Open a resolved alert again, unless another one of its key is open."""
    other = alerts.alias()
    key = select(alerts.c.dedup_key).where(alerts.c.id == change.alert_id).scalar_subquery()
    taken = select(other.c.id).where(other.c.open_marker == key).exists()
    connection.execute(
        update(alerts)
        .where(alerts.c.id == change.alert_id, alerts.c.open_marker.is_(None), ~taken)
        .values(
            detail=ALERT_DETAIL.encode(change.detail), title=change.title, state="open",
            changed_at=now, changed_by=MONITORING, open_marker=alerts.c.dedup_key,
        )
    )  # fmt: skip
