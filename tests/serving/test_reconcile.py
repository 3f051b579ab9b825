"""What replicas should have, what is done about it, and what happens when they restart, hang, or
lie.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from serving import engine as engine_module
from serving import reconciler as reconciler_module
from serving.engine_activity import Activity
from serving.parity import EngineLogprobs, check_parity
from serving.parity_tokens import compare_tokens
from serving.reconcile import PROBE_EVERY_MS, ReplicaState, Wanted, plan, wanted_versions
from serving.reconciler import Reconciler
from tests.serving.conftest import BASE_DIGEST, add_version, wait_for
from tests.serving.mock_engine import BASE, MockEngine, fingerprint
from tests.serving.test_rollout import rollout, version
from whet.context import Context, open_context
from whet.database import reading, writing
from whet.registry import engine_name
from whet.settings import load_settings
from whet.tables import adapters, replicas

# --- pure -----------------------------------------------------------------------------------------------------------


def test_what_aliases_point_to_comes_first_then_the_newest() -> None:
    versions = [version(n, base_digest="b") for n in (1, 2, 3, 4)]
    wanted = wanted_versions(
        versions,
        {"support": rollout(stable_digest=version(1).digest, candidate_digest=None)},
        base_digest="b",
        max_resident=3,
        max_rank=64,
    )
    assert [adapter.version for adapter in wanted.versions] == [1, 4, 3]
    assert "one more than the 3 versions" in wanted.refused[version(2).digest]


def test_versions_that_cannot_be_served_are_refused_with_a_sentence() -> None:
    versions = [
        version(1, base_digest="other"),
        version(2, base_digest="b", rank=128),
        version(3, base_digest="b"),
    ]
    wanted = wanted_versions(versions, {}, base_digest="b", max_resident=9, max_rank=64)
    assert [adapter.version for adapter in wanted.versions] == [3]
    assert (
        "trained on base other" in wanted.refused[version(1).digest]
        and "WHET_BASE_MODEL" in wanted.refused[version(1).digest]
    )
    assert "rank 128" in wanted.refused[version(2).digest]


def state(**changes: Any) -> ReplicaState:
    values: dict[str, Any] = {
        "url": "u",
        "state": "ready",
        "ready": {"base": {"engine_name": BASE}},
        "probed_at": 0,
    }
    return ReplicaState(**{**values, **changes})


ONE, TWO = version(1), version(2)
PROVED = {"base": {"engine_name": BASE}, ONE.digest: {"engine_name": ONE.engine_name}}


@pytest.mark.parametrize(
    ("before", "served", "now", "expected"),
    [
        (state(ready={}), {BASE}, 0, {"probe": True, "load": (ONE, TWO), "prove": (ONE, TWO)}),
        (
            state(),
            {BASE, ONE.engine_name},
            0,
            {"probe": False, "load": (TWO,), "prove": (ONE, TWO)},
        ),
        (
            state(ready=PROVED),
            {BASE, ONE.engine_name, TWO.engine_name},
            0,
            {"load": (), "prove": (TWO,)},
        ),
        (
            state(ready=PROVED, refused={TWO.digest: "no"}),
            {BASE, ONE.engine_name},
            0,
            {"load": (), "prove": ()},
        ),
        (state(ready=PROVED), {BASE}, 0, {"restarted": True}),
        (state(ready=PROVED), {"another-base", ONE.engine_name}, 0, {"restarted": True}),
        (state(ready=PROVED), {BASE, ONE.engine_name}, PROBE_EVERY_MS, {"probe": True}),
        (
            state(ready=PROVED),
            {BASE, ONE.engine_name, "gone--v1--00000000"},
            0,
            {"unload": ("gone--v1--00000000",)},
        ),
    ],
)
def test_the_plan_for_a_replica(
    before: ReplicaState, served: set[str], now: int, expected: dict[str, Any]
) -> None:
    found = plan(before, served, Wanted((ONE, TWO), {}), removed={"gone--v1--00000000"}, now=now)
    assert {name: getattr(found, name) for name in expected} == expected


def numbers(name: str) -> tuple[dict[str, Any], EngineLogprobs]:
    card = fingerprint(name)
    return card, EngineLogprobs(
        *[
            [value for prompt in card["prompts"] for value in prompt[which][1:]]
            for which in ("adapter_logprobs", "base_logprobs")
        ]
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m, ""),
        (lambda m: EngineLogprobs([value - 0.005 for value in m.adapter], m.base), ""),
        (
            lambda m: EngineLogprobs([value - 0.2 for value in m.adapter], m.base),
            "unlike it did in training",
        ),
        (
            lambda m: EngineLogprobs([m.adapter[0] - 0.06, *m.adapter[1:]], m.base),
            "unlike it did in training",
        ),
        (lambda m: EngineLogprobs(m.adapter, [value + 0.3 for value in m.base]), "unlike the base"),
        (lambda m: EngineLogprobs(m.base, m.base), "It is not applied"),
        (
            lambda m: EngineLogprobs(
                [b + 0.5 * (a - b) for a, b in zip(m.adapter, m.base, strict=True)], m.base
            ),
            "works 0.50 times as strongly",
        ),
        (
            lambda m: EngineLogprobs(
                [b + 2.0 * (a - b) for a, b in zip(m.adapter, m.base, strict=True)], m.base
            ),
            "works 2.00 times as strongly",
        ),
        (
            lambda m: EngineLogprobs(
                [b - (a - b) for a, b in zip(m.adapter, m.base, strict=True)], m.base
            ),
            "its weights, the layers",
        ),
    ],
)
def test_parity_is_judged_by_the_cards_own_tolerance(
    change: Callable[[EngineLogprobs], EngineLogprobs], reason: str
) -> None:
    card, measured = numbers("support--v1--x")
    assert (
        reason in check_parity("support@v1", card, change(measured), limit=512).reason
    ) and bool(reason) == bool(check_parity("support@v1", card, change(measured), limit=512).reason)


def test_an_adapter_that_is_not_applied_is_noticed_even_if_it_should_do_little() -> None:
    base = [-1.0, -2.0, -3.0]
    card = {
        "prompts": [
            {
                "token_ids": [1, 2, 3, 4],
                "base_logprobs": [None, *base],
                "adapter_logprobs": [None, *[value + 0.03 for value in base]],
            }
        ],
        "tolerance": {"mean": 0.05, "max": 0.5},
    }
    assert (
        "It is not applied"
        in check_parity("x@v1", card, EngineLogprobs(base, base), limit=512).reason
    )
    assert (
        check_parity(
            "x@v1", card, EngineLogprobs([value + 0.03 for value in base], base), limit=512
        ).reason
        == ""
    )
    nothing = {
        "prompts": [
            {"token_ids": [1, 2], "base_logprobs": [None, -1.0], "adapter_logprobs": [None, -1.0]}
        ]
    }
    assert check_parity("x@v1", nothing, EngineLogprobs([-1.0], [-1.0]), limit=512).reason == ""


def test_an_adapter_without_a_fingerprint_must_at_least_differ_from_the_base() -> None:
    verdict = check_parity("x@v1", None, EngineLogprobs([-1.0], [-2.0]), limit=512)
    assert verdict.reason == "" and verdict.parity["measured"] is False
    assert (
        "exactly like the base"
        in check_parity("x@v1", None, EngineLogprobs([-1.0], [-1.0]), limit=512).reason
    )


# --- against an engine ----------------------------------------------------------------------------------------------


@pytest.fixture
def engine() -> Any:
    with MockEngine() as running:
        yield running


@pytest.fixture
async def made(
    tmp_path: Path, engine: MockEngine, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Reconciler, Context]]:
    from serving.base import Base

    monkeypatch.setattr(
        reconciler_module, "base_of", lambda _: Base("/base", BASE_DIGEST, BASE, None)
    )
    # A look on a busy machine outlasts a second, and what is asserted is what it found
    monkeypatch.setattr(reconciler_module, "TICK_WAIT_S", 30.0)
    context = open_context(load_settings(home=tmp_path / "home", engine_urls=engine.url))
    async with aiohttp.ClientSession() as session:
        reconciler = Reconciler(context, session, {})
        yield reconciler, context
        await reconciler.close()
    context.close()


def row(context: Context) -> Any:
    with reading(context.database) as connection:
        return connection.execute(replicas.select()).one()


async def test_versions_are_loaded_by_absolute_path_proved_and_recorded(
    made: tuple[Reconciler, Context], engine: MockEngine
) -> None:
    reconciler, context = made
    digest = add_version(context, "support", 1)
    await reconciler.tick(1000)
    found = row(context)
    assert (found.state, found.base_digest, found.refused) == ("ready", BASE_DIGEST, {})
    assert (
        found.ready["base"]["engine_name"] == BASE
        and found.ready[digest]["parity"]["measured"] is True
    )
    assert engine.adapters == {
        engine_name("support", 1, digest): str(
            context.store.local_folder(f"adapters/support/v1--{digest[:8]}")
        )
    }
    assert all(path.startswith("/") for path in engine.adapters.values())
    await reconciler.tick(2000)
    assert len(engine.loads) == 1
    second = add_version(context, "support", 2)
    await reconciler.tick(3000)
    assert second in row(context).ready


@pytest.mark.parametrize(
    ("fault", "template", "cause"),
    [
        ("", "same", ""),
        ("no_tokenize", None, ""),
        (
            "other_template",
            "refused",
            (
                "a conversation into other tokens than support@v1 was trained with (13 where 13 are"
                " expected, other ones from token 12 on): it makes the same of a plain text, so its"
                " chat template is another one"
            ),
        ),
        ("other_tokenizer", "refused", "from token 6 on): its tokenizer is another one"),
    ],
)
async def test_an_engine_with_another_template_or_tokenizer_serves_no_version(
    made: tuple[Reconciler, Context],
    engine: MockEngine,
    fault: str,
    template: str | None,
    cause: str,
) -> None:
    """Log-probabilities are asked for with token ids, and are right whatever an engine makes of a
    conversation.
    """
    reconciler, context = made
    if fault:
        setattr(engine.faults, fault, True)
    digest = add_version(context, "support", 1)
    await reconciler.tick(1000)
    found = row(context)
    if template == "refused":
        assert digest not in found.ready and cause in found.refused[digest]
    else:
        assert found.ready[digest]["parity"].get("template") == template


def test_tokens_without_a_plain_text_to_compare_leave_both_causes_open() -> None:
    card = {"asked": {"token_ids": [1, 2]}}
    assert "another chat template or tokenizer" in (
        compare_tokens("x@v1", card, [1, 3], None) or ""
    )
    assert compare_tokens("x@v1", card, [1, 2], None) == ""
    dated = {"text": {"token_ids": [1, 2]}}
    assert compare_tokens("x@v1", dated, None, [1, 2]) is None
    assert "its tokenizer is another one" in (compare_tokens("x@v1", dated, None, [2]) or "")


@pytest.mark.parametrize("fault", ["wrong_logprobs", "same_as_base", "load_status"])
async def test_a_version_that_is_not_what_was_trained_is_refused_and_holds_up_no_other(
    made: tuple[Reconciler, Context], engine: MockEngine, fault: str
) -> None:
    reconciler, context = made
    bad = add_version(context, "support", 1)
    name = engine_name("support", 1, bad)
    if fault == "load_status":
        engine.faults.load_status[name] = 500
    else:
        getattr(engine.faults, fault).add(name)
    good = add_version(context, "support", 2)
    await reconciler.tick(1000)
    found = row(context)
    assert set(found.ready) == {"base", good} and found.refused[bad]
    assert name not in engine.adapters
    loads = len(engine.loads)
    await reconciler.tick(2000)
    assert len(engine.loads) == loads, "what was refused is not tried again on the same process"


async def test_a_wrong_base_is_never_routed_to(
    made: tuple[Reconciler, Context], engine: MockEngine
) -> None:
    reconciler, context = made
    digest = add_version(context, "support", 1, base_digest="f" * 64)
    await reconciler.tick(1000)
    assert (
        set(row(context).ready) == {"base"}
        and "was trained on base ffffffff" in row(context).refused[digest]
    )


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ("chat_template.jinja", "They differ in the chat template."),
        ("tokenizer.json", "They differ in the tokenizer."),
        ("model.safetensors", "They differ in the weights."),
    ],
)
async def test_another_revision_of_the_base_is_refused_with_the_part_that_differs(
    made: tuple[Reconciler, Context],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    changed: str,
    cause: str,
) -> None:
    from serving.base import Base
    from whet.store import base_model_digest, base_model_parts

    folder = tmp_path / "base"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"):
        (folder / name).write_text(name)
    trained_on, card = (
        base_model_digest(folder),
        {"fingerprint": {"base_parts": base_model_parts(folder)}},
    )
    (folder / changed).write_text("another revision")
    monkeypatch.setattr(
        reconciler_module,
        "base_of",
        lambda _: Base(str(folder), base_model_digest(folder), BASE, folder),
    )
    reconciler, context = made
    digest = add_version(context, "support", 1, base_digest=trained_on, card=card)
    await reconciler.tick(1000)
    assert cause in row(context).refused[digest]
    assert digest not in row(context).ready, "a version on another base is never addressed"


async def test_an_engine_with_another_base_stays_out(
    made: tuple[Reconciler, Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving.base import Base

    monkeypatch.setattr(
        reconciler_module, "base_of", lambda _: Base("/base", BASE_DIGEST, "base--other", None)
    )
    reconciler, context = made
    await reconciler.tick(1000)
    assert (
        row(context).ready == {}
        and "this installation's base is base--other" in row(context).detail
    )


async def test_a_restarted_engine_is_emptied_filled_and_proved_again(
    made: tuple[Reconciler, Context], engine: MockEngine
) -> None:
    reconciler, context = made
    digests = {add_version(context, "support", number) for number in (1, 2)}
    await reconciler.tick(1000)
    engine.stop()
    await reconciler.tick(2000)
    assert (row(context).state, row(context).ready) == ("gone", {})
    engine.start()
    await reconciler.tick(3000)
    assert set(row(context).ready) == {"base", *digests} and len(engine.loads) == 4


async def test_a_restart_between_two_looks_is_noticed_by_the_missing_names(
    made: tuple[Reconciler, Context], engine: MockEngine
) -> None:
    reconciler, context = made
    digest = add_version(context, "support", 1)
    await reconciler.tick(1000)
    engine.adapters.clear()
    await reconciler.tick(2000)
    assert digest in row(context).ready and len(engine.loads) == 2


async def test_a_new_holder_trusts_proofs_only_of_the_same_process(
    made: tuple[Reconciler, Context], engine: MockEngine
) -> None:
    first, context = made
    digest = add_version(context, "support", 1)
    await first.tick(1000)
    async with aiohttp.ClientSession() as session:
        again = Reconciler(context, session, {})
        await again.tick(2000)
        assert len(engine.loads) == 1 and digest in row(context).ready
        await again.close()
        engine.started_at += 5  # another process, whose names happen to be the same
        third = Reconciler(context, session, {})
        await third.tick(3000)
        assert row(context).ready[digest]["proved_at"] == 3000
        await third.close()


async def test_a_hung_engine_leaves_rotation_and_comes_back(
    made: tuple[Reconciler, Context], engine: MockEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconciler, context = made
    digest = add_version(context, "support", 1)
    await reconciler.tick(1000)
    engine.faults.hang = True
    # Only where nothing may answer: on a busy machine a good answer takes longer
    with monkeypatch.context() as hurried:
        hurried.setattr(reconciler_module, "PROBE_TIMEOUT_S", 0.3)
        await reconciler.tick(1000 + PROBE_EVERY_MS)
    await asyncio.to_thread(wait_for, lambda: row(context).state == "hung", "the verdict")
    assert row(context).ready == {}
    engine.faults.hang = False
    await reconciler.tick(9000)
    assert row(context).state == "ready" and digest in row(context).ready


async def test_a_slow_engine_that_finishes_answers_is_not_called_hung(
    made: tuple[Reconciler, Context], engine: MockEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconciler, context = made
    await reconciler.tick(1000)
    monkeypatch.setattr(reconciler_module, "PROBE_TIMEOUT_S", 0.3)
    engine.faults.hang = True
    # An answer of somebody else came back meanwhile
    reconciler._progress[engine.url] = float("inf")
    await reconciler.tick(1000 + PROBE_EVERY_MS)
    assert row(context).state == "ready"


class _Computing:
    """Processes that use a whole processor, as a clock's worth of time between two looks."""

    def activity(self, url: str, now_s: float) -> Activity:
        return Activity(now_s, now_s)


@pytest.mark.parametrize("what", ["probe", "list"])
async def test_an_engine_that_computes_is_not_called_hung(
    made: tuple[Reconciler, Context],
    engine: MockEngine,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    reconciler, context = made
    digest = add_version(context, "support", 1)
    await reconciler.tick(1000)
    monkeypatch.setattr(reconciler_module, "PROBE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(engine_module, "LIST_TIMEOUT_S", 0.3)
    monkeypatch.setattr(reconciler, "_processes", _Computing())
    engine.faults.hang, engine.faults.hang_list = what == "probe", what == "list"
    await reconciler.tick(1000 + PROBE_EVERY_MS)
    await asyncio.to_thread(wait_for, lambda: "Busy" in (row(context).detail or ""), "the look")
    assert row(context).state == "ready" and digest in row(context).ready
    engine.faults.hang = engine.faults.hang_list = False
    await reconciler.tick(9000)
    found = row(context)
    assert (found.state, found.detail) == ("ready", None)
    assert found.ready[digest]["proved_at"] == 1000, "what was proved stayed true"


async def test_removed_versions_are_unloaded_and_replicas_that_are_no_longer_configured_vanish(
    made: tuple[Reconciler, Context], engine: MockEngine
) -> None:
    reconciler, context = made
    digest, other = add_version(context, "support", 1), add_version(context, "support", 2)
    with writing(context.database) as connection:
        connection.execute(
            replicas.insert().values(
                url="http://old", state="ready", ready={}, refused={}, seen_at=1
            )
        )
    await reconciler.tick(1000)
    with writing(context.database) as connection:
        connection.execute(
            adapters.update().where(adapters.c.digest == digest).values(removed_at=5)
        )
    await reconciler.tick(2000)
    await reconciler.tick(3000)
    assert (
        set(engine.adapters) == {engine_name("support", 2, other)}
        and row(context).url == engine.url
    )
    assert (
        set(row(context).ready) == {"base", other}
        and row(context).ready[other]["proved_at"] == 1000
    ), "the others were not proved anew"
