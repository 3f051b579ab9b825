"""Gateway, reconciler and controller together on a mock engine: swaps under load, rollback in time,
the commands, and no growth.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from serving import cli
from serving import reconciler as reconciler_module
from serving.base import Base
from serving.rollout_store import RolloutStore
from tests.serving.conftest import BASE_DIGEST, Running, add_version, serve, wait_for
from tests.serving.mock_engine import BASE, MockEngine
from tests.serving.test_protocol import HELLO
from whet.clock import now_ms
from whet.context import open_context
from whet.database import reading
from whet.registry import current_rollouts
from whet.settings import load_settings


@pytest.fixture
def circle(
    tmp_path: Path, engine: MockEngine, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Running]:
    """A gateway with everything that runs beside it, `support` v1 live, v2 loaded."""
    monkeypatch.setattr(
        reconciler_module, "base_of", lambda _: Base("/base", BASE_DIGEST, BASE, None)
    )
    context = open_context(
        load_settings(home=tmp_path / "home", engine_urls=engine.url, rollout_auto=False)
    )
    for version in (1, 2):
        add_version(context, "support", version)
    for running in serve(context, engine, services=None):
        wait_for(
            lambda: proved(running, "support@v1") and proved(running, "support@v2"),  # noqa: B023
            "two proved versions",
        )
        RolloutStore(context.database, context.settings).promote(
            "support", "support@v1", actor="tests", reason="first", now=now_ms()
        )
        running.refresh()
        yield running
    context.close()


def proved(running: Running, label: str) -> bool:
    route = running.app.core.refresher.current.routes.get(label)
    return bool(route and route.stable.replicas)


def answered_by(running: Running) -> str:
    return str(
        running.client()
        .chat.completions.with_raw_response.create(model="support", messages=HELLO)
        .headers["x-whet-adapter"]
    )


async def test_swaps_under_streams_fail_nothing_and_mix_nothing(circle: Running) -> None:
    store, client = (
        RolloutStore(circle.context.database, circle.context.settings),
        circle.async_client(),
    )
    circle.engine.faults.chunk_delay_s = 0.01
    stop, answers = asyncio.Event(), []

    async def talk() -> None:
        while not stop.is_set():
            stream = await client.chat.completions.create(
                model="support", messages=HELLO, stream=True
            )
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            answers.append(
                (
                    stream.response.headers["x-whet-interaction-id"],
                    stream.response.headers["x-whet-adapter"],
                    text,
                )
            )

    async def swap() -> None:
        for turn in range(12):
            await asyncio.to_thread(
                store.promote,
                "support",
                f"support@v{2 - turn % 2}",
                actor="tests",
                reason="to and fro",
                now=now_ms(),
            )
            await asyncio.sleep(0.25)
        stop.set()

    await asyncio.wait_for(asyncio.gather(swap(), *(talk() for _ in range(10))), 120)
    assert {label for _, label, _ in answers} == {"support@v1", "support@v2"}
    for identity, label, text in answers:
        assert (
            set(text.split()) == {f"support--v{label[-1]}--{text.split('--')[2][:8]}"}
            and len(text.split()) == 8
        )
        row = await asyncio.to_thread(circle.row, identity)
        assert (row.status, row.version) == ("complete", int(label[-1]))
    await client.close()


def test_a_rollback_is_felt_within_two_seconds(circle: Running) -> None:
    store = RolloutStore(circle.context.database, circle.context.settings)
    store.promote("support", "support@v2", actor="tests", reason="x", now=now_ms())
    wait_for(lambda: answered_by(circle) == "support@v2", "the promotion", timeout_s=2)
    store.rollback("support", actor="tests", reason="x", now=now_ms())
    wait_for(lambda: answered_by(circle) == "support@v1", "the rollback", timeout_s=2)


def test_an_engine_that_restarts_is_filled_and_proved_before_it_answers(circle: Running) -> None:
    circle.engine.stop()
    circle.engine.start()
    answer = circle.client().chat.completions.create(model="support", messages=HELLO)
    assert answer.choices[0].message.content.startswith("support--v1--")
    assert len(circle.engine.adapters) == 2 or wait_for(
        lambda: len(circle.engine.adapters) == 2, "both versions"
    )


def command(running: Running, app: Any, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("WHET_HOME", str(running.context.settings.home))
    monkeypatch.setenv("WHET_GATEWAY_PORT", str(running.port))
    return CliRunner().invoke(app, list(arguments))


def test_the_commands_show_change_and_refuse(
    circle: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: str) -> Any:
        return command(circle, cli.rollout, *arguments, monkeypatch=monkeypatch)

    shown = json.loads(run("show", "--json").output)
    assert [(row["alias"], row["stable"], row["state"]) for row in shown] == [
        ("support", "support@v1", "live")
    ]
    assert (
        json.loads(run("start", "support", "support@v2", "--share", "0.2", "--json").output)[
            "candidate"
        ]
        == "support@v2"
    )
    assert run("start", "support", "support@v2").exception is not None
    assert json.loads(run("promote", "support", "--json").output)["stable"] == "support@v2"
    assert json.loads(run("rollback", "support", "--json").output)["stable"] == "support@v1"
    assert (
        json.loads(run("pin", "support", "--reason", "holiday", "--json").output)["pinned"] is True
    )
    assert "pinned" in str(run("promote", "support", "support@v2").exception)
    assert run("unpin", "support").exit_code == 0
    assert len(json.loads(run("show", "support", "--json").output)) == 6
    assert "name of the base model" in str(run("promote", "base", "support@v2").exception)


def test_promoting_what_was_just_trained_waits_until_it_is_proved(
    circle: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_version(circle.context, "support", 3)
    done = command(circle, cli.rollout, "promote", "support", "--json", monkeypatch=monkeypatch)
    assert json.loads(done.output)["stable"] == "support@v3"
    with reading(circle.context.database) as connection:
        assert current_rollouts(connection)["support"].generation == 2


def test_replay_asks_again_and_shows_the_difference(
    circle: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = typer.Typer()
    app.command()(cli.replay)
    first = circle.client().chat.completions.create(model="support", messages=HELLO, user="anna")
    circle.row(first.id)
    same = json.loads(command(circle, app, first.id, "--json", monkeypatch=monkeypatch).output)
    assert same["same"] is True and same["after"]["version"] == "support@v1"
    other = json.loads(
        command(
            circle, app, first.id, "--model", "support@v2", "--json", monkeypatch=monkeypatch
        ).output
    )
    assert other["same"] is False and other["after"]["version"] == "support@v2"
    assert circle.row(other["after"]["interaction_id"]).version == 2
    assert "There is no interaction" in str(
        command(circle, app, "int_nope", monkeypatch=monkeypatch).exception
    )


def test_replay_of_a_continued_answer_compares_whole_answers(
    circle: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = typer.Typer()
    app.command()(cli.replay)
    begun = {"role": "assistant", "content": "Well: "}
    first = circle.client().chat.completions.create(
        model="support",
        messages=[*HELLO, begun],
        user="anna",
        extra_body={"continue_final_message": True, "add_generation_prompt": False},
    )
    asked = circle.row(first.id).request
    told = json.loads(command(circle, app, first.id, "--json", monkeypatch=monkeypatch).output)
    assert told["same"] is True, told
    assert told["after"]["text"] == f"Well: {first.choices[0].message.content}"
    again = circle.row(told["after"]["interaction_id"]).request
    assert again["messages"] == asked["messages"], "it is asked exactly as before"
    assert again["continue_final_message"] is True


def test_word_diff_marks_what_went_and_what_came() -> None:
    from serving.replay import mark_changes

    assert (
        mark_changes("You have 12 months.", "You have 24 months now.")
        == "You have [-12-]{+24+} [-months.-]{+months now.+}"
    )
    assert mark_changes("same", "same") == "same"


async def test_memory_does_not_grow_with_requests_or_with_names_nobody_has(circle: Running) -> None:
    import aiohttp

    body = json.dumps({"model": "support", "messages": HELLO}).encode()
    headers = {"Authorization": f"Bearer {circle.key}"}
    series = []

    async with aiohttp.ClientSession(headers=headers) as session:

        async def rounds(count: int) -> None:
            for n in range(count):
                async with session.post(f"{circle.url}/v1/chat/completions", data=body) as response:
                    assert response.status == 200
                    await response.read()
                if n % 40 == 0:
                    async with session.post(
                        f"{circle.url}/v1/chat/completions",
                        data=body.replace(b'"support"', b'"bogus%d"' % time.monotonic_ns()),
                    ) as response:
                        assert response.status == 404
            async with session.get(f"{circle.url}/metrics") as response:
                series.append(len((await response.text()).splitlines()))

        await rounds(150)
        circle.engine.seen.clear()
        circle.engine.seen_headers.clear()
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.take_snapshot()
        await rounds(400)
        circle.engine.seen.clear()
        circle.engine.seen_headers.clear()
        gc.collect()
        growth = sum(
            entry.size_diff for entry in tracemalloc.take_snapshot().compare_to(before, "filename")
        )
        tracemalloc.stop()
    assert growth < 512 * 1024, f"{growth} bytes for 400 requests"
    assert series[0] == series[1]
