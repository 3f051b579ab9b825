"""Brings one request to an engine that can answer it: choice of a replica, waiting, a second
try."""

from __future__ import annotations

import time

from serving.gateway.core import Core
from serving.gateway.engine_errors import no_engine_ready
from serving.gateway.interaction_row import RowBuilder
from serving.gateway.request_normalise import ROUTE_PATHS
from serving.gateway.request_types import Request
from serving.gateway.requests import engine_body
from serving.gateway.routing import Choice, Replica, pick_replica
from serving.gateway.upstream import NoAnswerError, Response

# A restarting replica behind others is replaced within a second; a cold start takes a minute,
# which no client should wait.
ENGINE_WAIT_S = 5.0
# Requests held back while no engine is ready; more are refused at once, so that an outage does not
# fill the memory.
MAX_WAITING = 512


class EngineBrokeError(Exception):
    """The engine's answer ended before its end; the argument says how."""


class Forwarding:
    """The way of one request to an engine. `choice` may change while it waits for one."""

    __slots__ = ("_core", "_request", "_route", "_row", "choice", "replica")

    def __init__(
        self, core: Core, route: str, choice: Choice, request: Request, row: RowBuilder
    ) -> None:
        self._core, self._route, self._request, self._row = core, route, request, row
        self.choice = choice
        self.replica: Replica | None = None

    @property
    def engine_model(self) -> str:
        """The engine's name for what was asked; empty before a replica was chosen."""
        return self.choice.target.engine_model or (self.replica.base_model if self.replica else "")

    def ask(self, request: Request) -> None:
        """From now on send this form of the client's request."""
        self._request = request

    def release(self) -> None:
        """The exchange is over: the replica has one request less."""
        if self.replica is not None:
            self.replica.in_flight -= 1

    async def send(self, request: Request | None = None) -> Response:
        """Ask; `request`: another form of it than the client's.

        Returns the head of an engine's response. A connection that breaks before it is tried once
        more, elsewhere if possible. Raises ApiError 503 when no engine becomes ready in time,
        EngineBrokeError, UpstreamError or TimeoutError when one fails.
        """
        core, avoid, tries = self._core, None, 0
        deadline = time.perf_counter() + ENGINE_WAIT_S
        while True:
            replica = pick_replica(self.choice.target.replicas, avoid)
            if replica is None or replica is avoid:
                await self._wait_for_engine(deadline)
                avoid = None
                continue
            tries += 1
            self._take(replica)
            try:
                response = await self._post(replica, tries, request or self._request)
            except NoAnswerError as error:
                if tries > 1 and time.perf_counter() > deadline:
                    raise EngineBrokeError(
                        f"The engine at {replica.url} cannot be reached: {error}."
                    ) from error
                # A kept connection that the engine had closed breaks at once: the same replica may
                # be tried again.
                avoid = replica if tries > 1 else None
            else:
                if response.status != 404 or tries > 2:
                    return response
                response.close()
                avoid = replica  # it restarted and does not have the version yet
            core.metrics.retries.inc()

    def _take(self, replica: Replica) -> None:
        self.release()
        self.replica = replica
        replica.in_flight += 1

    async def _post(self, replica: Replica, tries: int, request: Request) -> Response:
        own = self._row.interaction_id
        body = engine_body(request, self.engine_model, own)
        return await self._core.upstream.post(
            replica.url, ROUTE_PATHS[self._route], body, own if tries == 1 else f"{own}-{tries}"
        )

    async def _wait_for_engine(self, deadline: float) -> None:
        """Return when the snapshot was read again. Raises ApiError 503 when the time is over."""
        core = self._core
        left = deadline - time.perf_counter()
        if left <= 0 or core.waiting >= MAX_WAITING:
            raise no_engine_ready(
                self.choice.target.label, is_base_ready=core.refresher.current.base_ready
            )
        core.waiting += 1
        try:
            await core.refresher.next_change(left)
        finally:
            core.waiting -= 1
        unit = self._row.user or self._row.interaction_id
        self.choice = await core.choose(self._row.model, unit)
