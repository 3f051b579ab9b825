"""A real engine under the real supervisor: a base with few positions, a start that cannot work, an
API server that is killed.
"""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.base import base_of
from serving.processes import engine_process
from tests.engine_fixture import make_tiny_base
from tests.whet.test_up import Running, alive, until
from whet.context import open_context
from whet.settings import load_settings
from whet.up import state

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PORT = 18395
POSITIONS = 512
START_S = 240  # two cores that others use as well


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The specification of an engine whose base has fewer positions than the default setting."""
    root = tmp_path_factory.mktemp("start")
    make_tiny_base(root / "base", max_positions=POSITIONS)
    context = open_context(
        load_settings(home=root / "home", base_model=str(root / "base"), engine_max_lora_rank=8)
    )
    try:
        spec = engine_process(context, base_of(context), port=PORT)
    finally:
        context.close()
    return {**dataclasses.asdict(spec), "ready_within_s": START_S}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    running: list[Running] = []

    def begin(spec: dict[str, Any]) -> Running:
        running.append(Running(tmp_path / "home", [spec]))
        return running[-1]

    yield begin
    for each in running:
        each.process.kill()
        each.process.wait()
        until(lambda each=each: not state.leftovers(each.home))


@pytest.mark.timeout(600)
def test_base_with_few_positions_starts_and_a_killed_api_server_leaves_no_core(
    engine: dict[str, Any], start: Any
) -> None:
    assert f"serves {POSITIONS} tokens" in engine["notice"]
    up = start(engine)
    until(lambda: up.phases().get("engine") == "ready", START_S)
    server = up.row("engine")["pid"]
    cores = set(state.leftovers(up.home, "engine")) - {server}
    assert cores, "vLLM runs its core in a process of its own"
    os.kill(server, signal.SIGKILL)  # as the kernel does when memory runs out
    until(lambda: up.row("engine")["restarts"] == 1 and up.row("engine")["phase"] == "starting", 60)
    assert not [pid for pid in cores if alive(pid)]
    until(lambda: up.phases()["engine"] == "ready", START_S)
    os.kill(up.process.pid, signal.SIGINT)
    assert up.process.wait(60) == 0
    assert not state.leftovers(up.home)


@pytest.mark.timeout(600)
def test_start_that_cannot_work_ends_after_two_tries_with_the_engines_reason(
    engine: dict[str, Any], start: Any
) -> None:
    argv = list(engine["argv"])
    argv[argv.index("--max-model-len") + 1] = str(2 * POSITIONS)
    up = start({**engine, "argv": argv})
    assert up.process.wait(START_S) == 1
    said = up.said()
    assert (
        "twice for the same reason, so it is not started again: User-specified max_model_len (1024)"
        " is greater" in said
    )
    assert "Set WHET_ENGINE_MAX_MODEL_LEN to what the base model takes." in said
    assert "errors.pydantic.dev" not in said
