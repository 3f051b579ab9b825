"""A new version, template or document set is told with what moved, on the day it comes."""

from __future__ import annotations

import numpy as np
import pytest

from monitoring.change_views import change_headline, change_views
from monitoring.detector.changes import LOOKS, DeclaredChange, declared_changes
from monitoring.detector.columns import Table, date_of
from monitoring.history_store import StoredDay
from whet.records.monitoring import DayRecord

MONDAY, NEW = 20_458, 20_458 + 21  # 2026-01-05, three weeks later
ROWS = 400


def day_of(day: int, *, trial: float = 0.0, refusal: float = 0.04, slow: float = 1.0) -> Table:
    """A day of `v3`, a share `trial` of it answered by `v4`, which refuses `refusal`."""
    rng = np.random.default_rng(day)
    is_new = rng.random(ROWS) < trial
    speed = np.exp(rng.normal(5, 0.5, ROWS) + rng.normal(0, 0.08)) * slow
    return Table(
        {
            "day": np.full(ROWS, day),
            "id": np.array([f"{day}-{i}" for i in range(ROWS)], dtype=object),
            "user": np.array([f"u{user}" for user in rng.integers(0, 2000, ROWS)], dtype=object),
            "adapter": np.where(is_new, "v4", "v3").astype(object),
            "refusal": (rng.random(ROWS) < np.where(is_new, refusal, 0.04)).astype(float),
            "ttft_ms": speed,
            "finish_reason": np.where(rng.random(ROWS) < 0.05, "length", "stop").astype(object),
        }
    )


def kept(days: int = 1, **changes: float) -> dict[int, Table]:
    old = {day: day_of(day) for day in range(MONDAY, NEW)}
    return old | {day: day_of(day, **changes) for day in range(NEW, NEW + days)}


def only(found: list[DeclaredChange]) -> DeclaredChange:
    (change,) = found
    return change


def test_a_fault_that_comes_with_a_version_is_told_on_its_first_day() -> None:
    change = only(declared_changes(kept(trial=1.0, refusal=0.2), NEW, 30))
    (comparison,) = change.comparisons
    (move,) = comparison.clear
    assert (change.kind, change.name, change.other, move.signal) == (
        "adapter",
        "v4",
        "v3",
        "refusal",
    )
    assert move.low < 0.16 < move.high and move.n_now == ROWS
    assert change.sentences[1].startswith("Compared with v3 in the 14 days before: Refusal rate ")
    assert f"(n {ROWS})" in move.sentence and "95 % interval +" in move.sentence


def test_while_a_trial_runs_both_arms_stand_beside_each_other() -> None:
    change = only(declared_changes(kept(days=2, trial=0.3, refusal=0.2), NEW + 1, 30))
    assert [one.is_concurrent for one in change.comparisons] == [False, True]
    assert [move.signal for move in change.comparisons[1].clear] == ["refusal"]
    assert change.as_json()["comparisons"][1]["when"] == "same days"


def test_a_day_on_which_everything_is_slower_is_not_the_versions() -> None:
    change = only(declared_changes(kept(trial=0.4, slow=1.25), NEW, 30))
    beside = change.comparisons[1]
    assert beside.clear == [] and "nothing moved that" in beside.heading


def test_a_version_that_changes_nothing_is_seldom_said_to_move_anything() -> None:
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(40):
        tables = kept(trial=1.0)
        days = {
            day: table.take(rng.integers(0, len(table), len(table)))
            for day, table in tables.items()
        }
        wrong += bool(only(declared_changes(days, NEW, 30)).comparisons[0].clear)
    assert wrong <= 1


@pytest.mark.parametrize(("days", "told"), [(LOOKS, True), (LOOKS + 1, False)])
def test_a_change_is_told_for_a_week(days: int, told: bool) -> None:
    assert bool(declared_changes(kept(days, trial=1.0), NEW + days - 1, 30)) is told


def test_few_answers_are_said_to_be_few() -> None:
    change = only(declared_changes(kept(trial=0.03, refusal=1.0), NEW, 30))
    assert change.comparisons == () and "too few answers to compare yet" in change.sentences[0]


def test_documents_are_compared_within_their_collection() -> None:
    days = kept()
    for day, table in days.items():
        n = len(table)
        is_manual = np.arange(n) % 2 == 0
        state = np.where(is_manual, "b" * 64 if day >= NEW else "a" * 64, "c" * 64)
        table.columns["collection"] = np.where(is_manual, "manuals", "faq").astype(object)
        table.columns["documents"] = state.astype(object)
        lost = day >= NEW
        score = np.random.default_rng(day).normal(0.4, 0.05, n) - 0.1 * (is_manual & lost)
        table.columns["retrieval_score"] = score
    change = only(declared_changes(days, NEW, 30))
    assert (change.kind, change.name) == ("documents", f"manuals {'b' * 12}")
    assert change.other == f"manuals {'a' * 12}"
    assert [move.signal for move in change.comparisons[0].clear] == ["retrieval_score"]


def test_the_page_shows_the_newest_days_changes() -> None:
    found = declared_changes(kept(trial=1.0, refusal=0.2), NEW, 30)
    empty = DayRecord(day=NEW, rows=1, sampled=1, points=[], counts=[], templates={})
    with_changes = empty.model_copy(update={"changes": [one.record() for one in found]})
    before, row = (
        StoredDay("support", NEW, 1, statistics, [], True, None, 0)
        for statistics in (empty, with_changes)
    )
    (view,) = change_views([before, row])
    assert view.heading == f"Version v4 is new since {date_of(NEW).isoformat()}; in its answers:"
    assert len(view.comparisons[0].moves) == 1
    headline = ("Something moved with v4", view.comparisons[0].moves[0])
    assert change_headline([view]) == headline and change_headline([]) is None
    assert change_views([]) == change_views([before]) == []
