"""The retraining policy as a table, and what it writes."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from feedback import queue, retraining
from feedback.datasets import build
from feedback.erasing import erase_user
from feedback.policy import EndedTraining, Policy, Repairs, Review, State, decide
from feedback.queue import Decision
from tests import builders
from tests.feedback.world import ALIAS, CLAIM_MS, NOW, queued, seed_dataset
from whet.context import Context, open_context
from whet.database import reading, writing
from whet.errors import ConflictError
from whet.settings import load_settings
from whet.tables import (
    audit,
    blame_verdicts,
    datasets,
    examples,
    replicas,
    review_items,
    training_requests,
    training_runs,
)

HOUR = builders.HOUR
MINUTE = 60_000
POLICY = Policy(
    min_examples=100, cooldown_ms=HOUR, auto=True, quiet_ms=10 * MINUTE, review_wait_ms=2 * HOUR
)


def ended(ago: int, state: str = "failed", in_a_row: int = 1, same_rows: int = 1) -> EndedTraining:
    return EndedTraining("run_1", state, "Out of memory.", NOW - ago, in_a_row, same_rows)


def reviewing(ago: int, waiting: int = 5, began: int | None = None) -> Review:
    return Review(waiting, NOW - ago, NOW - (ago if began is None else began))


# fmt: off
DECISIONS = [
    (State("a", 0), POLICY, False, "too_few", "0 new reviewed examples of the 100 needed."),
    (State("a", 99, open_alerts=2), POLICY, False, "too_few", "2 alerts are open"),
    (State("a", 0, open_alerts=9), POLICY, False, "too_few", "an alarm alone teaches nothing"),
    (State("a", 100), POLICY, True, "ask", "100 new reviewed examples since"),
    (State("a", 100, last_request_at=NOW - HOUR), POLICY, True, "ask", "enough"),
    (State("a", 100, last_request_at=NOW - HOUR + 1), POLICY, False, "cooldown", "another 1 s"),
    (State("a", 100, last_request_at=NOW - HOUR // 2), POLICY, False, "cooldown", "another 30 min"),
    (State("a", 24, more_errors=True), POLICY, False, "too_few", "24 new reviewed examples of the 25 needed."),
    (State("a", 25, more_errors=True, last_request_at=NOW - 1), POLICY, True, "ask", "25 are enough while the random audit finds more wrong answers"),
    (State("a", 500, unfinished_request="req_1"), POLICY, False, "waiting", "waits for a worker (req_1)"),
    (State("a", 500, unfinished_request="req_1", run_started=True), POLICY, False, "running", "under way (req_1)"),
    (State("a", 500, canary="a@v2"), POLICY, False, "canary", "a@v2 is being tried"),
    (
        State("a", 500, canary="a@v2", canary_has_traffic=False), POLICY, False, "canary",
        "a@v2 passed its gate and its rollout is not decided",
    ),
    (
        State("a", 500, trained_by="run_9", dataset="a@4"), POLICY, False, "nothing_new",
        "exactly these rows (a@4) was done already (run_9)",
    ),
    (
        State("a", 120, repairs=Repairs(30, 1), training_ms=12 * MINUTE), POLICY, False, "documents",
        "120 new reviewed examples. 30 of 120 wrong answers lack a document: add documents "
        "(`whet documents add`). 1 of 120 wrong answers has one that did not reach the answer: "
        "change the search (`whet documents attach`). 89 of the 100 needed ask for training. "
        "The last training took 12 min.",
    ),
    (State("a", 120, repairs=Repairs(20)), POLICY, True, "ask", "20 of 120 wrong answers lack a document"),
    (State("a", 99, repairs=Repairs(99)), POLICY, False, "too_few", "99 new reviewed examples of the 100"),
    (State("a", 500, obstacle="It is gone."), POLICY, False, "blocked", "It is gone."),
    # What ended without a version: a pause that doubles, and an end for the same rows.
    (State("a", 100, ended=ended(HOUR - 1)), POLICY, False, "failed", "asked for in 1 s"),
    (
        State("a", 100, ended=ended(0), dataset="a@3"), POLICY, False, "failed",
        "failed (run_1: Out of memory), and the next is asked for in 1 h. To train now: "
        "`whet train run --dataset a@3 --alias a --recipe continue`.",
    ),
    (State("a", 100, ended=ended(HOUR)), POLICY, True, "ask", "are enough"),
    (State("a", 100, ended=ended(HOUR, in_a_row=2)), POLICY, False, "failed", "in 1 h"),
    (State("a", 100, ended=ended(23 * HOUR, in_a_row=99)), POLICY, False, "failed", "in 1 h"),
    (State("a", 100, ended=ended(24 * HOUR, in_a_row=99)), POLICY, True, "ask", "are enough"),
    (
        State("a", 100, ended=ended(0, "cancelled")), POLICY, False, "cancelled",
        "`whet datasets build --alias a && whet train run --dataset a --alias a --recipe",
    ),
    (
        State("a", 100, ended=ended(99 * HOUR, same_rows=3)), POLICY, False, "gave_up",
        "3 trainings on exactly these rows ended without a version",
    ),
    # People are reviewing: until the queue is empty, nobody decides, or the bound.
    (
        State("a", 100, review=reviewing(1)), POLICY, False, "reviewing",
        "people are reviewing: 5 more wait in the queue",
    ),
    (State("a", 100, review=reviewing(1, waiting=0)), POLICY, True, "ask", "are enough"),
    (State("a", 100, review=reviewing(10 * MINUTE)), POLICY, True, "ask", "are enough"),
    (State("a", 100, review=Review(5)), POLICY, True, "ask", "are enough"),
    (
        State("a", 100, review=reviewing(1, began=2 * HOUR - 1)), POLICY, False, "reviewing",
        "or in 1 s.",
    ),
    (State("a", 100, review=reviewing(1, began=2 * HOUR)), POLICY, True, "ask", "are enough"),
    (
        State("a", 100, review=reviewing(1, began=9 * HOUR), clear_since=NOW - HOUR), POLICY,
        False, "reviewing", "or in 1 h.",
    ),
    (
        State("a", 100, review=reviewing(1, began=9 * HOUR), last_request_at=NOW - 2 * HOUR),
        POLICY, False, "reviewing", "or in 1 h.",
    ),
    (
        State("a", 25, review=reviewing(1), more_errors=True), POLICY, False, "reviewing",
        "25 new reviewed examples are enough",
    ),
    (
        State("a", 500, dataset="a@3"), Policy(100, 0, False, recipe="my recipe.toml"), False,
        "manual", "`whet train run --dataset a@3 --alias a --recipe 'my recipe.toml'`",
    ),
    (State("a", 1), Policy(1, 0, True), True, "ask", "1 new reviewed example since"),
]
# fmt: on


@pytest.mark.parametrize(("state", "policy", "ask", "code", "words"), DECISIONS)
def test_decisions(state: State, policy: Policy, ask: bool, code: str, words: str) -> None:
    decision = decide(state, policy, NOW)
    assert (decision.ask, decision.code) == (ask, code)
    assert words in decision.reason and decision.reason.endswith(".")


@pytest.fixture
def eager(context: Context) -> Context:
    """Three examples are enough, with no pause."""
    settings = load_settings(
        home=context.settings.home, database_url=context.settings.database_url,
        retrain_min_examples=3, retrain_cooldown_s=0,
    )  # fmt: skip
    return Context(settings, context.database, context.store)


def run_of(context: Context, request: str, state: str, at: int) -> str:
    """What a worker makes of a request."""
    with writing(context.database) as connection:
        known = training_requests.c.id == request
        row = connection.execute(select(training_requests).where(known)).one()
        return builders.add_run(
            connection, at, dataset=row.dataset_digest, request=request, state=state,
            finished_at=None if state == "running" else at, heartbeat_at=at,
        )  # fmt: skip


def newest_request(context: Context) -> str:
    with reading(context.database) as connection:
        query = select(training_requests.c.id).order_by(training_requests.c.created_at.desc())
        return str(connection.execute(query).scalars().first())


def approve(context: Context, count: int, at: int = NOW) -> list[str]:
    """`count` approvals; returns the review ids."""
    items = queued(context, count, at=at, question=f"Question {{n}} asked at {at}?")
    return [
        queue.decide(context.database, item, "ada", Decision("approve"), now=at).review_id
        for item in items
    ]


def decisions(context: Context) -> list[str]:
    with reading(context.database) as connection:
        query = (
            select(audit.c.detail)
            .where(audit.c.action == "retraining.decision")
            .order_by(audit.c.sequence)
        )
        return [detail["code"] for detail in connection.execute(query).scalars()]


def test_enough_examples_become_one_request_with_its_dataset(eager: Context) -> None:
    seed = seed_dataset(eager)
    approve(eager, 2)
    assert not retraining.consider(eager, ALIAS, now=NOW).ask
    approve(eager, 1, NOW + 10)
    assert retraining.consider(eager, ALIAS, now=NOW + 20).ask
    assert retraining.consider(eager, ALIAS, now=NOW + 30).code == "waiting"
    with reading(eager.database) as connection:
        request = connection.execute(select(training_requests)).one()
        dataset = connection.execute(
            select(datasets).where(datasets.c.digest == request.dataset_digest)
        ).one()
    assert (request.alias, request.recipe, dataset.parents, len(dataset.example_ids)) == (
        ALIAS,
        {},
        [seed],
        3,
    )
    assert decisions(eager) == [
        "too_few",
        "ask",
        "waiting",
    ], "a decision is kept when its kind changes, not at every look"


@pytest.mark.parametrize("fault", ["document", "index", "prompt", "adapter", "unknown"])
def test_what_a_document_repairs_does_not_ask_for_training(eager: Context, fault: str) -> None:
    seed_dataset(eager)
    reviewed = approve(eager, 3)
    with writing(eager.database) as connection:
        row = connection.execute(select(examples).where(examples.c.review_id == reviewed[0])).one()
        values = {
            "interaction_id": row.interaction_id, "alias": ALIAS, "review_id": reviewed[0],
            "fault": fault, "detail": "", "reason": "", "report": {}, "actor": "ada",
            "created_at": NOW,
        }  # fmt: skip
        connection.execute(insert(blame_verdicts).values(**values))
    decision = retraining.consider(eager, ALIAS, now=NOW)
    is_elsewhere = fault in ("document", "index", "prompt")
    assert (decision.ask, decision.code) == (
        (False, "documents") if is_elsewhere else (True, "ask")
    )
    if is_elsewhere:
        approve(eager, 1, NOW + 10)
        assert retraining.consider(eager, ALIAS, now=NOW + 20).ask


def test_a_verdict_on_a_review_that_was_replaced_does_not_count(eager: Context) -> None:
    seed_dataset(eager)
    reviewed = approve(eager, 3)
    with writing(eager.database) as connection:
        row = connection.execute(select(examples).where(examples.c.review_id == reviewed[0])).one()
        values = {
            "interaction_id": row.interaction_id, "alias": ALIAS, "review_id": "rev_before",
            "fault": "document", "detail": "", "reason": "", "report": {}, "actor": "ada",
            "created_at": NOW,
        }  # fmt: skip
        connection.execute(insert(blame_verdicts).values(**values))
    assert retraining.consider(eager, ALIAS, now=NOW).ask


def test_what_a_training_learned_from_is_used_up_when_it_succeeds(eager: Context) -> None:
    seed_dataset(eager)
    approve(eager, 3)
    assert retraining.consider(eager, ALIAS, now=NOW).ask
    run = run_of(eager, newest_request(eager), "running", NOW)
    assert retraining.consider(eager, ALIAS, now=NOW + 1).code == "running"
    assert retraining.gather(eager, ALIAS, now=NOW).new_examples == 0, "those it learns from now"
    with writing(eager.database) as connection:
        ended_now = {"state": "succeeded", "finished_at": NOW + 2}
        connection.execute(training_runs.update().values(**ended_now))
    decision = retraining.consider(eager, ALIAS, now=NOW + 3)
    assert decision.reason == "0 new reviewed examples of the 3 needed.", run
    approve(eager, 3, NOW + 100)
    assert retraining.consider(eager, ALIAS, now=NOW + 200).ask


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_training_without_a_version_gives_its_examples_back(eager: Context, state: str) -> None:
    seed_dataset(eager)
    approve(eager, 3)
    for attempt in range(1, 4):
        at = NOW + attempt * 5 * HOUR
        assert retraining.consider(eager, ALIAS, now=at).ask, f"attempt {attempt}"
        run_of(eager, newest_request(eager), state, at + 1)
        assert retraining.gather(eager, ALIAS, now=at + 2).new_examples == 3
        decision = retraining.consider(eager, ALIAS, now=at + 2)
        assert "whet train run --dataset support@2 --alias support" in decision.reason
    assert retraining.consider(eager, ALIAS, now=NOW + 999 * HOUR).code == "gave_up"
    request = retraining.request_by_hand(eager, ALIAS, actor="op", now=NOW + 1000 * HOUR)
    run_of(eager, request, state, NOW + 1000 * HOUR)
    approve(eager, 1, NOW + 1000 * HOUR)
    decision = retraining.consider(eager, ALIAS, now=NOW + 1024 * HOUR)
    assert decision.ask, "other rows are another training"
    with reading(eager.database) as connection:
        attempts = connection.execute(
            select(training_requests.c.attempt).order_by(training_requests.c.created_at)
        ).scalars()
        assert list(attempts) == [1, 2, 3, 4, 1]


def test_examples_that_no_version_takes_do_not_count(eager: Context) -> None:
    seed_dataset(eager)
    for round_ in range(4):
        items = queued(eager, 1, at=NOW + round_, question="How long is the warranty?")
        for item in items:
            said = Decision("edit", f"{round_ + 20} months.")
            queue.decide(eager.database, item, "ada", said, now=NOW + round_)
    state = retraining.gather(eager, ALIAS, now=NOW + 10)
    assert state.new_examples == 1, "the newest answer stands, three are superseded"
    assert retraining.consider(eager, ALIAS, now=NOW + 10).code == "too_few"
    items = queued(eager, 2, at=NOW + 50, end_user="u-1")
    for item in items:
        queue.decide(eager.database, item, "ada", Decision("approve"), now=NOW + 60)
    assert retraining.gather(eager, ALIAS, now=NOW + 70).new_examples == 3
    erase_user(eager.database, eager.store, "u-1", secret=eager.secret, actor="admin", now=NOW + 80)
    assert retraining.gather(eager, ALIAS, now=NOW + 90).new_examples == 1


def test_rows_that_were_trained_on_are_never_asked_for_again(eager: Context) -> None:
    seed_dataset(eager)
    approve(eager, 3)
    assert retraining.consider(eager, ALIAS, now=NOW).ask
    run_of(eager, newest_request(eager), "succeeded", NOW + 1)
    with writing(eager.database) as connection:  # then somebody trains the first rows by hand
        connection.execute(select(datasets).where(datasets.c.version == 1)).one()
        first = connection.execute(select(datasets.c.digest).where(datasets.c.version == 1))
        builders.add_run(connection, NOW + 2, dataset=first.scalar_one(), finished_at=NOW + 3)
    decision = retraining.consider(eager, ALIAS, now=NOW + 4)
    assert decision.code == "nothing_new" and "support@2" in decision.reason
    with pytest.raises(ConflictError, match="done already") as refused:
        retraining.request_by_hand(eager, ALIAS, actor="op", now=NOW + 5)
    assert "whet train run --dataset support@2 --alias support" in refused.value.hint


def test_a_version_written_to_a_folder_by_hand_uses_nothing_up(eager: Context) -> None:
    seed_dataset(eager)
    approve(eager, 3)
    built = build(eager, ALIAS, actor="op", now=NOW)
    with writing(eager.database) as connection:
        recipe = {"method": "prefix", "into": "/tmp/prefix"}
        builders.add_run(connection, NOW, dataset=built.digest, recipe=recipe)
    assert retraining.consider(eager, ALIAS, now=NOW + 1).ask


def test_nobody_asks_in_the_midst_of_a_review(eager: Context) -> None:
    seed_dataset(eager)
    items = queued(eager, 8)
    codes = []
    for number, item in enumerate(items):
        at = NOW + number * MINUTE
        queue.decide(eager.database, item, "ada", Decision("approve"), now=at)
        codes.append(retraining.consider(eager, ALIAS, now=at + 1).code)
    assert codes == ["too_few"] * 2 + ["reviewing"] * 5 + ["ask"]
    with reading(eager.database) as connection:
        held = connection.execute(
            select(datasets.c.example_ids).order_by(datasets.c.version.desc())
        ).scalars()
        assert len(next(iter(held))) == 8, "the version has the whole review"


def test_a_review_that_never_ends_is_not_waited_for_beyond_the_bound(eager: Context) -> None:
    seed_dataset(eager)
    asked_at = None
    for number in range(40):
        at = NOW + number * 5 * MINUTE
        items = queued(eager, 1, at=at, question=f"Question {number} of a long day?")
        queued(eager, 1, at=at, question=f"Another {number}, which nobody decides?")
        queue.decide(eager.database, items[0], "ada", Decision("approve"), now=at)
        if retraining.consider(eager, ALIAS, now=at + 1).ask:
            asked_at = at - NOW
            break
    assert asked_at == 10 * MINUTE + 2 * HOUR, "two hours after three examples stood"


def test_decisions_about_another_alias_are_no_review_of_this_one(eager: Context) -> None:
    seed_dataset(eager)
    approve(eager, 3)
    queued(eager, 3, at=NOW + 5 * MINUTE)  # flagged later, and nobody looks at them
    (other,) = queued(eager, 1, at=NOW, alias="billing", question="Where is my invoice?")
    with writing(eager.database) as connection:
        connection.execute(
            review_items.update().where(review_items.c.id == other).values(alias="billing")
        )
    queue.decide(eager.database, other, "ada", Decision("approve"), now=NOW + 11 * MINUTE)
    assert retraining.consider(eager, ALIAS, now=NOW + 5 * MINUTE).code == "reviewing"
    assert retraining.consider(eager, ALIAS, now=NOW + 11 * MINUTE).ask


def test_a_version_that_passed_counts_as_a_trial_until_its_rollout_is_decided(
    eager: Context,
) -> None:
    seed_dataset(eager)
    approve(eager, 3)
    with writing(eager.database) as connection:
        passed = builders.add_adapter(connection, NOW, version=2)
    decision = retraining.consider(eager, ALIAS, now=NOW + 1)
    assert decision.code == "canary" and "support@v2 passed its gate" in decision.reason
    with writing(eager.database) as connection:
        refused = builders.add_replica(connection, NOW, refused={passed: "answers unlike it did"})
    assert retraining.look(eager, ALIAS, NOW + 2)[1].ask, "no engine will ever try it"
    with writing(eager.database) as connection:
        connection.execute(replicas.update().where(replicas.c.url == refused).values(refused={}))
        builders.add_rollout(connection, NOW + 3, generation=2, candidate=passed, share=0.1)
    assert "being tried" in retraining.look(eager, ALIAS, NOW + 4)[1].reason
    with writing(eager.database) as connection:
        builders.add_rollout(connection, NOW + 5, generation=3, state="rolled_back")
    assert retraining.look(eager, ALIAS, NOW + 6)[1].ask, "rolled back is decided"


@pytest.mark.parametrize(
    "over", [{"gate": "fail"}, {"gate": "inconclusive"}, {"removed_at": NOW}, {"name": "other"}]
)
def test_other_versions_do_not_hold_training_back(eager: Context, over: dict[str, Any]) -> None:
    seed_dataset(eager)
    approve(eager, 3)
    with writing(eager.database) as connection:
        builders.add_adapter(connection, NOW, **{"version": 2, **over})
    assert retraining.consider(eager, ALIAS, now=NOW + 1).ask


def test_a_folder_that_is_gone_is_a_sentence_and_not_an_error(eager: Context) -> None:
    digest = seed_dataset(eager)
    approve(eager, 3)
    folder = eager.store.local_folder(f"datasets/{digest}")
    folder.rename(folder.with_name("elsewhere"))
    decision = retraining.consider(eager, ALIAS, now=NOW)
    assert decision.code == "blocked" and "are gone" in decision.reason


def test_a_canary_holds_training_back(eager: Context) -> None:
    seed_dataset(eager)
    approve(eager, 3)
    with writing(eager.database) as connection:
        candidate = builders.add_adapter(connection, NOW, version=2)
        builders.add_rollout(
            connection, NOW, generation=2, candidate=candidate, share=0.1, state="canary"
        )
    decision = retraining.consider(eager, ALIAS, now=NOW)
    assert decision.code == "canary" and "support@v2" in decision.reason


def test_undone_examples_do_not_count(eager: Context) -> None:
    seed_dataset(eager)
    review = approve(eager, 3)[0]
    queue.undo(eager.database, review, "ada", claim_ms=CLAIM_MS, now=NOW + 1)
    assert retraining.consider(eager, ALIAS, now=NOW + 2).code == "too_few"


def test_many_lookers_at_once_ask_once(eager: Context) -> None:
    seed_dataset(eager)
    approve(eager, 5)
    errors: list[Exception] = []
    barrier = threading.Barrier(4)

    def look() -> None:
        own = open_context(eager.settings)
        try:
            barrier.wait()
            retraining.consider(own, ALIAS, now=NOW + 5)
        except Exception as error:  # noqa: BLE001
            errors.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors, errors
    with reading(eager.database) as connection:
        assert (
            connection.execute(select(func.count()).select_from(training_requests)).scalar_one()
            == 1
        )
        assert [
            row.version for row in connection.execute(select(datasets).order_by(datasets.c.version))
        ] == [1, 2]


def test_a_person_cannot_ask_while_a_request_is_under_way_nor_twice_for_the_same_rows(
    eager: Context,
) -> None:
    seed_dataset(eager)
    approve(eager, 1)
    request = retraining.request_by_hand(eager, ALIAS, actor="op", now=NOW)
    with pytest.raises(ConflictError, match=request):
        retraining.request_by_hand(eager, ALIAS, actor="op", now=NOW + 1)
    with writing(eager.database) as connection:
        digest = connection.execute(select(training_requests.c.dataset_digest)).scalar_one()
        builders.add_run(connection, NOW, dataset=digest, request=request)
    with pytest.raises(ConflictError, match=r"exactly these rows .* done already"):
        retraining.request_by_hand(eager, ALIAS, actor="op", now=NOW + 2)
