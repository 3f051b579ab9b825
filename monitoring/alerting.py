"""What a verdict does to the alerts of an alias: open, extend, resolve.

The plan is pure; `apply` in run.py carries it out.

Five things open alerts: a drift run that compares two windows (`plan`), a day or hour that is
judged against the alias's own history (`plan_incident`), a week in which more answers were judged
wrong (auditjob.py), a version that answers as its base does (scores.py), and one on trial that does
worse than the live one at the same time (control.py). What two windows show is information, however
large it looks, since they cannot know what a normal week is; the others decide what is grave.

One alert per alias and kind is open at a time (`open_marker` is unique). It collects the
conversations that show the change, so that a review batch can be made of exactly these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, zip_longest
from typing import Literal, NamedTuple

from monitoring.alert_store import Alert
from monitoring.detector.incidents import with_topic_names
from monitoring.flapping import quiet_runs_needed, times_reopened
from monitoring.signals import KIND_TITLES, Kind
from monitoring.verdict import Finding, Verdict
from whet.records.monitoring import (
    AlertDetail,
    AlertSignal,
    EvidenceRecord,
    IncidentRecord,
    WordShare,
)

MAX_EXAMPLES = 200  # conversations kept per alert: a day's review budget
_MAX_REPORTS = 100  # report ids kept per alert, newest last

# Latency alone harms no answer, and its objectives have rules of their own; falling ratings mean
# wrong answers.
SEVERITY: dict[Kind, str] = {
    "questions": "attention",
    "retrieval": "attention",
    "answers": "attention",
    "quality": "bad",
    "service": "information",
}
# Reading slow conversations corrects nothing.
REVIEWABLE: frozenset[Kind] = frozenset({"questions", "retrieval", "answers", "quality"})


class Spans(NamedTuple):
    """First and last instant (ms) of the two samples of a report; None for an empty one."""

    reference_from: int | None
    reference_to: int | None
    window_from: int | None
    window_to: int | None


@dataclass(frozen=True)
class Change:
    """One change to make."""

    deed: Literal["open", "reopen", "extend", "resolve"]
    kind: Kind | Literal["errors", "adapter", "candidate"]
    title: str
    detail: AlertDetail
    alert_id: str | None = None  # None when opening
    severity: str = ""  # empty: as it is
    key: str = ""  # what may be open once; empty: one of the alias and kind


def dedup_key(alias: str, kind: str) -> str:
    return f"drift:{alias}:{kind}"


def plan(
    alias: str,
    verdict: Verdict,
    open_alerts: Mapping[str, Alert],
    *,
    gone: Mapping[str, Alert],
    report_id: str,
    stable_digest: str | None,
    spans: Spans,
    now: int,
) -> list[Change]:
    """Changes that follow from one verdict.

    `open_alerts`: kind → its open or acknowledged alert. `gone`: kind → the newest alert that
    resolved itself within `FLAP_MS`.
    """
    if verdict.state == "not_enough_data":
        return []
    changes = []
    for kind in KIND_TITLES:
        drifted, alert = verdict.drifted(kind), open_alerts.get(kind)
        before = gone.get(kind)
        is_back = before is not None and before.detail.stable_digest == stable_digest
        if drifted and alert is None and before is not None and is_back:
            changes.append(_reopened(alias, kind, before, drifted, report_id))
        elif drifted and alert is None:
            detail = _opened(kind, drifted, report_id, stable_digest, spans, now)
            changes.append(
                Change("open", kind, _title(alias, kind, drifted), detail, severity="information")
            )
        elif drifted and alert is not None and _seen_by_day(alert):
            detail = _joined(alert.detail, kind, drifted, report_id)
            changes.append(Change("extend", kind, alert.title, detail, alert.id))
        elif drifted and alert is not None:
            detail = _extended(alert.detail, kind, drifted, report_id)
            changes.append(Change("extend", kind, _title(alias, kind, drifted), detail, alert.id))
        elif alert is not None:
            changes.append(_quiet(kind, alert, report_id, stable_digest))
    return changes


def _opened(
    kind: Kind,
    drifted: Sequence[Finding],
    report_id: str,
    digest: str | None,
    spans: Spans,
    now: int,
) -> AlertDetail:
    starts = [f.comparison.since_at for f in drifted if f.comparison and f.comparison.since_at]
    return AlertDetail(
        signals=[_shown(finding) for finding in drifted],
        words=_words(drifted),
        interaction_ids=_examples(kind, drifted),
        drift_report_id=report_id,
        reports=[report_id],
        stable_digest=digest,
        since_at=min(starts) if starts else spans.window_from or now,
        since_is_exact=bool(starts),
        quiet_runs=0,
        reference_from=spans.reference_from,
        reference_to=spans.reference_to,
        window_from=spans.window_from,
        window_to=spans.window_to,
    )


def _reopened(
    alias: str, kind: Kind, alert: Alert, drifted: Sequence[Finding], report_id: str
) -> Change:
    """The same change again: one alert that comes and goes, not one after the other."""
    detail = _extended(alert.detail, kind, drifted, report_id)
    again = {"reopened": times_reopened(detail) + 1, "resolution": ""}
    title = _title(alias, kind, drifted)
    return Change("reopen", kind, title, detail.model_copy(update=again), alert.id)


def _words(drifted: Sequence[Finding]) -> list[WordShare]:
    """Each word once, as the first signal that names it tells it."""
    words: dict[str, WordShare] = {}
    for finding in drifted:
        for item in finding.record().words:
            words.setdefault(item.word, item)
    return list(words.values())


def _shown(finding: Finding) -> AlertSignal:
    """What an incident's page needs of a signal, so that it can be read when the reports are gone."""
    whole = finding.record()
    return AlertSignal(
        name=whole.name,
        label=whole.label,
        unit=whole.unit,
        shape=whole.shape,
        sentence=whole.sentence,
        reference=whole.reference,
        window=whole.window,
        effect=whole.effect,
        adjusted_p_value=whole.adjusted_p_value,
        series=whole.series,
    )


def _examples(kind: Kind, drifted: Sequence[Finding]) -> list[str]:
    """The signals' examples in turn, so that each is represented, each conversation once."""
    if kind not in REVIEWABLE:
        return []
    lists = [f.comparison.examples for f in drifted if f.comparison]
    mixed = (item for item in chain.from_iterable(zip_longest(*lists)) if item is not None)
    return list(dict.fromkeys(mixed))[:MAX_EXAMPLES]


def _extended(
    detail: AlertDetail, kind: Kind, drifted: Sequence[Finding], report_id: str
) -> AlertDetail:
    """Newest evidence first; what earlier runs collected stays while there is room."""
    ids = list(dict.fromkeys([*_examples(kind, drifted), *detail.interaction_ids]))
    return detail.model_copy(
        update={
            "signals": [_shown(finding) for finding in drifted],
            "words": _words(drifted),
            "interaction_ids": ids[:MAX_EXAMPLES],
            "drift_report_id": report_id,
            "reports": [*detail.reports, report_id][-_MAX_REPORTS:],
            "quiet_runs": 0,
        }
    )


def _seen_by_day(alert: Alert) -> bool:
    """Whether the alert stands for an incident that is still open in the alias's own history."""
    return alert.detail.incident is not None and alert.detail.incident.state == "open"


def _joined(
    detail: AlertDetail, kind: Kind, drifted: Sequence[Finding], report_id: str
) -> AlertDetail:
    """What a run adds to an incident of the days: words, conversations and its report.

    The days' own evidence stays as it is.
    """
    extended = _extended(detail, kind, drifted, report_id)
    own = {"signals": detail.signals, "words": extended.words or detail.words}
    return extended.model_copy(update=own)


def _quiet(kind: Kind, alert: Alert, report_id: str, stable_digest: str | None) -> Change:
    quiet = alert.detail.quiet_runs + 1
    reports = [*alert.detail.reports, report_id][-_MAX_REPORTS:]
    detail = alert.detail.model_copy(update={"quiet_runs": quiet, "reports": reports})
    # Two windows can look alike while both differ from the history; the days decide when it is over
    if _seen_by_day(alert):
        return Change("extend", kind, alert.title, detail, alert.id)
    if detail.stable_digest != stable_digest:
        why = "Another version went live, and its traffic is as it was when it started."
        return Change("resolve", kind, alert.title, resolved(detail, why), alert.id)
    if quiet >= quiet_runs_needed(detail):
        why = f"Nothing of it was seen in {quiet} runs."
        return Change("resolve", kind, alert.title, resolved(detail, why), alert.id)
    return Change("extend", kind, alert.title, detail, alert.id)


def resolved(detail: AlertDetail, why: str) -> AlertDetail:
    """Return the detail with why the alert is over."""
    return detail.model_copy(update={"resolution": why})


def plan_incident(
    alias: str,
    kind: Kind,
    found: IncidentRecord,
    series: Mapping[str, list[list[float]]],
    known: Sequence[Alert],
) -> Change | None:
    """What an incident of the days does to the alerts; None where there is nothing to do.

    `series`: of each piece of evidence, by its place, [instant (ms), level] per day. `known`: the
    alias's open alerts, and those of any state that stand for this incident.
    """
    mine = next(
        (one for one in known if one.detail.incident and one.detail.incident.id == found.id), None
    )
    if mine is not None and mine.state not in ("open", "acknowledged"):
        return None  # a person closed it
    if found.state != "open":
        if mine is None:
            return None
        why = f"Back to normal; the days were as usual again by {found.closed_on}."
        merged = {"incident": _merged(mine.detail, found)}
        detail = resolved(mine.detail.model_copy(update=merged), why)
        return Change("resolve", kind, mine.title, detail, mine.id)
    same_kind = next(
        (one for one in known if one.kind == kind and one.state in ("open", "acknowledged")), None
    )
    at = mine or (same_kind if same_kind is not None and not same_kind.detail.incident else None)
    incident = _merged(at.detail if at else AlertDetail(), found)
    detail = _of_days(kind, found, incident, series, at.detail if at else AlertDetail())
    title = f"{alias}: {KIND_TITLES[kind]}. {incident.summary}"
    if at is not None:
        return Change("extend", kind, title, detail, at.id, severity=SEVERITY[kind])
    key = f"{dedup_key(alias, kind)}:{found.id}" if same_kind is not None else ""
    return Change("open", kind, title, detail, severity=SEVERITY[kind], key=key)


def _merged(earlier: AlertDetail, found: IncidentRecord) -> IncidentRecord:
    """What was explained when the incident opened or grew stays: on other days, and after a
    restart, `found` has no explanation.
    """
    before = earlier.incident.as_json() if earlier.incident else {}
    return with_topic_names(IncidentRecord.model_validate(before | found.as_json()))


def _of_days(
    kind: Kind,
    found: IncidentRecord,
    incident: IncidentRecord,
    series: Mapping[str, list[list[float]]],
    earlier: AlertDetail,
) -> AlertDetail:
    since_at = _instant(found.first_hour or found.first_day)
    ids = [*found.examples, *earlier.interaction_ids] if kind in REVIEWABLE else []
    begun = AlertDetail(drift_report_id="", reports=[], words=[], quiet_runs=0)
    return AlertDetail.model_validate(begun.as_json() | earlier.as_json()).model_copy(
        update={
            "incident": incident,
            "signals": [
                _shown_by_day(one, series.get(str(place), []))
                for place, one in enumerate(incident.evidence)
            ],
            "interaction_ids": list(dict.fromkeys(ids))[:MAX_EXAMPLES],
            "since_at": since_at,
            "since_is_exact": True,
            "window_from": since_at,
        }
    )


def _shown_by_day(evidence: EvidenceRecord, series: list[list[float]]) -> AlertSignal:
    """One piece of evidence in the form of `_shown`."""
    return AlertSignal(
        name=evidence.signal + (f" {evidence.part}" if evidence.part else ""),
        label=evidence.label or evidence.sentence.partition(":")[0],
        unit=evidence.unit,
        shape="rate" if evidence.share else "number",
        sentence=evidence.sentence,
        reference=evidence.before,
        window=evidence.now,
        effect=evidence.relative_change,
        adjusted_p_value=None,
        series=series,
    )


def _instant(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)


def _title(alias: str, kind: Kind, drifted: Sequence[Finding]) -> str:
    return f"{alias}: {KIND_TITLES[kind]}. {drifted[0].sentence}"
