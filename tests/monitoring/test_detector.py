"""The daily detector's decisions, one by one, on numbers whose answer is known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from monitoring.detector.baseline import History, quiet_weekdays, usual, weekday_of, z_score
from monitoring.detector.clusters import fit_codebook
from monitoring.detector.coldstart import compare_two
from monitoring.detector.columns import Table
from monitoring.detector.cusum import (
    Cusum,
    change_begin,
    measured_spread,
    run_length,
    run_lengths,
    threshold_for,
)
from monitoring.detector.daily import Chart, DayStatistics, Point, share_point, summarise_day
from monitoring.detector.effects import effect_of
from monitoring.detector.explain import contributions
from monitoring.detector.incidents import Evidence, Incident
from monitoring.detector.sample import capped, sample_of_day
from monitoring.detector.settings import DetectorSettings
from monitoring.detector.signals import SIGNALS, signal_of, signals_of
from monitoring.detector.spreads import Spreads
from monitoring.detector.stream import Stream
from monitoring.detector.table import table_from_columns
from monitoring.detector.texts import WordSpace, characteristic_words, risen_words
from monitoring.detector.topics import Clusters, by_likeness, by_risen_words, described
from monitoring.detector.turnover import class_weights, least_z, turnover_z
from whet.errors import ConfigurationError
from whet.records.monitoring import DayRecord, TopicRecord

SETTINGS = DetectorSettings()
MONDAY = 20_458  # 2026-01-05


# --- samples -------------------------------------------------------------------------------------------------------


def test_nobody_counts_more_often_than_the_cap_and_rows_without_a_user_count_once_each() -> None:
    users = np.array(["a"] * 10 + ["b"] * 2 + [None] * 4, dtype=object)
    chosen = capped(users, 16, 3, np.random.default_rng(0))
    assert [users[i] for i in chosen].count("a") == 3
    assert [users[i] for i in chosen].count("b") == 2
    assert set(range(12, 16)) <= set(chosen)
    assert (np.diff(chosen) > 0).all()
    assert len(capped(None, 16, 3, np.random.default_rng(0))) == 16


def test_a_service_of_two_people_still_has_a_sample() -> None:
    table = Table({"user": np.array(["a", "b"] * 100, dtype=object), "value": np.arange(200.0)})
    assert len(sample_of_day(table, 3, 60, 0, 1)) >= 60
    assert (
        sample_of_day(table, 3, 60, 0, 1).columns["value"].tolist()
        == sample_of_day(table, 3, 60, 0, 1).columns["value"].tolist()
    )


# --- what is usual -------------------------------------------------------------------------------------------------


def _history(values: np.ndarray, **changes: object) -> History:
    n = len(values)
    made = History(
        values,
        np.full(n, 0.01),
        values,
        np.full(n, 100.0),
        np.arange(n) % 7 >= 5,
        np.zeros(n, dtype=np.int64),
        0,
    )
    return replace(made, **changes)


def test_a_weekend_is_judged_by_weekends() -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 56)
    known = usual(_history(noise + 2.0 * (np.arange(56) % 7 >= 5)), 20)
    assert known is not None
    assert known.level == pytest.approx((0.0, 2.0), abs=0.06)
    assert abs(z_score(2.0, 0.01, True, known, 6)) < 1
    assert z_score(2.0, 0.01, False, known, 6) == 6


def test_an_outage_in_the_history_moves_neither_level_nor_spread_much() -> None:
    noise = np.random.default_rng(2).normal(0, 0.1, 56)
    quiet, loud = (
        usual(_history(noise), 20),
        usual(_history(np.where(np.arange(56) == 30, 50.0, noise)), 20),
    )
    assert quiet is not None and loud is not None
    assert loud.level[0] == pytest.approx(quiet.level[0], abs=0.03)
    assert loud.spread < 1.3 * quiet.spread


def test_a_day_with_a_quarter_of_the_rows_is_allowed_twice_the_swing() -> None:
    known = usual(_history(np.random.default_rng(3).normal(0, 0.1, 56)), 20)
    assert known is not None
    assert z_score(0.3, 0.02, False, known, 6) < 0.7 * z_score(0.3, 0.01, False, known, 6)
    assert z_score(0.3, 0.005, False, known, 6) == z_score(0.3, 0.01, False, known, 6)


def test_z_is_normal_whatever_the_length_of_the_history() -> None:
    rng = np.random.default_rng(4)
    for days in (20, 50):
        z = []
        for _ in range(1500):
            values = rng.normal(5, 2, days)
            known = usual(
                _history(values, quiet=np.zeros(days, dtype=bool), errors=np.zeros(days)), 20
            )
            assert known is not None
            z.append(z_score(rng.normal(5, 2), 0, False, known, 6))
        assert np.std(z) == pytest.approx(1, abs=0.08)
        assert np.mean(np.abs(z) > 2.58) < 0.022


def test_after_a_declared_change_the_level_is_new_and_the_spread_is_not() -> None:
    values = np.concatenate([np.random.default_rng(5).normal(0, 0.1, 50), np.full(6, 3.0)])
    known = usual(
        _history(
            values,
            segment=(np.arange(56) >= 50).astype(int),
            today=1,
            quiet=np.zeros(56, dtype=bool),
        ),
        20,
    )
    assert known is not None
    assert known.level[0] == pytest.approx(3.0)
    assert known.spread == pytest.approx(0.1, rel=0.3)
    assert (
        usual(_history(values, segment=(np.arange(56) >= 53).astype(int), today=1), 20) is None
    ), "three days are no level"
    assert usual(_history(values[:19]), 20) is None


def test_quiet_weekdays_are_learned_and_growth_is_no_rhythm() -> None:
    days = list(range(MONDAY, MONDAY + 56))
    friday_saturday = [1000 if weekday_of(day) in (4, 5) else 2000 for day in days]
    assert quiet_weekdays(days, friday_saturday) == {4, 5}
    assert quiet_weekdays(days, [int(1000 * 1.03**i) for i in range(56)]) == {
        5,
        6,
    }, "without a rhythm the calendar's weekend"
    assert quiet_weekdays(days[:10], friday_saturday[:10]) == {5, 6}


# --- sums ----------------------------------------------------------------------------------------------------------


def test_run_lengths_agree_with_simulation_and_grow_with_the_threshold() -> None:
    rng = np.random.default_rng(6)
    lengths = []
    for _ in range(400):
        total, days = 0.0, 0
        while total < 2.5:
            total, days = max(0.0, total + rng.normal() - 0.75), days + 1
        lengths.append(days)
    assert run_length(2.5, 0.75, 1.0) == pytest.approx(np.mean(lengths), rel=0.15)
    assert (
        threshold_for(1000, 0.75, 1.0)
        < threshold_for(10_000, 0.75, 1.0)
        < threshold_for(10_000, 0.75, 1.3)
    )


def test_one_number_sets_all_thresholds() -> None:
    sides = {"refusal": 2, "language": 48}
    loud, calm = (
        [threshold_for(days, 0.75, 1.0) for days in run_lengths(sides, target).values()]
        for target in (5.0, 0.1)
    )
    assert loud[0] < calm[0] and loud[1] < calm[1]
    assert calm[1] > calm[0], "a signal of 24 charts may not be louder than one of a single chart"
    rate = sum(
        100 * sides / run_length(h, 0.75, 1.0) for sides, h in zip((2, 48), calm, strict=True)
    )
    assert rate == pytest.approx(0.1, rel=0.15)
    with pytest.raises(ConfigurationError, match="target has to lie between"):
        DetectorSettings(target=0)


def test_a_sum_remembers_when_it_left_zero() -> None:
    sums = Cusum()
    for day, z in enumerate([0.1, 2.0, 2.0, -9.0, 3.0, 3.0]):
        sums = sums.step(z, day, 0.75, 100)
    assert sums.up_since == 4
    assert sums.since == 4


def test_the_first_day_of_a_change_is_not_the_first_day_of_a_chance_excursion() -> None:
    z = np.array([1.2, 0.9, 0.8, 0.2, 1.1, 4.2, 4.8, 5.1])
    assert change_begin(z, True) == 5
    assert change_begin(-z, False) == 5


def test_spread_grows_when_neighbouring_weeks_lean_and_is_not_moved_by_one_change() -> None:
    rng = np.random.default_rng(7)
    independent = rng.normal(size=400)
    assert measured_spread(np.array([]), 0) == 1
    assert measured_spread(independent, 400) == pytest.approx(1, abs=0.12)
    assert measured_spread(1.6 * independent, 400) > 1.4
    assert measured_spread(np.concatenate([independent, np.full(8, 14.0)]), 408) < 1.2


def _spreads(weeks: dict[Chart, list[float]]) -> Spreads:
    made = Spreads()
    for chart, blocks in weeks.items():
        for week, block in enumerate([*blocks, 0.0]):  # the last one ends the week before it
            for day in range(7):
                made.add(chart, block / np.sqrt(7), 7 * week + day)
    return made


def test_a_signal_that_wanders_makes_no_other_signal_slower() -> None:
    rng = np.random.default_rng(8)
    steady = {Chart(name): list(rng.normal(size=12)) for name in ("refusal", "language", "logprob")}
    topics = {Chart("prompt_topics", str(i)): list(3 * rng.normal(size=12)) for i in range(20)}
    found = _spreads({**steady, **topics}).by_signal()
    assert found["prompt_topics"] > 2
    assert all(found[chart.signal] < 1.25 for chart in steady), found


def test_a_category_that_wanders_makes_no_other_category_slower() -> None:
    rng = np.random.default_rng(10)
    spreads = _spreads(
        {
            Chart("language", name): list((4.0 if name == "pl" else 1.0) * rng.normal(size=20))
            for name in ("en", "es", "de", "pl")
        }
    )
    by_signal = spreads.by_signal()
    assert (
        spreads.of_chart(Chart("language", "pl"), by_signal)
        > spreads.of_chart(Chart("language", "en"), by_signal) + 0.5
    )


def test_a_signal_of_few_weeks_is_taken_to_be_as_the_others() -> None:
    rng = np.random.default_rng(9)
    wandering = {
        Chart(name): list(1.6 * rng.normal(size=50)) for name in ("ttft_ms", "language", "refusal")
    }
    found = _spreads({**wandering, Chart("new"): [0.1]}).by_signal()
    assert found["new"] == pytest.approx(1.5, abs=0.25)
    assert Spreads().by_signal() == {} and Spreads().of_chart(Chart("new"), {}) == 1


# --- users ---------------------------------------------------------------------------------------------------------


def test_other_users_alone_are_no_change_and_a_change_within_users_is() -> None:
    rng = np.random.default_rng(8)
    z_other, z_within = [], []
    for _ in range(60):
        habits = rng.beta(0.3, 2.7, 400)
        before, after = np.repeat(np.arange(0, 300), 20), np.repeat(np.arange(60, 360), 20)
        old, new = (rng.random(6000) < habits[who] for who in (before, after))
        z_other.append(turnover_z(old.astype(float), new.astype(float), before, after))
        worse = rng.random(6000) < np.minimum(1, 1.5 * habits[after])
        z_within.append(turnover_z(old.astype(float), worse.astype(float), before, after))
    assert np.std(z_other) == pytest.approx(1, abs=0.3)
    assert np.median(z_within) > 3.5


def test_too_few_users_decide_nothing_and_weights_balance_weekdays() -> None:
    few = np.array(["a", "b"] * 10, dtype=object)
    assert turnover_z(np.zeros(20), np.ones(20), few, few) is None
    assert turnover_z(np.zeros(20), np.ones(20), np.arange(20), np.arange(20)) == np.inf
    weights = class_weights(np.array([True] * 2 + [False] * 8), np.array([True] * 5 + [False] * 5))
    assert weights[:2].sum() == pytest.approx(weights[2:].sum())
    assert least_z(3.5, 2) == pytest.approx(3.5)
    assert least_z(3.5, 48) > 4.2


# --- days, sizes, words --------------------------------------------------------------------------------------------


def _day(n: int = 300, seed: int = 0, **changes: object) -> Table:
    rng = np.random.default_rng(seed)
    columns: dict[str, object] = {
        "day": ["2026-01-05"] * n,
        "user": [f"u{i % 200}" for i in range(n)],
        "prompt_tokens": rng.integers(5, 400, n),
        "ttft_ms": np.exp(rng.normal(5, 0.5, n)),
        "refusal": rng.random(n) < 0.05,
        "language": rng.choice(["en", "es"], n, p=[0.8, 0.2]),
        "thumb": rng.choice([np.nan, 1, -1], n, p=[0.6, 0.3, 0.1]),
        "embedding": list(rng.normal(size=(n, 8))),
    }
    return table_from_columns(columns | changes)


def test_a_day_becomes_one_point_per_chart_and_survives_json() -> None:
    day, sample = summarise_day(_day(), MONDAY, SETTINGS, None)
    assert {chart.signal for chart in day.points} == {
        "prompt_tokens",
        "ttft_ms",
        "refusal",
        "thumb_given",
        "thumb_down",
    }
    assert {chart.part for chart in day.points if chart.signal == "ttft_ms"} == {"p50", "p95"}
    assert day.points[Chart("refusal")].level == pytest.approx(sample.columns["refusal"].mean())
    assert set(day.counts[Chart("language")]) == {"en", "es"}
    assert (
        DayStatistics.from_record(DayRecord.model_validate(json.loads(json.dumps(day.as_json()))))
        == day
    )


def test_a_signal_with_too_few_values_is_a_day_without_it() -> None:
    blank = [np.nan] * 280 + [100.0] * 20
    day, _ = summarise_day(_day(ttft_ms=blank, language=[None] * 300), MONDAY, SETTINGS, None)
    assert not {chart.signal for chart in (*day.points, *day.counts)} & {"ttft_ms", "language"}


def test_answers_are_watched_for_each_adapter_and_questions_for_the_alias() -> None:
    day, _ = summarise_day(
        _day(adapter=["v1"] * 150 + ["v2"] * 140 + ["v3"] * 10), MONDAY, SETTINGS, None
    )
    assert {chart.adapter for chart in day.points if chart.signal == "refusal"} == {"v1", "v2"}
    assert {chart.adapter for chart in day.points if chart.signal == "prompt_tokens"} == {""}


def test_signals_are_read_from_texts_where_their_columns_are_missing() -> None:
    n = 100
    answers = ["I'm sorry, but I cannot help with that."] * 10 + [
        "Press the red button and wait for a minute."
    ] * 90
    table = table_from_columns(
        {
            "day": ["2026-01-05"] * n,
            "prompt": ["Wie kann ich das der Firma zurückgeben?"] * n,
            "answer": answers,
        }
    )
    day, _ = summarise_day(table, MONDAY, SETTINGS, None)
    assert day.points[Chart("refusal")].level == pytest.approx(0.1)
    assert day.counts[Chart("language")] == {"de": n}
    assert day.points[Chart("empty")].level == 0


def test_every_signal_has_a_label_and_own_columns_become_signals() -> None:
    assert len({signal.name for signal in SIGNALS}) == len(SIGNALS)
    found = {
        signal.name: signal.shape
        for signal in signals_of(
            {"rate_unsafe", "value_price", "category_tier", "slice_shop", "rubbish"}
        )
    }
    assert found == {"category_tier": "category", "rate_unsafe": "rate", "value_price": "positive"}


@pytest.mark.parametrize(
    ("name", "part", "before", "now", "values", "large", "said"),
    [
        ("refusal", "", 0.03, 0.061, 3000, True, "Refusal rate 6.1 %, baseline 3.0 %, since 2026-01-05 (+62 requests a day)."),
        ("refusal", "", 0.030, 0.036, 3000, False, "3.6 %"),
        ("refusal", "", 0.03, 0.06, 100, False, "6.0 %"),
        ("repetition", "", 0.02, 0.005, 3000, False, "(-30 requests a day)"),
        ("ttft_ms", "p50", 200.0, 242.0, 3000, True, "TTFT p50 242 ms, baseline 200 ms (+21 %), since 2026-01-05."),
        ("ttft_ms", "p95", 200.0, 150.0, 3000, False, "(-25 %)"),
        ("language", "es", 0.10, 0.146, 3000, True, "Questions by language: es 15 %, baseline 10 %"),
        ("logprob", "", 0.30, 0.33, 3000, True, "(geometric mean) 0.33, baseline 0.3 (+10 %)"),
        ("prompt_novelty", "", 0.05, 0.10, 3000, True, "Out-of-distribution questions 10 %, baseline 5.0 %"),
    ],
)  # fmt: skip
def test_sizes_are_said_in_plain_words_and_trifles_are_not_large(
    name: str, part: str, before: float, now: float, values: int, large: bool, said: str
) -> None:
    effect = effect_of(
        signal_of(name),
        Chart(name, part),
        before,
        now,
        values=values,
        rows_per_day=2000,
        since=MONDAY,
    )
    assert effect.large is large
    assert said in effect.sentence


def _incident(*moves: tuple[str, str, float, float], since: int = MONDAY) -> Incident:
    """An incident of charts that crossed on one day: (signal, part, before, now)."""
    evidence = {}
    for name, part, before, now in moves:
        chart = Chart(name, part)
        effect = effect_of(
            signal_of(name), chart, before, now, values=3000, rows_per_day=2000, since=since
        )
        # Sums are clipped: all tie
        evidence[chart] = Evidence(chart, since + 2, since, 2.0, effect)
    return Incident("support", since + 2, since, evidence)


@pytest.mark.parametrize(
    ("moves", "lead"),
    [
        ([("refusal", "", 0.034, 0.0), ("completion_tokens", "", 52.0, 11.0)], "completion_tokens"),
        ([("completion_tokens", "", 57.0, 46.0), ("refusal", "", 0.034, 0.15)], "refusal"),
        ([("refusal", "", 0.02, 0.03), ("prompt_novelty", "", 0.055, 0.13)], "prompt_novelty"),
        ([("ttft_ms", "p50", 194.0, 290.0), ("ttft_ms", "p95", 800.0, 900.0)], "ttft_ms"),
        ([("finish_reason", "stop", 0.99, 0.90), ("refusal", "", 0.06, 0.03)], "finish_reason"),
    ],
)
def test_the_largest_change_leads_and_good_news_never_does(
    moves: list[tuple[str, str, float, float]], lead: str
) -> None:
    assert _incident(*moves).lead.chart.signal == lead


def test_a_change_that_begins_after_an_incident_was_found_has_its_own() -> None:
    stream = Stream("support", DetectorSettings())
    refusals = _incident(("refusal", "", 0.03, 0.2))
    stream.take(list(refusals.evidence.values()), MONDAY + 2)
    along = _incident(("completion_tokens", "", 57.0, 46.0), since=MONDAY + 1)
    stream.take(list(along.evidence.values()), MONDAY + 3)
    later = _incident(("prompt_novelty", "", 0.05, 0.2), since=MONDAY + 8)
    stream.take(list(later.evidence.values()), MONDAY + 10)
    assert [one.signals for one in stream.incidents] == [
        ["refusal", "completion_tokens"],
        ["prompt_novelty"],
    ]


def test_answers_of_another_model_are_told_as_an_adapter_that_may_not_be_applied() -> None:
    without = _incident(
        ("completion_tokens", "", 52.0, 11.0),
        ("refusal", "", 0.034, 0.0),
        ("answer_language", "de", 0.07, 0.0),
    )
    assert (
        "adapter may not be applied" in without.hint and without.as_json()["hint"] == without.hint
    )
    assert _incident(("completion_tokens", "", 52.0, 11.0)).hint == "", (
        "a model may merely write shorter"
    )
    refusing = _incident(("refusal", "", 0.034, 0.3), ("completion_tokens", "", 57.0, 46.0))
    assert refusing.hint == "", "refusals are short"
    asked = _incident(
        ("completion_tokens", "", 52.0, 11.0),
        ("logprob", "", 0.5, 0.9),
        ("prompt_novelty", "", 0.05, 0.5),
    )
    assert asked.hint == "", "other questions have other answers"


def test_parts_of_a_change_sum_to_the_change() -> None:
    rng = np.random.default_rng(9)
    old, new = rng.normal(0, 1, 500), rng.normal(0, 1, 400)
    old_labels, new_labels = rng.choice(list("abc"), 500), rng.choice(list("abcd"), 400)
    new = new + 2 * (new_labels == "b")
    parts = contributions(old, new, old_labels.astype(object), new_labels.astype(object))
    assert sum(part for part, _, _ in parts.values()) == pytest.approx(new.mean() - old.mean())
    assert max(parts, key=lambda label: parts[label][0]) == "b"


def test_words_of_a_cluster_come_from_several_people() -> None:
    clusters = [
        ["my solar panel", "solar roof", "solar inverter secretname"],
        ["my invoice", "the invoice", "invoice please"],
    ]
    named = characteristic_words(clusters, [["a", "b", "c"], ["d", "e", "f"]])
    assert named[0][0] == "solar"
    assert named[1][0] == "invoice"
    assert "secretname" not in named[0]
    assert characteristic_words(clusters, [["a", "a", "a"], ["d", "e", "f"]])[0] == []


def test_texts_with_the_same_words_are_close_and_new_words_are_far_from_all() -> None:
    known = [
        "refund of my invoice payment",
        "invoice payment refund",
        "reset the login password",
        "password login reset",
    ] * 60
    space = WordSpace.learned(known)
    table = Table(
        {
            "prompt": np.array(known, dtype=object),
            "id": np.array([str(i) for i in range(240)], dtype=object),
        }
    )
    book = fit_codebook(table, 4, 0)
    assert book is not None and book.space is not None
    _, distance = book.assign(
        book.vectors(
            Table(
                {
                    "prompt": np.array(
                        ["payment of the invoice refund", "solar panel inverter roof", "", None],
                        dtype=object,
                    )
                }
            )
        )
    )
    assert distance[1] > distance[0] + 0.2
    assert np.isnan(distance[2:]).all()
    assert np.allclose(space.vectors(["Refund of MY invoice payment"]), space.vectors([known[0]]))


_ASKED = (
    "How do I change the {} of the {}?",
    "Please cancel {} for {}, thanks in advance",
    "I need help with {} and {} urgently",
    "Since yesterday {} shows an error about {}",
)
_TOPICS = (
    "invoice payment refund",
    "login password account",
    "router wifi cable",
    "solar panel inverter",
)


def _questions(first: int, count: int, topics: int, rng: np.random.Generator) -> Table:
    """`count` questions of as many users about the first `topics` topics, asked in one of four
    ways; `truth`: which topic.
    """
    of = rng.integers(topics, size=count)
    prompts = [
        _ASKED[rng.integers(len(_ASKED))].format(*rng.permutation(_TOPICS[topic].split())[:2])
        for topic in of
    ]
    ids = np.array([str(first + i) for i in range(count)], dtype=object)
    return Table({"prompt": np.array(prompts, dtype=object), "id": ids, "truth": of.astype(float)})


def _new_of(found: list[TopicRecord], after: Table) -> list[float]:
    """Of each named topic, the share of its examples that are of the new one."""
    new = set(after.columns["id"][after.columns["truth"] == len(_TOPICS) - 1])
    return [sum(name in new for name in one.examples) / len(one.examples) for one in found]


def test_a_new_topic_is_named_whatever_the_ways_of_asking() -> None:
    rng = np.random.default_rng(4)
    before = _questions(0, 900, 3, rng)
    usual, new = _questions(900, 460, 3, rng), _questions(1400, 160, 4, rng)
    after = Table(
        {name: np.concatenate([usual.columns[name], new.columns[name]]) for name in usual.columns}
    )
    found = by_risen_words(before, after, None, 0)
    assert found is not None
    named = described(found, found.rises(), after, {})
    assert named and _new_of(named, after) == [1.0] * len(named)
    assert (
        set(named[0].words) <= set(_TOPICS[3].split())
        and named[0].share_before == 0 < named[0].share_now
    )
    blind = by_likeness(before, after, None, 0)
    assert blind is not None
    assert min(_new_of(described(blind, blind.rises(), after, {}), after)) < 0.5, (
        "the ways of asking are no difficulty here, so this test shows nothing"
    )


def test_one_subject_in_several_groups_is_told_once_with_the_sum_of_their_shares() -> None:
    words = [
        "solar panel",
        "panel inverter roof",
        "solar inverter roof",
        "login password",
        "password account login",
    ]
    labels = np.repeat(np.arange(5), 20)
    prompts = [words[label] for label in labels]
    after = Table(
        {
            "prompt": np.array(prompts, dtype=object),
            "id": np.array([str(i) for i in range(100)], dtype=object),
        }
    )
    vectors = np.eye(5, dtype=np.float32)[labels]
    rows = np.arange(100)
    found = Clusters(np.eye(5, dtype=np.float32), rows, rows, np.full(100, -1), labels, vectors)
    named = described(found, np.arange(5.0, 0.0, -1.0), after, {})
    assert [one.share_now for one in named] == [0.2, 0.4, 0.4], [one.words for one in named]


def test_where_no_words_rose_there_are_no_groups_of_risen_words() -> None:
    rng = np.random.default_rng(5)
    before, after = _questions(0, 900, 4, rng), _questions(900, 600, 4, rng)
    assert by_risen_words(before, after, None, 0) is None
    without = Table({name: values for name, values in after.columns.items() if name != "prompt"})
    assert by_risen_words(before, without, None, 0) is None
    gone = Table({**after.columns, "prompt": np.array([None] * 600, dtype=object)})
    assert by_risen_words(before, gone, None, 0) is None


def test_a_word_that_few_people_say_often_has_not_risen() -> None:
    before = ["where is my parcel"] * 300
    after = ["where is my parcel"] * 260 + ["solar panel secretname"] * 40
    users = [f"u{i}" for i in range(300)]
    assert set(risen_words(before, users, after, users)) == {"solar", "panel", "secretname"}
    assert risen_words(before, users, after, [*users[:260], *["talkative", "other"] * 20]) == {}


# --- streams -------------------------------------------------------------------------------------------------------


def _numbers(days: int, level: object, seed: int = 0, **more: object) -> list[DayStatistics]:
    """Days with one refusal chart; `level`: day index → share."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(days):
        points = {Chart("refusal"): share_point(int(rng.binomial(1500, level(i))), 1500)}  # type: ignore[operator]
        made.append(
            DayStatistics(
                MONDAY + i, 2000, 1500, points, {}, {name: value(i) for name, value in more.items()}
            )
        )  # type: ignore[operator]
    return made


def _run(days: list[DayStatistics], settings: DetectorSettings = SETTINGS) -> Stream:
    stream = Stream("support", settings)
    for day in days:
        stream.step(day)
    return stream


def test_a_doubled_rate_opens_one_incident_within_three_days_and_names_its_first_day() -> None:
    stream = _run(_numbers(110, lambda i: 0.06 if i >= 80 else 0.03))
    (incident,) = stream.incidents
    assert incident.opened - MONDAY <= 82
    assert abs(incident.since - MONDAY - 80) <= 1
    assert incident.state == "open", "a lasting change does not become normal by lasting"


@pytest.mark.seconds
def test_quiet_days_open_nothing() -> None:
    assert sum(len(_run(_numbers(140, lambda i: 0.03, seed)).incidents) for seed in range(8)) == 0


def test_a_change_that_goes_away_is_resolved_and_is_no_history_and_the_next_one_is_new() -> None:
    stream = _run(_numbers(140, lambda i: 0.07 if 70 <= i < 80 or i >= 120 else 0.03))
    first, second = stream.incidents
    assert (first.state, second.state) == ("resolved", "open")
    assert first.closed is not None and 86 <= first.closed - MONDAY <= 95
    assert abs(second.since - MONDAY - 120) <= 2


def test_expected_makes_the_new_level_the_usual_one() -> None:
    stream = Stream("support", SETTINGS)
    for day in _numbers(150, lambda i: 0.03 if i < 80 else 0.06 if i < 125 else 0.12):
        stream.step(day)
        if day.day == MONDAY + 84:
            stream.expected(stream.incidents[0], day.day)
    first, second = stream.incidents
    assert first.state == "expected"
    assert abs(second.since - MONDAY - 125) <= 2
    assert second.lead.effect.before == pytest.approx(0.06, abs=0.006)


def test_a_new_template_is_a_declared_change() -> None:
    shares = {"t1": lambda i: 1500 if i < 80 else 0, "t2": lambda i: 0 if i < 80 else 1500}
    stream = _run(_numbers(120, lambda i: 0.06 if i >= 80 else 0.03, **shares))
    assert stream.incidents == []
    assert [one["day"] for one in stream.declared] == [MONDAY + 80]
    assert len(_run(_numbers(120, lambda i: 0.06 if i >= 80 else 0.03)).incidents) == 1


def test_a_new_adapter_takes_over_history_and_its_answers_are_judged_again_after_a_week() -> None:
    rng = np.random.default_rng(10)
    stream = Stream("support", SETTINGS)
    for i in range(120):
        share = 0.03 if i < 70 else 0.06 if i < 100 else 0.15
        chart = Chart("refusal", "", "v1" if i < 70 else "v2")
        stream.step(
            DayStatistics(
                MONDAY + i,
                2000,
                1500,
                {chart: share_point(int(rng.binomial(1500, share)), 1500)},
                {},
                {},
            )
        )
    (incident,) = stream.incidents
    assert abs(incident.since - MONDAY - 100) <= 2
    assert incident.lead.chart.adapter == "v2"


def test_missing_days_and_missing_signals_are_no_evidence() -> None:
    days = [day for i, day in enumerate(_numbers(140, lambda i: 0.03, 11)) if i % 9]
    days = [replace(day, points={}) if i % 10 == 3 else day for i, day in enumerate(days)]
    assert _run(days).incidents == []
    with pytest.raises(ValueError, match="does not come after"):
        _run(days[:5] + days[:1])


def test_signals_that_move_together_are_one_incident() -> None:
    rng = np.random.default_rng(12)
    stream = Stream("support", SETTINGS)
    for i in range(90):
        moved = i >= 70
        points = {
            Chart("refusal"): share_point(int(rng.binomial(1500, 0.08 if moved else 0.03)), 1500),
            Chart("logprob"): Point(
                rng.normal(0.2 if moved else 0, 0.02), 0.02, float(np.exp(0.2 * moved)), 1500
            ),
        }
        stream.step(DayStatistics(MONDAY + i, 2000, 1500, points, {}, {}))
    (incident,) = stream.incidents
    assert set(incident.signals) == {"refusal", "logprob"}
    assert incident.as_json()["quality_moved"] is True


def test_a_change_too_small_to_matter_is_not_reported_and_one_that_nobody_confirms_neither() -> (
    None
):
    rng = np.random.default_rng(13)
    levels = [
        Point(
            rng.normal(0.03 if i >= 70 else 0.0, 0.005),
            0.005,
            float(np.exp(0.03 if i >= 70 else 0.0)),
            1500,
        )
        for i in range(100)
    ]
    assert (
        _run(
            [
                DayStatistics(MONDAY + i, 2000, 1500, {Chart("prompt_tokens"): point}, {}, {})
                for i, point in enumerate(levels)
            ]
        ).incidents
        == []
    )
    stream = Stream("support", SETTINGS)
    for day in _numbers(110, lambda i: 0.06 if i >= 80 else 0.03):
        stream.step(day, lambda evidence: False)
    assert stream.incidents == []


def test_the_stored_days_give_the_same_state_again() -> None:
    days = _numbers(110, lambda i: 0.06 if i >= 80 else 0.03)
    again = [
        DayStatistics.from_record(DayRecord.model_validate(json.loads(json.dumps(day.as_json()))))
        for day in days
    ]
    shown = [[incident.as_json() for incident in _run(some).incidents] for some in (days, again)]
    assert shown[0] == shown[1]
    assert isinstance(_run(days).incidents[0], Incident)


# --- cold start ----------------------------------------------------------------------------------------------------


def test_two_samples_of_the_same_service_differ_rarely_and_a_doubled_refusal_rate_is_found() -> (
    None
):
    def side(n: int, seed: int, refusal: float = 0.03) -> Table:
        rng = np.random.default_rng(seed)
        users = [f"u{seed}-{i}" for i in range(n)]
        return _day(n, seed, user=users, refusal=rng.random(n) < refusal)

    false = sum(
        bool(compare_two(side(200, 2 * seed), side(200, 2 * seed + 1), seed=seed).findings)
        for seed in range(30)
    )
    assert false <= 4, (
        "3 % is promised; more than 4 of 30 would come by chance once in 500 such tests"
    )
    found = compare_two(side(5000, 1), side(5000, 2, refusal=0.06))
    assert [finding.signal for finding in found.findings] == ["refusal"]
    assert found.rows == (5000, 5000)


def test_one_row_of_each_user_is_compared() -> None:
    loud = _day(
        600,
        1,
        user=["one"] * 400 + [f"u{i}" for i in range(200)],
        refusal=[1.0] * 400 + [0.0] * 200,
    )
    calm = _day(300, 2, user=[f"v{i}" for i in range(300)], refusal=[0.0] * 300)
    compared = compare_two(calm, loud)
    assert compared.rows == (300, 201)
    assert "refusal" not in {finding.signal for finding in compared.findings}
