"""What a reviewer says of an answer's passages: stored with the decision, counted, undone,
exported.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from feedback import inbox, queue
from feedback.passage_verdicts import count_passage_verdicts, settle_passage_ids
from feedback.queue import Decision
from tests import builders
from tests.feedback.world import CLAIM_MS, NOW
from tests.web import console_client
from whet.context import Context
from whet.database import reading, writing
from whet.errors import InputError
from whet.tables import examples, reviews

HITS = [
    {"passage_id": f"p{number}", "document_id": "d", "collection": "manual", "title": f"Page {number}",
     "address": "a.md", "section": "", "text": f"Lamps last {number}0 months here.", "score": 0.5}
    for number in (1, 2)
]  # fmt: skip
FOUND = {"collection": "manual", "outcome": "found", "cited": [1]}
EMPTY = {"collection": "manual", "outcome": "empty", "cited": []}


def waiting(context: Context, hits: list[Any] | None = HITS, how: Any = FOUND) -> str:
    with writing(context.database) as connection:
        asked = builders.add_interaction(
            connection, NOW, answer="Lamps last 10 months here.", retrieved=hits, retrieval=how
        )
        return builders.add_review_item(connection, asked, NOW)


def decide(context: Context, item: str, decision: str = "edit", **said: Any) -> queue.Outcome:
    answer = "20 months." if decision == "edit" else None
    return queue.decide(context.database, item, "ada", Decision(decision, answer, **said), now=NOW)


def counts(context: Context, alias: str | None = None) -> dict[str, int]:
    with reading(context.database) as connection:
        return count_passage_verdicts(connection, alias)


@pytest.mark.parametrize(
    ("verdict", "ids", "hits", "how", "settled"),
    [
        ("", [], HITS, FOUND, []),
        ("missing", [], HITS, FOUND, []),
        ("missing", [], None, EMPTY, []),
        ("wrong", ["p2", "p1"], HITS, FOUND, ["p1", "p2"]),  # in the order of the prompt
        ("ignored", [], HITS[:1], FOUND, ["p1"]),  # of one passage there is no choice
    ],
)
def test_verdict_that_fits(
    verdict: str, ids: list[str], hits: Any, how: Any, settled: list[str]
) -> None:
    assert settle_passage_ids(verdict, ids, hits, how) == settled


@pytest.mark.parametrize(
    ("verdict", "ids", "hits", "how", "problem"),
    [
        ("bad", [], HITS, FOUND, "expected one of missing, wrong, ignored"),
        ("", ["p1"], HITS, FOUND, "without a verdict"),
        ("missing", [], None, None, "Nothing was searched"),
        ("missing", ["p1"], HITS, FOUND, "none of those"),
        ("wrong", [], HITS, FOUND, "Which of the 2 passages is wrong"),
        ("ignored", ["p9"], HITS, FOUND, "'p9' was not in this answer's prompt"),
        ("wrong", [], [], EMPTY, "Which of the 0 passages"),
    ],
)
def test_verdict_that_does_not_fit_is_refused(
    verdict: str, ids: list[str], hits: Any, how: Any, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        settle_passage_ids(verdict, ids, hits, how)


def test_verdict_is_stored_counted_listed_and_undone(context: Context) -> None:
    ignored, missing, plain = (waiting(context) for _ in range(3))
    made = decide(context, ignored, passage_verdict="ignored", passage_ids=["p2"])
    decide(context, missing, "reject", passage_verdict="missing")
    decide(context, plain, "approve")
    assert counts(context) == {"missing": 1, "wrong": 0, "ignored": 1}
    assert counts(context, "support") == counts(context)
    assert counts(context, "other") == {"missing": 0, "wrong": 0, "ignored": 0}
    with reading(context.database) as connection:
        stats = inbox.stats(connection, reviewer="ada", now=NOW)
        rows, _ = inbox.listing(connection, state="all", passages="ignored")
        review = inbox.load(connection, ignored).as_json()["review"]
    assert stats["passage_verdicts"] == counts(context)
    assert [row["id"] for row in rows] == [ignored]
    assert (review["passage_verdict"], review["passage_ids"]) == ("ignored", ["p2"])
    queue.undo(context.database, made.review_id, "ada", claim_ms=CLAIM_MS, now=NOW)
    assert counts(context)["ignored"] == 0


def test_example_keeps_no_passage_that_is_wrong(context: Context) -> None:
    decide(context, waiting(context), passage_verdict="wrong", passage_ids=["p1"])
    decide(context, waiting(context), passage_verdict="ignored", passage_ids=["p2"])
    with reading(context.database) as connection:
        rows = connection.execute(select(examples.c.row).order_by(examples.c.id)).scalars().all()
    held = sorted(len(row["context"]) for row in rows)
    assert held == [1, 2]
    assert any("20 months" in row["context"][0] for row in rows if len(row["context"]) == 1)


def test_page_and_api_take_a_verdict(sqlite_context: Context) -> None:
    client = console_client(sqlite_context, "reviewer", clock=lambda: NOW)
    item = waiting(sqlite_context)
    page = client.get(f"/review/item/{item}").text
    assert "2 passages in its prompt" in page and "cited" in page
    assert "<mark>Lamps last</mark>" not in page and "<mark>10</mark>" not in page
    assert "<mark>Lamps last 10 months here</mark>" in page
    form = {"decision": "reject", "passage_verdict": "wrong"}
    refused = client.post(f"/review/item/{item}", data=form)
    assert refused.status_code == 400 and "Which of the 2 passages is wrong?" in refused.text
    assert 'value="wrong" checked' in refused.text, "what was chosen is still there"
    assert client.post(f"/review/item/{item}", data=form | {"passage": "p1"}).status_code == 303
    decided = client.get(f"/review/item/{item}").text
    assert "passage wrong" in decided and "Page 1" in decided
    listed = client.get("/review/list?state=all&passages=wrong").text
    assert f"/review/item/{item}" in listed and "passage wrong (1)" in listed
    other = waiting(sqlite_context, [], EMPTY)
    assert "No passages: empty" in client.get(f"/review/item/{other}").text
    body = {"decision": "reject", "passage_verdict": "missing"}
    assert client.post(f"/api/review/{other}", json=body).status_code == 200
    stats = client.get("/api/review/stats").json()
    assert stats["passage_verdicts"] == {"missing": 1, "wrong": 1, "ignored": 0}
    bare = waiting(sqlite_context, None, None)
    assert "data-passages" not in client.get(f"/review/item/{bare}").text
    with reading(sqlite_context.database) as connection:
        stored = connection.execute(select(reviews.c.passage_ids).order_by(reviews.c.created_at))
        assert sorted(stored.scalars(), key=str) == [None, ["p1"]]
