"""A version on trial beside the one that is live, over the same hours: concurrent control, so that
what the world does that day concerns both alike.

Only harm is looked for: refusals, empty, repeating or broken answers, thumbs down, slowness. That a
retrained version words its answers differently is what it was trained for. The rollout's own
verdict (serving) counts failures and ratings; this names what it cannot see.
"""

from __future__ import annotations

import math
from typing import Literal

from sqlalchemy import Connection, select

from monitoring.alert_store import alerts_of_kind
from monitoring.alerting import MAX_EXAMPLES, Change, resolved
from monitoring.each import for_each_alias
from monitoring.rows import Row
from monitoring.run import apply
from monitoring.verdict import Finding, Rules, judge
from monitoring.windows import Key, cap_per_user, fetch_rows
from whet.context import Context
from whet.database import reading, writing
from whet.records.monitoring import AlertDetail, AlertSignal
from whet.registry import current_rollouts, list_adapters
from whet.settings import Settings
from whet.tables import interactions

KIND: Literal["candidate"] = "candidate"
_HARM = ("refusal", "empty", "repetition", "broken_json", "thumbs_down", "ttft", "time_per_token")
_RAW_FACTOR = 10  # keys read per row kept, as for the windows


def run_control(context: Context, now: int) -> str | None:
    """Compare every version on trial with the live one, once."""

    def one(alias: str) -> str:
        with reading(context.database) as connection:
            live = current_rollouts(connection).get(alias)
            trial = live.candidate_digest if live and live.state == "canary" else None
            digests = (live.stable_digest, trial) if live and trial else ()
            arms = (
                [
                    _rows(connection, alias, digest, live.created_at, now, context.settings)
                    for digest in digests
                ]
                if live
                else []
            )
        found = worse(arms[0], arms[1], rules_of(context.settings)) if arms else []
        with writing(context.database) as connection:
            _tell(connection, alias, trial, found, now)
        return "the version on trial does worse" if found else ""

    return for_each_alias(context, "Comparing the version on trial", one)


def rules_of(settings: Settings) -> Rules:
    """A trial lasts some hours and is looked at in each: all its looks together err as often as one
    drift run may.
    """
    looks = max(1, math.ceil(settings.rollout_max_hours * 3600 / settings.drift_interval_s))
    return Rules(alpha=settings.drift_alpha / looks, min_rows=settings.drift_min_rows)


def worse(stable: list[Row], trial: list[Row], rules: Rules) -> list[Finding]:
    """Signals by which the version on trial harms more than the live one; none while there are too
    few answers of either.
    """
    drifted = [
        finding
        for finding in judge(stable, trial, rules).findings
        if finding.state == "drift" and finding.signal.name in _HARM
    ]
    return [
        finding
        for finding in drifted
        if finding.comparison
        and (finding.comparison.window or 0) > (finding.comparison.reference or 0)
    ]


def _rows(
    connection: Connection, alias: str, digest: str | None, since: int, now: int, settings: Settings
) -> list[Row]:
    """Answers of one version since the trial began, newest first where there are many, a few per
    user.
    """
    own = interactions.c.adapter_digest
    query = (
        select(interactions.c.created_at, interactions.c.id, interactions.c.end_user)
        .where(
            interactions.c.alias == alias,
            own.is_(None) if digest is None else own == digest,
            interactions.c.created_at.between(since, now),
            interactions.c.status.in_(("complete", "cut")),
            interactions.c.http_status == 200,
        )
        .order_by(interactions.c.created_at.desc(), interactions.c.id.desc())
        .limit(_RAW_FACTOR * settings.drift_window)
    )
    keys = [Key(*row) for row in connection.execute(query)]
    return fetch_rows(
        connection,
        cap_per_user(
            keys, settings.drift_rows_per_user, settings.drift_window, settings.drift_min_rows
        ),
    )


def _tell(
    connection: Connection, alias: str, trial: str | None, found: list[Finding], now: int
) -> None:
    known = alerts_of_kind(connection, alias, KIND)
    for alert in known:
        if alert.is_open and alert.detail.adapter_digest != trial:
            detail = resolved(alert.detail, "It is no longer on trial.")
            apply(connection, alias, Change("resolve", KIND, alert.title, detail, alert.id), now)
    if not found or trial is None or any(alert.detail.adapter_digest == trial for alert in known):
        return  # one alert per trial of a version: whoever closed it has been told
    label = next(
        (
            adapter.label
            for adapter in list_adapters(connection, alias, removed=True)
            if adapter.digest == trial
        ),
        trial[:8],
    )
    title = (
        f"{alias}: {label}, on trial, does worse than the live version at the same time."
        f" {' '.join(finding.sentence for finding in found)}"
    )
    key = f"{KIND}:{alias}:{trial[:16]}"
    apply(
        connection,
        alias,
        Change("open", KIND, title, _detail(trial, found, now), severity="attention", key=key),
        now,
    )


def _detail(trial: str, found: list[Finding], now: int) -> AlertDetail:
    ids = [name for finding in found if finding.comparison for name in finding.comparison.examples]
    signals = [finding.record().model_copy(update={"series": []}) for finding in found]
    return AlertDetail(
        adapter_digest=trial,
        interaction_ids=list(dict.fromkeys(ids))[:MAX_EXAMPLES],
        signals=[AlertSignal.model_validate(one.as_json()) for one in signals],
        since_at=now,
    )
