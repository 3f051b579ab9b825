"""What the scheduler calls for feedback: flagging, the retraining policy, retention."""

from __future__ import annotations

from feedback import assignment, comments, flagging, left_out, retraining
from feedback.selection import DAY_MS
from whet.context import Context
from whet.database import reading, writing
from whet.feedback_rules import RATING_LOOKBACK_DAYS
from whet.plugins import Job
from whet.retention import CHECK_EVERY_S, Cleaning, run_nightly
from whet.tables import examples

# A row may reach the database this much after its answer was given, through the gateway's spool;
# the audit looks back so far.
_LATE_ROWS_MS = 15 * 60_000


def jobs(context: Context) -> list[Job]:
    """The jobs; each may run at any time, twice, or on two machines without doing anything twice."""
    # How far the audit has looked since this process started; forgetting it costs one longer query
    looked_until = [0]
    # Day → volumes of the day before it; only today's is kept
    volumes: dict[int, dict[str, int]] = {}

    def flag(now: int) -> str | None:
        audit_from = max(0, looked_until[0] - _LATE_ROWS_MS)
        if (today := now // DAY_MS) not in volumes:
            volumes.clear()
            with reading(context.database) as connection:
                volumes[today] = flagging.volumes_before(connection, now)
        budget = context.settings.review_budget
        added = flagging.flag(
            context.database,
            budget=budget,
            secret=context.secret,
            now=now,
            audit_from=audit_from,
            volumes=volumes[today],
        )
        looked_until[0] = now
        assignment.apply_rules(context.database)
        return ", ".join(f"{count} by {reason}" for reason, count in sorted(added.items())) or None

    def retrain(now: int) -> str | None:
        with reading(context.database) as connection:
            names = retraining.aliases(connection)
        decisions = {alias: retraining.consider(context, alias, now=now) for alias in names}
        return (
            "; ".join(
                f"{alias}: {decision.reason}"
                for alias, decision in decisions.items()
                if decision.ask
            )
            or None
        )

    def clean(cleaning: Cleaning) -> None:
        cleaning.delete_rows("feedback")
        withdrawn = examples.c.withdrawn_at.is_not(None)
        cleaning.delete_of_conversations(examples.c.id, examples.c.interaction_id, withdrawn)
        with writing(context.database) as connection:
            comments.prune(connection)

    def retain(now: int) -> str | None:
        with writing(context.database) as connection:
            left_out.prune(connection, before=now - RATING_LOOKBACK_DAYS * DAY_MS)
        return run_nightly(context, "feedback", clean, now)

    settings = context.settings
    return [
        Job("flagging", settings.flag_interval_s, flag),
        Job("retraining", settings.scheduler_tick_s, retrain),
        Job("review-retention", CHECK_EVERY_S, retain),
    ]
