"""A background task that raises or ends is shown, told in the log, started again and healed."""

from __future__ import annotations

import asyncio
import logging

import pytest

from whet.supervision import TaskSupervisor


async def until(condition, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("fault", [KeyError("engine_name"), None, asyncio.CancelledError()])
async def test_a_task_that_fails_is_shown_and_heals(
    fault: BaseException | None, caplog: pytest.LogCaptureFixture
) -> None:
    starts: list[int] = []

    async def work() -> None:
        starts.append(len(starts))
        if len(starts) > 1:
            await asyncio.Event().wait()
        if fault is not None:
            raise fault

    tasks = TaskSupervisor(healed_after_s=0.1)
    with caplog.at_level(logging.WARNING):
        tasks.start("worker", work)
        await until(lambda: "worker" in tasks.failures)
        assert "worker" in tasks.failures["worker"] and "restarted" in tasks.failures["worker"]
        await until(lambda: not tasks.failures)
    assert starts == [0, 1] and "task.restart name='worker'" in caplog.text
    await tasks.stop()


async def test_a_task_that_fails_again_and_again_stays_shown_and_others_go_on() -> None:
    tries, rounds = [], []

    async def broken() -> None:
        tries.append(1)
        raise RuntimeError("for ever")

    async def sound() -> None:
        while True:
            rounds.append(1)
            await asyncio.sleep(0.01)

    tasks = TaskSupervisor(healed_after_s=60)
    tasks.start("broken", broken)
    tasks.start("sound", sound)
    await until(lambda: len(tries) == 2)
    assert list(tasks.failures) == ["broken"]
    count = len(rounds)
    await until(lambda: len(rounds) > count)
    await tasks.stop()
    assert len(tries) == 2, "the second pause is longer than the first"
