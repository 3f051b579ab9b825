"""The review and dataset pages and their JSON interface, as people and programs use them."""

from __future__ import annotations

import html
import re
from html import unescape

import pytest
from sqlalchemy import func, select

from feedback import claims, flagging, queue
from feedback.queue import Decision
from tests import builders
from tests.feedback.world import ALIAS, CLAIM_MS, NOW, queued, seed_dataset
from tests.web import ConsoleClient, console_client
from whet.context import Context
from whet.database import reading, writing
from whet.tables import examples, review_items, reviews

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}{% raw"
    " %}</textarea></template>\u202e\u0000'\"&amp;`${x}" * 5
)[:300].replace("\x00", "")


@pytest.fixture
def reviewer(context: Context) -> ConsoleClient:
    return console_client(context, "reviewer", clock=lambda: NOW, raise_errors=True)


def test_the_review_page_shows_one_conversation_and_why(
    context: Context, reviewer: ConsoleClient
) -> None:
    (item,) = queued(context, 1)
    page = reviewer.get("/review").text
    assert f'data-item="{item}"' in page
    assert "Why am I seeing this?" in page and "A customer rated this answer as wrong." in page
    assert "1 conversation waits for you." in page
    assert "How long is the warranty of product 0?" in page
    with reading(context.database) as connection:
        assert connection.execute(select(review_items.c.claimed_by)).scalar_one() == "reviewer"


def test_an_empty_queue_says_what_fills_it(reviewer: ConsoleClient) -> None:
    page = reviewer.get("/review").text
    assert "Nothing waits for review." in page and "/v1/feedback" in page


def test_deciding_by_plain_forms_goes_on_to_the_next(
    context: Context, reviewer: ConsoleClient
) -> None:
    first, second = queued(context, 2)
    answer = reviewer.post(
        f"/review/item/{first}",
        data={
            "decision": "edit",
            "answer": "24 months.\r\nFrom purchase.",
            "label": ["outdated", "tone"],
            "note": "n",
        },
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/review")
    assert f'data-item="{second}"' in reviewer.get("/review").text
    with reading(context.database) as connection:
        row = connection.execute(select(reviews)).one()
        assert (row.answer, row.labels, row.note) == (
            "24 months.\nFrom purchase.",
            ["outdated", "tone"],
            "n",
        ), "form line breaks must not enter the answer"


def test_a_refused_form_keeps_what_was_typed(context: Context, reviewer: ConsoleClient) -> None:
    (item,) = queued(context, 1)
    answer = reviewer.post(
        f"/review/item/{item}",
        data={"decision": "approve", "answer": "my long new text", "note": "why", "label": "tone"},
    )
    assert answer.status_code == 400
    assert (
        "my long new text" in answer.text
        and 'value="why"' in answer.text
        and re.search(r'value="tone" checked', answer.text)
    )
    claims.next_item(context.database, "ada", claim_ms=CLAIM_MS, now=NOW)
    with writing(context.database) as connection:
        connection.execute(review_items.update().values(claimed_by="ada", claimed_until=NOW + 9))
    refused = reviewer.post(
        f"/review/item/{item}", data={"decision": "edit", "answer": "my long new text"}
    )
    assert refused.status_code == 409
    assert "ada is looking" in refused.text


def test_parts_hand_out_the_next_and_end_with_204(
    context: Context, reviewer: ConsoleClient
) -> None:
    first, second = queued(context, 2)
    part = reviewer.get(f"/review/part?exclude={first}")
    assert f'data-item="{second}"' in part.text and "<html" not in part.text
    assert reviewer.get(f"/review/part?exclude={first},{second}").status_code == 204
    assert f'data-item="{first}"' in reviewer.get(f"/review/part/{first}").text


def test_the_json_interface_reviews_undoes_and_counts(
    context: Context, reviewer: ConsoleClient
) -> None:
    item, _ = queued(context, 2)
    found = reviewer.get("/api/review/next").json()["item"]
    assert (
        found["item_id"] == item
        and found["messages"][-1]["content"].startswith("How long")
        and found["answer"] == "0 months."
    )
    body = {
        "decision": "edit",
        "answer": "36 months.",
        "labels": ["x"],
        "note": "n",
        "seconds": 3.5,
        "checks": ["36 months"],
    }
    said = reviewer.post(f"/api/review/{item}", json=body).json()
    assert (
        said["decision"] == "edit"
        and said["example_id"]
        and said["stats"]["decided_today_by_me"] == 1
    )
    stats = reviewer.get("/api/review/stats").json()
    assert (stats["waiting"], stats["examples"], stats["median_seconds"]) == (1, 1, 3.5)
    undone = reviewer.post(f"/api/review/{said['review_id']}/undo").json()
    assert undone["item_id"] == item and undone["stats"]["waiting"] == 2


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [("itm_none", {"decision": "skip"}, 404), ("{item}", {"decision": "edit"}, 400), ("{item}", {"decision": "skip", "colour": 1}, 400), ("{item}", {}, 400), ("{item}", {"decision": "edit", "answer": "a\x00b"}, 400)],
)  # fmt: skip
def test_bad_calls_get_a_sentence_and_change_nothing(
    context: Context, reviewer: ConsoleClient, path: str, body: dict, status: int
) -> None:
    (item,) = queued(context, 1)
    answer = reviewer.post(f"/api/review/{path.format(item=item)}", json=body)
    assert answer.status_code == status and answer.json()["error"]["message"]
    with reading(context.database) as connection:
        assert connection.execute(select(func.count()).select_from(reviews)).scalar_one() == 0


def test_a_decided_item_answers_409_to_another_reviewer(
    context: Context, reviewer: ConsoleClient
) -> None:
    (item,) = queued(context, 1)
    queue.decide(context.database, item, "ada", Decision("approve"), now=NOW)
    assert reviewer.post(f"/api/review/{item}", json={"decision": "reject"}).status_code == 409


def test_viewers_read_and_cannot_decide(context: Context) -> None:
    (item,) = queued(context, 1)
    viewer = console_client(context, "viewer", clock=lambda: NOW)
    assert viewer.get("/review/list").status_code == 200
    assert viewer.get(f"/review/item/{item}").status_code == 200
    assert "data-review-form" not in viewer.get(f"/review/item/{item}").text
    assert viewer.get("/review").status_code == 403
    assert viewer.post(f"/api/review/{item}", json={"decision": "skip"}).status_code == 403


def test_hostile_texts_are_text(context: Context, reviewer: ConsoleClient) -> None:
    with writing(context.database) as connection:
        interaction = builders.add_interaction(
            connection,
            NOW,
            question=HOSTILE,
            answer=HOSTILE,
            retrieved=[{"document_id": "d", "title": HOSTILE, "text": HOSTILE, "score": 1.0}],
        )
        builders.add_rating(connection, interaction, NOW, comment=HOSTILE, correction=HOSTILE)
        item = builders.add_review_item(connection, interaction, NOW, why=HOSTILE)
    queue.decide(
        context.database,
        item,
        "reviewer",
        Decision("edit", HOSTILE + "!", note=HOSTILE, labels=[HOSTILE[:200]]),
        now=NOW,
    )
    pages = [
        reviewer.get(path).text
        for path in (f"/review/item/{item}", "/review/list?state=all", f"/review/part/{item}")
    ]
    with reading(context.database) as connection:
        review = connection.execute(select(reviews.c.id)).scalar_one()
    reviewer.post(f"/api/review/{review}/undo")
    pages.append(reviewer.get("/review").text)
    for page in pages:
        assert (
            "<script>alert" not in page
            and "<img src=x" not in page
            and "</textarea></template>" not in page
        )
    assert all("{{7*7}}" in unescape(page) for page in pages), (
        "a template must never run over what people wrote"
    )
    editor = re.search(r"<textarea name=\"answer\"[^>]*>\n(.*?)</textarea>", pages[-1], re.DOTALL)
    assert editor and unescape(editor[1]) == HOSTILE, (
        "the editor must hold the answer to the letter"
    )


def test_whitespace_of_an_answer_survives_the_editor(
    context: Context, reviewer: ConsoleClient
) -> None:
    text = "\n\n  two leading line breaks\tand a tab  \n"
    queued(context, 1, answer=text)
    page = reviewer.get("/review").text
    editor = re.search(r"<textarea name=\"answer\"[^>]*>\n(.*?)</textarea>", page, re.DOTALL)
    assert editor and unescape(editor[1]) == text


def test_the_list_filters_and_pages_by_address(context: Context, reviewer: ConsoleClient) -> None:
    queued(context, 60)
    page = reviewer.get("/review/list").text
    assert page.count("data-row") == 50
    following = unescape(re.search(r'href="([^"]*after=[^"]*)"', page)[1])
    assert reviewer.get(following).text.count("data-row") == 10
    assert "No conversation matches." in reviewer.get("/review/list?reason=audit").text
    assert reviewer.get("/review/list?after=garbage&state=nonsense").status_code == 200


def test_an_alert_becomes_a_batch_and_a_conversation_a_request(
    context: Context, reviewer: ConsoleClient
) -> None:
    with writing(context.database) as connection:
        named = [builders.add_interaction(connection, NOW + n) for n in range(3)]
        broken = builders.add_interaction(connection, NOW, status="cut")
        alert = builders.add_alert(connection, NOW)
        connection.exec_driver_sql("SELECT 1")
        from whet.tables import alerts

        connection.execute(
            alerts.update().values(detail={"interaction_ids": [*named, broken, "int_gone"]})
        )
        other = builders.add_interaction(connection, NOW)
    answer = reviewer.post("/review/batch", data={"alert": alert})
    assert answer.status_code == 303 and alert in answer.headers["location"]
    assert reviewer.post("/api/review/batch", json={"alert": alert}).json() == {"items": []}
    reviewer.post("/review/batch", data={"alert": alert})
    listed = reviewer.get("/review/list", params={"alert": alert, "state": "all"}).text
    assert (
        f"Of the alert's {len(named) + 2} conversations: {len(named)} waiting for review, "
        "2 without a whole answer to judge." in html.unescape(listed)
    )
    assert f"alert {alert}" not in listed, "the filter is named by the alert's title"
    assert reviewer.post("/review/request", data={"interaction": other}).status_code == 303
    assert reviewer.post("/review/request", data={"interaction": broken}).status_code == 409
    with reading(context.database) as connection:
        rows = connection.execute(
            select(review_items.c.interaction_id, review_items.c.reason)
        ).all()
    assert {(row.interaction_id, row.reason) for row in rows} == {(i, "drift") for i in named} | {
        (other, "request")
    }


def test_review_says_what_was_not_taken_in_and_why(context: Context) -> None:
    with writing(context.database) as connection:
        for number in range(12):
            answered = builders.add_interaction(
                connection,
                NOW - number,
                question=f"a matter called {number}",
                end_user=f"u{number}",
            )
            builders.add_rating(connection, answered, NOW, comment="It is wrong.")
    taken = flagging.flag(context.database, budget=8, secret=context.secret, now=NOW)
    missing = 12 - taken["rating"]
    assert missing > 1, "the budget leaves some out"
    reviewer = console_client(context, "reviewer", clock=lambda: NOW)
    for path in ("/review", "/review/list"):
        page = reviewer.get(path).text
        assert f"{missing} answers with feedback of the last 24 hours are not in the queue" in page
        assert "budget" in page.split('id="left-out"')[1].split("</details>")[0], path


def test_datasets_are_built_shown_compared_and_trained_on(context: Context) -> None:
    seed_dataset(context)
    operator = console_client(context, "operator", clock=lambda: NOW, raise_errors=True)
    for item in queued(context, 3):
        operator.post(f"/api/review/{item}", json={"decision": "approve"})
    assert "3 new reviewed examples of the 100 needed." in operator.get("/datasets").text
    built = operator.post("/api/datasets", json={"alias": ALIAS}).json()
    assert built["label"] == "support@2" and len(built["example_ids"]) == 3
    page = operator.get(f"/datasets/{built['digest']}")
    assert page.status_code == 200 and "support@1" in page.text
    difference = operator.get(f"/datasets/diff?a=support@1&b={built['digest']}").text
    assert "3 rows changed" in difference
    assert (
        operator.get(f"/datasets/{built['digest']}/train.jsonl").text.count("\n")
        == built["rows"]["train"]
    )
    assert operator.get("/datasets/nothing").status_code == 404
    assert operator.post("/datasets/train", data={"digest": built["digest"]}).status_code == 303
    again = operator.post(f"/api/datasets/{built['digest']}/train")
    assert again.status_code == 409
    (policy,) = operator.get("/api/retraining").json()
    assert (policy["alias"], policy["decision"]["code"]) == (ALIAS, "waiting")


def test_the_policy_is_shown_for_every_alias_and_for_none_that_does_not_exist(
    context: Context,
) -> None:
    operator = console_client(context, "operator", clock=lambda: NOW, raise_errors=True)
    assert operator.get("/api/retraining").json() == []
    seed_dataset(context)
    with writing(context.database) as connection:
        builders.add_adapter(connection, NOW, name="billing", gate="fail")
    for item in queued(context, 2):
        operator.post(f"/api/review/{item}", json={"decision": "approve"})
    found = operator.get("/api/retraining").json()
    assert [row["alias"] for row in found] == ["billing", ALIAS]
    assert operator.get(f"/api/retraining?alias={ALIAS}").json() == found[1]
    sentence = found[1]["decision"]["reason"]
    assert sentence == "2 new reviewed examples of the 100 needed."
    assert f"{ALIAS}: {sentence}" in operator.get("/datasets").text, "the page says the same"
    for address in ("/api/retraining", "/api/review/stats", "/api/review/next", "/api/datasets"):
        answer = operator.get(f"{address}?alias=nobody")
        assert answer.status_code == 404, address
        error = answer.json()["error"]
        assert "no alias 'nobody'" in error["message"] and f"billing, {ALIAS}" in error["hint"]


def test_building_by_form_needs_something_to_build_from(
    context: Context, reviewer: ConsoleClient
) -> None:
    answer = reviewer.post("/datasets/build", data={"alias": ALIAS})
    assert answer.status_code == 400 and "nothing to train" in answer.text
    with reading(context.database) as connection:
        assert connection.execute(select(func.count()).select_from(examples)).scalar_one() == 0
