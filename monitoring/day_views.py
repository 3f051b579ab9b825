"""What the pages show of the days: every watched number as a small chart with its usual range.

Pure, and without the detector's imports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from monitoring.history_store import StoredDay, StoredHour
from monitoring.views import Reading, Spark, spark, value_text
from whet.records.monitoring import DayRecord, IncidentRecord

COLD_DAYS = 42  # days of traffic before days are judged; a test compares it with the detector's own
# Answers that an hour needs to be judged; a test compares it with the detector's own
HOUR_ROWS = 200
HOURS_SHOWN = 24
_USUAL_DAYS = 63  # that the usual range is taken from
_GAP_DAYS = 8  # newest days that are no history yet
_LEAST_DAYS = 3  # a chart of fewer says nothing
_MOST_CATEGORIES = 3  # of a signal: the page shows the largest, the detector watches all
_EPOCH = date(1970, 1, 1)

# Signal → (words, shape for writing values, unit). Signals that are not here are shown by their
# name.
_LABELS = {
    "prompt_tokens": ("Prompt length", "number", "tokens"),
    "language": ("Questions by language", "rate", ""),
    "prompt_novelty": ("Out-of-distribution questions", "rate", ""),
    "completion_tokens": ("Output length", "number", "tokens"),
    "finish_reason": ("finish_reason", "rate", ""),
    "answer_language": ("Answers by language", "rate", ""),
    "refusal": ("Refusal rate", "rate", ""),
    "schema_failure": ("Schema failure rate", "rate", ""),
    "repetition": ("Repetition rate", "rate", ""),
    "empty": ("Empty answer rate", "rate", ""),
    "logprob": ("Negative log-probability per token", "number", ""),
    "logprob_min": ("Negative log-probability of the least certain token", "number", ""),
    "retrieval_miss": ("Questions that find nothing", "rate", ""),
    "retrieval_empty": ("Empty retrieval rate", "rate", ""),
    "retrieval_failed": ("Failed retrieval rate", "rate", ""),
    "retrieval_score": ("Retrieval score of the best passage", "number", ""),
    "retrieval_gap": ("Score gap between the first two passages", "number", ""),
    "retrieval_ms": ("Retrieval latency", "number", "ms"),
    "context_overlap": ("Share of the answer that the passages support", "rate", ""),
    "thumb_given": ("Share of answers with a rating", "rate", ""),
    "thumb_down": ("Thumbs-down rate among ratings", "rate", ""),
    "ttft_ms": ("TTFT", "number", "ms"),
    "time_per_token_ms": ("Time per output token", "number", "ms"),
}
_PARTS = ("p50", "p95")  # parts that are no categories
# Told as geometric means, since that is what is compared.
_GEOMETRIC = ("prompt_tokens", "completion_tokens", "logprob", "logprob_min")
# Numbered clusters mean nothing to a reader; incidents name their words
_HIDDEN = ("prompt_topics",)


@dataclass(frozen=True)
class DayChart:
    """One number, day by day."""

    label: str
    adapter: str
    now: str
    usual: str
    moved: bool  # part of an open incident
    spark: Spark | None


@dataclass(frozen=True)
class Days:
    """The section of one alias."""

    sentence: str
    charts: list[DayChart]


def days_view(
    stored: Sequence[StoredDay],
    incidents: Sequence[IncidentRecord],
    hours: Sequence[StoredHour] = (),
) -> Days | None:
    """`stored`: rows of `drift_days`, oldest first; `incidents`: those that are open;
    `hours`: those of the last day. None without days.
    """
    if not stored:
        return None
    newest = stored[-1].statistics
    moved = {
        (one.signal, one.part, one.adapter): one.first_day
        for incident in incidents
        for one in incident.evidence
    }
    charts = [_chart(stored, key, moved) for key in _keys(newest)]
    found = [chart for chart in charts if chart is not None]
    said = " ".join(
        part
        for part in (
            _sentence(stored, len(incidents)),
            _of_hours(hours, stored[-1].judged),
        )
        if part
    )
    return Days(said, sorted(found, key=lambda chart: not chart.moved))


def _sentence(stored: Sequence[StoredDay], incidents: int) -> str:
    first, last = stored[0].day, stored[-1].day
    if not stored[-1].judged:
        left = max(1, COLD_DAYS - (last - first))
        return (
            f"{_count(len(stored), 'day')} so far. In {_count(left, 'day')} there is enough history"
            " to judge a day by; until then two windows are compared, above."
        )
    judged = sum(row.judged for row in stored)
    newest = (_EPOCH + timedelta(days=last)).isoformat()
    state = (
        f"{newest} was as usual"
        if not incidents
        else f"{_count(incidents, 'open incident')}; the newest day is {newest}"
    )
    return f"{_count(judged, 'judged day')} shown. {state}."


def _of_hours(hours: Sequence[StoredHour], warm: bool) -> str:
    """Which hours of the last day were judged, and why others were not; nothing while no day is
    judged either.
    """
    judged, most = (
        sum(row.judged for row in hours),
        max((row.rows for row in hours), default=0),
    )
    if not warm or not hours:
        return ""
    if judged:
        return (
            f"Of the last {HOURS_SHOWN} hours {judged} {'was' if judged == 1 else 'were'} judged as"
            " well."
        )
    if most < HOUR_ROWS:
        return (
            f"Hours are not judged: the busiest of the last {HOURS_SHOWN} had"
            f" {_count(most, 'answer')}, and {HOUR_ROWS} are needed."
        )
    return (
        f"None of the last {HOURS_SHOWN} hours was judged: too few of their answers were of"
        " different users, or their history is too short."
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _keys(newest: DayRecord) -> list[tuple[str, str, str]]:
    keys = [(signal, part, adapter) for signal, part, adapter, *_ in newest.points]
    for signal, _, adapter, counts in newest.counts:
        largest = sorted(counts, key=lambda name: -counts[name])[:_MOST_CATEGORIES]
        keys += [(signal, name, adapter) for name in largest]
    order = {name: place for place, name in enumerate(_LABELS)}
    return sorted(
        (key for key in keys if key[0] not in _HIDDEN),
        key=lambda key: (order.get(key[0], len(order)), key[2], _place(key[1])),
    )


def _place(part: str) -> tuple[int, str]:
    return (_PARTS.index(part), "") if part in _PARTS else (len(_PARTS), part)


def _chart(
    stored: Sequence[StoredDay],
    key: tuple[str, str, str],
    moved: Mapping[tuple[str, str, str], str],
) -> DayChart | None:
    levels = [(row.day, _level(row.statistics, key)) for row in stored]
    known = [(day, level) for day, level in levels if level is not None]
    if len(known) < _LEAST_DAYS:
        return None
    signal, part, adapter = key
    words, shape, unit = _LABELS.get(signal, (f"`{signal}`", "number", ""))
    label = _label(words, signal, part)
    first = moved.get(key)
    since = (date.fromisoformat(first) - _EPOCH).days if first else None
    last = known[-1][0]
    history = sorted(
        level
        for day, level in known
        if last - _USUAL_DAYS < day <= last - _GAP_DAYS and (since is None or day < since)
    )
    usual = history[len(history) // 2] if history else None
    runs = [Reading(level, usual, since is not None and day >= since) for day, level in levels]
    return DayChart(
        label=label,
        adapter=adapter,
        now=value_text(known[-1][1], shape, unit),
        usual=value_text(usual, shape, unit),
        moved=first is not None,
        spark=spark(runs, label, shape, "day"),
    )


def _label(words: str, signal: str, part: str) -> str:
    """What a chart shows, in the words of the incidents."""
    if signal in _GEOMETRIC:
        return f"{words} (geometric mean)"
    separator = "" if not part else " " if part in _PARTS else ": "
    return f"{words}{separator}{part}"


def _level(statistics: DayRecord, key: tuple[str, str, str]) -> float | None:
    signal, part, adapter = key
    for row in statistics.points:
        if tuple(row[:3]) == key:
            return float(row[5])
    for name, _, of, counts in statistics.counts:
        if (name, of) == (signal, adapter) and part not in _PARTS:
            return float(counts.get(part, 0) / max(1, sum(counts.values())))
    return None
