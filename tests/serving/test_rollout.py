"""Rollout decisions as tables, the evidence they rest on, and the store that writes them."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, insert, select

from serving.controller import RolloutController, count_arms
from serving.log.inserting import insert_records
from serving.log.records import InteractionRecord, RatingRecord
from serving.rollout import Action, Counts, Policy, candidate_for, decide, rejected
from serving.rollout_store import RolloutStore
from serving.sequential import evidence
from tests.serving.conftest import add_version, set_replica
from tests.serving.test_log import record
from whet import access
from whet.context import Context, open_context
from whet.database import reading, writing
from whet.errors import ConflictError, InputError, NotFoundError
from whet.registry import Adapter, Rollout, current_rollouts, rollout_history
from whet.settings import load_settings
from whet.tables import audit, evaluations, rollouts

HOUR = 3_600_000
POLICY = Policy((0.1, 0.5, 1.0), 200, 24.0, True)


def rollout(**changes: Any) -> Rollout:
    values: dict[str, Any] = {
        "id": "rol_1", "alias": "support", "generation": 3, "stable_digest": "s" * 64, "candidate_digest": "c" * 64, "candidate_share": 0.1, "previous_digest": None,
        "pinned": False, "state": "canary", "reason": "", "actor": "x", "created_at": 0,
    }  # fmt: skip
    return Rollout(**{**values, **changes})


def version(number: int, **changes: Any) -> Adapter:
    values: dict[str, Any] = {
        "digest": f"{number:064x}", "name": "support", "version": number, "path": "", "base_digest": "b", "template_digest": "t", "dataset_digest": None, "run_id": None, "rank": 8,
        "gate": "pass", "card": {}, "created_at": number, "removed_at": None,
    }  # fmt: skip
    return Adapter(**{**values, **changes})


def broken(answers: int, failures: int, measure: str = "broken") -> Counts:
    return Counts(answers, {measure: failures})


@pytest.mark.parametrize(
    ("share", "candidate", "stable", "hours", "kind", "to"),
    [
        (0.1, Counts(), Counts(), 0, "hold", 0),
        (0.1, Counts(199), Counts(2000), 1, "hold", 0),
        (0.1, Counts(200), Counts(2000), 1, "raise", 0.5),
        (0.5, Counts(200), Counts(200), 1, "promote", 0),
        (0.1, broken(200, 1), broken(1800, 9), 1, "raise", 0.5),
        (0.1, Counts(10), Counts(100), 24, "rollback", 0),
        (0.1, Counts(10), Counts(100), 23.9, "hold", 0),
        (0.1, broken(30, 8), broken(300, 0), 0.1, "rollback", 0),  # evidence
        (0.1, broken(20, 5), broken(2, 0), 0.1, "rollback", 0),  # hard limit
        (0.1, broken(19, 3), broken(0, 0), 0.1, "hold", 0),  # three unlucky answers are an anecdote
        (0.1, broken(100, 40), broken(900, 360), 0.1, "hold", 0),  # the engine is to blame
        (0.1, broken(100, 30, "negative"), broken(900, 20, "negative"), 0.1, "rollback", 0),
        (0.5, broken(100, 40, "empty"), broken(100, 1, "empty"), 0.1, "rollback", 0),
    ],
)
def test_the_next_step_of_a_canary(
    share: float, candidate: Counts, stable: Counts, hours: float, kind: str, to: float
) -> None:
    action = decide(rollout(candidate_share=share), candidate, stable, POLICY, round(hours * HOUR))
    assert (action.kind, action.share) == (kind, to) and action.reason


def test_nothing_is_decided_without_a_candidate() -> None:
    assert (
        decide(rollout(state="live", candidate_digest=None), Counts(), Counts(), POLICY, 0).kind
        == "hold"
    )


def ask(**changes: Any) -> Action:
    values: dict[str, Any] = {
        "rollout": rollout(state="live", candidate_digest=None, candidate_share=0.0, stable_digest=version(1).digest), "versions": [version(2), version(1)], "history": [],
        "ready_everywhere": {version(1).digest, version(2).digest}, "policy": POLICY, "stable": version(1),
    }  # fmt: skip
    values.update(changes)
    first = values.pop("rollout")
    return candidate_for(first, values.pop("versions"), values.pop("history"), **values)


LIVE = {
    "state": "live",
    "candidate_digest": None,
    "candidate_share": 0.0,
    "stable_digest": version(1).digest,
}


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "start"),
        ({"versions": [version(1)]}, "hold"),
        ({"versions": [version(2, gate="fail"), version(1)]}, "hold"),
        ({"versions": [version(2, gate="inconclusive"), version(1)]}, "hold"),
        ({"versions": [version(2, name="other"), version(1)]}, "hold"),
        # The newest is not ready yet; an older one is not tried instead
        ({"versions": [version(3), version(2), version(1)]}, "hold"),
        ({"ready_everywhere": {version(1).digest}}, "hold"),
        ({"policy": Policy((0.1, 1.0), 200, 24, False)}, "hold"),
        ({"rollout": rollout(**{**LIVE, "pinned": True})}, "hold"),
        ({"rollout": rollout()}, "hold"),
        (
            {
                "stable": version(5),
                "rollout": rollout(**{**LIVE, "stable_digest": version(5).digest}),
            },
            "hold",
        ),
        ({"stable": None, "rollout": rollout(**{**LIVE, "stable_digest": None})}, "start"),
        (
            {
                "history": [
                    rollout(**{**LIVE, "state": "rolled_back"}, generation=5),
                    rollout(candidate_digest=version(2).digest, generation=4),
                ]
            },
            "hold",
        ),
    ],
)
def test_which_version_goes_on_trial_by_itself(changes: dict[str, Any], kind: str) -> None:
    action = ask(**changes)
    assert action.kind == kind and action.reason
    if kind == "start":
        assert (action.digest, action.share) == (version(2).digest, 0.1)


def test_rolled_back_versions_are_remembered_from_both_kinds_of_rollback() -> None:
    history = [
        rollout(state="rolled_back", generation=4),
        rollout(state="live", stable_digest="l" * 64, generation=3),
        rollout(state="rolled_back", generation=2),
        rollout(state="canary", generation=1),
    ]
    assert rejected(history) == {"l" * 64, "c" * 64}


# --- evidence -------------------------------------------------------------------------------------------------------


def test_evidence_is_the_integral_it_claims_to_be() -> None:
    for a, b, share in (
        (0, 0, 0.1),
        (2, 0, 0.1),
        (3, 0, 0.1),
        (5, 20, 0.1),
        (10, 10, 0.5),
        (0, 30, 0.3),
        (40, 3, 0.5),
    ):
        steps = 200_000
        width = (1 - share) / steps
        integral = (
            sum(
                ((share + (i + 0.5) * width) / share) ** a
                * ((1 - share - (i + 0.5) * width) / (1 - share)) ** b
                for i in range(steps)
            )
            * width
        )
        assert evidence(a, b, share) == pytest.approx(integral / (1 - share), rel=1e-4)


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.seconds
def test_a_candidate_that_is_no_worse_is_almost_never_accused_however_often_one_looks(
    share: float,
) -> None:
    chance, alarms, runs = random.Random(3), 0, 1500
    for _ in range(runs):
        a = b = 0
        for _ in range(120):
            a, b = (a + 1, b) if chance.random() < share else (a, b + 1)
            if evidence(a, b, share) >= 20:
                alarms += 1
                break
    assert alarms / runs <= 0.05


@pytest.mark.seconds
def test_planted_regressions_are_found_and_healthy_candidates_are_not() -> None:
    """50 candidates that break 30 % of their answers, and 50 that are like the stable version (2
    %), looked at after every answer.
    """

    def run(rate: float, chance: random.Random) -> str:
        counts = {"candidate": [0, 0], "stable": [0, 0]}
        while counts["candidate"][0] < 200:
            arm = "candidate" if chance.random() < 0.1 else "stable"
            counts[arm][0] += 1
            counts[arm][1] += chance.random() < (rate if arm == "candidate" else 0.02)
            action = decide(
                rollout(), broken(*counts["candidate"]), broken(*counts["stable"]), POLICY, HOUR
            )
            if action.kind != "hold":
                return action.kind
        return "raise"

    chance = random.Random(5)
    assert [run(0.3, chance) for _ in range(50)].count("rollback") == 50
    assert [run(0.02, chance) for _ in range(50)].count("rollback") <= 2


def test_evidence_refuses_a_share_that_splits_nothing() -> None:
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            evidence(1, 1, share)


# --- the store ------------------------------------------------------------------------------------------------------

WHO = {"actor": "anna", "reason": "because", "now": 1000}


@pytest.fixture
def store(context: Context) -> RolloutStore:
    for number in (1, 2, 3):
        add_version(context, "support", number, created_at=number)
    return RolloutStore(context.database, context.settings)


def live(context: Context, alias: str = "support") -> Rollout:
    with reading(context.database) as connection:
        return current_rollouts(connection)[alias]


def digest(context: Context, number: int) -> str:
    from whet.store import digest_bytes

    return digest_bytes(f"support{number}".encode())


def test_a_life_of_an_alias(store: RolloutStore, context: Context) -> None:
    one, two = digest(context, 1), digest(context, 2)
    assert store.promote("support", "support@v1", **WHO).stable_digest == one
    canary = store.start("support", "support@v2", 0.1, **WHO)
    assert (
        canary.state,
        canary.stable_digest,
        canary.candidate_digest,
        canary.candidate_share,
    ) == ("canary", one, two, 0.1)
    assert store.set_share("support", 0.5, **WHO).candidate_share == 0.5
    promoted = store.promote("support", **WHO)
    assert (
        promoted.state,
        promoted.stable_digest,
        promoted.previous_digest,
        promoted.candidate_digest,
    ) == ("live", two, one, None)
    back = store.rollback("support", **WHO)
    assert (back.state, back.stable_digest) == ("rolled_back", one)
    assert store.rollback("support", **WHO).stable_digest is None, (
        "a second rollback goes further back: to the base"
    )
    with pytest.raises(ConflictError, match="nothing before it"):
        store.rollback("support", **WHO)
    with reading(context.database) as connection:
        assert [row.generation for row in rollout_history(connection, "support")] == [
            6,
            5,
            4,
            3,
            2,
            1,
        ]
        assert (
            connection.execute(
                select(func.count()).select_from(audit).where(audit.c.subject == "support")
            ).scalar_one()
            == 6
        )


def test_a_candidate_can_be_taken_off_trial(store: RolloutStore, context: Context) -> None:
    store.promote("support", "support@v1", **WHO)
    store.start("support", "support@v2", 0.1, **WHO)
    back = store.rollback("support", **WHO)
    assert (back.state, back.stable_digest, back.candidate_digest, back.candidate_share) == (
        "rolled_back",
        digest(context, 1),
        None,
        0.0,
    )


def test_a_pinned_alias_stays(store: RolloutStore, context: Context) -> None:
    store.promote("support", "support@v1", **WHO)
    assert store.pin("support", "support@v2", **WHO).pinned
    for act in (
        lambda: store.promote("support", "support@v3", **WHO),
        lambda: store.start("support", "support@v3", 0.1, **WHO),
        lambda: store.rollback("support", **WHO),
    ):
        with pytest.raises(ConflictError, match="pinned"):
            act()
    assert live(context).stable_digest == digest(context, 2)
    assert not store.unpin("support", **WHO).pinned
    assert store.rollback("support", **WHO).stable_digest == digest(context, 1)


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda s: s.promote("base", "support@v1", **WHO), InputError),
        (lambda s: s.promote("UPPER", "support@v1", **WHO), InputError),
        (lambda s: s.promote("a--b", "support@v1", **WHO), InputError),
        (lambda s: s.promote("../x", "support@v1", **WHO), InputError),
        (lambda s: s.promote("support", "support@v9", **WHO), NotFoundError),
        (lambda s: s.start("support", "support@v1", 0.1, **WHO), NotFoundError),
        (lambda s: s.start("support", "support@v1", 1.0, **WHO), InputError),
        (lambda s: s.set_share("support", 0.0, **WHO), InputError),
        (lambda s: s.set_share("support", 0.5, **WHO), ConflictError),
        (lambda s: s.rollback("support", **WHO), NotFoundError),
        (lambda s: s.pin("support", **WHO), NotFoundError),
        (lambda s: s.unpin("support", **WHO), ConflictError),
    ],
)
def test_what_cannot_be_done_says_why_and_writes_nothing(
    store: RolloutStore,
    context: Context,
    act: Callable[[RolloutStore], Any],
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        act(store)
    with reading(context.database) as connection:
        assert connection.execute(select(func.count()).select_from(rollouts)).scalar_one() == 0
        assert connection.execute(select(func.count()).select_from(audit)).scalar_one() == 0


def test_a_failed_gate_needs_force(context: Context) -> None:
    add_version(context, "support", 1, gate="fail")
    store = RolloutStore(context.database, context.settings)
    with pytest.raises(ConflictError, match="failed its gate"):
        store.promote("support", "support@v1", **WHO)
    assert store.promote("support", "support@v1", **WHO, force=True).generation == 1


def judged(
    context: Context,
    number: int,
    verdict: str,
    *,
    at: int,
    broken: tuple[str, ...] = (),
    signed: tuple[str, ...] | None = None,
) -> None:
    """A later evaluation of `support@v<number>`, as training stores it."""
    row: dict[str, Any] = {
        "id": f"evl_{at}", "run_id": None, "adapter_digest": digest(context, number), "against_digest": None, "dataset_digest": "d", "verdict": verdict, "reason": "r",
        "metrics": {"regression": {"n": 60, "broken_ids": list(broken)}}, "samples_path": None, "created_at": at,
        "thresholds": {} if signed is None else {"signed": {"by": "ola", "reason": "fine", "evaluation": "e", "conversations": list(signed)}},
    }  # fmt: skip
    with writing(context.database) as connection:
        connection.execute(insert(evaluations).values(**row))


_REFUSED: dict[str, tuple[list[dict[str, Any]], str]] = {
    "judged again and failed": ([{"verdict": "fail"}], "failed its gate"),
    "broke a reviewed conversation, too few to fail": (
        [{"verdict": "inconclusive", "broken": ("c-1",)}],
        "breaks 1 reviewed conversations that nobody signed for .c-1.",
    ),
    "signed, and broke another one later": (
        [
            {"verdict": "signed", "broken": ("c-1",), "signed": ("c-1",)},
            {"verdict": "inconclusive", "broken": ("c-1", "c-9")},
        ],
        "nobody signed for .c-9.",
    ),
}
_ALLOWED: dict[str, list[dict[str, Any]]] = {
    "judged again and passed": [{"verdict": "fail"}, {"verdict": "pass"}],
    "too few rows to tell": [{"verdict": "inconclusive"}],
    "signed for": [
        {"verdict": "inconclusive", "broken": ("c-1",)},
        {"verdict": "signed", "broken": ("c-1",), "signed": ("c-1",)},
    ],
    "signed, and broke the same one again": [
        {"verdict": "signed", "broken": ("c-1",), "signed": ("c-1",)},
        {"verdict": "inconclusive", "broken": ("c-1",)},
    ],
}


@pytest.mark.parametrize("case", _REFUSED)
def test_what_a_later_evaluation_found_stands_in_the_way_of_a_promotion(
    store: RolloutStore, context: Context, case: str
) -> None:
    later, sentence = _REFUSED[case]
    for number, evaluation in enumerate(later):
        judged(context, 1, at=100 + number, **evaluation)
    with pytest.raises(ConflictError, match=sentence):
        store.promote("support", "support@v1", **WHO)
    assert store.promote("support", "support@v1", **WHO, force=True).generation == 1


@pytest.mark.parametrize("case", _ALLOWED)
def test_a_newer_evaluation_or_a_signature_clears_the_way(
    store: RolloutStore, context: Context, case: str
) -> None:
    for number, evaluation in enumerate(_ALLOWED[case]):
        judged(context, 1, at=100 + number, **evaluation)
    assert store.promote("support", "support@v1", **WHO).generation == 1


def test_a_version_that_no_engine_proved_cannot_go_live(
    store: RolloutStore, context: Context
) -> None:
    set_replica(context, "http://e", {digest(context, 1): "support--v1--x"})
    store.promote("support", "support@v1", **WHO)
    with pytest.raises(ConflictError, match="not loaded and proved"):
        store.promote("support", "support@v2", **WHO)


def test_of_two_people_who_act_at_once_one_gets_a_conflict(
    store: RolloutStore, context: Context
) -> None:
    store.promote("support", "support@v1", **WHO)

    def act(number: int) -> str:
        try:
            store.promote("support", f"support@v{number}", **WHO, expected=1)
        except ConflictError:
            return "conflict"
        return "done"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(act, (2, 3))) == ["conflict", "done"]
    assert live(context).generation == 2


# --- the controller -------------------------------------------------------------------------------------------------


def traffic(
    context: Context,
    generation: int,
    arm: str,
    count: int,
    *,
    start: int,
    bad: int = 0,
    negative: int = 0,
    users: int | None = None,
) -> None:
    records: list[InteractionRecord | RatingRecord] = []
    for n in range(start, start + count):
        status = "cut" if n - start < bad else "complete"
        records.append(
            record(
                n,
                alias="support",
                arm=arm,
                rollout_generation=generation,
                status=status,
                response_text="x",
                created_at=2000,
                end_user=f"u{n % users}" if users else None,
            )
        )
        if n - start < negative:
            records.append(
                RatingRecord(
                    id=f"rat_{n}",
                    interaction_id=records[-1].id,
                    api_key_id="k",
                    rating=-1,
                    created_at=2000,
                )
            )
    with writing(context.database) as connection:
        insert_records(connection, records)


@pytest.fixture
def controlled(store: RolloutStore, context: Context) -> tuple[RolloutController, RolloutStore]:
    set_replica(context, "http://e", {digest(context, 1): "a", digest(context, 2): "b"})
    store.promote("support", "support@v1", **WHO)
    with writing(context.database) as connection:
        from whet.tables import adapters

        connection.execute(adapters.delete().where(adapters.c.version == 3))
    return RolloutController(context), store


def test_a_healthy_version_goes_up_step_by_step_and_takes_over(
    controlled: tuple[RolloutController, RolloutStore], context: Context
) -> None:
    controller, _ = controlled
    assert [action.kind for action in controller.tick(1500)] == ["start"]
    assert controller.tick(1600) == []
    traffic(context, 2, "candidate", 200, start=0)
    traffic(context, 2, "stable", 1800, start=1000)
    assert [(action.kind, action.share) for action in controller.tick(3000)] == [("raise", 0.5)]
    assert controller.tick(3100) == [], "a new step counts anew"
    traffic(context, 3, "candidate", 200, start=5000)
    with writing(context.database) as connection:
        connection.execute(
            rollouts.update().where(rollouts.c.generation == 3).values(created_at=1900)
        )
    assert [action.kind for action in controller.tick(3200)] == ["promote"]
    final = live(context)
    assert (final.state, final.stable_digest, final.previous_digest, final.actor) == (
        "live",
        digest(context, 2),
        digest(context, 1),
        "rollout-controller",
    )
    assert controller.tick(3300) == []


@pytest.mark.parametrize("how", [{"bad": 12}, {"negative": 12}])
def test_a_bad_version_is_taken_back_and_not_tried_again(
    controlled: tuple[RolloutController, RolloutStore], context: Context, how: dict[str, int]
) -> None:
    controller, _ = controlled
    controller.tick(1500)
    traffic(context, 2, "candidate", 40, start=0, **how)
    traffic(context, 2, "stable", 400, start=1000)
    assert [action.kind for action in controller.tick(3000)] == ["rollback"]
    final = live(context)
    assert (final.state, final.stable_digest, final.candidate_digest) == (
        "rolled_back",
        digest(context, 1),
        None,
    )
    assert controller.tick(3100) == []


def test_a_version_that_failed_when_it_was_judged_again_is_not_tried(
    controlled: tuple[RolloutController, RolloutStore], context: Context
) -> None:
    controller, _ = controlled
    judged(context, 2, "fail", at=1400)
    assert controller.tick(1500) == []


def test_one_unhappy_user_does_not_weigh_like_many(
    controlled: tuple[RolloutController, RolloutStore], context: Context
) -> None:
    controller, _ = controlled
    controller.tick(1500)
    traffic(context, 2, "candidate", 15, start=0, negative=15, users=1)
    traffic(context, 2, "stable", 300, start=1000)
    assert controller.tick(3000) == []


CALL = b'{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}'
# What one row of a candidate counts as: (answers, broken, empty).
COUNTED: list[tuple[str, dict[str, Any], tuple[int, int, int]]] = [
    ("text", {"response_text": "x"}, (1, 0, 0)),
    ("no text", {"response_text": ""}, (1, 0, 1)),
    ("no text, as null", {"response_text": None, "response": msgspec.Raw(b"null")}, (1, 0, 1)),
    (
        "a tool call",
        {
            "response_text": "",
            "finish_reason": "tool_calls",
            "response": msgspec.Raw(b'{"content":null,"tool_calls":[%s]}' % CALL),
        },
        (1, 0, 0),
    ),
    (
        "a named tool call, which ends with stop",
        {
            "response_text": "",
            "finish_reason": "stop",
            "response": msgspec.Raw(b'{"content":null,"tool_calls":[%s]}' % CALL),
        },
        (1, 0, 0),
    ),
    (
        "no tool calls, said so",
        {
            "response_text": "",
            "finish_reason": "stop",
            "response": msgspec.Raw(b'{"content":"","tool_calls":[]}'),
        },
        (1, 0, 1),
    ),
    (
        "thoughts that speak of tool calls",
        {
            "response_text": "",
            "finish_reason": "stop",
            "response": msgspec.Raw(
                b'{"content":"","reasoning":"\\"tool_calls\\": [\\"function_call\\"]"}'
            ),
        },
        (1, 0, 1),
    ),
    (
        "a function call of the Responses API",
        {
            "route": "responses",
            "response_text": "",
            "finish_reason": "stop",
            "response": msgspec.Raw(
                b'{"output":[{"type":"reasoning"},{"type":"function_call","name":"f"}]}'
            ),
        },
        (1, 0, 0),
    ),
    (
        "an empty message of the Responses API",
        {
            "route": "responses",
            "response_text": "",
            "response": msgspec.Raw(
                b'{"output":[{"type":"message","content":[{"text":"\\"function_call\\""}]}]}'
            ),
        },
        (1, 0, 1),
    ),
    ("broken", {"status": "error", "http_status": 502}, (1, 1, 0)),
    ("cut in a stream", {"status": "cut", "http_status": 200}, (1, 1, 0)),
    ("cut for its length", {"status": "cut", "http_status": 504}, (1, 1, 0)),
    ("cut by the gateway's own end", {"status": "cut", "http_status": 503}, (0, 0, 0)),
    ("refused by a busy engine", {"status": "error", "http_status": 503}, (1, 1, 0)),
    ("broken at its first try", {"status": "error", "http_status": 502, "retry": 0}, (1, 1, 0)),
    ("broken at a retry", {"status": "error", "http_status": 502, "retry": 1}, (0, 0, 0)),
    ("cut at a retry", {"status": "cut", "http_status": 200, "retry": 2}, (0, 0, 0)),
    ("answered at a retry", {"response_text": "x", "retry": 2}, (1, 0, 0)),
    ("empty at a retry", {"response_text": "", "retry": 1}, (1, 0, 1)),
    ("the application's mistake", {"status": "error", "http_status": 400}, (0, 0, 0)),
    ("too much at once", {"status": "error", "http_status": 429}, (0, 0, 0)),
    ("left by the client", {"status": "cancelled", "http_status": 499}, (0, 0, 0)),
]


def test_what_counts_for_an_arm(
    controlled: tuple[RolloutController, RolloutStore], context: Context
) -> None:
    controlled[0].tick(1500)
    common = {"alias": "support", "rollout_generation": 2, "created_at": 2000}
    records = [
        record(number, arm=f"arm-{number}", **common, **changes)
        for number, (_, changes, _) in enumerate(COUNTED)
    ]
    with writing(context.database) as connection:
        insert_records(connection, records)
    with reading(context.database) as connection:
        arms = count_arms(connection, live(context))
    found = {}
    for number, (name, _, _) in enumerate(COUNTED):
        counts = arms.get(f"arm-{number}", Counts())
        found[name] = (
            counts.answers,
            counts.failures.get("broken", 0),
            counts.failures.get("empty", 0),
        )
    assert found == {name: expected for name, _, expected in COUNTED}


def test_retries_of_one_question_are_one_failure(
    controlled: tuple[RolloutController, RolloutStore], context: Context
) -> None:
    """Without `user` each try is an arm of its own and has an id of its own."""
    controlled[0].tick(1500)
    tries = [
        record(
            number,
            alias="support",
            arm="candidate",
            rollout_generation=2,
            created_at=2000,
            status="cut",
            http_status=504,
            retry=number % 3,
        )
        for number in range(9)
    ]
    with writing(context.database) as connection:
        insert_records(connection, tries)
    with reading(context.database) as connection:
        counts = count_arms(connection, live(context))["candidate"]
    assert (counts.answers, counts.failures["broken"]) == (
        3,
        3,
    ), "three questions, each asked thrice"


def test_ratings_of_another_application_do_not_move_a_rollout(
    controlled: tuple[RolloutController, RolloutStore], context: Context
) -> None:
    controlled[0].tick(1500)
    with writing(context.database) as connection:
        how = {"secret": context.secret, "actor": "t", "now": 1}
        asks = access.create_key(connection, "web", group="shop", **how)[0]
        same = access.create_key(connection, "batch", group="shop", **how)[0]
        other = access.create_key(connection, "other", **how)[0]
        access.revoke_key(connection, same, actor="t", now=2)
    records: list[InteractionRecord | RatingRecord] = []
    for number, rated_by in enumerate([asks, same, other, "key_unknown"]):
        interaction = record(
            number,
            alias="support",
            arm=f"by-{number}",
            rollout_generation=2,
            created_at=2000,
            api_key_id=asks,
            response_text="x",
        )
        rating = RatingRecord(
            id=f"rat_{number}",
            interaction_id=interaction.id,
            api_key_id=rated_by,
            rating=-1,
            created_at=2000,
        )
        records += [interaction, rating]
    with writing(context.database) as connection:
        insert_records(connection, records)
    with reading(context.database) as connection:
        arms = count_arms(connection, live(context))
    negative = [arms[f"by-{number}"].failures["negative"] for number in range(4)]
    assert negative == [1, 1, 0, 0], "its own key and a (revoked) one of its group count"


def test_a_person_who_acts_in_between_wins(
    controlled: tuple[RolloutController, RolloutStore], context: Context
) -> None:
    controller, store = controlled
    controller.tick(1500)
    seen = live(context)
    store.rollback("support", actor="anna", reason="no", now=1600)
    assert controller._perform(seen, Action("raise", "late", share=0.5), 1700) is False
    assert live(context).state == "rolled_back"


def test_automatic_rollouts_can_be_switched_off(tmp_path: Any) -> None:
    context = open_context(load_settings(home=tmp_path / "h", rollout_auto=False))
    for number in (1, 2):
        add_version(context, "support", number)
    set_replica(context, "http://e", {digest(context, 1): "a", digest(context, 2): "b"})
    RolloutStore(context.database, context.settings).promote("support", "support@v1", **WHO)
    assert RolloutController(context).tick(2000) == []
