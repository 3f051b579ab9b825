"""The retraining policy as a table, and what it writes."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import func, select

from feedback import queue, retraining
from feedback.policy import Policy, State, decide
from feedback.queue import Decision
from tests import builders
from tests.feedback.world import ALIAS, CLAIM_MS, NOW, queued, seed_dataset
from whet.context import Context, open_context
from whet.database import reading, writing
from whet.errors import ConflictError
from whet.settings import load_settings
from whet.tables import audit, datasets, training_requests

HOUR = builders.HOUR
POLICY = Policy(min_examples=100, cooldown_ms=HOUR, auto=True)


@pytest.mark.parametrize(
    ("state", "policy", "ask", "code", "words"),
    [
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
        (State("a", 500), Policy(100, 0, False), False, "manual", "an operator has to ask"),
        (State("a", 1), Policy(1, 0, True), True, "ask", "1 new reviewed example since"),
    ],
)
def test_decisions(state: State, policy: Policy, ask: bool, code: str, words: str) -> None:
    decision = decide(state, policy, NOW)
    assert (decision.ask, decision.code) == (ask, code)
    assert words in decision.reason and decision.reason.endswith(".")


@pytest.fixture
def eager(context: Context) -> Context:
    """Three examples are enough, with no pause."""
    settings = load_settings(home=context.settings.home, database_url=context.settings.database_url, retrain_min_examples=3, retrain_cooldown_s=0)
    return Context(settings, context.database, context.store)


def approve(context: Context, count: int, at: int = NOW) -> list[str]:
    """`count` approvals; returns the review ids."""
    items = queued(context, count, at=at, question=f"Question {{n}} asked at {at}?")
    return [queue.decide(context.database, item, "ada", Decision("approve"), now=at).review_id for item in items]


def decisions(context: Context) -> list[str]:
    with reading(context.database) as connection:
        query = select(audit.c.detail).where(audit.c.action == "retraining.decision").order_by(audit.c.sequence)
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
        dataset = connection.execute(select(datasets).where(datasets.c.digest == request.dataset_digest)).one()
    assert (request.alias, request.recipe, dataset.parents, len(dataset.example_ids)) == (ALIAS, {}, [seed], 3)
    assert decisions(eager) == ["too_few", "ask", "waiting"], "a decision is kept when its kind changes, not at every look"


def test_only_examples_that_the_last_request_did_not_have_count(eager: Context) -> None:
    seed_dataset(eager)
    approve(eager, 3)
    assert retraining.consider(eager, ALIAS, now=NOW).ask
    with writing(eager.database) as connection:
        request = connection.execute(select(training_requests)).one()
        builders.add_run(connection, NOW, dataset=request.dataset_digest, request=request.id, state="running")
    assert retraining.consider(eager, ALIAS, now=NOW + 1).code == "running"
    with writing(eager.database) as connection:
        from whet.tables import training_runs

        connection.execute(training_runs.update().values(state="failed"))
    assert retraining.consider(eager, ALIAS, now=NOW + 2).code == "too_few"
    approve(eager, 3, NOW + 100)
    assert retraining.consider(eager, ALIAS, now=NOW + 200).ask


def test_a_canary_holds_training_back(eager: Context) -> None:
    seed_dataset(eager)
    approve(eager, 3)
    with writing(eager.database) as connection:
        candidate = builders.add_adapter(connection, NOW, version=2)
        builders.add_rollout(connection, NOW, generation=2, candidate=candidate, share=0.1, state="canary")
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
        assert connection.execute(select(func.count()).select_from(training_requests)).scalar_one() == 1
        assert [row.version for row in connection.execute(select(datasets).order_by(datasets.c.version))] == [1, 2]


def test_a_person_cannot_ask_while_a_request_is_under_way_nor_twice_for_the_same_rows(eager: Context) -> None:
    seed_dataset(eager)
    approve(eager, 1)
    request = retraining.request_by_hand(eager, ALIAS, actor="op", now=NOW)
    with pytest.raises(ConflictError, match=request):
        retraining.request_by_hand(eager, ALIAS, actor="op", now=NOW + 1)
    with writing(eager.database) as connection:
        digest = connection.execute(select(training_requests.c.dataset_digest)).scalar_one()
        builders.add_run(connection, NOW, dataset=digest, request=request)
    with pytest.raises(ConflictError, match="exactly these rows"):
        retraining.request_by_hand(eager, ALIAS, actor="op", now=NOW + 2)
