"""What the drift pages show, worked out of stored reports and alerts: sentences, histories, small
pictures. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from monitoring.alert_store import Alert
from monitoring.flapping import came_back
from monitoring.incident_text import IncidentText, text_of_alert
from monitoring.report_store import DriftReport
from monitoring.signals import KIND_TITLES, SIGNALS
from whet.clock import to_datetime
from whet.json_types import JsonObject
from whet.records.monitoring import (
    AlertSignal,
    IncidentRecord,
    QualityRecord,
    ReportSignal,
    WordShare,
)
from whet.web.charts import WIDTH, line_path, scale_y

_DAY_MS = 86_400_000
_TITLES = {str(kind): title for kind, title in KIND_TITLES.items()}
SPARK_WIDTH, SPARK_HEIGHT = 140, 28  # viewBox units; the stylesheet decides the size on the page
# Quiet reports from which a usual range is drawn: fewer say little about what is usual
_BAND_FROM = 5
_SMALLEST_SHARE, _SMALLEST_RELATIVE = 0.05, 0.1
_STATE_ORDER = {"drift": 0, "no_drift": 1, "not_enough_data": 2}
SHARES = ("rate", "category", "novelty", "words")  # shapes whose values are shares from 0 to 1


class Reading(NamedTuple):
    """A signal in one run, or on one day; None where it had too few values."""

    window: float | None
    reference: float | None
    is_drifted: bool


@dataclass(frozen=True)
class Spark:
    """A sparkline in SVG coordinates. `marks` are the runs that found drift."""

    path: str
    last: tuple[float, float] | None
    marks: list[tuple[float, float]]
    band: tuple[float, float] | None  # (top, height) of the usual range
    reference: float | None  # height of the newest reference value
    label: str


@dataclass(frozen=True)
class SignalView:
    """One line of the signal table."""

    name: str
    label: str
    kind: str
    state: str  # drift | no_drift | not_enough_data
    sentence: str
    now: str
    usual: str
    why: str  # how sure the state is
    meaning: str  # of the two numbers, where they do not explain themselves
    spark: Spark | None


@dataclass(frozen=True)
class Incident:
    """One alert as a sentence with what belongs to it."""

    id: str
    alias: str
    kind: str
    severity: str
    state: str
    headline: str
    sentence: str
    since_at: int
    since_is_exact: bool
    opened_at: int
    changed_at: int
    changed_by: str
    resolution: str
    words: list[WordShare]
    signals: list[AlertSignal]
    interaction_ids: list[str]
    report_id: str
    reports: int
    text: IncidentText
    quality: QualityRecord = field(default_factory=QualityRecord)  # what it did meanwhile
    # The incident as the alias's own history shows it; None where only windows were compared
    by_day: IncidentRecord | None = None
    owner: str = ""
    snoozed_until: int | None = None  # ms; None: not snoozed now
    back: str = ""  # a sentence, where it resolved itself and came back
    similar_ids: list[str] = field(default_factory=list)  # of open ones that it stands for

    @property
    def is_waiting(self) -> bool:
        """Whether it asks for somebody now."""
        return self.state == "open" and self.snoozed_until is None

    @property
    def is_about_quality(self) -> bool:
        """Whether it says that answers are worse, and not only that something is unlike before."""
        return self.kind in ("errors", "quality") or self.quality.verdict == "worse"

    @property
    def is_open(self) -> bool:
        return self.state in ("open", "acknowledged")

    @property
    def badge(self) -> tuple[str, str]:
        """(word, kind) of its state."""
        if self.state == "open":
            return "open", self.severity
        return {
            "acknowledged": ("acknowledged", "information"),
            "expected": ("expected", "plain"),
            "resolved": ("resolved", "good"),
        }[self.state]


def incident(alert: Alert, now: int, similar_ids: Sequence[str] = ()) -> Incident:
    """Tolerates a detail with nothing in it: an alert must be readable whoever wrote it."""
    detail, title = alert.detail, alert.title
    snoozed_until = alert.snoozed_until
    since_at = detail.since_at or alert.opened_at
    prefix = f"{alert.alias}: "
    words = title.removeprefix(prefix)
    changed, _, sentence = words.partition(". ")
    known = _TITLES.get(alert.kind)
    return Incident(
        id=alert.id,
        alias=alert.alias,
        kind=alert.kind,
        severity=alert.severity,
        state=alert.state,
        headline=(
            f"{known or changed.rstrip('.')} {since(since_at, now)}"
            if known
            else changed.rstrip(".")
        ),
        sentence=sentence or (words if known else ""),
        since_at=since_at,
        since_is_exact=detail.since_is_exact,
        opened_at=alert.opened_at,
        changed_at=alert.changed_at,
        changed_by=alert.changed_by or "",
        resolution=detail.resolution,
        words=detail.words,
        signals=detail.signals,
        interaction_ids=detail.interaction_ids,
        report_id=detail.drift_report_id,
        reports=len(detail.reports),
        text=text_of_alert(alert),
        quality=detail.quality or QualityRecord(),
        by_day=detail.incident,
        owner=alert.owner or "",
        snoozed_until=snoozed_until if snoozed_until and snoozed_until > now else None,
        back=came_back(detail),
        similar_ids=list(similar_ids),
    )


def since(at: int, now: int) -> str:
    """`since 14:05` on the same day (UTC), `since Tuesday` within six days, else `since 3 March`."""
    then, today = to_datetime(at), to_datetime(now)
    if then.date() == today.date():
        return f"since {then:%H:%M} UTC"
    if now - at < 6 * _DAY_MS:
        return f"since {then:%A}"
    return f"since {then.day} {then:%B}"


def headline(
    incidents: Sequence[Incident], reports: Mapping[str, DriftReport | None]
) -> tuple[str, str]:
    """(the sentence the operator came for, what stands below it). `reports`: alias → newest report."""
    waiting = [one for one in incidents if one.is_waiting]
    if waiting:
        first = waiting[0]
        more = f" {_count(len(waiting) - 1, 'more incident')} below." if len(waiting) > 1 else ""
        return f"{first.alias}: {first.headline}", f"{first.sentence}{more}".strip()
    looked = [report for report in reports.values() if report]
    if not looked:
        return (
            "No traffic has been compared yet",
            "The scheduler looks by itself once there is traffic.",
        )
    cared = [one for one in incidents if one.state == "acknowledged"]
    if cared:
        return (
            "Nothing new needs you",
            (
                f"{_count(len(cared), 'incident')} {'is' if len(cared) == 1 else 'are'} being"
                " looked after."
            ),
        )
    if all(report.verdict == "not_enough_data" for report in looked):
        return "Not enough traffic yet for a verdict", looked[0].summary
    return "Nothing needs you", (
        looked[0].summary
        if len(looked) == 1
        else f"{len(looked)} aliases were compared; none drifted that somebody has not seen."
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def signal_views(reports: Sequence[DriftReport]) -> list[SignalView]:
    """Every signal over stored reports of one alias (newest first), drifted ones first, then in
    their own order.
    """
    runs = [report.signals for report in reversed(reports) if report.signals]
    if not runs:
        return []
    order = {signal.name: index for index, signal in enumerate(SIGNALS)}
    views = [
        _signal_view(signal, [_found(run, signal.name) for run in runs]) for signal in runs[-1]
    ]
    return sorted(
        views, key=lambda view: (_STATE_ORDER.get(view.state, 3), order.get(view.name, len(order)))
    )


def _found(signals: Sequence[ReportSignal], name: str) -> Reading:
    found = next((signal for signal in signals if signal.name == name), ReportSignal(name=name))
    return Reading(found.window, found.reference, found.drifted)


def _signal_view(signal: ReportSignal, history: Sequence[Reading]) -> SignalView:
    shape, unit = signal.shape or "number", signal.unit
    state = signal.state or ("drift" if signal.drifted else "no_drift")
    return SignalView(
        name=signal.name,
        label=_label(signal.name, signal.label),
        kind=signal.kind,
        state=state,
        sentence=signal.sentence,
        now=value_text(signal.window, shape, unit),
        usual=value_text(signal.reference, shape, unit),
        why=p_text(signal.adjusted_p_value),
        meaning=_WORDS_MEANING if shape == "words" else "",
        spark=spark(history, signal.label or signal.name, shape),
    )


_TEXT_LABELS = {"question_words": "wording of questions", "question_novelty": "new words in questions", "answer_words": "wording of answers", "answer_novelty": "new words in answers"}  # fmt: skip


_WORDS_MEANING = (
    "How well the words alone tell recent conversations from earlier ones: 0.5 is not at all, 1 is"
    " perfectly."
)


def p_text(adjusted: float | None) -> str:
    """How often a difference like this comes without a change, after correcting for all signals
    tested together.
    """
    if adjusted is None:
        return ""
    return (
        f"p {'< 0.0001' if adjusted < 0.0001 else f'= {adjusted:.2g}'} after correction for all"
        " signals"
    )


def _label(name: str, label: str) -> str:
    text = _TEXT_LABELS.get(name) or label or name
    return text[:1].upper() + text[1:]


def value_text(value: float | None, shape: str, unit: str = "") -> str:
    """`31 %` for shares, `0.62` for how well words tell two samples apart, `142 ms` for the rest."""
    if value is None:
        return "–"
    if shape == "words":
        return f"{value:.2f}"
    if shape in SHARES:
        return f"{100 * value:.1f} %" if 0 < value < 0.1 else f"{100 * value:.0f} %"
    text = f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.3g}"
    return f"{text} {unit}".strip()


def spark(
    history: Sequence[Reading], label: str, shape: str = "number", each: str = "run"
) -> Spark | None:
    """The signal's value run by run (or by another unit, `each`); None when no run had one."""
    points = [
        (index, found.window, found.is_drifted)
        for index, found in enumerate(history)
        if found.window is not None
    ]
    if not points:
        return None
    quiet = sorted(value for _, value, drifted in points if not drifted)
    reference = next(
        (found.reference for found in reversed(history) if found.reference is not None),
        None,
    )
    values = [value for _, value, _ in points] + ([reference] if reference is not None else [])
    low, high = min(values), max(values)
    # A line that trembles by a percent must not look like a storm: the height is never less than
    # what could matter.
    room = (
        max(high - low, _SMALLEST_SHARE if shape in SHARES else _SMALLEST_RELATIVE * abs(high))
        or 1.0
    )
    middle = (high + low) / 2
    low, high = middle - 0.58 * room, middle + 0.58 * room

    def x(index: int) -> float:
        return round(
            2 + (SPARK_WIDTH - 6) * (index / (len(history) - 1) if len(history) > 1 else 1), 1
        )

    def y(value: float) -> float:
        return round(SPARK_HEIGHT - 2 - (SPARK_HEIGHT - 4) * (value - low) / (high - low), 1)

    band = None
    if len(quiet) >= _BAND_FROM:
        top, bottom = y(quiet[-1 - len(quiet) // 20]), y(quiet[len(quiet) // 20])
        band = top, round(max(1.0, bottom - top), 1)
    path = "".join(
        f"{'M' if i == 0 else 'L'}{x(index)} {y(value)}"
        for i, (index, value, _) in enumerate(points)
    )
    last = points[-1]
    return Spark(
        path=path,
        last=(x(last[0]), y(last[1])),
        marks=[(x(index), y(value)) for index, value, drifted in points if drifted],
        band=band,
        reference=y(reference) if reference is not None else None,
        label=f"{label}: {_count(len(points), each)}, the newest {last[1]:.3g}"
        + (f", usual {reference:.3g}" if reference is not None else ""),
    )


@dataclass(frozen=True)
class Chart:
    """One signal of an incident over time.

    `data` is what the browser's chart gets; `area` the same without JavaScript.
    """

    title: str
    data: JsonObject
    line: str
    split: float  # where the window begins, in SVG units
    onset: float | None  # where the change began
    top: str
    bottom: str
    marks: list[tuple[float, float]] = field(default_factory=list)


def chart(signal: AlertSignal, window_from: int | None, since_at: int | None) -> Chart | None:
    """Of a signal that carries a series; reference on the left, window on the right."""
    series = [(float(at), float(value)) for at, value in signal.series]
    if len(series) < 2:
        return None
    shape, unit = signal.shape or "number", signal.unit
    shown = "rate" if shape == "words" else shape  # its series are shares of unusual texts
    values = [value for _, value in series]
    low, high = min(0.0, *values) if shown in SHARES else min(values), max(values)
    high = high if high > low else low + 1
    # Time between the samples says nothing; runs of rows side by side show the step.
    first_of_window = next(
        (
            index
            for index, (at, _) in enumerate(series)
            if window_from is not None and at >= window_from
        ),
        len(series),
    )

    def x(index: float) -> float:
        return round(WIDTH * index / (len(series) - 1), 1)

    def y(value: float) -> float:
        return scale_y(value, low, high)

    onset = next(
        (
            x(index)
            for index, (at, _) in enumerate(series)
            if since_at is not None and at >= since_at
        ),
        None,
    )
    return Chart(
        title=_label(signal.name, signal.label),
        data={
            "series": [list(point) for point in series],
            "split": first_of_window,
            "share": shown in SHARES,
            "unit": unit,
            "since": since_at,
        },
        line=line_path([(x(i), y(value)) for i, (_, value) in enumerate(series)]),
        split=x(max(0.0, first_of_window - 0.5)),
        onset=onset,
        top=value_text(high, shown, unit),
        bottom=value_text(low, shown, unit),
    )


def marked(text: str, words: Sequence[str], limit: int = 220) -> list[tuple[str, bool]]:
    """The text cut into parts, those that are one of `words` marked, shortened around the first of
    them.
    """
    flat = " ".join(text.split())
    wanted = {word.lower() for word in words}
    spans = [
        match.span() for match in re.finditer(r"[^\W\d_]+", flat) if match.group().lower() in wanted
    ]
    start = max(0, spans[0][0] - limit // 2) if spans and spans[0][0] > limit else 0
    parts: list[tuple[str, bool]] = [("… ", False)] if start else []
    at, end = start, min(len(flat), start + limit)
    for first, last in spans:
        if first < at or last > end:
            continue
        parts += [(flat[at:first], False), (flat[first:last], True)]
        at = last
    parts.append((flat[at:end] + (" …" if end < len(flat) else ""), False))
    return [part for part in parts if part[0]]
