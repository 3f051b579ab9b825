"""Gaps: clusters of questions that find nothing, the same gap from night to night, and who decides."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from monitoring.cli import drift
from monitoring.dayjob import run_alias
from monitoring.days import DAY_MS
from monitoring.decisions import change_gap
from monitoring.detector.columns import Table
from monitoring.detector.gaps import find_gaps
from monitoring.gap_queries import StoredGap, count_open_gaps, list_gaps
from monitoring.gapjob import refresh_gaps
from monitoring.gaps import MAX_MEMBERS, FoundGap, plan_gaps
from tests.monitoring.build import insert_records, records
from tests.web import console_client
from whet.context import Context
from whet.database import reading
from whet.errors import InputError, NotFoundError

FIRST = 20_000


def _gap(words: list[str], members: list[str], **changes: Any) -> FoundGap:
    return FoundGap(**{
        "collection": "manual", "words": words, "members": members, "questions": len(members),
        "share": 0.1, "recent": 5, "first_day": 10, "last_day": 12, **changes,
    })  # fmt: skip


def _stored(gap: FoundGap, name: str, state: str = "open") -> StoredGap:
    return StoredGap(
        **{**vars(gap), "members": gap.members[:MAX_MEMBERS]}, id=name, alias="support",
        state=state, changed_by=None, changed_at=None, updated_at=0,
    )  # fmt: skip


def test_a_gap_stays_the_same_by_its_questions_or_its_words() -> None:
    solar = _gap(["solar", "inverter"], ["a", "b", "c"], first_day=3)
    garden = _gap(["garden", "soil"], ["x", "y"])
    known = [_stored(solar, "gap_1"), _stored(garden, "gap_2", "dismissed")]
    renamed = _gap(["panel", "roof"], ["a", "b", "d"], questions=9)
    reworded = _gap(["soil", "garden", "seed"], ["z"])
    plan = plan_gaps(known, [reworded, renamed, _gap(["visa", "gate"], ["q"])])
    assert [name for name, _ in plan.updated] == ["gap_1", "gap_2"]
    assert plan.updated[0][1].first_day == 3, "it is as old as it was"
    assert [gap.words for gap in plan.new] == [["visa", "gate"]]
    assert plan.gone == []


def test_an_open_gap_that_nobody_asks_about_goes_and_a_dismissed_one_stays() -> None:
    solar, garden = _gap(["solar", "inverter"], ["a"]), _gap(["garden", "soil"], ["x"])
    plan = plan_gaps([_stored(solar, "gap_1"), _stored(garden, "gap_2", "dismissed")], [])
    assert (plan.gone, plan.updated, plan.new) == (["gap_1"], [], [])
    other = _gap(["solar", "inverter"], ["a"], collection="faq")
    assert plan_gaps([_stored(solar, "gap_1")], [other]).new == [other], "collections are apart"


def _questions(texts: list[str], users: int = 50) -> Table:
    ids = np.array([f"q{place}-{len(texts)}" for place in range(len(texts))], dtype=object)
    people = np.array([f"u{place % users}" for place in range(len(texts))], dtype=object)
    return Table({"id": ids, "user": people, "prompt": np.array(texts, dtype=object)})


def test_clusters_are_of_one_subject_each_and_named_by_its_words() -> None:
    rng = np.random.default_rng(0)
    asked = [row["request"]["messages"][1]["content"] for row in records(400, 1)]
    solar = [f"does the solar inverter fit my roof, case {rng.integers(999)}" for _ in range(30)]
    visa = [f"which passport and visa for the flight, case {rng.integers(999)}" for _ in range(20)]
    gaps = find_gaps(_questions([*asked[:15], *solar, *visa]), _questions(asked[15:]), None, 0)
    assert len(gaps) == 2
    assert {"solar", "inverter"} <= set(gaps[0].words) and {"visa", "passport"} <= set(
        gaps[1].words
    )
    assert (len(gaps[0].rows), len(gaps[1].rows)) == (30, 20)
    assert set(gaps[0].rows) == set(range(15, 45))


def test_what_one_person_asks_is_no_gap() -> None:
    asked = [row["request"]["messages"][1]["content"] for row in records(300, 1)]
    mine = [f"my secret project zeppelin number {place}" for place in range(30)]
    assert find_gaps(_questions(mine, users=1), _questions(asked), None, 0) == []
    assert find_gaps(_questions([]), _questions(asked), None, 0) == []


def _fill(context: Context, days: range, *, lost: bool) -> None:
    """Days on which questions about aurora panels find nothing, or find as the others do."""
    for day in days:
        made = records(120, day, start_at=day * DAY_MS, step_ms=600_000, users=60, new_words=0.15)
        for record in made:
            is_lost = lost and "aurora panel" in record["request"]["messages"][1]["content"]
            record["retrieval"] = {
                "outcome": "empty" if is_lost else "found", "collection": "manual",
                "digest": "d1", "took_ms": 4.0,
            }  # fmt: skip
            hit = {"collection": "manual", "score": 0.6, "text": "the lamp"}
            record["retrieved"] = [] if is_lost else [hit]
        insert_records(context, made)


def _at(day: int) -> int:
    return (day + 1) * DAY_MS + 2 * 3_600_000


@pytest.mark.seconds
def test_the_nightly_list_names_the_gap_and_a_dismissal_holds(context: Context) -> None:
    _fill(context, range(FIRST, FIRST + 4), lost=True)
    run_alias(context, "support", _at(FIRST + 3))
    with reading(context.database) as connection:
        (gap,) = list_gaps(connection)
        assert count_open_gaps(connection) == {"support": 1}
    assert "aurora" in gap.words and gap.collection == "manual"
    assert (gap.first_day, gap.last_day) == (FIRST, FIRST + 3)
    assert gap.share == pytest.approx(0.075, abs=0.04)
    assert gap.questions == gap.recent == pytest.approx(480 * 0.075, rel=0.4)

    client = console_client(context, "reviewer", clock=lambda: _at(FIRST + 3), raise_errors=True)
    page = client.get("/drift/gaps").text
    assert "1 gap in the documents of support" in page and "aurora" in page
    assert f'href="/traffic/{gap.members[0]}"' in page
    assert client.post(f"/drift/gaps/{gap.id}/dismiss").status_code == 303
    assert "No gaps in the documents are known" in (page := client.get("/drift/gaps").text)
    assert "1 dismissed" in page and "Restore" in page
    assert client.get("/api/gaps").json()[0]["state"] == "dismissed"

    _fill(context, range(FIRST + 4, FIRST + 5), lost=True)
    run_alias(context, "support", _at(FIRST + 4))
    with reading(context.database) as connection:
        (after,) = list_gaps(connection)
    assert (after.id, after.state) == (gap.id, "dismissed")
    assert change_gap(context, gap.id, "open", actor="ann", now=1).changed_by == "ann"
    with pytest.raises(NotFoundError, match="no gap 'gap_x'"):
        change_gap(context, "gap_x", "open", actor="ann", now=1)
    with pytest.raises(InputError, match="no state of a gap"):
        change_gap(context, gap.id, "written", actor="ann", now=1)


@pytest.mark.seconds
def test_a_gap_closes_when_its_questions_find_something_for_a_week(sqlite_context: Context) -> None:
    context = sqlite_context
    _fill(context, range(FIRST, FIRST + 2), lost=True)
    _fill(context, range(FIRST + 2, FIRST + 9), lost=False)
    run_alias(context, "support", _at(FIRST + 4))
    with reading(context.database) as connection:
        assert len(list_gaps(connection)) == 1
    run_alias(context, "support", _at(FIRST + 8))
    with reading(context.database) as connection:
        assert list_gaps(connection) == []
    assert refresh_gaps(context, "support", _at(FIRST + 8)) == 0


def test_the_command_prints_dismisses_and_restores(
    sqlite_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = sqlite_context
    monkeypatch.setenv("WHET_HOME", str(context.settings.home))
    runner = CliRunner()
    assert "No gaps" in runner.invoke(drift, ["gaps"]).output
    _fill(context, range(FIRST, FIRST + 2), lost=True)
    run_alias(context, "support", _at(FIRST + 1))
    (gap,) = json.loads(runner.invoke(drift, ["gaps", "--json"]).output)
    assert gap["alias"] == "support" and "aurora" in gap["words"] and len(gap["examples"]) == 5
    assert json.loads(runner.invoke(drift, ["gaps", "--dismiss", gap["id"], "--json"]).output) == []
    (gone,) = json.loads(runner.invoke(drift, ["gaps", "--all", "--json"]).output)
    assert gone["state"] == "dismissed"
    assert json.loads(runner.invoke(drift, ["gaps", "--restore", gap["id"], "--json"]).output)
