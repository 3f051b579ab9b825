"""Supervises background tasks: one that raises or ends is told in the log and started again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.25  # before the first restart; then twice as long each time
LONGEST_PAUSE_S = 10.0
# A task that runs for so long after a restart counts as healed; every task of ours does a round of
# its work within a second or two, so one that fails in each round never gets there.
HEALED_AFTER_S = 3.0


class TaskSupervisor:
    """Runs background tasks for ever. `failures` says which are not well, and why."""

    def __init__(self, *, healed_after_s: float = HEALED_AFTER_S) -> None:
        self.failures: dict[str, str] = {}  # task's name → a sentence
        self._healed_after_s = healed_after_s
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run `run()` as long as the process; it never returns by itself. `name`: for people."""
        self._tasks.append(asyncio.get_running_loop().create_task(self._keep(name, run), name=name))

    async def stop(self) -> None:
        """Cancel all tasks and wait for their ends."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        loop, pause_s = asyncio.get_running_loop(), FIRST_PAUSE_S
        while True:
            began = loop.time()
            healed = loop.call_later(self._healed_after_s, self.failures.pop, name, None)
            try:
                await run()
                why = "it ended by itself"
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise  # by `stop`
                why = "something that it waited for was cancelled"
            except Exception as error:  # the boundary of a task: all others have to go on
                why = f"{type(error).__name__}: {error}"
                logger.exception("The background task %r failed.", name)
            finally:
                healed.cancel()
            if loop.time() - began > self._healed_after_s:
                pause_s = FIRST_PAUSE_S
            self.failures[name] = f"The background task {name!r} failed ({why}); it is restarted."
            logger.warning("task.restart name=%r reason=%r pause_s=%.2f", name, why, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
