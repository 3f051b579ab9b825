"""One gateway process of all keeps the engines loaded and the rollouts moving: the one that holds
the lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time

import aiohttp
from sqlalchemy.exc import SQLAlchemyError

from serving.controller import RolloutController
from serving.gateway.core import Core
from serving.reconciler import Reconciler
from whet.clock import now_ms
from whet.leases import ENGINE_WATCHER, acquire, release

logger = logging.getLogger(__name__)

LEASE, LEASE_MS = ENGINE_WATCHER.name, ENGINE_WATCHER.lasts_ms
TICK_S = 1.0


async def keep_engines_and_rollouts(core: Core) -> None:
    """Runs as long as the gateway. What fails here is started again by who supervises it; the
    lease is free meanwhile."""
    database = core.context.database
    owner = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
    session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
    reconciler: Reconciler | None = None
    try:
        while True:
            began = time.monotonic()
            try:
                lease = await asyncio.to_thread(
                    acquire, database, LEASE, owner, now=now_ms(), for_ms=LEASE_MS
                )
                if lease is None:
                    await _let_go(reconciler)
                    reconciler = None
                else:
                    reconciler = reconciler or Reconciler(
                        core.context, session, core.engine_headers, core.last_progress
                    )
                    await reconciler.tick(now_ms())
                    await asyncio.to_thread(RolloutController(core.context).tick, now_ms())
            except SQLAlchemyError as error:
                why = str(error).splitlines()[0]
                logger.warning("Engines and rollouts are left as they are: %s", why)
            await asyncio.sleep(max(0.05, TICK_S - (time.monotonic() - began)))
    finally:
        await _let_go(reconciler)
        await session.close()
        with contextlib.suppress(SQLAlchemyError):  # it runs out by itself
            await asyncio.to_thread(release, database, LEASE, owner, now=now_ms())


async def _let_go(reconciler: Reconciler | None) -> None:
    if reconciler is not None:
        await reconciler.close()
