"""The endpoint of the three completion routes: who asks, what, of whom; then `Exchange` does the rest."""

from __future__ import annotations

import msgspec

from serving.gateway.answers import ApiError, Receive, Scope, Send, method_not_allowed, send_error
from serving.gateway.core import Core
from serving.gateway.exchange import RETRY_AFTER_S, Exchange
from serving.gateway.request_body import read_body
from serving.gateway.requests import Rag, ResponsesRequest, logged_body, parse, wants_usage
from whet.clock import now_ms
from whet.ids import new_id


class Completions:
    """A plain ASGI application for one route: `chat`, `completions` or `responses`."""

    def __init__(self, route: str, core: Core) -> None:
        self._route = route
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            exchange = await self._accept(scope, receive, send)
        except ApiError as error:
            self._core.metrics.refused(error.status)
            await send_error(send, error)
            return
        if exchange is not None:
            await exchange.run()

    async def _accept(self, scope: Scope, receive: Receive, send: Send) -> Exchange | None:
        """The checked and routed request, or None when the client left before it had sent it. Raises ApiError."""
        core = self._core
        if scope["method"] != "POST":
            raise method_not_allowed("POST")
        caller = await core.caller(scope)
        if core.spool.failure:
            raise ApiError(
                503, f"{core.spool.failure} Nothing is answered that is not logged; try again later.", code="log_unavailable", retry_after_s=RETRY_AFTER_S
            )
        body = await read_body(receive, caller, core.context.settings.request_max_bytes)
        if body is None:
            return None
        request = parse(self._route, body)
        now = now_ms()
        interaction_id, user, metadata = new_id("int", at=now), request.user or None, request.metadata
        choice = await core.choose(request.model, user or interaction_id)
        rag = getattr(request, "rag", None)
        if isinstance(rag, Rag):
            raise ApiError(
                400,
                f"There is no collection {rag.collection!r} to retrieve from. Remove the field 'rag'.",
                param="rag.collection",
                code="collection_not_found",
            )
        return Exchange(
            core, self._route, receive, send, caller=caller, choice=choice, logged_request=logged_body(request), request=request,
            interaction_id=interaction_id, model=request.model, user=user, metadata=msgspec.json.encode(metadata) if metadata else None,
            strip_usage=not wants_usage(request) and not isinstance(request, ResponsesRequest), created_at=now,
        )  # fmt: skip
