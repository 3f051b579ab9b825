"""Random histories of an alias, and what the policy may never do in any of them.

A history is a list of events: decisions, undone decisions, erasures, dataset builds, requests by
hand, runs that begin, succeed, fail or are cancelled, trials that begin, are promoted or rolled
back, and time that passes. After each event the policy looks once, as the scheduler's job does.
`World` keeps a plain model of what it did, from which every rule is checked without the policy's
own queries.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

import feedback.policy
from feedback import claims, datasets, queue, retraining, retraining_store
from feedback.erasing import erase_user
from feedback.next_version import assemble_next, standing_examples
from feedback.policy import MAX_TRIES, Decision, Policy, Review, State
from tests import builders
from tests.feedback.world import ALIAS, CLAIM_MS, NOW, queued, seed_dataset
from training.store import runs
from whet.context import Context
from whet.database import reading, writing
from whet.errors import WhetError
from whet.settings import Settings, load_settings
from whet.tables import datasets as versions
from whet.tables import metadata, review_items, rollouts, training_requests, training_runs

MINUTE = 60_000
QUIET, BOUND, COOLDOWN, ENOUGH = 10 * MINUTE, 90 * MINUTE, 45 * MINUTE, 4
STEPS = 40  # events of a history
HISTORIES = {"sqlite": 8, "postgresql": 3}  # a history takes about half a second
MANY = 150


class BrokenRule(AssertionError):
    """An invariant of the policy does not hold; `rule` says which."""

    def __init__(self, rule: str, sentence: str) -> None:
        super().__init__(f"{rule}: {sentence}")
        self.rule = rule


@dataclass
class World:
    """The installation, and a model of what happened to it."""

    context: Context
    seed: int
    now: int = NOW
    log: list[str] = field(default_factory=list)
    decided: list[tuple[str, int]] = field(default_factory=list)  # (review, instant) that stand
    activity: list[int] = field(default_factory=list)  # instants of decisions and undoing
    trained: set[str] = field(default_factory=set)  # digests that a version was made of
    tries: dict[str, int] = field(default_factory=dict)  # digest → trainings without a version
    running: tuple[str, str, str] | None = None  # (request, run or "", digest)
    passed: str | None = None  # a version that passed and is undecided
    on_trial: str | None = None
    stable: str | None = None
    generation: int = 1
    version: int = 1
    asked: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    # --- events ---

    def decide(self) -> None:
        item = self._waiting_item() or self._flag(1)[0]
        reviewer = self.random.choice(["ada", "bob"])
        answer = f"{self.random.randrange(60)} months."
        said = queue.Decision(
            self.random.choice(["approve", "edit", "edit", "reject", "skip"]), answer
        )
        said = said if said.decision == "edit" else queue.Decision(said.decision)
        outcome = queue.decide(self.context.database, item, reviewer, said, now=self.now)
        self.decided.append((outcome.review_id, self.now))
        self.activity.append(self.now)

    def decide_some(self) -> None:
        for _ in range(self.random.randrange(2, 7)):
            self.decide()
            self.now += self.random.randrange(1, 2 * MINUTE)

    def flag(self) -> None:
        self._flag(self.random.randrange(1, 4))

    def undo(self) -> None:
        if self.decided:
            review, _ = self.decided.pop(self.random.randrange(len(self.decided)))
            try:
                queue.undo(
                    self.context.database, review, "op", claim_ms=CLAIM_MS, now=self.now,
                    may_undo_others=True,
                )  # fmt: skip
            except WhetError:
                return
            self.activity.append(self.now)

    def erase(self) -> None:
        user = f"u-{self.random.randrange(6)}"
        context = self.context
        erase_user(
            context.database, context.store, user, secret=context.secret, actor="admin",
            now=self.now,
        )  # fmt: skip

    def build(self) -> None:
        datasets.build(self.context, ALIAS, actor="ola", now=self.now)

    def ask_by_hand(self) -> None:
        before = self._digest()
        try:
            request = retraining.request_by_hand(self.context, ALIAS, actor="ola", now=self.now)
        except WhetError as error:
            may = self.running is None and before not in self.trained
            if may:
                raise BrokenRule("asked again", f"refused: {error}") from error
            return
        self.running = (request, "", before)

    def begin(self) -> None:
        if self.running and not self.running[1]:
            request, _, digest = self.running
            run = runs.start(
                self.context, alias=ALIAS, dataset_digest=digest, base_digest="b", recipe={},
                estimate={}, worker="w", now=self.now, request_id=request,
            )  # fmt: skip
            self.running = (request, run.id, digest)

    def succeed(self) -> None:
        if not self.running or not self.running[1]:
            return
        _, run, digest = self.running
        self.version += 1
        gate = self.random.choice(["pass", "pass", "fail", "inconclusive"])
        with writing(self.context.database) as connection:
            made = builders.add_adapter(
                connection, self.now, version=self.version, gate=gate, dataset=digest, run=run,
                card={"dataset_path": f"datasets/{digest}"},
            )  # fmt: skip
            values = {"state": "succeeded", "finished_at": self.now, "adapter_digest": made}
            connection.execute(
                update(training_runs).where(training_runs.c.id == run).values(**values)
            )
        self.trained.add(digest)
        self.running = None
        if gate == "pass":
            self.passed = made

    def fail(self) -> None:
        if not self.running or not self.running[1]:
            return
        _, run, digest = self.running
        attempt = runs.Run(run, 1, ALIAS, self.now)
        assert runs.end(self.context, attempt, runs.FAILED, "Out of memory.", self.now)
        self._ended_without_version(digest)

    def cancel(self) -> None:
        if not self.running:
            return
        request, run, digest = self.running
        row = runs.request_cancel(self.context, run or request, actor="ola", now=self.now)
        if row["state"] == runs.RUNNING:  # as its process does at the next step
            attempt = runs.Run(row["id"], 1, ALIAS, self.now)
            assert runs.end(self.context, attempt, runs.CANCELLED, "Cancelled.", self.now)
        self._ended_without_version(digest)
        self._require_asking_again(digest)

    def fail_always(self) -> None:
        """Whatever is asked for fails, for days."""
        for _ in range(MAX_TRIES + 1):
            self.begin()
            self.fail()
            self.now += 30 * 60 * MINUTE
            self.look()

    def back_to_the_first(self) -> None:
        """A version is made of the rows of now, and then somebody trains the first rows again."""
        self.ask_by_hand()
        self.begin()
        self.succeed()
        if self.running:
            return
        self.promote()
        query = select(versions.c.digest).order_by(versions.c.version).limit(1)
        with writing(self.context.database) as connection:
            first = connection.execute(query).scalar_one()
            self.now += 1
            builders.add_run(connection, self.now, dataset=first, finished_at=self.now)
        self.trained.add(first)
        self.now += 30 * 60 * MINUTE
        self.look()

    def try_it(self) -> None:
        if self.passed and not self.on_trial:
            self._rollout(candidate_digest=self.passed, candidate_share=0.1, state="canary")
            self.passed, self.on_trial = None, self.passed

    def promote(self) -> None:
        """What is on trial goes live, and else what passed; a newer one that passed still waits."""
        chosen = self.on_trial or self.passed
        if chosen:
            self.stable = chosen
            self._rollout(stable_digest=chosen)
            if self.on_trial is None:
                self.passed = None
            self.on_trial = None

    def roll_back(self) -> None:
        if self.on_trial:
            self._rollout(state="rolled_back")
            self.on_trial = None

    def wait(self) -> None:
        self.now += self.random.choice([MINUTE, QUIET // 2, QUIET, COOLDOWN, BOUND, 5 * BOUND])

    # --- parts of events ---

    def _flag(self, count: int) -> list[str]:
        items = []
        for _ in range(count):
            question = f"How long is the warranty of product {self.random.randrange(40)}?"
            user = f"u-{self.random.randrange(6)}"
            items += queued(self.context, 1, at=self.now, question=question, end_user=user)
        return items

    def _waiting_item(self) -> str | None:
        return claims.next_item(self.context.database, "ada", claim_ms=0, now=self.now)

    def _rollout(self, **over: Any) -> None:
        self.generation += 1
        with writing(self.context.database) as connection:
            newest = select(rollouts).order_by(rollouts.c.generation.desc()).limit(1)
            before = connection.execute(newest).one()
            values = {"stable": before.stable_digest} | {
                name.removesuffix("_digest").replace("candidate_share", "share"): value
                for name, value in over.items()
            }
            builders.add_rollout(connection, self.now, generation=self.generation, **values)

    def _ended_without_version(self, digest: str) -> None:
        self.tries[digest] = self.tries.get(digest, 0) + 1
        self.running = None

    def _digest(self) -> str:
        return assemble_next(self.context, ALIAS).digest

    def _learned(self) -> set[str]:
        """Ids that the last training which made a version learned from."""
        with reading(self.context.database) as connection:
            query = select(training_runs).where(training_runs.c.state == "succeeded")
            done = connection.execute(query).all()
            if not done:
                return set()
            last = max(done, key=lambda row: (row.finished_at, row.id))
            known = select(versions.c.example_ids).where(versions.c.digest == last.dataset_digest)
            return set(connection.execute(known).scalar() or ())

    # --- rules ---

    def look(self) -> Decision:
        """Let the policy look, and check what it did."""
        trial, is_reviewing, learned = self.on_trial or self.passed, self._is_reviewing(), None
        if trial is None and self.running is None:
            learned = self._learned()
        decision = retraining.consider(self.context, ALIAS, now=self.now)
        if not decision.ask:
            return decision
        made = assemble_next(self.context, ALIAS)  # the same before and after it was built
        digest, new = made.digest, len(set(made.assembled.example_ids) - (learned or set()))
        self.asked += 1
        if self.running:
            raise BrokenRule("beside a run", f"{self.running} goes on")
        if trial:
            raise BrokenRule("beside a trial", f"{trial[:8]} is undecided")
        if digest in self.trained:
            raise BrokenRule("existing version", f"{digest[:8]} was trained on already")
        if self.tries.get(digest, 0) >= MAX_TRIES:
            raise BrokenRule("endless", f"{self.tries[digest]} trainings on it ended so")
        if new < ENOUGH:
            raise BrokenRule("too few", f"{new} of {ENOUGH} are new")
        if is_reviewing:
            raise BrokenRule("review", "the last decision is fresh, and the queue is not empty")
        with reading(self.context.database) as connection:
            query = select(training_requests).order_by(training_requests.c.created_at.desc())
            request = connection.execute(query.order_by(training_requests.c.id.desc())).first()
        assert request is not None and request.dataset_digest == digest
        self.running = (request.id, "", digest)
        return decision

    def _is_reviewing(self) -> bool:
        """Whether people review and the bound cannot be over: no cause to wait is older."""
        item = review_items.c
        waits = (item.alias == ALIAS, item.state == "waiting", ~claims.was_skipped())
        query = select(item.id).where(*waits).limit(1)
        with reading(self.context.database) as connection:
            waiting = connection.execute(query).first()
        if not waiting or not self.activity or self.now - max(self.activity) >= QUIET:
            return False
        began = last = max(self.activity)
        for instant in sorted(self.activity, reverse=True):
            if last - instant > QUIET:
                break
            began = last = instant
        return self.now - began < BOUND

    def _require_asking_again(self, digest: str) -> None:
        """After a cancel the same rows may be asked for; asked, and cancelled once more."""
        try:
            request = retraining.request_by_hand(
                self.context, ALIAS, actor="ola", now=self.now, digest=digest
            )
        except WhetError as error:
            if digest in self.trained:
                return
            raise BrokenRule("asked again", f"refused: {error}") from error
        row = runs.request_cancel(self.context, request, actor="ola", now=self.now)
        assert row["state"] == runs.CANCELLED
        self.tries[digest] += 1

    def require_asking_in_the_end(self) -> None:
        """With everything over, new examples and a quiet queue, training is asked for."""
        self.begin()
        if self.running:
            self.fail()
        for _ in range(2):  # one on trial, and one that passed meanwhile
            self.try_it()
            self.promote()
        for _ in range(ENOUGH):
            (item,) = queued(
                self.context, 1, at=self.now, question=f"Is {self.random.random()} a number?"
            )
            said = queue.Decision("edit", "Yes.")
            queue.decide(self.context.database, item, "ada", said, now=self.now)
        queued(self.context, 2, at=self.now, question="Who will look at {n}?")
        self.now += 30 * 60 * MINUTE
        decision = self.look()
        if not decision.ask:
            raise BrokenRule("never asks", decision.reason)


EVENTS: dict[Callable[[World], None], int] = {
    World.decide: 8, World.decide_some: 5, World.flag: 3, World.undo: 2, World.erase: 1,
    World.build: 1, World.ask_by_hand: 1, World.begin: 6, World.succeed: 4, World.fail: 2,
    World.cancel: 2, World.fail_always: 1,
    World.back_to_the_first: 1, World.try_it: 3, World.promote: 2, World.roll_back: 2, World.wait: 8,
}  # fmt: skip


def play(context: Context, seed: int) -> World:
    """One history; raises BrokenRule with what happened."""
    world = World(context, seed)
    seed_dataset(context)
    try:
        for _ in range(STEPS):
            event = world.random.choices(list(EVENTS), list(EVENTS.values()))[0]
            world.log.append(f"{(world.now - NOW) // 1000} s {event.__name__}")
            event(world)
            world.log.append(f"  → {world.look().code}")
            world.now += world.random.randrange(1, MINUTE)
        world.require_asking_in_the_end()
    except BrokenRule as broken:
        broken.add_note(f"history {seed}:\n" + "\n".join(world.log[-30:]))
        raise
    return world


def _histories(context: Context) -> Callable[[int], World]:
    """Plays histories, each in the emptied database."""
    settings = load_settings(
        home=context.settings.home, database_url=context.settings.database_url,
        retrain_min_examples=ENOUGH, retrain_cooldown_s=COOLDOWN / 1000,
        retrain_quiet_s=QUIET / 1000, retrain_review_wait_s=BOUND / 1000,
    )  # fmt: skip
    own = replace(context, settings=settings)

    def one(seed: int) -> World:
        with writing(context.database) as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())
        return play(own, seed)

    return one


@pytest.fixture
def histories(context: Context) -> Callable[[int], World]:
    return _histories(context)


@pytest.fixture
def sqlite_histories(sqlite_context: Context) -> Callable[[int], World]:
    return _histories(sqlite_context)


def test_no_history_breaks_a_rule(histories: Callable[[int], World], context: Context) -> None:
    count = HISTORIES[context.database.dialect.name]
    asked = sum(histories(seed).asked for seed in range(count))
    assert asked >= 2 * count, f"{asked} trainings were asked for: these histories show little"


@pytest.mark.slow  # the same rules, many more histories
def test_no_history_of_many_breaks_a_rule(sqlite_histories: Callable[[int], World]) -> None:
    for seed in range(1000, 1000 + MANY):
        sqlite_histories(seed)


# --- that each rule can be broken: faults planted, one for each ---

_REAL_GATHER = retraining.gather


def _gather_ghosts(context: Context, alias: str, *, now: int) -> State:
    """Every standing example counts, whether or not a version takes it or took it."""
    state = _REAL_GATHER(context, alias, now=now)
    with reading(context.database) as connection:
        return replace(state, new_examples=len(standing_examples(connection, alias)))


def _any_request(connection: Connection, alias: str, digest: str) -> str | None:
    """A request stands against these rows for ever, whatever became of it."""
    request = training_requests.c
    query = select(request.id).where(request.alias == alias, request.dataset_digest == digest)
    return connection.execute(query.limit(1)).scalar()


def _patient(settings: Settings) -> Policy:
    """A policy that waits for the end of a review without a bound."""
    return replace(feedback.policy.policy_of(settings), quiet_ms=10**12, review_wait_ms=10**12)


def _nothing(*_: object, **__: object) -> None:
    return None


def _no_review(*_: object, **__: object) -> Review:
    return Review()


Fault = list[tuple[object, str, object]]  # (module, name, what stands there instead)
# The number is a history that soon shows the fault; ids are random, so the next ones follow.
FAULTS: dict[str, tuple[int, Fault]] = {
    "beside a run": (0, [(retraining_store, "unfinished", _nothing)]),
    "beside a trial": (16, [(retraining_store, "trial", _nothing)]),
    "existing version": (1, [(retraining_store, "trained_by", _nothing)]),
    "endless": (1, [(feedback.policy, "MAX_TRIES", 10**9)]),
    "too few": (3, [(retraining, "gather", _gather_ghosts)]),
    "review": (5, [(retraining_store, "review", _no_review)]),
    "asked again": (0, [(retraining_store, "trained_by", _any_request)]),
    "never asks": (0, [(retraining, "policy_of", _patient)]),
}


@pytest.mark.parametrize("rule", FAULTS)
def test_a_planted_fault_breaks_its_rule(
    sqlite_histories: Callable[[int], World], monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    begin, fault = FAULTS[rule]
    for module, name, instead in fault:
        monkeypatch.setattr(module, name, instead)
    for seed in range(begin, begin + 40):
        try:
            sqlite_histories(seed)
        except BrokenRule as broken:
            assert broken.rule == rule, f"history {seed} broke another rule: {broken}"
            return
    raise AssertionError(f"40 histories did not show the planted fault against {rule!r}")
