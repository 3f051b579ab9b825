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
        " again by itself. No evaluation has the base model and support@v1 on the same rows."
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
        " request for support. No evaluation has support@v2 and support@v1 on the same rows."
    )


def test_two_versions_are_compared_only_by_rows_that_both_answered(
    sqlite_context: Context,
) -> None:
    """Figures of two evaluations, 98.6 and 97.7 %, where the paired one says 64.7 and 97.7."""

    def group(candidate: float, against: float, low: float, high: float) -> dict[str, Any]:
        difference = {"difference": candidate - against, "low": low, "high": high}
        return {"n": 85, "candidate": candidate, "against": against, **difference}

    client, (one, two, _) = operated(sqlite_context)
    own = {"old": group(0.986, 0.1, 0.8, 0.9)}, {"old": group(0.977, 0.1, 0.8, 0.9)}
    with writing(sqlite_context.database) as connection:
        for adapter, metrics in zip((one, two), own, strict=True):
            builders.add_evaluation(
                connection, NOW - 3000, adapter=adapter, dataset="d", metrics=metrics
            )
    page = client.get("/adapters/support?a=v1&b=v2").text
    compare = page.split('id="compare"')[1]
    assert "98.6 %" in compare and "97.7 %" in compare and "not comparable" in compare
    assert "<strong>" not in compare and "points" not in compare
    assert "whet eval compare support@v1 support@v2" in compare

    with writing(sqlite_context.database) as connection:
        paired = {"old": group(0.977, 0.647, 0.24, 0.41)}
        builders.add_evaluation(
            connection, NOW - 2000, adapter=two, against=one, dataset="d", metrics=paired
        )
        answer = builders.add_interaction(connection, NOW - 60_000, adapter_digest=one)
        builders.add_rating(connection, answer, NOW, rating=-1)
        builders.add_rollout(
            connection, NOW - 1000, generation=2, stable=two, previous_digest=one, pinned=True
        )
    page = client.get("/adapters/support?a=v1&b=v2").text
    compare = page.split('id="compare"')[1]
    assert "64.7 %" in compare and "<strong>97.7 %</strong>" in compare
    assert "-33.0 points" in compare and "-41.0 to -24.0" in compare and "98.6 %" not in compare
    said = (
        "Accuracy on existing test rows (85, paired): support@v1 64.7 %, support@v2 97.7 %"
        " (-33.0 points, -41.0 to -24.0). Thumbs up: support@v1 0 % of 1, support@v2 not rated."
        " Failed: support@v1 0.0 % of 1, support@v2 –."
    )
    assert said in page, "in the question before the rollback"

    assert "Unpin and roll back" in page
    client.post("/adapters/support/rollback", data={"expected": "2", "unpin": "1"})
    assert live(sqlite_context) == (one, 4)


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
