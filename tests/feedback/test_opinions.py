"""Second opinions are blind and by somebody else; agreement equals a computation by hand."""

from __future__ import annotations

import pytest

from feedback import opinion_store, queue
from feedback.agreement import Agreement, count_agreement, is_drawn
from feedback.queue import Decision
from tests.feedback.world import ALIAS, NOW, queued
from tests.web import console_client
from whet.context import Context
from whet.database import reading
from whet.errors import ConflictError, NotFoundError


def decided(context: Context, count: int, decision: str = "approve") -> list[str]:
    items = queued(context, count)
    for item in items:
        queue.decide(context.database, item, "ada", Decision(decision), now=NOW)
    return items


def test_agreement_equals_the_textbook() -> None:
    """Cohen 1960's example as Wikipedia gives it: 20, 15, 5 and 10 of 50; kappa 0.4."""
    found = Agreement(both_right=20, both_wrong=15, only_first=5, only_second=10)
    assert (found.n, found.share) == (50, 0.7) and found.kappa == pytest.approx(0.4)
    assert found.interval == pytest.approx((0.5625, 0.8090), abs=1e-4)
    assert count_agreement([(True, True), (True, False)]) == Agreement(1, 0, 1, 0)
    assert (Agreement().share, Agreement().kappa, Agreement().interval) == (None, None, None)
    assert Agreement(both_right=5).kappa is None, "chance agrees as well"


def test_about_a_tenth_is_drawn() -> None:
    assert 920 < sum(is_drawn(f"itm_{n}") for n in range(10_000)) < 1080


def test_gold_items_come_to_everybody_else_and_others_once(context: Context) -> None:
    items = decided(context, 60)
    gold = next(item for item in items if not is_drawn(item))
    drawn = {item for item in items if is_drawn(item)}
    opinion_store.mark_gold(context.database, gold, actor="ola", now=NOW)

    def asked(reviewer: str, is_right: bool) -> list[str]:
        found = []
        while True:
            with reading(context.database) as connection:
                item = opinion_store.next_for_second_opinion(connection, reviewer, alias=ALIAS)
            if item is None:
                return found
            opinion_store.save_opinion(
                context.database, item, reviewer, is_right=is_right, labels=[], seconds=2.0, now=NOW
            )
            found.append(item)

    assert asked("ada", True) == [], "one's own decisions are no second opinion"
    bob = asked("bob", True)
    assert bob[0] == gold and set(bob) == {gold, *drawn}
    assert asked("cyd", False) == [gold], "one second opinion each, gold from everybody"
    with reading(context.database) as connection:
        agreement = opinion_store.load_agreement(connection)
        accuracy = opinion_store.load_gold_accuracy(connection)
        disagreements = opinion_store.list_disagreements(connection)
    assert agreement == ({ALIAS: Agreement(both_right=len(drawn))} if drawn else {})
    assert {name: found.share for name, found in accuracy.items()} == {"bob": 1.0, "cyd": 0.0}
    assert [(one.item_id, one.first, one.second) for one in disagreements] == [(gold, "ada", "cyd")]


def test_an_opinion_is_given_once_and_on_a_decision_of_somebody_else(context: Context) -> None:
    (item,) = decided(context, 1)
    (waiting,) = queued(context, 1, at=NOW + 9)

    def save(of: str, reviewer: str) -> None:
        opinion_store.save_opinion(
            context.database, of, reviewer, is_right=True, labels=[], seconds=None, now=NOW
        )

    save(item, "bob")
    for of, reviewer, error in (
        (item, "bob", ConflictError), (item, "ada", ConflictError), (waiting, "bob", NotFoundError),
    ):  # fmt: skip
        with pytest.raises(error):
            save(of, reviewer)
    with pytest.raises(NotFoundError):
        opinion_store.mark_gold(context.database, waiting, actor="ola", now=NOW)


def test_the_page_is_blind_and_the_agreement_is_shown(context: Context) -> None:
    (item,) = decided(context, 1, "reject")
    operator = console_client(context, "operator", clock=lambda: NOW, raise_errors=True)
    reviewer = console_client(context, "reviewer", clock=lambda: NOW)
    assert reviewer.post(f"/review/gold/{item}").status_code == 403
    assert operator.post(f"/review/gold/{item}").status_code == 303
    page = reviewer.get("/review/second").text
    assert f'data-item="{item}"' in page
    main = page.split("<main", 1)[1]
    assert "ada" not in main and "reject" not in main, "the first decision is not shown"
    answer = reviewer.post(f"/review/second/{item}", data={"verdict": "right", "label": "tone"})
    assert answer.status_code == 303
    assert "No second opinion is needed." in reviewer.get("/review/second").text
    shown = reviewer.get("/review/agreement").text
    assert "0 of 1" in shown and "ada: reject" in shown
