"""The pages of adapters: deeds under a person's name, never on an old view, with a sentence before
each.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import select

from serving.pages import versions
from serving.pages.versions import promote_sentence, rollback_sentence
from tests import builders
from tests.web import NOW, console_client
from whet.context import Context
from whet.database import reading as reads
from whet.database import writing
from whet.registry import current_rollouts
from whet.tables import audit, rollouts


def operated(context: Context) -> tuple[Any, list[str]]:
    with writing(context.database) as connection:
        digests = [
            builders.add_adapter(connection, NOW - 5000 + number, version=number, gate=gate)
            for number, gate in ((1, "pass"), (2, "pass"), (3, "fail"))
        ]
        builders.add_rollout(connection, NOW - 4000, stable=digests[0])
    return console_client(context, "operator", clock=lambda: NOW), digests


def live(context: Context) -> tuple[str | None, int]:
    with reads(context.database) as connection:
        row = current_rollouts(connection)["support"]
    return row.stable_digest, row.generation


def test_promote_roll_back_and_pin_from_the_page_are_written_under_the_persons_name(
    context: Context,
) -> None:
    client, digests = operated(context)
    done = client.post("/adapters/support/promote", data={"version": digests[1], "expected": "1"})
    assert done.headers["location"] == "/adapters/support" and live(context) == (digests[1], 2)
    assert "support@v2 answers support now." in client.get("/adapters/support").text
    client.post("/adapters/support/rollback", data={"expected": "2"})
    assert live(context) == (digests[0], 3)
    client.post("/adapters/support/pin", data={"expected": "3"})
    assert client.post("/adapters/support/promote", data={"version": digests[1]}).status_code == 409
    client.post("/adapters/support/unpin", data={"expected": "4"})
    with reads(context.database) as connection:
        assert {
            row.actor
            for row in connection.execute(select(rollouts).where(rollouts.c.generation > 1))
        } == {"operator"}
        assert [
            row.action for row in connection.execute(select(audit).order_by(audit.c.sequence))
        ] == [
            "rollout.promote",
            "rollout.rollback",
            "rollout.pin",
            "rollout.unpin",
        ]


def test_a_deed_on_a_page_that_is_out_of_date_does_nothing_and_says_who_was_faster(
    context: Context,
) -> None:
    client, digests = operated(context)
    client.post("/adapters/support/promote", data={"version": digests[1], "expected": "1"})
    late = client.post("/adapters/support/rollback", data={"expected": "1"})
    assert (
        late.status_code == 409
        and "was changed meanwhile" in late.text
        and live(context) == (digests[1], 2)
    )


def test_a_version_that_failed_its_gate_needs_the_word_all_the_same(
    sqlite_context: Context,
) -> None:
    client, digests = operated(sqlite_context)
    assert client.post("/adapters/support/promote", data={"version": digests[2]}).status_code == 409
    page = client.get("/adapters/support").text
    assert "Promote support@v3 all the same" in page and "support@v3 did not pass its gate." in page
    assert (
        client.post(
            "/adapters/support/promote", data={"version": digests[2], "force": "1"}
        ).status_code
        == 303
    )


def test_the_page_offers_deeds_only_to_whom_they_belong(sqlite_context: Context) -> None:
    operated(sqlite_context)
    assert (
        "Roll back" not in console_client(sqlite_context, "reviewer").get("/adapters/support").text
    )
    assert "Roll back" in console_client(sqlite_context, "operator").get("/adapters/support").text


def test_the_sentence_before_a_deed_says_what_it_does(sqlite_context: Context) -> None:
    _, digests = operated(sqlite_context)
    with reads(sqlite_context.database) as connection:
        found = versions.board(connection, "support")
    assert found.live and found.live.adapter.digest == digests[0]
    two = found.by_digest(digests[1])
    assert two and promote_sentence(found, two).startswith(
        "support@v2 will answer every new request for support. support@v1 is kept"
    )
    assert (
        rollback_sentence(found)
        == "The base model answers every new request for support again; support@v1 is not tried"
        " again by itself."
    )
    trial = (
        replace(
            found, rollout=replace(found.rollout, candidate_digest=digests[1], candidate_share=0.1)
        )
        if found.rollout
        else found
    )
    trial = replace(
        trial,
        versions=[
            replace(item, role="candidate") if item.adapter.digest == digests[1] else item
            for item in trial.versions
        ],
    )
    assert (
        rollback_sentence(trial)
        == "support@v2 goes off trial and is not tried again by itself; support@v1 answers every"
        " request for support."
    )


def test_a_version_that_an_engine_refused_says_why(sqlite_context: Context) -> None:
    client, digests = operated(sqlite_context)
    with writing(sqlite_context.database) as connection:
        builders.add_replica(
            connection,
            NOW,
            ready=(digests[0],),
            refused={digests[1]: "log-probabilities differ by 1.4"},
        )
    assert "log-probabilities differ by 1.4" in client.get("/adapters/support/v2").text
    assert "refused on 1" in client.get("/adapters/support").text


def test_a_recipe_is_shown_in_words() -> None:
    shown = [
        versions.in_words(value)
        for value in (
            {"train": 602, "test": 145},
            ["q_proj", "v_proj"],
            True,
            "",
            0,
            2e-3,
            f"datasets/{'7fda8780' + 56 * 'a'}",
        )
    ]
    assert shown == [
        "602 train, 145 test",
        "q_proj, v_proj",
        "yes",
        "–",
        "0",
        "0.002",
        "datasets/7fda8780",
    ]
