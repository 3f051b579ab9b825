"""Several conversations at once: into review with an undo, and into a test set."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, select, update

from feedback import bulk, test_sets
from tests import builders
from tests.web import NOW, console_client
from whet.access import hash_key
from whet.context import Context
from whet.database import reading, writing
from whet.errors import ConflictError, InputError, NotFoundError
from whet.ids import new_id
from whet.tables import erasures, review_items


def conversations(context: Context, count: int, **over: object) -> list[str]:
    with writing(context.database) as connection:
        return [
            builders.add_interaction(connection, NOW - 1000 * at, **over) for at in range(count)
        ]


def queued(context: Context) -> set[str]:
    with reading(context.database) as connection:
        return set(connection.scalars(select(review_items.c.interaction_id)))


def test_chosen_conversations_are_queued_and_others_left_out_with_the_reason(
    context: Context,
) -> None:
    good = conversations(context, 3)
    (broken,) = conversations(context, 1, status="cut")
    (base,) = conversations(context, 1, alias=None, version=None)
    chosen = [*good, broken, base, "int_gone", good[0]]
    made = bulk.request_reviews(context.database, chosen, actor="ann", now=NOW)
    assert made.added == 3 and queued(context) == set(good)
    assert made.left_out == {"status": 1, "base": 1, "gone": 1}
    again = bulk.request_reviews(context.database, good, actor="ann", now=NOW)
    assert again.sentence == "No conversations put into review. Left out: 3 in the queue before."
    with pytest.raises(InputError, match="nothing is chosen"):
        bulk.request_reviews(context.database, [""], actor="ann", now=NOW)


def test_undo_takes_back_what_nobody_is_at(context: Context) -> None:
    good = conversations(context, 3)
    made = bulk.request_reviews(context.database, good, actor="ann", now=NOW)
    with writing(context.database) as connection:
        held = update(review_items).where(review_items.c.interaction_id == good[0])
        connection.execute(held.values(claimed_by="bob", claimed_until=NOW + 1))
    with pytest.raises(NotFoundError):
        bulk.undo_request(context.database, made.batch, actor="bob", now=NOW)
    said = bulk.undo_request(context.database, made.batch, actor="ann", now=NOW)
    assert queued(context) == {good[0]} and "1 conversation stayed" in said
    assert "No conversations taken" in bulk.undo_request(
        context.database, made.batch, actor="ann", now=NOW
    )


def test_a_test_set_grows_and_says_which_answers_nobody_judged(context: Context) -> None:
    chosen = conversations(context, 4, end_user="ada")
    with writing(context.database) as connection:
        builders.add_example(connection, chosen[0], NOW)
    first = test_sets.add_to_test_set(context, "refunds", chosen[:2], actor="ann", now=NOW)
    assert first.version.rows == {"train": 0, "validation": 0, "test": 2}
    assert (first.reviewed, first.unjudged) == (1, 1) and "nobody has judged" in first.sentence
    second = test_sets.add_to_test_set(context, "refunds", chosen[1:3], actor="ann", now=NOW + 1)
    assert second.version.label == "refunds@2" and second.version.rows["test"] == 3
    with writing(context.database) as connection:
        builders.add_dataset(connection, NOW)
        connection.execute(
            insert(erasures).values(
                id=new_id("ers", at=NOW), subject_hash=hash_key("ada", context.secret),
                receipt={}, requested_by="ann", created_at=NOW,
            )
        )  # fmt: skip
    with pytest.raises(InputError, match="None of these"):
        test_sets.add_to_test_set(context, "refunds", chosen[3:], actor="ann", now=NOW)
    with pytest.raises(ConflictError, match="name of its own"):
        test_sets.add_to_test_set(context, "support", chosen[:1], actor="ann", now=NOW)


def test_reviewers_choose_in_traffic_and_take_it_back(context: Context) -> None:
    chosen = conversations(context, 2)
    ann = console_client(context, "reviewer", clock=lambda: NOW)
    assert 'formaction="/review/request-many"' in ann.get("/traffic").text
    sent = {"interaction": chosen, "back": "/traffic?since=7d"}
    answer = ann.post("/review/request-many", data=sent)
    assert answer.headers["location"].startswith("/traffic?since=7d&batch=bat_")
    page = ann.get(answer.headers["location"]).text
    assert "2 conversations put into review." in page and "Undo" in page
    batch = answer.headers["location"].rpartition("=")[2]
    ann.post("/review/request-many/undo", data={"batch": batch, "back": "//evil.test"})
    assert queued(context) == set()
    made = ann.post("/datasets/test-set", data={"interaction": chosen, "name": "cases"})
    assert "/datasets/" in made.headers["location"]
    assert "2 rows in cases@1" in ann.get(made.headers["location"]).text
    viewer = console_client(context, "viewer", clock=lambda: NOW)
    assert "request-many" not in viewer.get("/traffic").text
    assert viewer.post("/review/request-many", data=sent).status_code == 403
