"""Reviewing as a team: who is offered what, batches, rules, comments, bulk decisions, disputes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import select

from feedback import assignment, bulk_decisions, claims, comments, opinion_store, queue
from feedback.assignment import Rule, assignee_of
from feedback.claims import QueueFilter
from feedback.erasing import erase_user
from feedback.queue import Decision
from feedback.similar_items import find_similar, is_nearly_same, likeness
from tests.feedback.world import ALIAS, CLAIM_MS, NOW, queued
from tests.web import console_client
from whet.context import Context
from whet.control_tokens import ControlTokens
from whet.database import reading
from whet.errors import ConflictError, InputError, NotFoundError
from whet.tables import audit, examples, review_items, reviews

_NO_TOKENS = ControlTokens(())


def _people(context: Context, *roles: str) -> None:
    for role in roles:
        console_client(context, role)


def _next(context: Context, reviewer: str, wanted: QueueFilter = QueueFilter()) -> str | None:
    return claims.next_item(context.database, reviewer, claim_ms=CLAIM_MS, now=NOW, wanted=wanted)


def _item(context: Context, item_id: str) -> dict[str, Any]:
    with reading(context.database) as connection:
        query = select(review_items).where(review_items.c.id == item_id)
        return dict(connection.execute(query).mappings().one())


def test_an_assigned_item_is_offered_to_its_assignee_first_and_to_nobody_else(
    context: Context,
) -> None:
    _people(context, "reviewer", "operator")
    first, second, third = queued(context, 3)
    changed = assignment.assign(
        context.database, [second, third], "operator", actor="admin", now=NOW
    )
    assert changed == 2
    assert _next(context, "operator") == second, "what is assigned comes first"
    assert _next(context, "reviewer") == first
    queue.decide(context.database, first, "reviewer", Decision("approve"), now=NOW)
    assert _next(context, "reviewer") is None, "the rest is somebody else's"
    assert _next(context, "operator", QueueFilter(state="assigned")) == second
    assignment.assign(context.database, [third], "", actor="admin", now=NOW)
    assert _next(context, "reviewer") == third
    with reading(context.database) as connection:
        rows = connection.execute(select(audit).where(audit.c.action == "review.assign")).all()
    assert [row.detail["items"] for row in rows] == [2, 1]


def test_only_people_who_may_review_get_items(sqlite_context: Context) -> None:
    _people(sqlite_context, "viewer")
    items = queued(sqlite_context, 1)
    for name in ("viewer", "nobody-here"):
        with pytest.raises(NotFoundError, match="who may review"):
            assignment.assign(sqlite_context.database, items, name, actor="admin", now=NOW)
    with pytest.raises(InputError, match="0 conversations are selected"):
        assignment.assign(sqlite_context.database, [], "viewer", actor="admin", now=NOW)


def test_the_most_special_rule_gives_an_item_and_shares_are_alike() -> None:
    rules = [
        Rule("4", "", "", ("ann",)),
        Rule("3", "support", "rating", ("bob", "cy")),
        Rule("2", "support", "", ("dan",)),
        Rule("1", "support", "audit", ()),
    ]
    assert assignee_of("itm_1", "other", "rating", rules) == "ann"
    assert assignee_of("itm_1", "support", "audit", rules) == "dan", (
        "a rule of nobody gives nothing"
    )
    shared = Counter(assignee_of(f"itm_{n}", "support", "rating", rules) for n in range(2000))
    assert set(shared) == {"bob", "cy"}
    assert abs(shared["bob"] - 1000) < 3 * 22.4, "half each, within three standard deviations"
    assert assignee_of("itm_1", "support", "rating", []) is None


def test_a_rule_takes_what_waits_and_leaves_what_somebody_holds(context: Context) -> None:
    _people(context, "reviewer", "operator")
    held, free = queued(context, 2)
    assert _next(context, "operator") == held
    rule = assignment.add_rule(context.database, ALIAS, "", ["reviewer"], actor="admin", now=NOW)
    assert [_item(context, one)["assignee"] for one in (held, free)] == [None, "reviewer"]
    assignment.remove_rule(context.database, rule, actor="admin", now=NOW)
    (new,) = queued(context, 1, at=NOW + 50)
    assert assignment.apply_rules(context.database) == 0
    assert _item(context, new)["assignee"] is None


def test_a_batch_says_who_answers_for_it_and_how_far_it_is(context: Context) -> None:
    _people(context, "reviewer")
    items = queued(context, 3)
    batch_id = assignment.make_batch(
        context.database, "Refunds", items[:2], owner="reviewer", due_at=NOW + 1, actor="admin",
        now=NOW,
    )  # fmt: skip
    assert _next(context, "reviewer", QueueFilter(batch=batch_id)) == items[0]
    queue.decide(context.database, items[0], "reviewer", Decision("approve"), now=NOW)
    with reading(context.database) as connection:
        (batch,) = assignment.list_batches(connection)
    assert (batch.name, batch.owner, batch.waiting, batch.decided) == ("Refunds", "reviewer", 1, 1)
    assert not batch.is_late(NOW) and batch.is_late(NOW + 2)
    with pytest.raises(InputError, match="None of these items waits"):
        assignment.make_batch(context.database, "Done", items[:1], actor="admin", now=NOW)


def test_comments_stay_with_the_item_until_they_or_its_user_are_gone(context: Context) -> None:
    (item,) = queued(context, 1, end_user="ada")
    first = comments.add_comment(
        context.database, item, "Is this still so?\r\nAsk legal.", author="bob", now=NOW
    )
    comments.add_comment(context.database, item, "Yes.", author="ann", now=NOW + 1)
    with pytest.raises(ConflictError, match="bob's"):
        comments.remove_comment(context.database, first, actor="ann", now=NOW)
    with pytest.raises(InputError):
        comments.add_comment(context.database, item, " ", author="bob", now=NOW)
    with reading(context.database) as connection:
        said = comments.list_comments(connection, item)
    assert [(one.author, one.text) for one in said] == [
        ("bob", "Is this still so?\nAsk legal."), ("ann", "Yes."),
    ]  # fmt: skip
    comments.remove_comment(context.database, first, actor="bob", now=NOW)
    receipt = erase_user(
        context.database, context.store, "ada", secret=context.secret, actor="admin", now=NOW
    )
    assert receipt["erased"]["comments"] == 2
    with reading(context.database) as connection:
        assert comments.list_comments(connection, item) == []


def test_a_bulk_decision_overwrites_nobody_and_is_undone_in_one_go(context: Context) -> None:
    items = queued(context, 5, question="How long is the warranty of the lamp?")
    claims.claim(context.database, items[0], "ann", claim_ms=CLAIM_MS, now=NOW)
    queue.decide(context.database, items[1], "bob", Decision("reject"), now=NOW)
    outcome = bulk_decisions.decide_in_bulk(
        context.database, items, "cy", Decision("approve"), now=NOW + 1, control=_NO_TOKENS
    )
    assert outcome.decided == items[2:]
    assert set(outcome.refused) == set(items[:2]), "one is held, one is decided"
    with reading(context.database) as connection:
        standing = connection.execute(
            select(reviews.c.item_id, reviews.c.reviewer).where(reviews.c.standing.is_not(None))
        ).all()
    assert sorted(standing) == sorted([(items[1], "bob"), *((one, "cy") for one in items[2:])])
    with pytest.raises(ConflictError, match="cy's"):
        bulk_decisions.undo_bulk(context.database, outcome.bulk_id, "bob", now=NOW + 2)
    assert bulk_decisions.undo_bulk(context.database, outcome.bulk_id, "cy", now=NOW + 2) == 3
    assert bulk_decisions.undo_bulk(context.database, outcome.bulk_id, "cy", now=NOW + 3) == 0
    with reading(context.database) as connection:
        kept = connection.execute(
            select(examples.c.id).where(examples.c.withdrawn_at.is_(None))
        ).all()
    assert kept == [] and _item(context, items[1])["state"] == "done"
    assert {_item(context, one)["claimed_by"] for one in items[2:]} == {None}


def test_an_edit_is_no_bulk_decision(sqlite_context: Context) -> None:
    items = queued(sqlite_context, 2)
    with pytest.raises(InputError, match="cannot be said of many"):
        bulk_decisions.decide_in_bulk(
            sqlite_context.database, items, "cy", Decision("edit", "24"), now=NOW,
            control=_NO_TOKENS,
        )  # fmt: skip


def test_similar_conversations_are_those_that_ask_alike(context: Context) -> None:
    question = "How long is the warranty of the lamp that I bought in your shop last week?"
    mine, same, decided, other = (
        queued(context, 1, at=NOW + n, question=asked)[0]
        for n, asked in enumerate(
            (question, question + "!", question.replace("lamp", "radio"), "Where is my parcel?")
        )
    )
    said = Decision("edit", "36 months.")
    queue.decide(context.database, decided, "ann", said, now=NOW + 9)
    with reading(context.database) as connection:
        found = find_similar(connection, _item(context, mine), question, "0 months.", NOW + 10)
    assert [one.item_id for one in found.waiting] == [same] and found.waiting[0].is_same_answer
    assert [(one.item_id, one.answer) for one in found.decided] == [(decided, "36 months.")]
    assert other not in {one.item_id for one in found.waiting}
    assert not is_nearly_same(question, question.replace("lamp", "radio")), "another product"
    assert likeness("a b c d", "A, b; c") == 0.75


@pytest.mark.parametrize("verdict", ["first", "second"])
def test_a_disagreement_is_settled_by_a_third_person(context: Context, verdict: str) -> None:
    (item,) = queued(context, 1)
    queue.decide(context.database, item, "ann", Decision("approve"), now=NOW)
    opinion_store.save_opinion(
        context.database, item, "bob", is_right=False, labels=[], seconds=None, now=NOW + 1
    )

    def settle(actor: str) -> bool:
        return opinion_store.adjudicate(
            context.database, item, "bob", verdict, actor=actor, claim_ms=CLAIM_MS, now=NOW + 2
        )

    for party in ("ann", "bob"):
        with pytest.raises(ConflictError, match="one of the two"):
            settle(party)
    assert settle("olga") is (verdict == "second")
    after = _item(context, item)
    wanted = ("done", None) if verdict == "first" else ("waiting", "olga")
    assert (after["state"], after["claimed_by"]) == wanted
    with reading(context.database) as connection:
        assert opinion_store.list_disagreements(connection) == []
        agreement = opinion_store.load_agreement(connection)
    assert (agreement[ALIAS].n if agreement else 0) == (1 if verdict == "first" else 0)
    with pytest.raises(NotFoundError):
        settle("olga")


def test_the_pages_of_a_team_work_as_plain_forms(sqlite_context: Context) -> None:
    _people(sqlite_context, "reviewer")
    items = queued(sqlite_context, 3, question="How long is the warranty of the lamp?")
    operator = console_client(sqlite_context, "operator", clock=lambda: NOW, raise_errors=True)

    def post(path: str, **fields: Any) -> str:
        answer = operator.post(path, data={"csrf": operator.csrf, **fields})
        assert answer.status_code == 303, f"{path}: {answer.status_code} {answer.text[:300]}"
        return str(answer.headers["location"])

    assert 'name="item"' in operator.get("/review/list").text
    post("/review/assign", item=items[:1], assignee="reviewer")
    post("/review/batches", item=items[1:], name="<b>Lamps</b>", owner="reviewer", due="2026-12-24")
    post("/review/rules", alias=ALIAS, person=["reviewer"])
    team = operator.get("/review/team").text
    assert "&lt;b&gt;Lamps&lt;/b&gt;" in team and "Every reason, support: reviewer" in team
    post(f"/review/item/{items[0]}/comments", text="<i>look</i>")
    assert "&lt;i&gt;look&lt;/i&gt;" in operator.get(f"/review/item/{items[0]}").text
    assert "Reject all selected" in operator.get(f"/review/similar/{items[0]}").text
    place = post("/review/bulk", item=items, decision="reject", label=["tone"])
    assert "3 conversations were decided in one go" in operator.get(place).text
    post(f"{place}/undo")
    assert "All of it is undone" in operator.get(place).text
    assert {_item(sqlite_context, one)["state"] for one in items} == {"waiting"}
