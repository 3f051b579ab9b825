"""Feedback from the application's side: what is taken, from whom, and what became of it."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
import typing
from typing import Any

import pytest
from sqlalchemy import Connection, insert, update
from sqlalchemy.exc import OperationalError

from serving import feedback_status as status
from serving.feedback_status import Dataset, Facts, Interaction, LeftOut, Rating, Review, assemble
from serving.feedback_store import load_facts
from serving.gateway import feedback_lookup, ratings
from serving.gateway.answers import ApiError
from serving.gateway.ratings import parse_feedback
from serving.log.records import RatingRecord, rating_id
from tests import builders
from tests.serving.conftest import Running, wait_for
from tests.serving.test_protocol import HELLO
from whet import access
from whet.clock import now_ms
from whet.context import Context
from whet.database import reading, writing
from whet.tables import examples, review_left_out, reviews
from whet.tables import ratings as ratings_table

NOW = 1_763_000_000_000
INTERVAL_S = 60.0
ID = "int_" + "0" * 22


def body(**fields: Any) -> bytes:
    return json.dumps({"interaction_id": ID, **fields}).encode()


# --- what a body may say --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "rating", "comment", "correction"),
    [
        ({"rating": 1}, 1, None, None),
        ({"rating": 1.0}, 1, None, None),
        ({"rating": -1.0}, -1, None, None),
        ({"rating": 0}, 0, None, None),
        ({"rating": -0.0}, 0, None, None),
        ({"correction": "36 months."}, -1, None, "36 months."),
        ({"rating": None, "correction": "36 months."}, -1, None, "36 months."),
        ({"rating": 1, "correction": "36 months."}, 1, None, "36 months."),
        ({"rating": -1, "correction": ""}, -1, None, None),
        ({"rating": -1, "correction": " \n"}, -1, None, None),
        ({"rating": -1, "comment": None, "correction": None, "labels": None}, -1, None, None),
        ({"rating": -1, "comment": " wrong ", "labels": []}, -1, " wrong ", None),
    ],
)
def test_a_correction_implies_a_bad_rating_and_null_is_absent(
    fields: dict[str, Any], rating: int, comment: str | None, correction: str | None
) -> None:
    found = parse_feedback(body(**fields))
    assert type(found.rating) is int
    assert (found.rating, found.comment, found.correction) == (rating, comment, correction)


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (body(), "neither a rating nor a correction"),
        (body(rating=None), "neither a rating nor a correction"),
        (body(correction=""), "neither a rating nor a correction"),
        (body(comment="only this"), "neither a rating nor a correction"),
        (body(rating=5), "expected one of -1, 0, 1; found 5"),
        (body(rating=0.5), "expected one of -1, 0, 1; found 0.5"),
        (body(rating="1"), 'expected one of -1, 0, 1; found "1"'),
        (body(rating=True), "expected one of -1, 0, 1; found true"),
        (body(rating=[1]), r"expected one of -1, 0, 1; found \[1\]"),
        (body(rating="x" * 5000), "found .{40}…"),
        (body(rating=2, correction="36 months."), "expected one of -1, 0, 1"),
        (body(rating=1, correction=7), "correction: expected"),
        (body(rating=1, extra=1), "'extra' is not supported"),
        (b'{"rating": 1}', "'interaction_id' is missing"),
        (b'{"interaction_id": null, "rating": 1}', "interaction_id: expected"),
        (b'{"interaction_id": "int_123", "rating": 1}', "x-whet-interaction-id"),
        (body(rating=1)[:-1] + rb', "comment": "\ud800"}', "half of a surrogate pair"),
        (body(rating=1)[:-1] + rb', "comment": "a\ud800 b"}', "half of a surrogate pair"),
        (body(rating=1)[:-1] + rb', "comment": "\udc00"}', "half of a surrogate pair"),
        (body(rating=1)[:-1] + rb', "comment": "\ud83d\ude00', "truncated"),
        (b"[1]", "expected `object`"),
        (body()[:-1] + b', "rating": ' + b"[" * 100_000, "nested too deeply"),
        (body()[:-1] + b', "rating": ' + b"[" * 500 + b"]" * 500 + b"}", r"found \[{40}…"),
    ],
)
def test_what_is_wrong_with_a_body_is_said(sent: bytes, says: str) -> None:
    with pytest.raises(ApiError, match=says) as caught:
        parse_feedback(sent)
    assert caught.value.status == 400


def test_the_same_feedback_in_other_spellings_is_one_rating() -> None:
    def identity(**fields: Any) -> str:
        found = parse_feedback(body(**fields))
        content = {"rating": found.rating, "correction": found.correction}
        return rating_id(ID, "key", {k: v for k, v in content.items() if v is not None})

    assert identity(correction="x") == identity(rating=-1.0, correction="x", comment=None)
    assert identity(rating=1) == identity(rating=1.0, correction="")
    assert identity(rating=1) != identity(rating=-1)


# --- the states, pure -----------------------------------------------------------------------------

BAD = Rating("rat_1", -1, "wrong", "36 months.", ["facts"], NOW - 10_000)
GOOD = Rating("rat_2", 1, None, None, [], NOW - 9_000)
ANSWER = Interaction("complete", True)
D3, D4 = Dataset("d3", "support@3", NOW - 5000), Dataset("d4", "support@4", NOW - 4000, ["d3"])


def facts(**over: Any) -> Facts:
    return Facts(**{"interaction_id": ID, "ratings": [BAD], "interaction": ANSWER, **over})


def edited(**over: Any) -> Facts:
    review = Review("edit", NOW - 6000, example_stands=over.pop("stands", True))
    return facts(queued_at=NOW - 8000, review=review, **over)


V7 = status.Version("support@v7", D3)
STATES: list[tuple[str, Facts, str, str]] = [
    ("its row is not there", facts(interaction=None), "received", "can take a second"),
    ("not looked at", facts(), "received", "looked at within 60 s"),
    (
        "not looked at for long",
        facts(ratings=[Rating("r", -1, None, None, [], NOW - 600_000)]),
        "received",
        "the scheduler does not run",
    ),
    ("in the queue", facts(queued_at=NOW - 1), "waiting", "waits for a reviewer since 2025-11-13"),
    ("undone", facts(queued_at=NOW - 1, was_undone=True), "waiting", "taken back"),
    ("erased", facts(queued_at=NOW - 1, is_taken_out=True), "skipped", "erased"),
    ("no feedback", facts(ratings=[]), "not_queued", "No feedback"),
    ("incomplete", facts(interaction=Interaction("cut", True)), "not_queued", "status is cut"),
    ("the base", facts(interaction=Interaction("complete", False)), "not_queued", "base model"),
    ("only good", facts(ratings=[GOOD]), "not_queued", "Ratings of 0 and 1"),
    (
        "too old",
        facts(ratings=[Rating("r", -1, None, None, [], NOW - 15 * builders.DAY)]),
        "not_queued",
        "older than 14 days",
    ),
    (
        "budget",
        facts(left_out=LeftOut("budget", "The day's budget of 200 is used up.")),
        "not_queued",
        "budget of 200 is used up. It is looked at again after 2025-11-14 00:00 UTC",
    ),
    (
        "budget, on its last day",
        facts(
            ratings=[Rating("r", -1, None, None, [], NOW - 14 * builders.DAY + 60_000)],
            left_out=LeftOut("similar", "Two of them."),
        ),
        "not_queued",
        "Two of them. By the next day it is older than 14 days",
    ),
    (
        "for good",
        facts(left_out=LeftOut("erased", "It was erased.")),
        "not_queued",
        "It was erased.$",
    ),
    (
        "approved",
        facts(queued_at=1, review=Review("approve", NOW, True)),
        "approved",
        "right as it was. It can enter the next",
    ),
    ("edited", edited(), "edited", "what the answer should have been. It can enter the next"),
    ("withdrawn", edited(stands=False, holding=[D3]), "edited", "has been withdrawn"),
    ("left out", edited(newest_without=D4), "edited", "support@4, built since, does not hold it"),
    ("rejected", facts(queued_at=1, review=Review("reject", NOW, False)), "rejected", "rejected"),
    ("skipped", facts(queued_at=1, review=Review("skip", NOW, False)), "skipped", "passed over"),
    ("in a dataset", edited(holding=[D3, D4]), "in_dataset", "support@3 since .* No version"),
    (
        "trained",
        edited(holding=[D3], versions=[V7]),
        "in_dataset",
        "support@v7 was trained on it and has not gone live",
    ),
    (
        "live",
        edited(holding=[D3], versions=[status.Version("support@v7", D3, NOW - 100, True)]),
        "live",
        "support@v7 was trained on the dataset support@3 and is live since",
    ),
    (
        "live once",
        edited(holding=[D3], versions=[status.Version("support@v7", D3, NOW - 100, False)]),
        "live",
        "went live at .* another version is live now",
    ),
    (
        "live through a chain",
        edited(holding=[D3], versions=[V7, status.Version("support@v8", D4, NOW - 100, True)]),
        "live",
        "support@4, built on support@3 that holds it, and is live",
    ),
]


@pytest.mark.parametrize(("case", "known", "state", "says"), STATES, ids=[s[0] for s in STATES])
def test_each_state_has_its_sentence(case: str, known: Facts, state: str, says: str) -> None:
    found = assemble(known, flag_interval_s=INTERVAL_S, now=NOW)
    assert found.state == state
    assert re.search(says, found.sentence), found.sentence


def test_every_state_is_covered_above() -> None:
    assert {state for _, _, state, _ in STATES} == set(typing.get_args(status.State))


def test_versions_count_through_datasets_built_on_others() -> None:
    other = Dataset("d9", "support@9", NOW, ["elsewhere"])
    later = Dataset("d5", "support@5", NOW, ["d4"])
    found = status.descendants([D3], [later, other, D4, D3])
    assert {dataset.digest for dataset in found} == {"d3", "d4", "d5"}


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([], {}),
        ([("a", None, 1)], {}),
        ([("a", "x", 1), ("a", "x", 2)], {"x": (1, True)}),
        ([("a", "x", 1), ("a", "y", 2)], {"x": (1, False), "y": (2, True)}),
        ([("a", "x", 1), ("a", "y", 2), ("a", "x", 3)], {"x": (3, True), "y": (2, False)}),
        ([("a", "x", 1), ("a", None, 2)], {"x": (1, False)}),
        ([("a", "x", 1), ("b", "x", 5), ("b", "y", 6)], {"x": (1, True), "y": (6, True)}),
    ],
)
def test_since_when_a_version_is_live(
    history: list[tuple[str, str | None, int]], expected: dict[str, tuple[int, bool]]
) -> None:
    assert status.live_times(history) == expected


# --- from the tables ------------------------------------------------------------------------------


class Desk:
    """One rated answer of the application `shop`, and what people and trainings do with it."""

    def __init__(self, connection: Connection, secret: bytes) -> None:
        self.connection = connection
        how: dict[str, Any] = {"secret": secret, "actor": "t", "now": 1}
        self.asked = access.create_key(connection, "web", group="shop", **how)[0]
        self.mate = access.create_key(connection, "batch", group="shop", **how)[0]
        self.other = access.create_key(connection, "other", **how)[0]
        self.interaction = builders.add_interaction(connection, NOW, api_key_id=self.asked)
        builders.add_rating(
            connection, self.interaction, NOW + 1, comment="no", labels=["a"], api_key_id=self.mate
        )

    def outcome(self, key: str = "", received: list[RatingRecord] | None = None) -> Any:
        found = load_facts(self.connection, self.interaction, key or self.asked, received or [])
        return found and assemble(found, flag_interval_s=INTERVAL_S, now=NOW + 1000)


def test_the_way_of_a_correction_from_receipt_to_live(context: Context) -> None:
    with writing(context.database) as connection:
        desk = Desk(connection, context.secret)
        first = desk.outcome(desk.mate)
        assert (first.state, first.review, first.datasets, first.versions) == (
            "received",
            None,
            [],
            [],
        )
        [rating] = first.ratings
        assert (rating.rating, rating.comment, rating.correction) == (-1, "no", None)
        assert (rating.labels, rating.created_at) == (["a"], NOW // 1000)

        left = {"interaction_id": desk.interaction, "alias": "support", "reason": "budget"}
        times = {"created_at": NOW + 2, "changed_at": NOW + 2}
        connection.execute(insert(review_left_out).values(sentence="Full.", **left, **times))
        assert (desk.outcome().state, desk.outcome().sentence[:5]) == ("not_queued", "Full.")

        example, review = builders.add_example(
            connection, desk.interaction, NOW + 10_000, reviewer="gerda", answer="48 months."
        )
        found = desk.outcome()
        assert (found.state, found.review.decision) == ("edited", "edit")
        assert found.review.decided_at == (NOW + 10_000) // 1000

        builders.add_dataset(connection, NOW + 5, version=1, example_ids=[])
        two = builders.add_dataset(
            connection, NOW + 20_000, version=2, example_ids=["exm_x", example]
        )
        three = builders.add_dataset(connection, NOW + 30_000, version=3, parents=[two])
        found = desk.outcome()
        assert found.state == "in_dataset"
        since = (NOW + 20_000) // 1000
        assert [(each.dataset, each.since) for each in found.datasets] == [("support@2", since)]

        v7 = builders.add_adapter(connection, NOW + 40_000, version=7, dataset=two)
        v8 = builders.add_adapter(connection, NOW + 50_000, version=8, dataset=three)
        builders.add_rollout(connection, NOW + 41_000, generation=1, candidate=v7, share=0.1)
        assert desk.outcome().state == "in_dataset", "a trial is not live"
        builders.add_rollout(connection, NOW + 42_000, generation=2, stable=v7)
        live = [("support@v7", (NOW + 42_000) // 1000, True)]
        found = desk.outcome()
        assert found.state == "live"
        assert [(v.version, v.live_since, v.live) for v in found.versions] == live

        builders.add_rollout(connection, NOW + 52_000, generation=3, stable=v8)
        found = desk.outcome()
        assert [(v.version, v.live) for v in found.versions] == [
            ("support@v7", False),
            ("support@v8", True),
        ]
        assert "built on support@2" in found.sentence

        text = json.dumps([str(found), found.sentence])
        assert "gerda" not in text and "48 months." not in text, (
            "reviewers' names and texts stay in"
        )

        connection.execute(update(reviews).values(standing=None, undone_at=NOW))
        connection.execute(update(examples).values(withdrawn_at=NOW))
        found = desk.outcome()
        assert (found.state, found.review) == ("waiting", None), review
        assert [each.dataset for each in found.datasets] == ["support@2"], "it is there for ever"


@pytest.mark.parametrize(
    ("decision", "state"),
    [("approve", "approved"), ("reject", "rejected"), ("skip", "skipped"), ("edit", "edited")],
)
def test_each_decision_is_told(context: Context, decision: str, state: str) -> None:
    with writing(context.database) as connection:
        desk = Desk(connection, context.secret)
        item = builders.add_review_item(connection, desk.interaction, NOW + 2)
        assert desk.outcome().state == "waiting"
        builders.add_review(connection, desk.interaction, item, NOW + 3, decision=decision)
        assert (desk.outcome().state, desk.outcome().review.decision) == (state, decision)


def test_another_group_learns_nothing_and_a_rating_without_an_answer_is_received(
    context: Context,
) -> None:
    with writing(context.database) as connection:
        desk = Desk(connection, context.secret)
        builders.add_rating(connection, desk.interaction, NOW + 2, api_key_id=desk.other)
        assert desk.outcome(desk.other) is None
        assert len(desk.outcome().ratings) == 1, "nor are its ratings shown"
        received = RatingRecord(
            id="rat_new", interaction_id=desk.interaction, api_key_id=desk.mate, rating=0,
            created_at=NOW + 3,
        )  # fmt: skip
        assert [each.rating for each in desk.outcome(received=[received] * 2).ratings] == [-1, 0]
        foreign = RatingRecord(
            id="rat_f", interaction_id=desk.interaction, api_key_id=desk.other, rating=0,
            created_at=NOW + 3,
        )  # fmt: skip
        assert len(desk.outcome(received=[foreign]).ratings) == 1

        desk.interaction = "int_" + "1" * 22
        assert desk.outcome() is None, "neither the answer nor feedback is known"
        assert desk.outcome(received=[received]).state == "received"
        builders.add_rating(connection, desk.interaction, NOW, api_key_id=desk.mate)
        assert desk.outcome().state == "received"
        assert desk.outcome(desk.other) is None


# --- through the gateway --------------------------------------------------------------------------


def new_key(gateway: Running, name: str, group: str = "") -> str:
    with writing(gateway.context.database) as connection:
        _, key = access.create_key(
            connection, name, secret=gateway.context.secret, actor="t", now=now_ms(), group=group
        )
    return key


def ask(
    gateway: Running, method: str, path: str, fields: Any = None, *, key: str = ""
) -> tuple[int, dict[str, str], Any]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    data = None if fields is None else json.dumps(fields).encode()
    connection.request(method, path, data, {"Authorization": f"Bearer {key or gateway.key}"})
    response = connection.getresponse()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return response.status, headers, json.loads(response.read())


def rate(gateway: Running, *, key: str = "", **fields: Any) -> tuple[int, Any]:
    code, _, content = ask(gateway, "POST", "/v1/feedback", fields, key=key)
    return code, content


def told(gateway: Running, interaction_id: str, key: str = "") -> tuple[int, Any]:
    code, _, content = ask(gateway, "GET", f"/v1/feedback/{interaction_id}", key=key)
    return code, content


def test_feedback_is_answered_for_until_it_is_in_the_queue(gateway: Running) -> None:
    answer = gateway.client().chat.completions.create(model="support", messages=HELLO)
    code, receipt = rate(gateway, interaction_id=answer.id, correction="24 months.")
    assert code == 202
    code, found = told(gateway, answer.id)
    assert (code, found["object"], found["state"]) == (200, "feedback", "received")
    [rating] = found["ratings"]
    assert rating["id"] == receipt["id"] and rating["rating"] == -1
    gateway.row(answer.id)
    with writing(gateway.context.database) as connection:
        builders.add_review_item(connection, answer.id, now_ms())
    code, found = told(gateway, f"{answer.id}")
    assert (found["state"], found["review"], found["datasets"]) == ("waiting", None, [])


def test_only_the_group_that_asked_rates_and_learns(gateway: Running) -> None:
    web, batch = new_key(gateway, "web", "shop"), new_key(gateway, "batch", "shop")
    answer = gateway.client(web).chat.completions.create(model="support", messages=HELLO)
    gateway.row(answer.id)
    code, content = rate(gateway, interaction_id=answer.id, rating=-1)
    error = content["error"]
    assert (code, error["code"], error["param"]) == (404, "interaction_not_found", "interaction_id")
    assert told(gateway, answer.id)[0] == 404
    assert rate(gateway, interaction_id=answer.id, rating=-1, key=batch)[0] == 202
    assert told(gateway, answer.id, web)[0] == told(gateway, answer.id, batch)[0] == 200


@pytest.mark.parametrize("name", ["int_" + "9" * 22, "int_123", "x", "%20", "int_" + "9" * 500])
def test_unknown_answers_are_404_with_a_sentence(gateway: Running, name: str) -> None:
    code, found = told(gateway, name)
    assert (code, found["error"]["code"]) == (404, "interaction_not_found")
    assert "second to arrive" in found["error"]["message"] or "x-whet" in found["error"]["message"]


def test_a_key_is_asked_for_first_and_only_get_is_answered(gateway: Running) -> None:
    assert told(gateway, ID, key="whet-wrong")[0] == 401
    assert ask(gateway, "POST", f"/v1/feedback/{ID}", {})[0] == 405


def test_feedback_is_taken_while_the_database_hangs_and_status_says_try_again(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = gateway.client().chat.completions.create(model="support", messages=HELLO)
    gateway.row(answer.id)
    let_go = threading.Event()

    def hang(*_: object, **__: object) -> None:
        let_go.wait(30)

    monkeypatch.setattr(ratings, "is_own_interaction", hang)
    monkeypatch.setattr(feedback_lookup, "load_facts", hang)
    monkeypatch.setattr(feedback_lookup, "READ_LIMIT_S", 0.2)
    try:
        for number in range(5):  # more than there are threads for such reads
            began = time.monotonic()
            sent = {"interaction_id": answer.id, "rating": -1, "comment": f"{number}"}
            assert rate(gateway, **sent)[0] == 202
            assert time.monotonic() - began < 5
        code, headers, content = ask(gateway, "GET", f"/v1/feedback/{answer.id}")
        assert (code, headers["retry-after"]) == (503, "5")
        assert "cannot be read" in content["error"]["message"]
        assert ask(gateway, "GET", "/v1/models")[0] == 200, "keys and aliases go on"
    finally:
        let_go.set()

    def stored() -> bool:
        with reading(gateway.context.database) as connection:
            return len(connection.execute(ratings_table.select()).all()) == 5

    wait_for(stored, "the ratings that were taken meanwhile")


def test_feedback_is_taken_while_the_database_is_away(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("gone"))

    monkeypatch.setattr(ratings, "is_own_interaction", fail)
    monkeypatch.setattr(feedback_lookup, "load_facts", fail)
    assert rate(gateway, interaction_id=ID, rating=1)[0] == 202
    assert told(gateway, ID)[0] == 503
