"""What the scheduler calls: the drift runs, days, hours and error rates of every alias, messages to
people, and the metrics endpoint beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from monitoring.intervals import HOURS_EVERY_S, NOTIFY_EVERY_S, SCORES_EVERY_S
from monitoring.metrics import start_metrics
from whet.context import Context
from whet.lazy import load
from whet.plugins import Job
from whet.retention import CHECK_EVERY_S, run_nightly


def jobs(context: Context) -> list[Job]:
    """The jobs of monitoring; also opens the metrics port of this process.

    Each names the function that does its work, which is imported when it runs first.
    """
    start_metrics(context)
    drift_s = context.settings.drift_interval_s
    return [
        Job("drift", drift_s, _work(context, "monitoring.driftjob:run_all")),
        # Looks as often as drift runs do, and finds something to do once a day
        Job("days", drift_s, _work(context, "monitoring.dayjob:run_days")),
        Job("hours", HOURS_EVERY_S, _work(context, "monitoring.hourjob:run_hours")),
        # A version on trial beside the live one, over the same hours
        Job("control", drift_s, _work(context, "monitoring.control:run_control")),
        # The week's error rate follows the reviewers
        Job("audit", drift_s, _work(context, "monitoring.auditjob:run_audit")),
        # What quality did since each open incident began
        Job("quality", drift_s, _work(context, "monitoring.quality_store:refresh_quality")),
        # Log-probabilities of some answers, asked of the engine after they were given
        Job("scores", SCORES_EVERY_S, _work(context, "monitoring.scores:run_scores")),
        Job("notify", NOTIFY_EVERY_S, partial(_notify, context)),
        Job("drift-retention", CHECK_EVERY_S, partial(_retain, context)),
    ]


def _work(context: Context, target: str) -> Callable[[int], str | None]:
    """The job that calls the function `target`, "module:function", with the context and the time."""

    def run(now: int) -> str | None:
        found: str | None = load(target)(context, now)
        return found

    return run


def _retain(context: Context, now: int) -> str | None:
    """Deletes what is derived of old conversations, once a night."""
    clean = load("monitoring.retention:clean")
    return run_nightly(context, "monitoring", partial(clean, context), now)


def _notify(context: Context, now: int) -> str | None:
    """Imports what sends messages only where there is an address."""
    if not (context.settings.notify_urls or context.settings.alertmanager_url):
        return None
    return _work(context, "monitoring.notify:run_notify")(now)
