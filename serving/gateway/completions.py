"""The endpoint of the three completion routes: who asks, what, of whom; `Exchange` does the rest."""

from __future__ import annotations

import logging

from serving.gateway.answers import ApiError, Receive, Scope, Send, method_not_allowed, send_error
from serving.gateway.core import Core
from serving.gateway.engine_errors import log_unavailable
from serving.gateway.exchange import Exchange, PlainExchange
from serving.gateway.interaction_row import RowBuilder
from serving.gateway.request_body import read_body
from serving.gateway.request_types import ResponsesRequest
from serving.gateway.requests import logged_body, parse, wants_usage
from serving.gateway.retrieval import plan_retrieval
from serving.gateway.retrieval_exchange import (
    PlainRetrievalExchange,
    RetrievalExchange,
    StreamRetrievalExchange,
)
from serving.gateway.stream_exchange import StreamExchange
from whet.clock import now_ms
from whet.ids import new_id

logger = logging.getLogger(__name__)


def _defect() -> ApiError:
    message = "The gateway failed on this request; its log says why."
    return ApiError(500, message, code="internal_error")


class Completions:
    """A plain ASGI application for one route: `chat`, `completions` or `responses`."""

    def __init__(self, route: str, core: Core) -> None:
        self._route = route
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange | None = None
        try:
            exchange = await self._accept(scope, receive, send)
            if exchange is not None:
                await exchange.run()
        except ApiError as error:
            self._core.metrics.refused(error.status)
            await send_error(send, error)
        except Exception:  # the boundary of a request: a defect of ours, which the log explains
            if exchange is not None and exchange.started:
                raise  # the server breaks the connection off
            logger.exception("A request to %s failed.", scope["path"])
            await send_error(send, _defect())

    async def _accept(self, scope: Scope, receive: Receive, send: Send) -> Exchange | None:
        """The checked and routed request, or None when the client left before it had sent it.
        Raises ApiError."""
        core = self._core
        if scope["method"] != "POST":
            raise method_not_allowed("POST")
        caller = await core.caller(scope)
        if core.spool.failure:
            raise log_unavailable(core.spool.failure)
        body = await read_body(receive, caller, core.context.settings.request_max_bytes)
        if body is None:
            return None
        parsed = parse(self._route, body, core.request_policy)
        request = parsed.request
        now = now_ms()
        interaction_id = new_id("int", at=now)
        choice = await core.choose(request.model, request.user or interaction_id)
        plan = None
        if request.rag is not False and self._route != "completions":
            default = core.refresher.current.retrieval_defaults.get(request.model)
            if default is not None or request.rag is not None:
                plan = plan_retrieval(request, default)
        row = RowBuilder(
            self._route,
            request,
            interaction_id=interaction_id,
            caller=caller,
            created_at=now,
            ignored=parsed.ignored,
        )
        row.request_json = logged_body(request)
        is_chat_stream = not isinstance(request, ResponsesRequest)
        kind: type[Exchange] = StreamExchange if request.stream else PlainExchange
        if plan is not None:
            kind = StreamRetrievalExchange if request.stream else PlainRetrievalExchange
        exchange = kind(
            core,
            self._route,
            scope,
            receive,
            send,
            choice=choice,
            request=request,
            row=row,
            strip_usage=is_chat_stream and not wants_usage(request),
        )
        if plan is not None:
            assert isinstance(exchange, RetrievalExchange)
            exchange.plan_with(plan)
        return exchange
