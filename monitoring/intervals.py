"""How often the scheduler runs a job, in seconds, where no setting says it."""

from __future__ import annotations

# An alert is the work of a drift run, which comes every hour: sooner would help nobody
NOTIFY_EVERY_S = 20
SCORES_EVERY_S = 60
HOURS_EVERY_S = 300  # an hour is looked at between 15 and 20 minutes after its end
