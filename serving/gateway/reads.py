"""Database reads for single requests: in threads, a few at a time, within a time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, Engine

from whet.database import reading

T = TypeVar("T")

# Fewer than the threads that asyncio has: a database that hangs must not keep keys and aliases
# from being refreshed, which happens in the same threads.
MOST_AT_ONCE = 3


class BoundedReads:
    """Runs queries beside the event loop. One that is given up on ends by itself in its thread."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        self._free = asyncio.Semaphore(MOST_AT_ONCE)

    async def run(self, query: Callable[[Connection], T], timeout_s: float) -> T:
        """Raises TimeoutError after `timeout_s`, waiting for a thread included; SQLAlchemyError."""
        async with asyncio.timeout(timeout_s):
            await self._free.acquire()
            work = asyncio.get_running_loop().create_task(asyncio.to_thread(self._read, query))
            work.add_done_callback(self._done)
            return await asyncio.shield(work)

    def _read(self, query: Callable[[Connection], T]) -> T:
        with reading(self._database) as connection:
            return query(connection)

    def _done(self, work: asyncio.Task[T]) -> None:
        self._free.release()
        if not work.cancelled():
            work.exception()  # nobody may be waiting for it any more
