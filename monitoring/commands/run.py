"""`whet drift run`: judge the newest traffic of an alias now."""

from __future__ import annotations

from monitoring.commands.reports import print_report
from monitoring.run import run_drift
from whet.cli import opened
from whet.clock import now_ms
from whet.lazy import load

_SNAPSHOT = "monitoring.evidently_report:snapshot"  # importing Evidently takes seconds


def run(*, alias: str | None, report: bool, as_json: bool) -> None:
    """Judge the newest traffic now, store the report and bring the alerts up to date."""
    with opened() as context:
        found = run_drift(
            context,
            alias or context.settings.default_alias,
            now_ms(),
            reporter=load(_SNAPSHOT) if report else None,
        )
    print_report(found, as_json)
