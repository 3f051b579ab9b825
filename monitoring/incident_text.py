"""An incident told to somebody who does not know the product, in six parts. Pure.

What happened, since when, how bad (from what to what, of how many), where, what quality did, and
what to do. Pages, commands and messages show the same six.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from monitoring.alert_store import Alert
from monitoring.detector.settings import DetectorSettings
from monitoring.incident_phrases import (
    ADAPTER,
    ALERT_PLACES,
    ALERT_TO_DO,
    ALERTS,
    BASELINE,
    DECLARED,
    EXPECTED,
    GLOSSES,
    HOUR_BASELINE,
    LANGUAGES,
    MEASURED,
    OF_PLACE,
    OTHER,
    RECENT_BASELINE,
    RETRIEVAL,
    ROLLBACK,
    TO_DO,
    WHAT,
)
from whet.clock import iso
from whet.records.monitoring import EvidenceRecord, IncidentRecord, QualityRecord, TopicRecord

QUALITY_NOT_COMPARED = "Not compared yet; the scheduler does it within the hour."
_OF_A_USER = DetectorSettings().rows_per_user
_MOST_SIGNALS = 3  # besides the lead, in `how bad`
_MOST_PLACES = 3
_GROWN = 2.0  # times its share before, from which a topic tells where another change is


@dataclass(frozen=True, slots=True)
class IncidentText:
    """The six parts, each a sentence or some."""

    what: str
    since: str
    how_bad: str
    where: str
    quality: str
    to_do: str

    def rows(self) -> list[tuple[str, str]]:
        """(name of the part, text) in the order in which they are read."""
        return [
            ("What", self.what),
            ("Quality", self.quality),
            ("Since", self.since),
            ("How bad", self.how_bad),
            ("Where", self.where),
            ("To do", self.to_do),
        ]

    def as_text(self) -> str:
        return "\n".join(f"{name}: {text}" for name, text in self.rows())

    def as_json(self) -> dict[str, str]:
        return {
            "what": self.what,
            "quality": self.quality,
            "since": self.since,
            "how_bad": self.how_bad,
            "where": self.where,
            "to_do": self.to_do,
        }


def describe_incident(
    found: IncidentRecord, quality: QualityRecord | None = None, alert: str = ""
) -> IncidentText:
    """Tell an incident of days or hours; `alert`: its id, empty in a replay."""
    lead = found.evidence[0]
    return IncidentText(
        what=_what(found, lead),
        since=_since(found),
        how_bad=_how_bad(found),
        where=_where(found),
        quality=_quality(quality),
        to_do=_to_do(found, lead, alert),
    )


def _quality(found: QualityRecord | None) -> str:
    return (found.sentence if found else "") or QUALITY_NOT_COMPARED


def text_of_alert(alert: Alert) -> IncidentText:
    """Tell an alert, whatever opened it: days and hours, two windows, the audit, a version."""
    detail, kind, alias = alert.detail, alert.kind, alert.alias
    by_day = detail.incident
    if by_day and by_day.evidence:
        found = by_day.model_copy(update={"alias": alias})
        return describe_incident(found, detail.quality, alert.id)
    sentences = [one.sentence for one in detail.signals if one.sentence]
    title = alert.title.removeprefix(f"{alias}: ")
    began = iso(detail.since_at or alert.opened_at)
    least = "" if detail.since_is_exact else "at the latest "
    return IncidentText(
        what=ALERTS.get(kind, f"{title.partition('. ')[0].rstrip('.')}."),
        since=f"{least}{began}, found {iso(alert.opened_at)}.",
        how_bad=" ".join(sentences[:_MOST_SIGNALS]) or title,
        where=ALERT_PLACES.get(kind, "Not known: two samples of requests were compared."),
        quality=_quality(detail.quality),
        to_do=ALERT_TO_DO.get(kind, OTHER).format(**_slots(alias, alert.id)),
    )


def _what(found: IncidentRecord, lead: EvidenceRecord) -> str:
    if found.hint:
        return "Answers changed in several ways on one day: the adapter may not be applied."
    pair = WHAT.get(lead.signal)
    if pair is None:
        moved = "rose" if lead.direction == "up" else "fell"
        part = f" {lead.part}" if lead.part else ""
        return f"{lead.label or lead.signal}{part} {moved}."
    words = _topic_words(found, lead)
    text = pair[0 if lead.direction == "up" else 1]
    part = LANGUAGES.get(lead.part, lead.part)
    told = text.format(part=part, words=f": “{words}”" if words else "")
    is_there = lead.slice and lead.slice in _place_names(found)
    return f"{told.rstrip('.')} in {lead.slice}." if is_there else told


def _topic_words(found: IncidentRecord, lead: EvidenceRecord) -> str:
    """The words of the topic that the incident is about."""
    names = found.topic_names
    if lead.signal == "prompt_topics" and names.get(lead.part):
        return ", ".join(names[lead.part])
    if lead.signal not in ("prompt_novelty", "prompt_topics"):
        return ""
    return next((", ".join(one.words) for one in found.topics if one.words), "")


def _since(found: IncidentRecord) -> str:
    closed = f", over on {found.closed_on}" if found.closed_on else ", not over yet"
    if found.first_hour:
        first, at = _moment(found.first_hour), _moment(found.detected_at)
        return f"{first} UTC, found at {at} UTC{closed}."
    return f"{found.first_day}, found at the end of {found.detected_on}{closed}."


def _moment(text: str) -> str:
    return text.replace("T", " ").removesuffix("Z")


def _place_names(found: IncidentRecord) -> list[str]:
    return [f"{one.column}={one.value}" for one in (found.slices or [])[:_MOST_PLACES]]


def _how_bad(found: IncidentRecord) -> str:
    """The lead, the same number of the slice or of all requests, then one of each other signal;
    what the figures are, and what they are compared with.
    """
    evidence = found.evidence
    lead, places = evidence[0], _place_names(found)
    shown = [f"{_without_since(lead)}{_measured_on(lead)}"]
    counterparts = [one for one in evidence[1:] if _is_counterpart(one, lead, places)]
    for one in counterparts[:1]:
        all_of = "" if one.slice else "Of all requests: "
        shown.append(f"{all_of}{_without_since(one)}")
    others = {one.signal: one for one in reversed(evidence) if one.signal != lead.signal}
    in_order = [one for one in evidence if one is others.get(one.signal)]
    shown += [_without_since(one) for one in in_order[:_MOST_SIGNALS]]
    glosses = [GLOSSES.get(one.signal, "") for one in (lead, *in_order[:_MOST_SIGNALS])]
    return " ".join([*shown, _baseline(found), *dict.fromkeys(one for one in glosses if one)])


def _measured_on(lead: EvidenceRecord) -> str:
    """How many values the lead's level is of; nothing where that is not known."""
    if not lead.n:
        return ""
    unit = MEASURED.get(lead.signal, "requests")
    if lead.signal.startswith("retrieval_"):
        unit = "requests that searched"
    return f" Measured on {lead.n:,} sampled {unit} (at most {_OF_A_USER} of a user and day)."


def _baseline(found: IncidentRecord) -> str:
    if found.first_hour:
        return HOUR_BASELINE
    is_recent = found.evidence[0].signal == "prompt_topics"
    return RECENT_BASELINE if is_recent else BASELINE


def _is_counterpart(one: EvidenceRecord, lead: EvidenceRecord, places: Collection[str]) -> bool:
    """Whether it is the lead's number in the slice that is named, or of all requests."""
    same = (one.signal, one.adapter) == (lead.signal, lead.adapter)
    # Slices have no chart of the 95 % quantile; their median stands for it.
    same = same and (one.part == lead.part or "p50" in (one.part, lead.part))
    if lead.slice:
        return same and not one.slice
    return same and one.slice in places


def _without_since(one: EvidenceRecord) -> str:
    """The sentence without the day or hour, which stands in its own part."""
    day, hour = one.first_day, one.first_hour[11:16]
    return one.sentence.replace(f", since {day} {hour} UTC", "").replace(f", since {day}", "")


def _where(found: IncidentRecord) -> str:
    cause = found.cause.sentence if found.cause else ""
    lead = found.evidence[0]
    version = f" Version {lead.adapter} answered." if lead.adapter else ""
    if found.slices is None:
        return f"{cause} Not known: no conversations of it are kept.{version}".strip()
    places = [
        f"{one.column}={one.value} ({_percent(one.share_now)} of the requests, "
        f"{_percent(min(1.0, one.share_of_change))} of the change)"
        for one in found.slices[:_MOST_PLACES]
    ]
    if places:
        return f"{cause} In {'; '.join(places)}.{version}".strip()
    topics = [
        f"“{', '.join(one.words)}” ({_percent(one.share_now)} of the requests, "
        f"{_percent(one.share_before)} before)"
        for one in found.topics[:_MOST_PLACES]
        if one.words and _tells(one, lead)
    ]
    if topics:
        noun = "topics" if len(topics) > 1 else "topic"
        return f"{cause} In the {noun} {'; '.join(topics)}.{version}".strip()
    seen_in = f" Seen first in {lead.slice}." if lead.slice else ""
    return (
        f"{cause} Everywhere: no single language, route, version or other slice has more of the "
        f"change than its share of the requests.{seen_in}{version}"
    ).strip()


def _tells(topic: TopicRecord, lead: EvidenceRecord) -> bool:
    """Whether a topic is where the change is, and did not merely grow a little beside it."""
    if lead.signal == "prompt_topics" and lead.direction == "down":
        return False  # topics that rose say nothing of one that fell
    is_about_topics = lead.signal in ("prompt_novelty", "prompt_topics")
    has_grown = topic.share_now >= _GROWN * topic.share_before
    return bool(topic.share_of_change) or is_about_topics or has_grown


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.1f} %" if 0 < percent < 9.95 else f"{percent:.0f} %"


def _to_do(found: IncidentRecord, lead: EvidenceRecord, alert: str) -> str:
    signal, alias = lead.signal, found.alias
    if found.hint:
        return ADAPTER.format(rollback=ROLLBACK.format(alias=alias))
    if signal == "context_overlap" or (
        signal.startswith("retrieval_") and signal != "retrieval_ms"
    ):
        return RETRIEVAL.format(alias=alias)
    told = TO_DO.get(f"{signal} {lead.direction}") or TO_DO.get(signal, OTHER)
    told = told.format(**_slots(alias, alert, found.first_day))
    places = [one for one in _place_names(found) if one.startswith(("route=", "slice_"))]
    return f"{OF_PLACE.format(place=places[0])} {told}" if places else told


def _slots(alias: str, alert: str, first_day: str = "") -> dict[str, str]:
    """What the sentences of things to do leave open; a replay has no alert to refer to."""
    return {
        "alias": alias,
        "examples": f" (`whet alerts show {alert}`)" if alert else " (listed below)",
        "expected": EXPECTED.format(alert=alert) if alert else DECLARED.format(day=first_day),
    }
