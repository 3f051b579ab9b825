"""What is watched of a table or an alias and what is not, in sentences. Pure, imports little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

from monitoring.history_store import StoredDay
from monitoring.signals.language import LANGUAGES
from monitoring.signals.refusals import WATCHED_LANGUAGES
from whet.json_types import JsonObject

_COLD_DAYS = (
    42  # days of traffic before days are judged; a test compares it with the detector's own
)
_MOST_SPANS = 5  # of missing days that are written out
_LEAST_WEEKS = 3  # without rows on a weekday, from which that weekday is closed and not missing
_LEAST_OTHER = 0.01  # of the answers, from which a language that the refusal rule lacks is named
_SHARE_OF_DAYS = 0.5  # of the days that a signal needs values on, to be called watched

AUDIT = "audit"  # stands for the judged random sample, which is no signal of the days


@dataclass(frozen=True, slots=True)
class _Group:
    """Signals of which one is enough, and what is said where there is none."""

    signals: tuple[str, ...]
    columns: tuple[str, ...]  # of a table
    lost: str
    live: str  # why an alias of a running service has none
    consequence: str = ""


_GROUPS = (
    _Group(
        ("thumb_down", "edited", "regenerated", AUDIT),
        ("thumb", "edited", "regenerated"),
        "Quality is not watched",
        "fewer than 30 answers are rated on most days and no answer of the random sample is judged",
        "wrong answers to the same questions would not be seen",
    ),
    _Group(
        ("prompt_topics",),
        ("prompt", "embedding"),
        "Questions are not watched",
        "no questions with text",
        "a new topic would not be seen",
    ),
    _Group(
        ("refusal", "repetition", "empty"),
        ("answer", "refusal"),
        "Refusals, repetition and empty answers are not watched",
        "no answers with text",
    ),
    _Group(
        ("ttft_ms", "time_per_token_ms"),
        ("ttft_ms", "time_per_token_ms"),
        "Latency is not watched",
        "no times are logged",
    ),
    _Group(
        ("logprob",),
        ("logprob",),
        "Log-probabilities are not watched",
        "fewer than 30 answers a day are scored (WHET_SCORES_PER_HOUR)",
    ),
)


@dataclass(frozen=True, slots=True)
class DaySpan:
    """Some days in a row, both ends included."""

    first: date
    last: date

    def __str__(self) -> str:
        if self.first == self.last:
            return self.first.isoformat()
        return f"{self.first.isoformat()} to {self.last.isoformat()}"


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is known of one alias. `watched` and `thin`: names of signals."""

    alias: str
    first_day: date
    last_day: date
    days: int  # with requests
    missing: tuple[DaySpan, ...]
    closed_weekdays: tuple[int, ...]  # 0 is Monday; those that never have requests
    watched: tuple[str, ...]
    thin: tuple[str, ...]  # too few values on most days
    is_live: bool = False  # of a running service, not of a table
    answers_in: Mapping[str, float] = field(default_factory=dict)  # language → share of answers

    @property
    def first_judged_day(self) -> date:
        """The first day that is judged against a history, past or to come."""
        return self.first_day + timedelta(days=_COLD_DAYS)

    @property
    def is_judged(self) -> bool:
        return self.last_day >= self.first_judged_day

    @property
    def is_quality_watched(self) -> bool:
        return bool(set(self.watched) & set(_GROUPS[0].signals))

    def as_json(self) -> JsonObject:
        return {
            "alias": self.alias,
            "first_day": self.first_day.isoformat(),
            "last_day": self.last_day.isoformat(),
            "days": self.days,
            "missing_days": [
                {"first": span.first.isoformat(), "last": span.last.isoformat()}
                for span in self.missing
            ],
            "weekdays_without_requests": [_WEEKDAYS[day] for day in self.closed_weekdays],
            "first_judged_day": self.first_judged_day.isoformat(),
            "is_judged": self.is_judged,
            "watched": list(self.watched),
            "too_few_values": list(self.thin),
            "quality_watched": self.is_quality_watched,
            "notes": [*self.notes()],
        }

    def notes(self) -> list[str]:
        """Sentences: what is not watched, and what of it can be done."""
        found = [_history_note(self)] if not self.is_judged else []
        for group in _GROUPS:
            if set(group.signals) & set(self.watched):
                continue
            thin = [name for name in group.signals if name in self.thin]
            missing = f"no {_listed(group.columns)}"
            why = (
                group.live
                if self.is_live
                else f"too few values of {_listed(thin)}"
                if thin
                else missing
            )
            lost = f"{group.lost}: {why}"
            found.append(f"{lost}; {group.consequence}." if group.consequence else f"{lost}.")
        named = {name for group in _GROUPS for name in group.signals}
        others = [name for name in self.thin if name not in named]
        if others and not self.is_live:
            found.append(f"Too few values on most days to be judged: {_listed(others, 'and')}.")
        return [*found, *_language_notes(self), *_missing_notes(self)]


_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def coverage_of(
    alias: str, days: Collection[int], values: Mapping[str, Sequence[int]], least: int
) -> Coverage:
    """Describe one alias.

    `days`: numbers (since 1970-01-01) of the days with requests. `values`: signal → its number of
    values on each of these days. `least`: values that a day needs to be judged by a signal.
    """
    present = {_date(day) for day in days}
    first, last = min(present), max(present)
    every = [first + timedelta(days=step) for step in range((last - first).days + 1)]
    closed = tuple(
        weekday
        for weekday in range(7)
        if sum(day.weekday() == weekday for day in every) >= _LEAST_WEEKS
        and not any(day.weekday() == weekday for day in present)
    )
    absent = [day for day in every if day not in present and day.weekday() not in closed]
    enough = {
        name: sum(count >= least for count in counts) >= _SHARE_OF_DAYS * len(present)
        for name, counts in values.items()
    }
    return Coverage(
        alias,
        first,
        last,
        len(present),
        tuple(_spans(absent)),
        closed,
        tuple(name for name, is_enough in enough.items() if is_enough),
        tuple(name for name, is_enough in enough.items() if not is_enough),
    )


def coverage_of_days(
    alias: str, stored: Sequence[StoredDay], first_day: int, is_audited: bool
) -> Coverage:
    """Describe an alias of a running service by its stored days (rows of `drift_days`).

    `first_day`: the first one that was ever taken in. `is_audited`: whether answers of the random
    sample were judged lately.
    """
    names: dict[str, int] = {AUDIT: len(stored)} if is_audited else {}
    languages: Counter[str] = Counter()
    for row in stored:
        statistics = row.statistics
        present = {one[0] for one in statistics.points} | {one[0] for one in statistics.counts}
        for name in present:
            names[name] = names.get(name, 0) + 1
        for signal, _, _, counts in statistics.counts:
            if signal == "answer_language":
                languages.update(counts)
    values = {name: [1] * count for name, count in names.items()}
    known = coverage_of(alias, [row.day for row in stored], values, 1)
    shares = shares_of(languages)
    return replace(known, first_day=_date(first_day), is_live=True, answers_in=shares)


def shares_of(counts: Counter[str]) -> dict[str, float]:
    """Each name's share, largest first."""
    return {name: count / counts.total() for name, count in counts.most_common()}


def _history_note(known: Coverage) -> str:
    return (
        f"Too little history: days are judged from {known.first_judged_day.isoformat()} on, after "
        f"six weeks; there are {(known.last_day - known.first_day).days + 1} days."
    )


def _language_notes(known: Coverage) -> list[str]:
    """Answers in languages whose refusals nobody recognises here."""
    if "refusal" not in known.watched:
        return []
    others = {
        name: share
        for name, share in known.answers_in.items()
        if name in LANGUAGES and name not in WATCHED_LANGUAGES and share >= _LEAST_OTHER
    }
    if not others:
        return []
    shown = ", ".join(f"{name} ({share:.0%} of answers)" for name, share in others.items())
    return [
        f"Refusals are not recognised in {shown}; the rule knows "
        f"{', '.join(sorted(WATCHED_LANGUAGES))}. A column `refusal` says it in any language."
    ]


def _missing_notes(known: Coverage) -> list[str]:
    notes = []
    if known.missing:
        count = sum((span.last - span.first).days + 1 for span in known.missing)
        shown = ", ".join(str(span) for span in known.missing[:_MOST_SPANS])
        more = len(known.missing) - _MOST_SPANS
        rest = f" and {more} more times" if more > 0 else ""
        notes.append(f"{count} {'day has' if count == 1 else 'days have'} no rows: {shown}{rest}.")
    if known.closed_weekdays:
        names = [f"{_WEEKDAYS[day]}s" for day in known.closed_weekdays]
        notes.append(f"{_listed(names, 'and')} have no rows.")
    return notes


def _spans(days: Sequence[date]) -> list[DaySpan]:
    spans: list[DaySpan] = []
    for day in days:
        if spans and spans[-1].last + timedelta(days=1) == day:
            spans[-1] = DaySpan(spans[-1].first, day)
        else:
            spans.append(DaySpan(day, day))
    return spans


def _listed(names: Sequence[str], word: str = "or") -> str:
    quoted = [name if name[:1].isupper() else f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} {word} {quoted[-1]}"


def _date(day: int) -> date:
    return date(1970, 1, 1) + timedelta(days=day)
