"""Erasing an end user: nothing of theirs in the queue, the reviews, the examples or the next
dataset version.
"""

from __future__ import annotations

import itertools
import json

import pytest
from sqlalchemy import insert, select, update

from feedback import datasets, queue
from feedback.erasing import ERASED_ROW, erase_user
from feedback.flagging import AUDIT_SEED
from feedback.jobs import jobs
from feedback.queue import Decision
from feedback.selection import audit_probability, drawn
from tests import builders
from tests.feedback.world import ALIAS, NOW, queued, seed_dataset, seed_row
from whet.access import hash_key
from whet.context import Context
from whet.database import reading, writing
from whet.errors import InputError
from whet.ids import new_id
from whet.tables import adapters, erasures, examples, interactions, review_items, reviews

SECRET_TEXT = "my address is 7 Example Lane"


def erase(context: Context, user: str = "u-1", now: int = NOW + 10) -> dict:
    return erase_user(
        context.database, context.store, user, secret=context.secret, actor="admin", now=now
    )


def test_erasure_withdraws_blanks_and_leaves_a_receipt(context: Context) -> None:
    seed_dataset(
        context,
        {
            "train": [seed_row(n) for n in range(3)] + [seed_row(9, user="u-1")],
            "validation": [],
            "test": [],
        },
    )
    items = queued(context, 3)
    with writing(context.database) as connection:
        connection.execute(update(interactions).values(end_user="u-2"))
        for item in items[:2]:
            interaction = (
                select(review_items.c.interaction_id)
                .where(review_items.c.id == item)
                .scalar_subquery()
            )
            connection.execute(
                update(interactions).where(interactions.c.id == interaction).values(end_user="u-1")
            )
    for item in (items[0], items[2]):
        queue.decide(
            context.database, item, "ada", Decision("edit", SECRET_TEXT, note=SECRET_TEXT), now=NOW
        )
    before = datasets.build(context, ALIAS, actor="ada", now=NOW)
    receipt = erase(context)
    assert receipt["erased"] == {
        "examples": 1, "review_texts": 1, "queued_conversations": 1, "comments": 0,
    }  # fmt: skip
    held = receipt["datasets_that_still_hold_rows"]
    assert held == ["support@1", before.label], "the seed rows too"
    with reading(context.database) as connection:
        rows = {row.interaction_id: row for row in connection.execute(select(examples))}
        gone = [row for row in rows.values() if row.withdrawn_at]
        assert len(rows) == 2 and [(row.row, row.end_user) for row in gone] == [(ERASED_ROW, None)]
        texts = [
            (row.answer, row.note)
            for row in connection.execute(
                select(reviews).order_by(reviews.c.created_at, reviews.c.id)
            )
        ]
        assert sorted(texts, key=str) == [(SECRET_TEXT, SECRET_TEXT), (None, None)]
        assert {
            row.state
            for row in connection.execute(select(review_items).where(review_items.c.id == items[1]))
        } == {"skipped"}
        stored = connection.execute(select(erasures)).one()
        assert stored.subject_hash == hash_key("u-1", context.secret) and "u-1" not in json.dumps(
            stored.receipt
        )
    after = datasets.build(context, ALIAS, actor="ada", now=NOW + 20)
    ids = {
        row["id"]
        for found in datasets.read_rows(context.store, after.path).values()
        for row in found
    }
    assert gone[0].id not in ids and "seed-train-9" not in ids and len(after.example_ids) == 1


def test_receipt_names_versions_that_were_merged_from_those_that_learned(context: Context) -> None:
    items = queued(context, 1)
    with writing(context.database) as connection:
        connection.execute(update(interactions).values(end_user="u-1"))
    queue.decide(context.database, items[0], "ada", Decision("edit", SECRET_TEXT), now=NOW)
    dataset = datasets.build(context, ALIAS, actor="ada", now=NOW)
    common = {
        "base_digest": "b" * 64,
        "template_digest": "c" * 64,
        "rank": 8,
        "gate": "none",
        "created_at": NOW,
    }
    trained = {"digest": "1" * 64, "dataset_digest": dataset.digest, "card": {}}
    merged = {"digest": "2" * 64, "dataset_digest": None, "card": {"merged": {"from": [trained]}}}
    other = {"digest": "3" * 64, "dataset_digest": None, "card": {}}
    with writing(context.database) as connection:
        for version, row in enumerate((trained, merged, other), 1):
            named = {"name": "v", "version": version, "path": f"adapters/v/{version}"}
            connection.execute(insert(adapters).values(**common, **named, **row))
    assert erase(context)["adapters_trained_on_them"] == ["v@v1", "v@v2"]


def test_erasing_twice_and_erasing_nobody(context: Context) -> None:
    assert erase(context)["erased"]["examples"] == 0
    assert erase(context, now=NOW + 20)["id"] != ""
    with pytest.raises(InputError, match="No user was named"):
        erase(context, " ")


def test_old_items_and_decisions_go_unless_an_example_stands(context: Context) -> None:
    items = queued(context, 3)
    queue.decide(context.database, items[0], "ada", Decision("approve"), now=NOW)
    queue.decide(context.database, items[1], "ada", Decision("reject"), now=NOW)
    retain = next(job for job in jobs(context) if job.name == "review-retention")
    assert retain.run(NOW + 364 * builders.DAY) == "Deleted nothing."
    later = NOW + 366 * builders.DAY
    kept = "1 for standing examples, 0 for open incidents."
    found = f"Deleted 2 review_items, 1 reviews. Old conversations that stay: {kept}"
    assert retain.run(later) == found
    with reading(context.database) as connection:
        assert [row.id for row in connection.execute(select(review_items))] == [items[0]]
        assert [row.item_id for row in connection.execute(select(reviews))] == [items[0]]


@pytest.mark.parametrize("is_drawn", [False, True])
def test_the_jobs_do_their_work_and_say_what_they_did(context: Context, is_drawn: bool) -> None:
    """A rated answer is queued once: by its rating, or by the audit where the audit drew it."""
    probability = audit_probability(context.settings.review_budget, None)
    answer = next(
        name
        for name in (new_id("int", at=NOW - 5) for _ in itertools.count())
        if drawn(name, probability, AUDIT_SEED) is is_drawn
    )
    with writing(context.database) as connection:
        rated = builders.add_interaction(connection, NOW - 5, id=answer)
        builders.add_rating(connection, rated, NOW - 4)
    by_name = {job.name: job for job in jobs(context)}
    assert by_name["flagging"].run(NOW) == ("1 by audit" if is_drawn else "1 by rating")
    assert by_name["flagging"].run(NOW + 1) is None
    assert by_name["retraining"].run(NOW) is None
    later = NOW + 400 * builders.DAY
    assert by_name["review-retention"].run(later) == "Deleted 1 review_items."
