"""The queue: one holder and one decision per conversation, whatever happens at the same time."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import SQLAlchemyError

from feedback import claims, inbox, pace, queue
from feedback.acceptance import LabelledApprovalError
from feedback.claims import QueueFilter
from feedback.queue import Decision
from tests import builders
from tests.feedback.world import CLAIM_MS, NOW, queued
from whet.context import Context
from whet.database import reading, writing
from whet.errors import ConflictError, InputError, NotFoundError, WhetError
from whet.tables import examples, interactions, review_items, reviews


def take(context: Context, reviewer: str, now: int = NOW, **over: object) -> str | None:
    return claims.next_item(context.database, reviewer, claim_ms=CLAIM_MS, now=now, **over)  # type: ignore[arg-type]


def example_of(context: Context, example_id: str | None) -> dict:
    with reading(context.database) as connection:
        return dict(
            connection.execute(select(examples).where(examples.c.id == example_id)).one()._mapping
        )


def test_two_reviewers_get_different_items_and_a_claim_runs_out(context: Context) -> None:
    first, second = queued(context, 2)
    assert take(context, "ada") == first, "the highest priority comes first"
    assert take(context, "bob") == second
    assert take(context, "ada") == first, "asking again gives what one holds"
    assert take(context, "cyd") is None
    assert take(context, "cyd", NOW + CLAIM_MS + 1) == first


def test_filters_and_items_on_the_screen_are_respected(context: Context) -> None:
    first, second = queued(context, 2)
    assert take(context, "ada", exclude=[first]) == second
    for wanted in (QueueFilter("other"), QueueFilter(reason="audit"), QueueFilter(state="skipped")):
        assert take(context, "bob", wanted=wanted) is None


def test_approving_makes_an_example_with_the_original_answer(context: Context) -> None:
    (item,) = queued(context, 1)
    outcome = queue.decide(
        context.database,
        item,
        "ada",
        Decision("approve", labels=["warranty"], seconds=4.2),
        now=NOW,
    )
    example = example_of(context, outcome.example_id)
    assert [turn["role"] for turn in example["row"]["messages"]] == ["system", "user", "assistant"]
    assert example["row"]["messages"][-1]["content"] == "0 months."
    assert (example["row"]["origin"], example["row"]["id"], example["source"]) == (
        "review",
        example["id"],
        "approved",
    )


def test_an_edit_keeps_the_reviewers_text_to_the_letter(context: Context) -> None:
    (item,) = queued(context, 1)
    text = "  36 months\n\n<b>since purchase</b>\t\u00a0"
    outcome = queue.decide(
        context.database, item, "ada", Decision("edit", text, checks=["36 Months"]), now=NOW
    )
    row = example_of(context, outcome.example_id)["row"]
    assert row["messages"][-1]["content"] == text
    assert row["checks"] == ["36 Months"]


def test_an_edit_that_changes_nothing_is_an_approval(context: Context) -> None:
    (item,) = queued(context, 1)
    assert (
        queue.decide(context.database, item, "ada", Decision("edit", "0 months."), now=NOW).decision
        == "approve"
    )


@pytest.mark.parametrize(("decision", "state"), [("reject", "done"), ("skip", "waiting")])
def test_reject_and_skip_make_no_example(context: Context, decision: str, state: str) -> None:
    (item,) = queued(context, 1)
    assert (
        queue.decide(context.database, item, "ada", Decision(decision), now=NOW).example_id is None
    )
    with reading(context.database) as connection:
        assert connection.execute(select(review_items.c.state)).scalar_one() == state
        assert connection.execute(select(func.count()).select_from(examples)).scalar_one() == 0


@pytest.mark.parametrize(
    "said",
    [Decision("maybe"), Decision("edit", " \n"), Decision("edit", "x" * 100_001), Decision("reject", note="x" * 4001), Decision("approve", labels=[""]), Decision("edit", "24 months", checks=["36 months"])],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_leaves_the_item_waiting(
    context: Context, said: Decision
) -> None:
    (item,) = queued(context, 1)
    with pytest.raises(InputError):
        queue.decide(context.database, item, "ada", said, now=NOW)
    with reading(context.database) as connection:
        assert connection.execute(select(review_items.c.state)).scalar_one() == "waiting"
        assert connection.execute(select(func.count()).select_from(reviews)).scalar_one() == 0


def test_an_empty_answer_cannot_be_approved(context: Context) -> None:
    (item,) = queued(context, 1)
    with writing(context.database) as connection:
        connection.execute(update(interactions).values(response_text=None))
    with pytest.raises(InputError, match="nothing to approve"):
        queue.decide(context.database, item, "ada", Decision("approve"), now=NOW)


def test_an_unknown_item_and_a_vanished_conversation_are_not_found(context: Context) -> None:
    with pytest.raises(NotFoundError):
        queue.decide(context.database, "itm_nothing", "ada", Decision("skip"), now=NOW)
    with writing(context.database) as connection:
        item = builders.add_review_item(connection, "int_gone", NOW)
    with pytest.raises(NotFoundError, match="gone"):
        queue.decide(context.database, item, "ada", Decision("skip"), now=NOW)


def test_a_skip_leaves_the_item_to_the_other_reviewers(context: Context) -> None:
    first, second = queued(context, 2)
    assert take(context, "ada") == first
    skip = queue.decide(context.database, first, "ada", Decision("skip"), now=NOW)
    assert queue.decide(context.database, first, "ada", Decision("skip"), now=NOW + 1) == skip
    assert take(context, "ada") == second, "not offered to ada again"
    assert take(context, "ada", wanted=QueueFilter(state="skipped")) == first, "unless she asks"
    claims.release(context.database, {first: None, second: None}, "ada")
    assert take(context, "bob") == first, "bob is offered it at once"
    with reading(context.database) as connection:
        found = inbox.stats(connection, reviewer="ada", now=NOW)
    assert (found["waiting"], found["waiting_for_me"], found["held"]) == (2, 1, {"bob": 1})
    assert found["decided_today_by_decision"]["skip"] == 1
    assert "Somebody else holds" in queue.undo(
        context.database, skip.review_id, "ada", claim_ms=CLAIM_MS, now=NOW + 2
    )
    done = queue.decide(context.database, first, "bob", Decision("reject"), now=NOW + 3)
    assert queue.last_decision(context.database, "ada") is None and done.decision == "reject"


def test_a_page_that_closes_gives_back_its_own_claim_alone(context: Context) -> None:
    (item,) = queued(context, 1)
    take(context, "ada")
    take(context, "ada", NOW + 5)  # reloaded: the new page claims before the old one gives back
    assert claims.release(context.database, {item: NOW + CLAIM_MS}, "ada") == 0
    assert claims.release(context.database, {item: NOW + 5 + CLAIM_MS}, "bob") == 0
    assert claims.release(context.database, {item: NOW + 5 + CLAIM_MS}, "ada") == 1


def test_items_come_in_the_order_that_was_asked_for(context: Context) -> None:
    first, _, third = queued(context, 3)  # priority falls as they come
    for order, expected in (("priority", first), ("newest", third), ("oldest", first)):
        assert take(context, f"by {order}", wanted=QueueFilter(order=order)) == expected
        claims.release(context.database, {expected: None}, f"by {order}")


def test_an_approval_with_an_error_label_asks_once_more(context: Context) -> None:
    (item,) = queued(context, 1)
    said = Decision("approve", labels=["wrong fact"])
    with pytest.raises(LabelledApprovalError, match="wrong fact"):
        queue.decide(context.database, item, "ada", said, now=NOW)
    kept = Decision("approve", labels=["wrong fact"], accept_labels=True)
    assert queue.decide(context.database, item, "ada", kept, now=NOW).decision == "approve"


@pytest.mark.parametrize(
    ("newest", "hasty"),
    [([], 0), ([(0.5, 10), (0.7, 0)], 2), ([(0.9, 10)], 0), ([(None, 10), (0.1, 10)], 0), ([(2.0, 600), (9.0, 99_999)], 1)],
)  # fmt: skip
def test_a_decision_faster_than_reading_is_hasty(newest: list, hasty: int) -> None:
    assert pace.count_hasty(newest) == hasty


def test_hasty_decisions_are_found_in_the_list(context: Context) -> None:
    items = queued(context, 3, answer="word " * 100)
    for item, seconds in zip(items, (1.0, 30.0, None), strict=True):
        queue.decide(context.database, item, "ada", Decision("reject", seconds=seconds), now=NOW)
    with reading(context.database) as connection:
        rows, _ = inbox.listing(connection, state="done", reviewer="ada", is_hasty=True)
        assert [row["id"] for row in rows] == [items[0]]
        assert inbox.listing(connection, state="done", reviewer="bob")[0] == []


def test_the_same_decision_sent_twice_is_one_and_another_one_conflicts(context: Context) -> None:
    (item,) = queued(context, 1)
    first = queue.decide(context.database, item, "ada", Decision("edit", "36 months."), now=NOW)
    assert (
        queue.decide(context.database, item, "ada", Decision("edit", "36 months."), now=NOW + 5)
        == first
    )
    for reviewer, said in (("bob", Decision("edit", "36 months.")), ("ada", Decision("reject"))):
        with pytest.raises(ConflictError, match="ada decided"):
            queue.decide(context.database, item, reviewer, said, now=NOW + 9)


def test_an_item_that_somebody_holds_cannot_be_decided_by_another(context: Context) -> None:
    (item,) = queued(context, 1)
    take(context, "ada")
    with pytest.raises(ConflictError, match="ada is looking"):
        queue.decide(context.database, item, "bob", Decision("approve"), now=NOW + 1)
    assert (
        queue.decide(
            context.database, item, "bob", Decision("approve"), now=NOW + CLAIM_MS + 1
        ).decision
        == "approve"
    )


def test_undo_frees_the_item_and_withdraws_its_example(context: Context) -> None:
    (item,) = queued(context, 1)
    outcome = queue.decide(context.database, item, "ada", Decision("approve"), now=NOW)
    assert queue.last_decision(context.database, "ada") == outcome.review_id
    with pytest.raises(ConflictError, match="only they"):
        queue.undo(context.database, outcome.review_id, "bob", claim_ms=CLAIM_MS, now=NOW)
    assert "yours again" in queue.undo(
        context.database, outcome.review_id, "ada", claim_ms=CLAIM_MS, now=NOW + 1
    )
    assert example_of(context, outcome.example_id)["withdrawn_at"] == NOW + 1
    assert queue.last_decision(context.database, "ada") is None
    with pytest.raises(ConflictError, match="undone already"):
        queue.undo(context.database, outcome.review_id, "ada", claim_ms=CLAIM_MS, now=NOW)
    assert take(context, "ada") == item
    again = queue.decide(context.database, item, "ada", Decision("edit", "other"), now=NOW + 2)
    assert again.review_id != outcome.review_id


def test_undo_says_which_dataset_holds_the_example(context: Context) -> None:
    (item,) = queued(context, 1)
    outcome = queue.decide(context.database, item, "ada", Decision("approve"), now=NOW)
    with writing(context.database) as connection:
        builders.add_dataset(connection, NOW, example_ids=[outcome.example_id])
    assert "support@1 contains the example" in queue.undo(
        context.database, outcome.review_id, "ada", claim_ms=CLAIM_MS, now=NOW + 1
    )


def test_many_reviewers_at_once_never_decide_an_item_twice(context: Context) -> None:
    items = set(queued(context, 40))
    done: list[tuple[str, str]] = []
    shown: list[str] = []
    failures: list[Exception] = []

    def work(reviewer: str) -> None:
        try:
            while (item := take(context, reviewer)) is not None:
                shown.append(item)
                queue.decide(context.database, item, reviewer, Decision("approve"), now=NOW)
                done.append((reviewer, item))
        except (WhetError, SQLAlchemyError) as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"reviewer-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures, failures[:1]
    assert Counter(item for _, item in done) == dict.fromkeys(items, 1)
    assert len(shown) == len(items), "an item was shown to two reviewers"
    with reading(context.database) as connection:
        assert connection.execute(select(func.count()).select_from(reviews)).scalar_one() == len(
            items
        )


def test_what_one_of_many_reviewers_skips_another_decides_once(context: Context) -> None:
    items = queued(context, 24)
    skipped: set[tuple[str, str]] = set()
    done: list[str] = []
    wrong: list[object] = []
    until = time.monotonic() + 60

    def work(number: int) -> None:
        reviewer = f"reviewer-{number}"
        while len(done) < len(items) and time.monotonic() < until:
            item = take(context, reviewer)
            if item is None:
                time.sleep(0.01)  # what others skip meanwhile comes back
                continue
            if (reviewer, item) in skipped:
                wrong.append((reviewer, item))
            try:
                if items.index(item) % 4 == number:
                    skipped.add((reviewer, item))
                    queue.decide(context.database, item, reviewer, Decision("skip"), now=NOW)
                else:
                    queue.decide(context.database, item, reviewer, Decision("reject"), now=NOW)
                    done.append(item)
            except (WhetError, SQLAlchemyError) as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(70)
    assert not wrong, wrong[:2]
    assert sorted(done) == sorted(items), "each is decided, once"


def test_of_many_who_decide_the_same_item_at_once_one_wins(context: Context) -> None:
    (item,) = queued(context, 1)
    barrier = threading.Barrier(6)
    results: list[str] = []

    def work(n: int) -> None:
        barrier.wait()
        try:
            queue.decide(
                context.database, item, f"reviewer-{n}", Decision("edit", f"answer {n}"), now=NOW
            )
            results.append("won")
        except ConflictError:
            results.append("conflict")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == ["conflict"] * 5 + ["won"]
    with reading(context.database) as connection:
        assert connection.execute(select(func.count()).select_from(examples)).scalar_one() == 1
