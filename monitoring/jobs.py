"""What the scheduler calls: the drift runs, days, hours and error rates of every alias, messages to
people, and the metrics endpoint beside them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from whet.context import Context
from whet.plugins import Job
from whet.retention import CHECK_EVERY_S, run_nightly

if TYPE_CHECKING:
    from monitoring.rows import Row
    from monitoring.verdict import Verdict

# An alert is the work of a drift run, which comes every hour: sooner would help nobody
_NOTIFY_EVERY_S = 20
SCORES_EVERY_S = 60
_HOURS_EVERY_S = 300  # an hour is looked at between 15 and 20 minutes after its end
# A drift that lasts looks the same in the next run; below the default interval of an hour, so that
# those runs keep theirs
_DRIFT_REPORT_MS = 3_000_000
# A quiet day needs one Evidently report; each costs seconds of CPU and half a megabyte
_QUIET_REPORT_MS = 24 * 3_600_000


def jobs(context: Context) -> list[Job]:
    """The drift job; also opens the metrics port of this process."""
    from monitoring.metrics import start_metrics

    start_metrics(context)
    return [
        Job("drift", context.settings.drift_interval_s, lambda now: run_all(context, now)),
        Job("days", context.settings.drift_interval_s, lambda now: _days(context, now)),
        Job("hours", _HOURS_EVERY_S, lambda now: _hours(context, now)),
        Job("control", context.settings.drift_interval_s, lambda now: _control(context, now)),
        Job("audit", context.settings.drift_interval_s, lambda now: _audit(context, now)),
        Job("quality", context.settings.drift_interval_s, lambda now: _quality(context, now)),
        Job("scores", SCORES_EVERY_S, lambda now: _scores(context, now)),
        Job("notify", _NOTIFY_EVERY_S, lambda now: _notify(context, now)),
        Job("drift-retention", CHECK_EVERY_S, lambda now: _retain(context, now)),
    ]


def _retain(context: Context, now: int) -> str | None:
    """Deletes what is derived of old conversations, once a night."""
    from monitoring.retention import clean

    return run_nightly(context, "monitoring", partial(clean, context), now)


def _notify(context: Context, now: int) -> str | None:
    if not (context.settings.notify_urls or context.settings.alertmanager_url):
        return None
    from monitoring.notify import run_notify

    return run_notify(context, now)


def _days(context: Context, now: int) -> str | None:
    """Looks as often as drift runs do, and finds something to do once a day."""
    from monitoring.dayjob import run_days

    return run_days(context, now)


def _hours(context: Context, now: int) -> str | None:
    """Finds something to do once an hour."""
    from monitoring.hourjob import run_hours

    return run_hours(context, now)


def _control(context: Context, now: int) -> str | None:
    """A version on trial beside the live one, over the same hours."""
    from monitoring.control import run_control

    return run_control(context, now)


def _audit(context: Context, now: int) -> str | None:
    """The week's error rate follows the reviewers."""
    from monitoring.auditjob import run_audit

    return run_audit(context, now)


def _quality(context: Context, now: int) -> str | None:
    """What quality did since each open incident began."""
    from monitoring.quality_store import refresh_quality

    return refresh_quality(context, now)


def _scores(context: Context, now: int) -> str | None:
    """Log-probabilities of some answers, asked of the engine after they were given."""
    from monitoring.scores import run_scores

    return run_scores(context, now)


def run_all(context: Context, now: int) -> str | None:
    """Run drift for each alias with something new."""
    from monitoring.each import for_each_alias
    from monitoring.run import has_news

    return for_each_alias(
        context,
        "The drift run",
        lambda alias: _run_one(context, alias, now) if has_news(context, alias, now) else "",
    )


def _run_one(context: Context, alias: str, now: int) -> str:
    """One run with Evidently's report where it is worth its cost: of a drift that is new, hourly
    while it lasts, and once a day of quiet traffic.
    """
    from monitoring.evidently_report import render, snapshot
    from monitoring.queries import last_snapshot_at, latest_report
    from monitoring.rendering import keep_page
    from monitoring.run import prune_snapshots, run_drift
    from whet.database import reading

    with reading(context.database) as connection:
        last = last_snapshot_at(connection, alias)
        before = latest_report(connection, alias)
    age = math.inf if last is None else now - last
    lasts = before is not None and before["verdict"] == "drift" and age < _DRIFT_REPORT_MS
    made: list[dict[str, Any]] = []

    def reporter(
        reference: Sequence[Row], window: Sequence[Row], verdict: Verdict
    ) -> dict[str, Any] | None:
        if (verdict.state == "drift" and not lasts) or age >= _QUIET_REPORT_MS:
            made.append(snapshot(reference, window, verdict))
        return made[0] if made else None

    report = run_drift(context, alias, now, reporter=reporter)
    if made and report["verdict"] == "drift" and report["report_path"]:
        # Rendering costs 0.2 s here, where Evidently is loaded already, and 5 to 20 s for an
        # operator who waits for it.
        keep_page(context, report["id"], render(made[0]).encode())
    prune_snapshots(context, alias)
    return str(report["verdict"])
