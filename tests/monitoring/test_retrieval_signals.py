"""Signals of searches for passages: only of requests that searched, and absent where none did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from monitoring.days import table_of
from monitoring.detector.columns import Table
from monitoring.detector.daily import Chart, DayStatistics, summarise_day
from monitoring.detector.retrieval import MISS, low_scores_of, with_misses
from monitoring.detector.settings import DetectorSettings
from monitoring.detector.signals import signals_of
from monitoring.rows import Row, retrieval_from_record, row_from_record
from monitoring.signals import SIGNALS
from monitoring.verdict import Rules, judge
from tests.monitoring.build import records, rows

SETTINGS = DetectorSettings()
DAY = 20_000


def hit(score: float, text: str = "", collection: str = "manual") -> dict[str, Any]:
    return {"passage_id": "p", "collection": collection, "score": score, "text": text}


def facts(outcome: str = "found", took_ms: float = 4.0, digest: str = "d1") -> dict[str, Any]:
    return {"outcome": outcome, "collection": "manual", "digest": digest, "took_ms": took_ms}


def searched(
    n: int, seed: int, *, score: float = 0.6, empty: float = 0.01, took_ms: float = 4.0
) -> list[Row]:
    """Rows that searched, a few of which found nothing."""
    rng = np.random.default_rng(seed)
    made = []
    for record in records(n, seed):
        nothing = rng.random() < empty
        best = float(rng.normal(score, 0.1))
        record["retrieval"] = facts(
            "empty" if nothing else "found", took_ms * rng.lognormal(0, 0.3)
        )
        record["retrieved"] = [] if nothing else [hit(best, "the lamp"), hit(best - 0.05)]
        made.append(row_from_record(record))
    return made


def test_a_search_is_reduced_to_its_outcome_scores_and_time() -> None:
    found = retrieval_from_record(
        facts(), [hit(0.4), hit(0.7, "see the red lamp")], "see the red lamp"
    )
    assert found is not None
    assert (found.outcome, found.collection, found.digest) == ("found", "manual", "d1")
    assert (found.best_score, found.score_gap) == (0.7, pytest.approx(0.3))
    assert (found.took_ms, found.support) == (4.0, 1.0)
    assert retrieval_from_record(None, None) is None
    assert retrieval_from_record("odd", ["odd", {"score": True}]) is not None
    only = retrieval_from_record(facts("failed"), None)
    assert only is not None and (only.outcome, only.best_score, only.support) == (
        "failed",
        None,
        None,
    )


@pytest.mark.parametrize(
    ("outcome", "empty", "failed"),
    [
        ("found", False, False),
        ("empty", True, False),
        ("failed", None, True),
        ("forbidden", None, None),
    ],
)
def test_empty_failed_and_forbidden_are_three_things(
    outcome: str, empty: bool | None, failed: bool | None
) -> None:
    record = records(1, 0)[0] | {"retrieval": facts(outcome), "retrieved": None}
    of = {signal.name: signal.of for signal in SIGNALS}
    row = row_from_record(record)
    assert (of["retrieval_empty"](row), of["retrieval_failed"](row)) == (empty, failed)
    assert of["retrieval_empty"](row_from_record(records(1, 0)[0])) is None


def test_a_run_without_searches_does_not_test_them_and_one_with_them_names_what_fell() -> None:
    quiet = judge(rows(200, 1), rows(200, 2), Rules())
    assert not {finding.signal.name for finding in quiet.findings} & {
        "retrieval_score",
        "retrieval_empty",
    }
    same = judge(searched(300, 1), searched(300, 2), Rules())
    assert same.state == "no_drift"
    worse = judge(searched(300, 1), searched(300, 2, score=0.5, empty=0.15, took_ms=9), Rules())
    drifted = {finding.signal.name for finding in worse.findings if finding.state == "drift"}
    assert {"retrieval_score", "retrieval_empty", "retrieval_ms"} <= drifted
    assert worse.kinds == ["retrieval"]
    assert worse.summary.startswith("Retrieval changed. Score of the best passage down: median 0.5")


def test_a_day_has_the_signals_of_its_searches_alone_and_they_are_of_no_adapter() -> None:
    with_search = table_of(searched(200, 1), DAY, b"secret")
    without = table_of(rows(200, 1), DAY, b"secret")
    assert not [name for name in without.columns if name.startswith(("retrieval", "collection"))]
    assert "retrieval_score" not in {signal.name for signal in signals_of(set(without.columns))}
    mixed = table_of([*searched(100, 1), *rows(300, 2)], DAY, b"secret")
    statistics, _ = summarise_day(mixed, DAY, SETTINGS, None)
    point = statistics.points[Chart("retrieval_empty")]
    assert point.n == 100
    assert statistics.documents == {"manual d1": 100}
    assert Chart("retrieval_score") in statistics.points
    assert Chart("context_overlap", "", "support@v1") in statistics.points
    assert DayStatistics.from_record(statistics.record()) == statistics
    names = {chart.signal for chart in summarise_day(with_search, DAY, SETTINGS, None)[0].points}
    assert {"retrieval_score", "retrieval_gap", "retrieval_empty", "retrieval_ms"} <= names
    assert MISS not in names, "no low score is known yet"


def test_a_low_score_is_learned_once_per_collection_and_then_stays() -> None:
    rng = np.random.default_rng(0)
    names = np.array(["manual"] * 50, dtype=object)
    days = [
        Table({"retrieval_score": rng.normal(0.6, 0.1, 50), "collection": names}) for _ in range(14)
    ]
    assert low_scores_of(days[:13], {}, 14) == {}
    learned = low_scores_of(days, {}, 14)
    assert learned["manual"] == pytest.approx(0.6 - 1.645 * 0.1, abs=0.03)
    worse = [
        Table({**day.columns, "retrieval_score": day.columns["retrieval_score"] - 0.2})
        for day in days
    ]
    assert low_scores_of(worse, learned, 14) == learned


def test_a_miss_is_an_empty_search_or_a_score_below_the_collections_own() -> None:
    table = Table(
        {
            "collection": np.array(["a", "a", "a", "b", "c", None], dtype=object),
            "retrieval_score": np.array([0.5, 0.2, np.nan, 0.5, 0.1, np.nan]),
            "retrieval_empty": np.array([0, 0, 1, 0, 0, np.nan], dtype=float),
        }
    )
    missed = with_misses(table, {"a": 0.4, "b": 0.7}).columns[MISS]
    assert missed[:4].tolist() == [0, 1, 1, 1]
    assert np.isnan(missed[4:]).all(), "no low score is known, and nothing was searched"
    assert with_misses(table, {}) is table
    given = Table({**table.columns, MISS: np.zeros(6)})
    assert with_misses(given, {"a": 0.4}) is given
