"""What the request path knows, read from the database by a background task and replaced as a whole.

A database that is slow or away leaves the last snapshot in force: requests go on.
"""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec
from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from serving.gateway.models import Limits, model_cards
from serving.gateway.routing import Replica, Snapshot, build_routes
from serving.retrieval.defaults_store import load_defaults, load_readers
from whet.access import active_keys
from whet.context import Context
from whet.database import reading
from whet.registry import Adapter, current_rollouts
from whet.settings import Settings
from whet.tables import adapters, replicas

logger = logging.getLogger(__name__)

# A rollback must be felt within 2 s and a revoked key must die within 2 s; six small queries each
# time
REFRESH_S = 0.4
CROWDED = 4  # requests in flight; from some eight on, the processor is what they wait for
# An unknown key or model makes us look at once, but no oftener than this, whoever knocks
MISS_REFRESH_S = 0.25


def load_snapshot(
    connection: Connection, known: dict[str, Replica], *, settings: Settings, started_at: int
) -> Snapshot:
    """Read keys, versions, rollouts, replicas, and who retrieves what.

    `known` keeps one object per replica, so that its load is not forgotten. `started_at`: when this
    gateway started, in ms.
    """
    # Cards are long and play no part here
    columns = [column for column in adapters.columns if column.name != "card"]
    versions = [
        Adapter(**row._mapping, card={})
        for row in connection.execute(select(*columns).where(adapters.c.removed_at.is_(None)))
    ]
    ready: dict[str, tuple[Replica, ...]] = {}
    for row in connection.execute(
        select(replicas).where(replicas.c.state == "ready").order_by(replicas.c.url)
    ):
        replica = known.setdefault(row.url, Replica(row.url))
        for digest, proof in row.ready.items():
            ready[digest] = (*ready.get(digest, ()), replica)
            if digest == "base":
                replica.base_model = proof["engine_name"]
                replica.max_model_len = proof.get("max_model_len")
    routes = build_routes(
        adapters=versions,
        rollouts=current_rollouts(connection),
        ready=ready,
        base_alias=settings.base_alias,
    )
    cards = model_cards(
        routes,
        Limits.of(settings),
        default_length=settings.engine_max_model_len,
        started_at=started_at,
    )
    return Snapshot(
        keys=active_keys(connection),
        routes=routes,
        models_body=msgspec.json.encode({"object": "list", "data": cards}),
        cards={str(card["id"]): msgspec.json.encode(card) for card in cards},
        base_ready="base" in ready,
        readers=load_readers(connection),
        retrieval_defaults=load_defaults(connection),
    )


class Refresher:
    """Keeps `current` fresh."""

    def __init__(self, context: Context) -> None:
        self.current = Snapshot()
        self.loaded = False
        self.failure = ""
        self._context = context
        self._replicas: dict[str, Replica] = {}
        self._started_at = int(time.time() * 1000)
        self._reload: asyncio.Task[None] | None = None
        self._last_miss = 0.0
        self._miss: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def _load(self) -> Snapshot:
        with reading(self._context.database) as connection:
            return load_snapshot(
                connection,
                self._replicas,
                settings=self._context.settings,
                started_at=self._started_at,
            )

    @property
    def in_flight(self) -> int:
        """Requests that engines are answering for this gateway now."""
        return sum(replica.in_flight for replica in list(self._replicas.values()))

    def is_crowded(self) -> bool:
        """True while so many requests are being answered that they wait for each other."""
        return self.in_flight > CROWDED

    async def refresh(self) -> None:
        """Read once; callers at the same time share one read."""
        if self._reload is None or self._reload.done():
            self._reload = asyncio.get_running_loop().create_task(self._refresh())
        await asyncio.shield(self._reload)

    async def _refresh(self) -> None:
        try:
            self.current = await asyncio.to_thread(self._load)
            self.loaded, self.failure = True, ""
        except SQLAlchemyError as error:
            if not self.failure:
                logger.warning(
                    "Keys, aliases and replicas are not refreshed: %s. The last known ones stay in"
                    " force.",
                    str(error).splitlines()[0],
                )
            self.failure = (
                "The database cannot be read; the last known keys, aliases and replicas are in"
                " force."
            )
        self._changed.set()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Refresh for ever."""
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_S)

    async def missed(self) -> None:
        """Somebody used a name or key that is not known: return after a look that began after this
        call.

        Looks are at least `MISS_REFRESH_S` apart and shared by all who wait, so guessing costs the
        guesser time and us nothing.
        """
        if self._miss is None or self._miss.done():
            self._miss = asyncio.get_running_loop().create_task(self._look_again())
        await asyncio.shield(self._miss)

    async def _look_again(self) -> None:
        wait = self._last_miss + MISS_REFRESH_S - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        self._last_miss = time.monotonic()
        if self._reload is not None and not self._reload.done():
            await self._reload
        self._miss = None  # who comes from here on needs another look
        await self.refresh()

    async def next_change(self, timeout_s: float) -> None:
        """Wait until the snapshot was read again, or the time is over."""
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return
