"""Does an incident say the right thing? Lead, slice and words beside planted changes.

Each change begins on day 63 of a service whose questions are sentences, and is looked at on the day
after an incident of one of its signals opened.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from benchmarks.drift.ours import Pause
from benchmarks.drift.worlds import (
    FIRST_DAY,
    TENANT,
    TENANT_USERS,
    TOPICS,
    VOCABULARY,
    World,
    hash_of,
    sentences,
)
from monitoring.detector.columns import Table, concatenated
from monitoring.detector.incidents import Incident
from monitoring.detector.settings import DetectorSettings
from monitoring.detector.watch import Watch
from monitoring.incident_text import IncidentText, describe_incident
from monitoring.table_quality import quality_in_table

BEGIN, FOLLOWED = 63, 14  # day of the change; days after which it counts as not found
_SECOND = 10  # days later that the second of two changes begins
_BEFORE_DAYS = 28  # whose ratings the quality is compared with
_NEW_WORDS = frozenset(VOCABULARY[-1])
_PARTS = ("lead_right", "slice_right", "words_right", "hint_right")
Columns = dict[str, Any]
Change = Callable[[Columns, np.random.Generator], None]


@dataclass(frozen=True)
class Planted:
    """A change and what an incident has to say of it. `place`: column and value, or everywhere."""

    name: str
    leads: tuple[str, ...]
    change: Change
    place: tuple[str, str] = ("", "")
    words: bool = False
    hint: bool = False


def _times(column: str, factor: float, place: tuple[str, str] = ("", "")) -> Change:
    """Multiply a level, of all requests or of those of one slice."""

    def change(columns: Columns, r: np.random.Generator) -> None:
        rows = columns[place[0]] == place[1] if place[0] else np.ones(len(columns["id"]), bool)
        columns[column] = np.where(rows, columns[column] * factor, columns[column])

    return change


def _share(column: str, extra: float, place: tuple[str, str] = ("", "")) -> Change:
    """Make a flag true for a share `extra` of the requests in which it is known."""

    def change(columns: Columns, r: np.random.Generator) -> None:
        values = columns[column]
        rows = columns[place[0]] == place[1] if place[0] else np.ones(len(values), bool)
        hit = rows & np.isfinite(values) & (r.random(len(values)) < extra)
        columns[column] = np.where(hit, 1.0, values)

    return change


def _category(column: str, value: str, extra: float) -> Change:
    def change(columns: Columns, r: np.random.Generator) -> None:
        hit = r.random(len(columns["id"])) < extra
        columns[column] = np.where(hit, value, columns[column]).astype(object)

    return change


def _new_topic(share: float) -> Change:
    def change(columns: Columns, r: np.random.Generator) -> None:
        hit = np.flatnonzero(r.random(len(columns["id"])) < share)
        prompts = columns["prompt"].copy()
        prompts[hit] = sentences(np.full(len(hit), TOPICS), r)
        columns["prompt"] = prompts

    return change


def _thumbs(worse: float, given: float = 1.0) -> Change:
    """Turn a share `worse` of the thumbs down; only a share `given` of ratings still arrives."""

    def change(columns: Columns, r: np.random.Generator) -> None:
        thumb = columns["thumb"]
        rated = np.isfinite(thumb)
        thumb = np.where(rated & (r.random(len(thumb)) < worse), -1.0, thumb)
        columns["thumb"] = np.where(r.random(len(thumb)) < given, thumb, np.nan)

    return change


def _no_adapter(columns: Columns, r: np.random.Generator) -> None:
    """What a base answers: shorter, less certain, without refusals."""
    columns["completion_tokens"] = columns["completion_tokens"] * 0.4
    columns["logprob"] = columns["logprob"] * 1.3
    columns["refusal"] = np.zeros(len(columns["id"]))


_ACME = ("slice_tenant", TENANT)
_ROUTE = ("route", "3")
_TOPIC_LEADS = ("prompt_novelty", "prompt_topics")
PLANTED: tuple[Planted, ...] = (
    *(
        Planted(f"refusals +{p:.0%}", ("refusal",), _share("refusal", p))
        for p in (0.04, 0.08, 0.15)
    ),
    *(
        Planted(
            f"refusals +{p:.0%} in one tenant", ("refusal",), _share("refusal", p, _ACME), _ACME
        )
        for p in (0.2, 0.4)
    ),
    *(Planted(f"TTFT x{f:g}", ("ttft_ms",), _times("ttft_ms", f)) for f in (1.2, 1.5, 2.0)),
    *(
        Planted(f"TTFT x{f:g} in one route", ("ttft_ms",), _times("ttft_ms", f, _ROUTE), _ROUTE)
        for f in (3.0, 6.0)
    ),
    *(
        Planted(f"time per token x{f:g}", ("time_per_token_ms",), _times("time_per_token_ms", f))
        for f in (1.3, 1.6)
    ),
    *(
        Planted(f"output length x{f:g}", ("completion_tokens",), _times("completion_tokens", f))
        for f in (0.6, 0.8, 1.3, 1.6)
    ),
    *(
        Planted(
            f"finish_reason=length +{p:.0%}",
            ("finish_reason",),
            _category("finish_reason", "length", p),
        )
        for p in (0.04, 0.1)
    ),
    *(
        Planted(f"schema failures +{p:.0%}", ("schema_failure",), _share("schema_failure", p))
        for p in (0.03, 0.08)
    ),
    *(
        Planted(f"repetition +{p:.0%}", ("repetition",), _share("repetition", p))
        for p in (0.02, 0.06)
    ),
    *(Planted(f"log-probability x{f:g}", ("logprob",), _times("logprob", f)) for f in (1.15, 1.3)),
    *(
        Planted(f"prompt length x{f:g}", ("prompt_tokens",), _times("prompt_tokens", f))
        for f in (1.3, 1.6)
    ),
    *(
        Planted(f"German +{p:.0%}", ("language",), _category("language", "de", p))
        for p in (0.06, 0.12, 0.25)
    ),
    *(
        Planted(f"new topic {p:.0%}", _TOPIC_LEADS, _new_topic(p), words=True)
        for p in (0.06, 0.1, 0.15, 0.25)
    ),
    *(Planted(f"thumbs down +{p:.0%}", ("thumb_down",), _thumbs(p)) for p in (0.2, 0.35)),
    Planted("ratings stop", ("thumb_given",), _thumbs(0, 0.05)),
    *(
        Planted(
            f"adapter not applied ({n})", ("completion_tokens", "logprob"), _no_adapter, hint=True
        )
        for n in (1, 2)
    ),
    Planted("schema failures +20%", ("schema_failure",), _share("schema_failure", 0.2)),
    Planted("time per token x2", ("time_per_token_ms",), _times("time_per_token_ms", 2.0)),
)


def run_leads(
    seeds: Sequence[int], volume: int, pause: Pause, names: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Plant every change in a service of each seed. `names`: only these."""
    found = []
    for seed in seeds:
        pause()
        service, watch, ratings = _warmed(seed, volume)
        for place, planted in enumerate(PLANTED):
            if names and planted.name not in names:
                continue
            r = np.random.default_rng([seed, place, 7])
            found.append(
                _follow(planted, copy.deepcopy(service), copy.deepcopy(watch), list(ratings), r)
                | {"seed": seed}
            )
    return found


def run_two(seeds: Sequence[int], volume: int, pause: Pause) -> list[dict[str, Any]]:
    """Refusals, and ten days later a new topic: does the second get its own words?"""
    by_name = {planted.name: planted for planted in PLANTED}
    first, second = by_name["refusals +8%"], by_name["new topic 15%"]
    found = []
    for seed in seeds:
        pause()
        service, watch, _ = _warmed(seed, volume)
        r = np.random.default_rng([seed, 77])
        for day in range(BEGIN, BEGIN + _SECOND + FOLLOWED):
            changes = [first.change] + ([second.change] if day >= BEGIN + _SECOND else [])
            watch.step(FIRST_DAY + day, _day(service, day, changes, r))
        incidents = [one for one in watch.stream.incidents if one.since >= FIRST_DAY + BEGIN - 2]
        explained = [
            one for one in incidents if _has_new_words(one) and set(one.signals) & set(second.leads)
        ]
        refusing = [one for one in incidents if one.lead.chart.signal == "refusal"]
        found.append(
            {
                "seed": seed,
                "incidents": [one.signals for one in incidents],
                "first": bool(refusing),
                "second": any(one not in refusing for one in explained),
            }
        )
    return found


def _warmed(seed: int, volume: int) -> tuple[World, Watch, list[Table]]:
    service = World(seed, volume, "clustered, weekly", texts=True)
    watch, ratings = Watch("support", DetectorSettings()), []
    nobody = np.random.default_rng(seed)
    for day in range(BEGIN):
        rows = _day(service, day, [], nobody)
        watch.step(FIRST_DAY + day, rows)
        ratings.append(_ratings(rows))
    return service, watch, ratings[-_BEFORE_DAYS:]


def _day(service: World, day: int, changes: Sequence[Change], r: np.random.Generator) -> Table:
    """A day of the service with a tenant of a quarter of the users, and with the changes."""
    columns = dict(service.day(day).columns)
    of_tenant = np.array([hash_of(user) < TENANT_USERS for user in columns["user"]])
    columns["slice_tenant"] = np.where(of_tenant, TENANT, "others").astype(object)
    for change in changes:
        change(columns, r)
    columns.pop("truth_topic", None)
    return Table(columns)


def _ratings(rows: Table) -> Table:
    return Table({name: rows.columns[name] for name in ("day", "thumb")})


def _follow(
    planted: Planted, service: World, watch: Watch, ratings: list[Table], r: np.random.Generator
) -> dict[str, Any]:
    known = set(watch.stream.incidents)
    for day in range(BEGIN, BEGIN + FOLLOWED):
        rows = _day(service, day, [planted.change], r)
        ratings.append(_ratings(rows))
        watch.step(FIRST_DAY + day, rows)
        fresh = [
            one
            for one in watch.stream.incidents
            if one not in known and set(one.signals) & set(planted.leads)
        ]
        if fresh:
            # The day after: what crosses on one day only then has its hint.
            rows = _day(service, day + 1, [planted.change], r)
            ratings.append(_ratings(rows))
            watch.step(FIRST_DAY + day + 1, rows)
            made = _judged(planted, fresh[0], concatenated(ratings))
            return {"change": planted.name, "delay": day - BEGIN + 1} | made
    return {"change": planted.name, "delay": None}


def _judged(planted: Planted, incident: Incident, ratings: Table) -> dict[str, Any]:
    record = incident.record()
    text = describe_incident(record, quality_in_table(ratings, record).record())
    places = [(one.column, one.value) for one in record.slices or []]
    place_right = places[:1] == [planted.place] if planted.place[0] else not places
    return {
        "lead": record.signal,
        "lead_right": record.signal in planted.leads,
        "slices": [f"{column}={value}" for column, value in places],
        "slice_right": place_right,
        "words": [one.words for one in record.topics[:1]],
        "words_right": _has_new_words(incident) if planted.words else True,
        "hint_right": bool(record.hint) == planted.hint,
        "text": text.as_json(),
    }


def _has_new_words(incident: Incident) -> bool:
    """Whether the first topic is named by words of the new one, most of them."""
    words = next((one.words for one in incident.explanation.topics if one.words), [])
    return sum(word in _NEW_WORDS for word in words) > len(words) / 2


def summarise_leads(
    runs: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Count what was right of all that were planted, and of those that were found."""
    found = [run for run in runs if run["delay"]]
    all_right = sum(all(run[part] for part in _PARTS) for run in found)
    interval = binomtest(all_right, len(runs)).proportion_ci(method="wilson")
    return {
        "planted": len(runs),
        "found": len(found),
        **{part: sum(run[part] for run in found) for part in _PARTS},
        "all_right": all_right,
        "low": round(float(interval.low), 3),
        "high": round(float(interval.high), 3),
        "pairs": len(pairs),
        "pairs_right": sum(pair["first"] and pair["second"] for pair in pairs),
    }


def _fault(run: Mapping[str, Any]) -> str:
    """What of a run is not as planted; empty where all is."""
    if not run["delay"]:
        return "not found"
    if all(run[name] for name in _PARTS):
        return ""
    slices, words = run["slices"] or "none", run["words"] or "none"
    return f"led by {run['lead']}, slices {slices}, words {words}"


def write_leads(part: Mapping[str, Any]) -> list[str]:
    """Markdown of a recorded part."""
    row = part["summary"]
    wrong = [
        f"- {run['change']}, seed {run['seed']}: {_fault(run)}"
        for run in part["runs"]
        if _fault(run)
    ]
    return [
        (
            "**What incidents say of planted changes**, the day after they opened (Wilson's 95 %"
            " interval)"
        ),
        "",
        (
            "| planted | found in 14 days | right lead | right slice | right words | right hint |"
            " all right |"
        ),
        "|---:|---:|---:|---:|---:|---:|---:|",
        (
            f"| {row['planted']} | {row['found']} | {row['lead_right']} | {row['slice_right']} "
            f"| {row['words_right']} | {row['hint_right']} "
            f"| {row['all_right']} ({row['low']:.0%}–{row['high']:.0%}) |"
        ),
        "",
        f"Two changes ten days apart, both explained: {row['pairs_right']} of {row['pairs']}.",
        *(["", "Not right:", *wrong] if wrong else []),
    ]


def texts_of(runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, IncidentText]]:
    """(name of the change, what its incident says), one of each kind of change."""
    first = {run["change"]: run["text"] for run in reversed(runs) if run["delay"]}
    return [
        (planted.name, IncidentText(**first[planted.name]))
        for planted in PLANTED
        if planted.name in first
    ]
