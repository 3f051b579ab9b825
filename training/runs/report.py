"""The report that follows a stored version, as long as its share of the run's time allows."""

from __future__ import annotations

import logging

from torch import nn

from training.evaluation.judge import base_beside
from training.evaluation.survey import survey
from training.plan.prepare import Prepared
from training.plan.reporter import Reporter
from training.runs.outcome import Outcome
from whet.context import Context
from whet.errors import StoreError

log = logging.getLogger(__name__)

# How much the report asks beyond the gate's rows: all probes, as many as a quarter of the
# training's time allows, or there is no report.
FULL_REPORT, FIRST_LOOK, NO_REPORT = REPORTS = ("full", "first look", "none")
_REPORT_SHARE = 0.25


def make_report(
    context: Context,
    model: nn.Module,
    prepared: Prepared,
    outcome: Outcome,
    reporter: Reporter,
    report: str,
) -> None:
    """Make the report of a version that is stored already.

    Whoever waits for the version need not wait for it, and a kill meanwhile costs the report alone
    (`whet eval run` makes it again).
    """
    if report == NO_REPORT:
        return
    base = base_beside(prepared)
    answered = sum(len(rows) for rows in (outcome.judgement.ours, outcome.judgement.theirs))
    pace = outcome.seconds["evaluating"] / max(answered, 1)
    limit = (
        int(_REPORT_SHARE * outcome.trained.seconds / max(pace, 1e-9))
        if report == FIRST_LOOK
        else None
    )
    try:
        survey(
            context,
            model,
            prepared.encoder,
            prepared.dataset,
            outcome.judgement,
            name=prepared.alias,
            on_batch=reporter.surveying,
            base=base,
            most_answers=limit,
        )
    except (StoreError, OSError) as error:
        log.warning("The report of %s could not be stored: %s", prepared.alias, error)
