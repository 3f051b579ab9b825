"""What carries a change: the slices and topics of the conversations in which it is, their words,
and conversations to read.

A change of a mean is split exactly over the values v of a slice, with s the share of conversations,
x the mean in them and x0 the mean of all before: s1 (x1 - x0) - s0 (x0v - x0) sums over v to the
whole change, whether a slice grew or got worse.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring.detector.cause import find_cause, finds_less
from monitoring.detector.codebook import Codebook
from monitoring.detector.columns import Floats, Table, concatenated
from monitoring.detector.daily import Chart
from monitoring.detector.effects import OTHER
from monitoring.detector.incidents import Evidence, Incident
from monitoring.detector.signals import categories_of, numbers_of, signal_of
from monitoring.detector.slices import rows_in, split_name
from monitoring.detector.texts import characteristic_words
from monitoring.detector.topics import (
    LEAST_ROWS,
    MOST,
    by_likeness,
    by_risen_words,
    described,
    users_of,
)
from whet.records.monitoring import Explanation, SliceRecord, TopicRecord

_SLICES = ("language", "route", "template", "adapter", "finish_reason")
_CARRIES = 0.3  # share of the change from which a slice or topic is named
# Times its share of the conversations, below which a slice or topic moved like everything else; of
# those between half and three quarters, half of the way from their share to all.
_MORE_THAN_SHARE, _MOST_OF_ALL = 2.0, 0.75
_LEAST_APART = 3.0  # standard errors between the change of a large slice and that of the rest
# Of a slice's change, from which all others changed with it.
_OTHERS_TOO = 0.5
_MOST_EXAMPLES = 50
_NAME_WORDS = 4  # of a topic in a sentence
_ROWS = 4_000  # of each side that are clustered


def explain(
    incident: Incident, before: Table, after: Table, codebook: Codebook | None, seed: int
) -> Explanation:
    """Say where an incident's change is. Empty lists where there is nothing to tell from."""
    if not len(before) or not len(after):
        return Explanation(slices=[], topics=[], examples=[])
    lead = incident.lead
    old, new = measure_of(lead.chart, before, codebook), measure_of(lead.chart, after, codebook)
    usable = (
        old is not None and new is not None and np.isfinite(old).any() and np.isfinite(new).any()
    )
    topics = _topics(
        lead, before, after, old if usable else None, new if usable else None, codebook, seed
    )
    slices = _slices(lead.chart, before, after, codebook) if usable else []
    from_topics = (
        [one for topic in topics[:1] for one in topic.examples]
        if signal_of(lead.chart.signal).side == "questions"
        else []
    )
    examples = _examples(lead, after, new) if usable and new is not None else []
    found = Explanation(
        slices=slices,
        topics=topics,
        examples=list(dict.fromkeys([*from_topics, *examples]))[:_MOST_EXAMPLES],
    )
    cause = find_cause(before, after, codebook, seed) if finds_less(incident) else None
    if cause is not None:
        found = found.model_copy(update={"cause": cause.record()})
    names = _topic_names(incident, concatenated([before, after]), codebook)
    return found.model_copy(update={"topic_names": names}) if names else found


def _topic_names(
    incident: Incident, table: Table, codebook: Codebook | None
) -> dict[str, list[str]]:
    """Number of each topic in the incident's evidence → its words; those without words are left
    out.
    """
    numbers = [chart.part for chart in incident.evidence if chart.signal == "prompt_topics"]
    vectors = codebook.vectors(table) if codebook is not None and numbers else None
    if codebook is None or vectors is None or "prompt" not in table:
        return {}
    nearest = codebook.assign(vectors)[0]
    prompts, users = table.columns["prompt"], users_of(table)
    groups = [np.flatnonzero(nearest == int(number)) for number in numbers]
    groups.append(np.flatnonzero(~np.isin(nearest, [int(number) for number in numbers])))
    words = characteristic_words(
        [[prompts[i] for i in group] for group in groups],
        [[users[i] for i in group] for group in groups],
        _NAME_WORDS,
    )
    return {number: some for number, some in zip(numbers, words, strict=False) if some}


def measure_of(chart: Chart, table: Table, codebook: Codebook | None) -> Floats | None:
    """The chart's signal as one number per row, whose mean is what moved; NaN where unknown or
    another adapter answered.
    """
    signal = signal_of(chart.signal)
    if signal.shape in ("novelty", "topics"):
        vectors = codebook.vectors(table) if codebook is not None else None
        if codebook is None or vectors is None:
            return None
        nearest, distance = codebook.assign(vectors)
        values = np.where(
            nearest < 0,
            np.nan,
            np.log(distance) if signal.shape == "novelty" else (nearest == int(chart.part)),
        )
    elif signal.shape == "category":
        found = categories_of(signal, table)
        if found is None:
            return None
        known = ~np.equal(found, np.array(None))
        values = np.where(
            known,
            np.equal(found, np.array(chart.part, dtype=object)) if chart.part != OTHER else np.nan,
            np.nan,
        ).astype(float)
    else:
        numbers = numbers_of(signal, table)
        if numbers is None:
            return None
        values = (
            np.log(np.maximum(numbers, 1e-6))
            if signal.shape in ("positive", "latency")
            else numbers
        )
    adapters = table.get("adapter")
    if chart.adapter and adapters is not None:
        values = np.where(np.equal(adapters, np.array(chart.adapter, dtype=object)), values, np.nan)
    values = np.asarray(values, dtype=float)
    return np.where(rows_in(chart.slice, table), values, np.nan) if chart.slice else values


def beyond_others(chart: Chart, table: Table, codebook: Codebook | None) -> Floats | None:
    """The chart's signal in its slice, less the mean of all other requests of each day."""
    whole = measure_of(chart._replace(slice=""), table, codebook)
    if whole is None:
        return None
    is_in, days = rows_in(chart.slice, table), table.columns["day"]
    found = np.full(len(table), np.nan)
    for day in np.unique(days):
        today = days == day
        others = whole[today & ~is_in & np.isfinite(whole)]
        if len(others):
            found[today & is_in] = whole[today & is_in] - others.mean()
    return found


def contributions(
    old: Floats, new: Floats, old_labels: NDArray[Any], new_labels: NDArray[Any]
) -> dict[Any, tuple[float, float, float]]:
    """Label → (part of the change of the mean, share of conversations before, share after).

    The parts sum to the change.
    """
    known_old, known_new = np.isfinite(old), np.isfinite(new)
    old, new, old_labels, new_labels = (
        old[known_old],
        new[known_new],
        old_labels[known_old],
        new_labels[known_new],
    )
    mean = float(old.mean())
    parts = {}
    for label in dict.fromkeys([*old_labels.tolist(), *new_labels.tolist()]):
        was, now = old[old_labels == label], new[new_labels == label]
        part = float((now - mean).sum()) / len(new) - float((was - mean).sum()) / len(old)
        parts[label] = (part, len(was) / len(old), len(now) / len(new))
    return parts


def _slices(
    lead: Chart, before: Table, after: Table, codebook: Codebook | None
) -> list[SliceRecord]:
    """Slices that carry the change of all requests, most first; the lead's own by itself."""
    whole_chart = lead._replace(slice="")
    old, new = (measure_of(whole_chart, table, codebook) for table in (before, after))
    if old is None or new is None:
        return []
    if lead.slice and (own := _own_slice(lead, before, after, old, new)):
        return [own]
    found = []
    for name in (
        *_SLICES,
        *sorted(name for name in after.columns if name.startswith(("slice_", "category_"))),
    ):
        if name == lead.signal or name not in before or name not in after:
            continue
        before_labels, after_labels = (
            np.array([str(value) for value in table.columns[name]], dtype=object)
            for table in (before, after)
        )
        parts = contributions(old, new, before_labels, after_labels)
        whole = sum(part for part, _, _ in parts.values())
        for label, (part, was, now) in parts.items():
            carried = part / whole if whole else 0.0
            is_known = label != "None" and now * len(after) >= LEAST_ROWS
            if not is_known or not carries(carried, now):
                continue
            # The rest of a large slice is small: that it did not move may be chance.
            is_large = _MORE_THAN_SHARE * now > 1
            if not is_large or _moved_apart(
                old, new, before_labels == label, after_labels == label
            ):
                found.append(
                    SliceRecord(
                        column=name,
                        value=label,
                        share_of_change=round(carried, 3),
                        share_before=round(was, 4),
                        share_now=round(now, 4),
                    )
                )
    return sorted(found, key=lambda one: (-one.share_of_change, one.column, one.value))[: 2 * MOST]


def _moved_apart(
    old: Floats, new: Floats, was_in: NDArray[np.bool_], is_in: NDArray[np.bool_]
) -> bool:
    """Whether a slice and all others changed differently by more than chance, rows independent."""
    parts = [
        values[rows & np.isfinite(values)]
        for values, rows in ((new, is_in), (old, was_in), (new, ~is_in), (old, ~was_in))
    ]
    if min(map(len, parts)) < LEAST_ROWS:
        return False
    means = [float(part.mean()) for part in parts]
    error = float(np.sqrt(sum(part.var() / len(part) for part in parts)))
    return abs((means[0] - means[1]) - (means[2] - means[3])) >= _LEAST_APART * error


def _own_slice(
    lead: Chart, before: Table, after: Table, old: Floats, new: Floats
) -> SliceRecord | None:
    """The lead's slice as the place of the change; None where all other requests changed too.

    Its share of the change is taken of it and the others by themselves: of a small tenant, the
    change of all requests may be chance.
    """
    column, value = split_name(lead.slice)
    was_in, is_in = (rows_in(lead.slice, table) for table in (before, after))
    parts = contributions(old, new, was_in, is_in)
    if True not in parts or False not in parts:
        return None
    moved = {
        inside: float(np.nanmean(new[is_in == inside]) - np.nanmean(old[was_in == inside]))
        for inside in (True, False)
    }
    if moved[True] == 0 or moved[False] / moved[True] >= _OTHERS_TOO:
        return None
    _, was, now = parts[True]
    carried, others = now * abs(moved[True]), (1 - now) * abs(moved[False])
    return SliceRecord(
        column=column,
        value=value,
        share_of_change=round(carried / (carried + others), 3),
        share_before=round(was, 4),
        share_now=round(now, 4),
    )


def _topics(
    lead: Evidence,
    before: Table,
    after: Table,
    old: Floats | None,
    new: Floats | None,
    codebook: Codebook | None,
    seed: int,
) -> list[TopicRecord]:
    """Where questions changed, the topics that rose; else those in whose conversations the change
    is.
    """
    rng = np.random.default_rng([seed, lead.since])
    keep_old, keep_new = (
        np.sort(rng.choice(len(table), min(len(table), _ROWS), replace=False))
        for table in (before, after)
    )
    before, after = before.take(keep_old), after.take(keep_new)
    asked = signal_of(lead.chart.signal).side == "questions"
    found = (by_risen_words(before, after, codebook, seed) if asked else None) or by_likeness(
        before, after, codebook, seed
    )
    if found is None:
        return []
    if asked or old is None or new is None:
        return described(found, found.rises(), after, {})
    parts = contributions(
        old[keep_old][found.old_rows],
        new[keep_new][found.new_rows],
        found.old_labels,
        found.new_labels,
    )
    whole = sum(part for part, _, _ in parts.values()) or 1.0
    carried = {int(topic): part / whole for topic, (part, _, _) in parts.items()}
    ranks = np.array([carried.get(topic, 0.0) for topic in range(len(found.centres))])
    named = described(found, ranks, after, carried)
    return [one for one in named if carries(one.share_of_change, one.share_now)]


def carries(share_of_change: float, share_now: float) -> bool:
    """True where a slice or topic has more of a change than everything else that moved along."""
    least = _MORE_THAN_SHARE * share_now
    if share_now <= _MOST_OF_ALL:
        least = min(least, (1 + share_now) / 2)
    return share_of_change >= max(_CARRIES, least)


def _examples(lead: Evidence, after: Table, new: Floats) -> list[str]:
    """Conversations in which the lead's change shows most: with the event, or furthest in its
    direction; newest first among equals.
    """
    known = np.flatnonzero(np.isfinite(new))
    if signal_of(lead.chart.signal).shape in ("rate", "category", "topics"):
        known = known[new[known] == (1.0 if lead.effect.up else 0.0)]
    order = known[::-1][
        np.argsort(-new[known][::-1] if lead.effect.up else new[known][::-1], kind="stable")
    ]
    return [str(name) for name in after.columns["id"][order][:_MOST_EXAMPLES]]
