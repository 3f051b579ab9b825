"""The endpoint of the three completion routes: who asks, what, of whom; `Exchange` does the rest."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from serving.gateway.answers import (
    ApiError,
    Receive,
    Scope,
    Send,
    internal_error,
    method_not_allowed,
    send_error,
)
from serving.gateway.core import Core
from serving.gateway.engine_errors import log_unavailable
from serving.gateway.exchange import Exchange, PlainExchange
from serving.gateway.interaction_row import RowBuilder
from serving.gateway.request_body import read_body
from serving.gateway.request_types import Request, ResponsesRequest
from serving.gateway.requests import logged_body, parse, wants_usage
from serving.gateway.retrieval import plan_retrieval
from serving.gateway.retrieval_exchange import (
    PlainRetrievalExchange,
    RetrievalExchange,
    StreamRetrievalExchange,
)
from serving.gateway.routing import UNROUTED
from serving.gateway.stream_exchange import StreamExchange
from whet.clock import now_ms
from whet.ids import new_id

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Accepted:
    """A request that was read and found well-formed."""

    request: Request
    row: RowBuilder


class Completions:
    """A plain ASGI application for one route: `chat`, `completions` or `responses`."""

    def __init__(self, route: str, core: Core) -> None:
        self._route = route
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        accepted: Accepted | None = None
        try:
            accepted = await self._accept(scope, receive)
            if accepted is None:
                return
            exchange = await self._route_to_version(accepted, scope, receive, send)
        except ApiError as error:
            self._core.metrics.refused(error.status)
            await send_error(send, error)
        except Exception:  # the boundary before there is an exchange, which has its own
            logger.exception("A request to %s failed.", scope["path"])
            await self._fail(accepted, send)
        else:
            await exchange.run()

    async def _accept(self, scope: Scope, receive: Receive) -> Accepted | None:
        """The checked request, or None when the client left before it had sent it. Raises
        ApiError."""
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
        now = now_ms()
        row = RowBuilder(
            self._route,
            parsed.request,
            interaction_id=new_id("int", at=now),
            caller=caller,
            created_at=now,
            ignored=parsed.ignored,
        )
        return Accepted(parsed.request, row)

    async def _route_to_version(
        self, accepted: Accepted, scope: Scope, receive: Receive, send: Send
    ) -> Exchange:
        """Choose who answers. Raises ApiError."""
        core, request, row = self._core, accepted.request, accepted.row
        choice = await core.choose(request.model, request.user or row.interaction_id)
        plan = None
        if request.rag is not False and self._route != "completions":
            default = core.refresher.current.retrieval_defaults.get(request.model)
            if default is not None or request.rag is not None:
                plan = plan_retrieval(request, default)
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

    async def _fail(self, accepted: Accepted | None, send: Send) -> None:
        """A defect of ours before a version was chosen: a row, if the request was read, and 500."""
        error = internal_error()
        headers = None
        if accepted is not None:
            row = accepted.row
            try:
                row.request_json = logged_body(accepted.request)
                record = row.failed(UNROUTED, None, error.message, http_status=error.status)
                self._core.spool.append(record)
                await self._core.spool.flushed()
            except Exception:  # the last boundary: the client gets its answer all the same
                logger.exception("The failure of %s could not be logged.", row.interaction_id)
            else:
                headers = [(b"x-whet-interaction-id", row.interaction_id.encode())]
        await send_error(send, error, headers)
