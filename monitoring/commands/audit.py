"""`whet drift audit`: error rates by week."""

from __future__ import annotations

from monitoring.auditjob import run_alias
from monitoring.detector.columns import date_of
from monitoring.history_store import newest_weeks
from monitoring.windows import require_alias
from whet.cli import emit, opened
from whet.clock import now_ms
from whet.database import reading


def show_weeks(*, alias: str | None, as_json: bool) -> None:
    """Error rates by week, with 95 % intervals, from the answers that were drawn at random and
    judged.
    """
    with opened() as context:
        name = alias or context.settings.default_alias
        with reading(context.database) as connection:
            require_alias(connection, name)
        run_alias(context, name, now_ms())
        with reading(context.database) as connection:
            rows = newest_weeks(connection, name, 26)
    emit(
        [{**row.as_json(), "week_of": date_of(row.week).isoformat()} for row in rows],
        as_json,
        columns=[
            "week_of",
            "drawn",
            "judged",
            "wrong",
            "rate",
            "low",
            "high",
            "usual",
            "verdict",
            "sentence",
        ],
        title="error rates by week",
    )
