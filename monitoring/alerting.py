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
from typing import Any, Literal

from monitoring.detector.incidents import with_topic_names
from monitoring.flapping import quiet_runs_needed, times_reopened
from monitoring.signals import KIND_TITLES, Kind
from monitoring.verdict import Finding, Verdict

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


@dataclass(frozen=True)
class Change:
    """One change to make. `alert` is the open alert's record, absent when opening."""

    deed: Literal["open", "reopen", "extend", "resolve"]
    kind: Kind | Literal["errors", "adapter", "candidate"]
    title: str
    detail: dict[str, Any]
    alert_id: str | None = None  # None when opening
    severity: str = ""  # empty: as it is
    key: str = ""  # what may be open once; empty: one of the alias and kind


def dedup_key(alias: str, kind: str) -> str:
    return f"drift:{alias}:{kind}"


def plan(
    alias: str,
    verdict: Verdict,
    open_alerts: Mapping[str, Mapping[str, Any]],
    *,
    resolved: Mapping[str, Mapping[str, Any]],
    report_id: str,
    stable_digest: str | None,
    spans: Mapping[str, int | None],
    now: int,
) -> list[Change]:
    """Changes that follow from one verdict.

    `open_alerts`: kind → record of its open or acknowledged alert. `resolved`: kind → record of the
    newest alert that resolved itself within `FLAP_MS`.

    `spans` are the report's reference_from, reference_to, window_from and window_to (ms).
    """
    if verdict.state == "not_enough_data":
        return []
    changes = []
    for kind in KIND_TITLES:
        drifted, alert = verdict.drifted(kind), open_alerts.get(kind)
        gone = resolved.get(kind)
        is_back = gone is not None and gone["detail"].get("stable_digest") == stable_digest
        if drifted and alert is None and gone is not None and is_back:
            changes.append(_reopened(alias, kind, gone, drifted, report_id))
        elif drifted and alert is None:
            detail = _opened(kind, drifted, report_id, stable_digest, spans, now)
            changes.append(
                Change("open", kind, _title(alias, kind, drifted), detail, severity="information")
            )
        elif drifted and alert is not None and _seen_by_day(alert):
            changes.append(
                Change(
                    "extend",
                    kind,
                    alert["title"],
                    _joined(alert["detail"], kind, drifted, report_id),
                    alert["id"],
                )
            )
        elif drifted and alert is not None:
            changes.append(
                Change(
                    "extend",
                    kind,
                    _title(alias, kind, drifted),
                    _extended(alert["detail"], kind, drifted, report_id),
                    alert["id"],
                )
            )
        elif alert is not None:
            changes.append(_quiet(kind, alert, report_id, stable_digest))
    return changes


def _opened(
    kind: Kind,
    drifted: Sequence[Finding],
    report_id: str,
    digest: str | None,
    spans: Mapping[str, int | None],
    now: int,
) -> dict[str, Any]:
    starts = [f.comparison.since_at for f in drifted if f.comparison and f.comparison.since_at]
    return {
        **_evidence(kind, drifted),
        "drift_report_id": report_id,
        "reports": [report_id],
        "stable_digest": digest,
        "since_at": min(starts) if starts else spans.get("window_from") or now,
        "since_is_exact": bool(starts),
        "quiet_runs": 0,
        **spans,
    }


def _reopened(
    alias: str,
    kind: Kind,
    alert: Mapping[str, Any],
    drifted: Sequence[Finding],
    report_id: str,
) -> Change:
    """The same change again: one alert that comes and goes, not one after the other."""
    detail = _extended(alert["detail"], kind, drifted, report_id)
    detail["reopened"] = times_reopened(detail) + 1
    detail.pop("resolution", None)
    return Change("reopen", kind, _title(alias, kind, drifted), detail, alert["id"])


def _evidence(kind: Kind, drifted: Sequence[Finding]) -> dict[str, Any]:
    words: dict[str, dict[str, Any]] = {}
    for finding in drifted:
        for item in finding.as_json()["words"]:
            words.setdefault(item["word"], item)
    return {
        "signals": [_shown(f) for f in drifted],
        "words": list(words.values()),
        "interaction_ids": _examples(drifted) if kind in REVIEWABLE else [],
    }


def _shown(finding: Finding) -> dict[str, Any]:
    """What an incident's page needs of a signal, so that it can be read when the reports are gone."""
    whole = finding.as_json()
    return {
        name: whole[name]
        for name in (
            "name",
            "label",
            "unit",
            "shape",
            "sentence",
            "reference",
            "window",
            "effect",
            "adjusted_p_value",
            "series",
        )
    }


def _examples(drifted: Sequence[Finding]) -> list[str]:
    """The signals' examples in turn, so that each is represented, each conversation once."""
    lists = [f.comparison.examples for f in drifted if f.comparison]
    mixed = (item for item in chain.from_iterable(zip_longest(*lists)) if item is not None)
    return list(dict.fromkeys(mixed))[:MAX_EXAMPLES]


def _extended(
    detail: Mapping[str, Any], kind: Kind, drifted: Sequence[Finding], report_id: str
) -> dict[str, Any]:
    """Newest evidence first; what earlier runs collected stays while there is room."""
    fresh = _evidence(kind, drifted)
    ids = list(dict.fromkeys([*fresh["interaction_ids"], *detail.get("interaction_ids", [])]))[
        :MAX_EXAMPLES
    ]
    reports = [*detail.get("reports", []), report_id][-_MAX_REPORTS:]
    return {
        **detail,
        **fresh,
        "interaction_ids": ids,
        "drift_report_id": report_id,
        "reports": reports,
        "quiet_runs": 0,
    }


def _seen_by_day(alert: Mapping[str, Any]) -> bool:
    """Whether the alert stands for an incident that is still open in the alias's own history."""
    return bool((alert["detail"].get("incident") or {}).get("state") == "open")


def _joined(
    detail: Mapping[str, Any], kind: Kind, drifted: Sequence[Finding], report_id: str
) -> dict[str, Any]:
    """What a run adds to an incident of the days: words, conversations and its report.

    The days' own evidence stays as it is.
    """
    extended = _extended(detail, kind, drifted, report_id)
    return {
        **extended,
        "signals": detail.get("signals", []),
        "words": extended["words"] or detail.get("words", []),
    }


def _quiet(
    kind: Kind, alert: Mapping[str, Any], report_id: str, stable_digest: str | None
) -> Change:
    detail = dict(alert["detail"])
    quiet = int(detail.get("quiet_runs", 0)) + 1
    replaced = detail.get("stable_digest") != stable_digest
    detail |= {
        "quiet_runs": quiet,
        "reports": [*detail.get("reports", []), report_id][-_MAX_REPORTS:],
    }
    # Two windows can look alike while both differ from the history; the days decide when it is over
    if _seen_by_day(alert):
        return Change("extend", kind, alert["title"], detail, alert["id"])
    if replaced:
        detail["resolution"] = (
            "Another version went live, and its traffic is as it was when it started."
        )
        return Change("resolve", kind, alert["title"], detail, alert["id"])
    if quiet >= quiet_runs_needed(detail):
        detail["resolution"] = f"Nothing of it was seen in {quiet} runs."
        return Change("resolve", kind, alert["title"], detail, alert["id"])
    return Change("extend", kind, alert["title"], detail, alert["id"])


def plan_incident(
    alias: str,
    kind: Kind,
    found: Mapping[str, Any],
    series: Mapping[str, list[list[float]]],
    known: Sequence[Mapping[str, Any]],
) -> Change | None:
    """What an incident of the days does to the alerts; None where there is nothing to do.

    `found`: the incident as JSON. `series`: of each piece of evidence, by its place, [instant (ms),
    level] per day. `known`: the alias's open alerts, and those of any state that stand for this
    incident.
    """
    mine = next(
        (
            alert
            for alert in known
            if (alert["detail"].get("incident") or {}).get("id") == found["id"]
        ),
        None,
    )
    if mine is not None and mine["state"] not in ("open", "acknowledged"):
        return None  # a person closed it
    if found["state"] != "open":
        if mine is None:
            return None
        resolution = f"Back to normal; the days were as usual again by {found['closed_on']}."
        return Change(
            "resolve",
            kind,
            mine["title"],
            {
                **mine["detail"],
                "incident": _merged(mine["detail"], found),
                "resolution": resolution,
            },
            mine["id"],
        )
    same_kind = next(
        (
            alert
            for alert in known
            if alert["kind"] == kind and alert["state"] in ("open", "acknowledged")
        ),
        None,
    )
    at = mine or (
        same_kind if same_kind is not None and not same_kind["detail"].get("incident") else None
    )
    detail = _of_days(kind, found, series, at["detail"] if at else {})
    title = f"{alias}: {KIND_TITLES[kind]}. {detail['incident']['summary']}"
    if at is not None:
        return Change("extend", kind, title, detail, at["id"], severity=SEVERITY[kind])
    key = f"{dedup_key(alias, kind)}:{found['id']}" if same_kind is not None else ""
    return Change("open", kind, title, detail, severity=SEVERITY[kind], key=key)


def _merged(earlier: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """What was explained when the incident opened or grew stays: on other days, and after a
    restart, `found` has no explanation.
    """
    merged = {**(earlier.get("incident") or {}), **found}
    return with_topic_names(merged, merged.get("topic_names", {}))


def _of_days(
    kind: Kind,
    found: Mapping[str, Any],
    series: Mapping[str, list[list[float]]],
    earlier: Mapping[str, Any],
) -> dict[str, Any]:
    since_at = _instant(found.get("first_hour") or found["first_day"])
    incident = _merged(earlier, found)
    ids = (
        [*found.get("examples", []), *earlier.get("interaction_ids", [])]
        if kind in REVIEWABLE
        else []
    )
    return {
        "drift_report_id": "",
        "reports": [],
        "words": [],
        "quiet_runs": 0,
        **earlier,
        "incident": incident,
        "signals": [
            _shown_by_day(one, series.get(str(place), []))
            for place, one in enumerate(incident["evidence"])
        ],
        "interaction_ids": list(dict.fromkeys(ids))[:MAX_EXAMPLES],
        "since_at": since_at,
        "since_is_exact": True,
        "window_from": since_at,
    }


def _shown_by_day(evidence: Mapping[str, Any], series: list[list[float]]) -> dict[str, Any]:
    """One piece of evidence in the form of `_shown`."""
    signal = evidence["signal"] + (f" {evidence['part']}" if evidence["part"] else "")
    return {
        "name": signal,
        "label": evidence.get("label") or evidence["sentence"].partition(":")[0],
        "unit": evidence.get("unit", ""),
        "shape": "rate" if evidence.get("share") else "number",
        "sentence": evidence["sentence"],
        "reference": evidence["before"],
        "window": evidence["now"],
        "effect": evidence["relative_change"],
        "adjusted_p_value": None,
        "series": series,
    }


def _instant(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)


def _title(alias: str, kind: Kind, drifted: Sequence[Finding]) -> str:
    return f"{alias}: {KIND_TITLES[kind]}. {drifted[0].sentence}"
