"""The drift run of every alias with something new, with Evidently's report where it is worth it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from monitoring.each import for_each_alias
from monitoring.rendering import keep_page
from monitoring.report_store import last_snapshot_at, latest_report
from monitoring.rows import Row
from monitoring.run import has_news, prune_snapshots, run_drift
from monitoring.verdict import Verdict
from whet.context import Context
from whet.database import reading
from whet.json_types import JsonObject
from whet.lazy import load

# Imported for the first report alone: Evidently takes seconds and 200 MB
_SNAPSHOT = "monitoring.evidently_report:snapshot"
_RENDER = "monitoring.evidently_report:render"
# A drift that lasts looks the same in the next run; below the default interval of an hour, so that
# those runs keep theirs
_DRIFT_REPORT_MS = 3_000_000
# A quiet day needs one Evidently report; each costs seconds of CPU and half a megabyte
_QUIET_REPORT_MS = 24 * 3_600_000


def run_all(context: Context, now: int) -> str | None:
    """Run drift for each alias with something new."""
    return for_each_alias(
        context,
        "The drift run",
        lambda alias: _run_one(context, alias, now) if has_news(context, alias, now) else "",
    )


def _run_one(context: Context, alias: str, now: int) -> str:
    """One run with Evidently's report where it is worth its cost: of a drift that is new, hourly
    while it lasts, and once a day of quiet traffic.
    """
    with reading(context.database) as connection:
        last = last_snapshot_at(connection, alias)
        before = latest_report(connection, alias)
    age = math.inf if last is None else now - last
    lasts = before is not None and before.verdict == "drift" and age < _DRIFT_REPORT_MS
    made: list[JsonObject] = []

    def reporter(
        reference: Sequence[Row], window: Sequence[Row], verdict: Verdict
    ) -> JsonObject | None:
        if (verdict.state == "drift" and not lasts) or age >= _QUIET_REPORT_MS:
            made.append(load(_SNAPSHOT)(reference, window, verdict))
        return made[0] if made else None

    report = run_drift(context, alias, now, reporter=reporter)
    if made and report.verdict == "drift" and report.report_path:
        # Rendering costs 0.2 s here, where Evidently is loaded already, and 5 to 20 s for an
        # operator who waits for it.
        keep_page(context, report.id, load(_RENDER)(made[0]).encode())
    prune_snapshots(context, alias)
    return report.verdict
