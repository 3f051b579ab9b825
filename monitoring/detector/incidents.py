"""An incident: one change, whatever number of signals show it, from its first day to its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from monitoring.detector.columns import date_of
from monitoring.detector.daily import Chart
from monitoring.detector.effects import Effect
from monitoring.detector.signals import signal_of
from whet.json_types import Json, JsonObject
from whet.records.monitoring import EvidenceRecord, Explanation, IncidentRecord

State = Literal["open", "resolved", "expected"]
# Properties of answers that say something each: how answers end follows from their length, and the
# least certain token from all tokens. Two of them change together when an adapter is not applied.
PROPERTIES = frozenset(
    {"completion_tokens", "logprob", "refusal", "answer_language", "schema_failure", "repetition"}
)
_LEAST_PROPERTIES = 2
# Times the change of all requests, and standard errors above it, from which a slice has the change.
_NARROW, _NARROW_ERRORS = 2.0, 3.0
# Where one of these leads; refusals that rise make answers shorter by themselves.
OF_ANOTHER_MODEL = ("completion_tokens", "logprob")


@dataclass(frozen=True)
class Evidence:
    """One chart that crossed its threshold."""

    chart: Chart
    day: int  # on which it crossed
    since: int  # first day of its excursion
    # Sum over threshold; below 1 only where several properties of answers jumped (`jumps.py`)
    strength: float
    effect: Effect
    sides: int = 2  # one-sided sums of its signal: how many chances it had
    # Since 1970-01-01, on which it crossed; None where a whole day was judged
    hour: int | None = None
    since_hour: int | None = None  # first hour of its excursion

    def as_json(self) -> JsonObject:
        place = f" in {self.chart.slice}" if self.chart.slice else ""
        found: JsonObject = {
            "signal": self.chart.signal, "label": f"{signal_of(self.chart.signal).label}{place}",
            "part": self.chart.part, "adapter": self.chart.adapter, "slice": self.chart.slice, "detected_on": _iso(self.day), "first_day": _iso(self.since),
            "direction": "up" if self.effect.up else "down", "before": self.effect.before, "now": self.effect.now,
            "relative_change": self.effect.relative, "n": self.effect.values, "strength": round(self.strength, 2), "sentence": self.effect.sentence,
        }  # fmt: skip
        return found | _hours_json(self.hour, self.since_hour)


@dataclass(eq=False)  # two incidents are never the same one
class Incident:
    """`evidence`: in the order in which charts crossed.

    `explanation`: what explain.py found.
    """

    alias: str
    opened: int
    since: int  # first day of change, of the chart that opened it
    evidence: dict[Chart, Evidence]
    state: State = "open"
    closed: int | None = None
    explanation: Explanation = field(default_factory=Explanation)
    hour: int | None = None  # in which it was found; None: when its day was over

    @property
    def lead(self) -> Evidence:
        """The chart that speaks for the incident: of those that crossed when it opened, the one
        whose change matters most.

        A slice speaks only while all requests did not move about as much: where they did, its own
        figure differs by chance.
        """
        first = [
            one for one in self.evidence.values() if (one.day, one.hour) == (self.opened, self.hour)
        ]
        found = min((one for one in first if not self._repeats(one, first)), key=_rank)
        whole = self.evidence.get(found.chart._replace(slice=""))
        is_narrow = whole is None or whole is found or _is_narrow(found, whole)
        return found if is_narrow or whole is None else whole

    def _repeats(self, one: Evidence, first: list[Evidence]) -> bool:
        """Whether another chart of `first` tells the same change of a signal better."""
        if one.chart.slice:
            whole = self.evidence.get(one.chart._replace(slice=""))
            return whole in first and whole is not None and not _is_narrow(one, whole)
        return any(
            other.chart.slice
            and other.chart._replace(slice="") == one.chart
            and _is_narrow(other, one)
            for other in first
        )

    @property
    def ranked(self) -> list[Evidence]:
        """The lead, then the others by how much their change matters."""
        lead = self.lead
        return sorted(
            self.evidence.values(),
            key=lambda one: (one.chart != lead.chart, bool(one.chart.slice), *_rank(one)),
        )

    @property
    def signals(self) -> list[str]:
        """Names of the signals, the lead's first, the others by how much their change matters."""
        return list(dict.fromkeys(one.chart.signal for one in self.ranked))

    @property
    def hint(self) -> str:
        """What the pattern of the signals suggests; empty where it suggests nothing.

        Several properties of one adapter's answers that change on one day while the questions stay
        as they were point at what answers, not at what is asked.
        """
        first = [one for one in self.evidence.values() if abs(one.since - self.since) <= 1]
        properties = {one.chart.signal for one in first} & PROPERTIES
        is_asked = any(signal_of(name).side == "questions" for name in self.signals)
        lead = self.lead.chart
        is_other = lead.signal in OF_ANOTHER_MODEL and not lead.slice
        if is_asked or not is_other or len(properties) < _LEAST_PROPERTIES:
            return ""
        return (
            "Several properties of the answers changed on one day and the questions did not: the"
            " adapter may not be applied, or another one is. `whet doctor` and `whet adapters"
            " verify` check it."
        )

    @property
    def name(self) -> str:
        return f"{self.alias}-{_iso(self.opened)}-{self.lead.chart.signal}"

    def as_json(self) -> JsonObject:
        return self.record().as_json()

    def record(self) -> IncidentRecord:
        """Return the incident as it is stored."""
        lead = self.lead
        sides = {signal_of(signal).side for signal in self.signals}
        found: JsonObject = {
            "id": self.name,
            "alias": self.alias,
            "state": self.state,
            "signal": lead.chart.signal,
            "slice": lead.chart.slice,
            "signals": [*self.signals],
            "detected_on": _iso(self.opened),
            "first_day": _iso(self.since),
            "closed_on": None if self.closed is None else _iso(self.closed),
            **_hours_json(self.hour, lead.since_hour),
            "summary": lead.effect.sentence,
            "quality_moved": bool(sides & {"answers", "quality"}),
            "hint": self.hint,
            "evidence": [one.as_json() for one in self.ranked],
            **self.explanation.as_json(),
        }
        told = IncidentRecord.model_validate(found)
        return with_topic_names(told.model_copy(update={"summary": _summary(told)}))


def with_topic_names(found: IncidentRecord) -> IncidentRecord:
    """Return the incident with topics told by their words instead of their numbers."""
    if not found.topic_names:
        return found
    evidence = [_by_words(one, found.topic_names) for one in found.evidence]
    told = found.model_copy(update={"evidence": evidence})
    return told.model_copy(update={"summary": _summary(told)})


def _summary(found: IncidentRecord) -> str:
    """The lead's sentence, and why questions find nothing where that is known."""
    cause = [found.cause.sentence] if found.cause else []
    return " ".join([found.evidence[0].sentence, *cause])


def _by_words(one: EvidenceRecord, names: dict[str, list[str]]) -> EvidenceRecord:
    words = names.get(one.part)
    if one.signal != "prompt_topics" or not words:
        return one
    told = one.sentence.replace(f"topic {one.part} ", f"“{', '.join(words)}” ", 1)
    return one.model_copy(update={"sentence": told})


def _rank(one: Evidence) -> tuple[bool, float]:
    """Good news last; then by the size of the change. Sums are clipped, so their ties tell nothing."""
    signal = signal_of(one.chart.signal)
    return signal.is_good_news(one.chart.part, one.effect.up), -one.effect.size(signal.shape)


def _is_narrow(in_slice: Evidence, whole: Evidence) -> bool:
    """Whether a slice changed so much more than all requests that it is where the change is.

    Twice as much, and by three standard errors of a share or of a logarithm (whose deviation in one
    request is below 1).
    """
    shape = signal_of(whole.chart.signal).shape
    own, of_all = in_slice.effect.size(shape), whole.effect.size(shape)
    error = 1 / max(1, in_slice.effect.values) ** 0.5
    is_same_direction = in_slice.effect.up == whole.effect.up
    return not is_same_direction or (
        own > _NARROW * of_all and own - of_all > _NARROW_ERRORS * error
    )


def _hours_json(hour: int | None, since: int | None) -> dict[str, Json]:
    """Of what was found by the hour: the end of the hour that showed it, and the beginning of the
    first one. Nothing of what was found by the day.
    """
    return (
        {}
        if hour is None or since is None
        else {"detected_at": hour_iso(hour + 1), "first_hour": hour_iso(since)}
    )


def hour_iso(hour: int) -> str:
    """The beginning of an hour (since 1970-01-01) in UTC."""
    return f"{_iso(hour // 24)}T{hour % 24:02}:00Z"


def _iso(day: int) -> str:
    return date_of(day).isoformat()
