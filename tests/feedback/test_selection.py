"""What enters the queue: a table of cases for the pure choice, and the same through the database."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from feedback import flagging, selection
from feedback.erasing import erase_user
from feedback.jobs import jobs
from feedback.selection import Candidate, Limits, Taken
from tests import builders
from tests.feedback.world import NOW
from whet.context import Context
from whet.database import reading, writing
from whet.tables import alerts, review_items, review_left_out

LIMITS = Limits(budget=8, per_user=2, per_group=2)


def candidate(n: int, reason: str = "rating", **over: object) -> Candidate:
    values = {
        "interaction_id": f"int_{n:03}",
        "alias": "support",
        "reason": reason,
        "why": "w",
        "status": "complete",
        "question": f"where do I find part {n} of it, please",
        "created_at": n,
    }
    return Candidate(**{**values, **over})  # type: ignore[arg-type]


def chosen(
    candidates: list[Candidate], taken: Taken = Taken(), limits: Limits = LIMITS
) -> list[str]:
    return [
        item.candidate.interaction_id for item in selection.select(candidates, taken, limits).items
    ]


@pytest.mark.parametrize(
    ("what", "candidates", "taken", "expected"),
    [
        ("nothing from nothing", [], Taken(), set()),
        ("only complete answers", [candidate(1, status="cut"), candidate(2, status="cancelled"), candidate(3)], Taken(), {3}),
        ("never twice", [candidate(1), candidate(2)], Taken(interaction_ids=frozenset({"int_001"})), {2}),
        ("two of one end user, the newest", [candidate(n, end_user="u") for n in (1, 2, 3)], Taken(), {2, 3}),
        ("today's of an end user count", [candidate(1, end_user="u"), candidate(2, end_user="v")], Taken(by_user={"u": 2}), {2}),
        ("two of nearly the same question", [candidate(n, question="Where IS it?!") for n in (1, 2, 3)], Taken(), {2, 3}),
        ("today's questions count", [candidate(1, question="where is it")], Taken(questions=("Where is it?", "where is it")), set()),
        ("a quarter is kept for the audit", [candidate(n) for n in range(20)], Taken(), set(range(14, 20))),
        ("the audit may use what is free", [candidate(n, "audit") for n in range(20)], Taken(), set(range(12, 20))),
        ("the day's budget counts what was taken", [candidate(n) for n in range(20)], Taken(by_reason={"rating": 5}), {19}),
    ],
)  # fmt: skip
def test_what_is_chosen(
    what: str, candidates: list[Candidate], taken: Taken, expected: set[int]
) -> None:
    assert set(chosen(candidates, taken)) == {f"int_{n:03}" for n in expected}, what


def test_reasons_share_the_budget_and_every_refusal_has_its_reason() -> None:
    pool = [
        candidate(n, reason)
        for n, reason in enumerate(["correction", "rating", "drift", "audit"] * 10)
    ]
    found = selection.select(pool, Taken(), LIMITS)
    assert Counter(item.candidate.reason for item in found.items) == dict.fromkeys(
        selection.SHARES, 2
    )
    assert len(found.left_out) == len(pool) - 8
    assert {why.code for why in found.left_out.values()} == {"budget"}


def test_the_queue_mixes_reasons_so_that_the_audit_is_not_starved() -> None:
    pool = [candidate(n, "drift" if n < 30 else "audit") for n in range(60)]
    items = sorted(
        selection.select(pool, Taken(), Limits(40, 99)).items, key=lambda item: -item.priority
    )
    assert {item.candidate.reason for item in items[:4]} == {"drift", "audit"}


def test_a_conversation_that_several_things_point_at_comes_under_its_strongest_reason() -> None:
    found = selection.select(
        [candidate(1, "drift"), candidate(1, "correction"), candidate(1, "rating")], Taken(), LIMITS
    )
    assert [item.candidate.reason for item in found.items] == ["correction"]


def test_what_was_drawn_at_random_stays_in_the_sample_whatever_else_points_at_it_or_resembles_it() -> (
    None
):
    complaint = [candidate(1, "audit"), candidate(1, "correction"), candidate(1, "rating")]
    assert [
        item.candidate.reason for item in selection.select(complaint, Taken(), LIMITS).items
    ] == ["audit"]
    alike = [candidate(n, "audit", question="Where is it?", end_user="u") for n in range(5)]
    assert len(chosen(alike)) == 5, "a sample without its repetitions is no sample"


def test_the_draw_is_uniform_repeatable_and_grows_with_its_probability() -> None:
    ids = [f"int_{n}" for n in range(20_000)]
    small = {i for i in ids if selection.drawn(i, 0.02, "s")}
    large = {i for i in ids if selection.drawn(i, 0.05, "s")}
    assert small < large
    assert 320 < len(small) < 480, "2 % of 20,000 within four standard deviations"
    assert small == {i for i in ids if selection.drawn(i, 0.02, "s")}
    assert not any(selection.drawn(i, 0.0, "s") for i in ids) and all(
        selection.drawn(i, 1.0, "s") for i in ids
    )


@pytest.mark.parametrize(
    ("volume", "expected"), [(None, 0.025), (0, 1.0), (50, 1.0), (1000, 0.05), (10_000_000, 1e-4)]
)
def test_the_probability_follows_the_volume(volume: int | None, expected: float) -> None:
    assert selection.audit_probability(200, volume) == pytest.approx(expected)


def flag(context: Context, now: int = NOW, budget: int = 200) -> dict[str, int]:
    return flagging.flag(context.database, budget=budget, secret=context.secret, now=now)


def test_ratings_corrections_and_open_alerts_enter_the_queue_once(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ids are random, and the audit would draw one of them now and then
    monkeypatch.setattr(selection, "drawn", lambda *_: False)
    with writing(context.database) as connection:
        add = lambda n, **over: builders.add_interaction(  # noqa: E731
            connection, NOW - 60_000 + n, question=f"question number {n}?", **over
        )
        bad, corrected, good, cut, base = (
            add(1),
            add(2),
            add(3),
            add(4, status="cut"),
            add(5, alias=None, version=None),
        )
        for interaction in (bad, cut, base):
            builders.add_rating(connection, interaction, NOW, comment="It is wrong.")
        builders.add_rating(connection, corrected, NOW, rating=1, correction="36 months.")
        builders.add_rating(connection, good, NOW, rating=1)
        drifted, settled = add(6), add(7)
        for state, key, interaction in (("open", "a", drifted), ("resolved", "b", settled)):
            alert = builders.add_alert(connection, NOW, state=state, key=key)
            connection.execute(
                alerts.update()
                .where(alerts.c.id == alert)
                .values(detail={"interaction_ids": [interaction, "int_gone"]})
            )
    assert flag(context) == {"rating": 1, "correction": 1, "drift": 1}
    assert flag(context, NOW + 1000) == {}
    with reading(context.database) as connection:
        rows = {row.interaction_id: row for row in connection.execute(select(review_items))}
    assert set(rows) == {bad, corrected, drifted}
    assert "It is wrong." in rows[bad].why
    assert rows[drifted].alert_id is not None and "Named by the alert" in rows[drifted].why


def test_the_audit_writes_the_probability_it_drew_with(context: Context) -> None:
    with writing(context.database) as connection:
        for n in range(40):
            builders.add_interaction(
                connection, NOW - builders.DAY - n, question=f"yesterday's {n}"
            )
        for n in range(60):
            builders.add_interaction(connection, NOW - n, question=f"a different matter called {n}")
    added = flag(context, budget=40)
    with reading(context.database) as connection:
        rows = connection.execute(select(review_items)).all()
    assert added == {"audit": len(rows)} and 4 <= len(rows) <= 30
    assert {row.sampling_probability for row in rows} == {0.25}
    assert "25.0%" in rows[0].why
    assert flag(context, NOW + 1, budget=40) == {}


def test_the_budget_holds_over_many_runs_of_a_day(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As above: nothing is drawn for the audit
    monkeypatch.setattr(selection, "drawn", lambda *_: False)
    with writing(context.database) as connection:
        for n in range(30):
            builders.add_rating(
                connection,
                builders.add_interaction(connection, NOW - n, question=f"matter {n} of the day"),
                NOW,
            )
    for run in range(4):
        flag(context, NOW + run, budget=8)
    with reading(context.database) as connection:
        assert connection.execute(select(func.count()).select_from(review_items)).scalar_one() == 6
    assert flag(context, NOW + builders.DAY, budget=8) == {"rating": 6}, (
        "the next day has its own budget"
    )


def test_an_erased_user_is_not_flagged(context: Context) -> None:
    with writing(context.database) as connection:
        builders.add_rating(
            connection, builders.add_interaction(connection, NOW - 5, end_user="u-1"), NOW - 4
        )
    erase_user(context.database, context.store, "u-1", secret=context.secret, actor="t", now=NOW)
    assert flag(context) == {}


def _left_out(context: Context) -> dict[str, tuple[str, int]]:
    with reading(context.database) as connection:
        rows = connection.execute(select(review_left_out)).all()
    return {row.interaction_id: (row.reason, row.changed_at) for row in rows}


def _rated(connection: Connection, at: int, **over: Any) -> str:
    interaction = builders.add_interaction(connection, at, **over)
    builders.add_rating(connection, interaction, NOW)
    return interaction


def test_why_rated_answers_are_not_queued_is_kept_until_it_changes(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "drawn", lambda *_: False)
    with writing(context.database) as connection:
        ids = [_rated(connection, NOW - n, question=f"matter {n} of the day") for n in range(9)]
        cut = _rated(connection, NOW - 100, question="cut", status="cut")
        gone = _rated(connection, NOW - 101, question="gone", end_user="u-1")
        unrated = builders.add_interaction(connection, NOW - 102, status="cut")
    erase_user(context.database, context.store, "u-1", secret=context.secret, actor="t", now=NOW)
    assert flag(context, NOW, budget=8) == {"rating": 6}
    first = dict.fromkeys(ids[6:], ("budget", NOW))
    expected = {**first, cut: ("incomplete", NOW), gone: ("erased", NOW)}
    assert _left_out(context) == expected and unrated not in expected
    flag(context, NOW + 60_000, budget=8)
    assert _left_out(context) == expected, "a reason that has not changed is not written again"
    tomorrow = NOW + builders.DAY
    assert flag(context, tomorrow, budget=2) == {"rating": 2}
    left = {key: value for key, value in expected.items() if key not in ids[6:8]}
    left[ids[8]] = ("budget", tomorrow)
    assert _left_out(context) == left, "the sentence names the new budget; queued ones are gone"
    flagging.request_review(context.database, ids[8], actor="ann", now=tomorrow)
    assert ids[8] not in _left_out(context), "a person queued it"


def test_reasons_are_pruned_when_their_ratings_are_too_old_to_be_queued(context: Context) -> None:
    with writing(context.database) as connection:
        _rated(connection, NOW, status="cut")
    assert not flag(context) and len(_left_out(context)) == 1
    retain = next(job for job in jobs(context) if job.name == "review-retention")
    retain.run(NOW + 13 * builders.DAY)
    assert len(_left_out(context)) == 1
    retain.run(NOW + 15 * builders.DAY)
    assert _left_out(context) == {}
    assert not flag(context, NOW + 15 * builders.DAY) and _left_out(context) == {}
