"""One accepted request: from the choice of a replica to its row in the log, then the last byte."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import msgspec

from serving.gateway import sse
from serving.gateway.answers import (
    JSON_TYPE,
    ApiError,
    Headers,
    Receive,
    Scope,
    Send,
    internal_error,
    send_error,
)
from serving.gateway.core import Core
from serving.gateway.engine_errors import (
    EngineError,
    EngineRefusal,
    engine_broke,
    log_unavailable,
    read_error,
    refusal,
    stream_notice,
)
from serving.gateway.forwarding import EngineBrokeError, Forwarding
from serving.gateway.http_protocol import respond, watch_client
from serving.gateway.interaction_row import RowBuilder
from serving.gateway.request_types import Request
from serving.gateway.routing import Choice
from serving.gateway.stream_editor import Rewriter
from serving.gateway.structured import is_well_formed
from serving.gateway.tool_choice import make_strict, relax
from serving.gateway.upstream import Response, UpstreamError
from serving.log.spool import SpoolError
from whet.outcomes import GATEWAY_STOPPED

logger = logging.getLogger(__name__)

ABNORMAL_FINISH = {"abort", "error"}  # the engine ended the answer, the model did not
READERS: dict[str, tuple[Callable[[bytes], sse.Answer], Callable[[bytes], sse.Answer]]] = {
    "chat": (sse.read_json, sse.read_stream),
    "completions": (sse.read_json, sse.read_stream),
    "responses": (sse.read_responses, sse.read_responses_stream),
}


class Exchange(ABC):
    """Runs once. Its row is written before the last bytes leave, or when the client or the engine
    goes away; that of a stream is begun before its first bytes leave."""

    __slots__ = (
        "core",
        "ended",
        "forwarding",
        "gone",
        "is_begun",
        "logged_status",
        "receive",
        "request",
        "response",
        "route",
        "row",
        "scope",
        "send",
        "sent",
        "started",
        "started_at",
        "stream",
        "strip_usage",
        "task",
        "ttft_ms",
    )

    def __init__(
        self,
        core: Core,
        route: str,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        choice: Choice,
        request: Request,
        row: RowBuilder,
        strip_usage: bool,
    ) -> None:
        self.core, self.route = core, route
        self.scope, self.receive, self.send = scope, receive, send
        self.request, self.row = request, row
        self.forwarding = Forwarding(core, route, choice, request, row)
        self.strip_usage, self.stream = strip_usage, bool(request.stream)
        self.started_at = time.perf_counter()
        self.ttft_ms: float | None = None
        self.response: Response | None = None
        self.sent: list[bytes] = []  # body bytes handed to the client
        self.is_begun = False  # the log has a first record of the stream
        self.started = False  # the response's head was sent
        self.ended = False  # the response's last bytes were sent
        self.logged_status = ""
        self.gone = False  # the client went away
        self.task: asyncio.Task[None] | None = None

    # --- the path ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Answer the client, whatever happens to the engine, the log or the client itself."""
        self.task = asyncio.current_task()
        unwatch = watch_client(self.scope, self.receive, self._client_left)
        try:
            try:
                await self._answer()
            except ApiError as error:
                await self._refuse(error)
            except (UpstreamError, EngineBrokeError, TimeoutError) as error:
                await self._engine_broke(error)
        except SpoolError as error:
            await self._log_broke(error)
        except asyncio.CancelledError:
            self._interrupted()
            if not self.gone:
                raise
            self.task.uncancel()  # type: ignore[union-attr]  # it was our own doing, and is done
        except Exception:  # the boundary of a request: a defect of ours, which the log explains
            logger.exception("A request to %s failed.", self.scope["path"])
            await self._fail()
        finally:
            unwatch()
            self.forwarding.release()
            if self.is_begun and not self.logged_status:
                self.core.spool.abandon(self.row.interaction_id)
            if self.response is not None:
                # Gives the connection back when it was read to its end; else closes it, and the
                # engine stops generating.
                self.response.close()

    async def _answer(self) -> None:
        is_strict = make_strict(self.request)
        try:
            await self._ask()
        except EngineRefusal as error:
            if not (is_strict and error.status == 400):
                raise
            relax(self.request)  # a schema that the engine cannot follow: as the client sent it
            await self._ask()

    async def _ask(self) -> None:
        """Raises EngineRefusal before anything is sent to the client."""
        if self.response is not None:
            self.response.close()
        self.ttft_ms = None  # of an ask that was refused before
        response = self.response = await self.forwarding.send()
        if response.status != 200:
            raise self._refusal(response.status, await response.read())
        await self._deliver(response)

    def _interrupted(self) -> None:
        """The client left, or the gateway is being stopped: the row says how far it came."""
        try:
            if self.gone:
                self._record("cancelled", sse.Answer(), http_status=499, is_partial=True)
            else:
                self._record(
                    "cut",
                    sse.Answer(error="The gateway was stopped."),
                    http_status=GATEWAY_STOPPED,
                    is_partial=True,
                )
        except SpoolError:
            self.core.metrics.refused(503)  # nobody is there to be told

    def _client_left(self) -> None:
        if not self.logged_status and self.task is not None:
            self.gone = True
            self.task.cancel()

    # --- what the client gets ------------------------------------------------------------------

    def _headers(self, first: Headers) -> Headers:
        own = self.row.interaction_id.encode()
        headers = [
            *first,
            (b"x-whet-interaction-id", own),
            (b"x-whet-adapter", self.forwarding.choice.target.label.encode()),
            (b"x-request-id", self.row.caller.request_id.encode() or own),
        ]
        if self.row.ignored:
            headers.append((b"x-whet-ignored", self.row.ignored))
        return headers

    @abstractmethod
    async def _deliver(self, response: Response) -> None:
        """Give the client the engine's answer, and the log its row. Raises EngineRefusal before
        anything is sent."""

    # --- what went wrong -----------------------------------------------------------------------

    async def _refuse(self, error: ApiError) -> None:
        self._record("error", sse.Answer(error=error.message), http_status=error.status)
        await self.core.spool.flushed()
        await send_error(self.send, error, self._headers([]))

    def _refusal(self, status: int, raw: bytes) -> EngineRefusal:
        return refusal(status, self._renamed(read_error(raw)), self.request)

    def _renamed(self, error: EngineError) -> EngineError:
        """The client knows the model by another name than the engine."""
        inner = self.forwarding.engine_model
        if not inner:
            return error
        return EngineError(error.message.replace(inner, self.row.model), error.param, error.code)

    async def _engine_broke(self, cause: Exception) -> None:
        """The engine went away or ran out of time; what the client has is marked as incomplete."""
        if self.logged_status:
            return
        error = engine_broke(cause, self.core.context.settings.request_timeout_s)
        if error.status == 504:
            self.core.metrics.timeouts.inc()
        if not self.started:
            status = "cut" if error.status == 504 else "error"
            self.sent.clear()
            self._record(status, sse.Answer(error=error.message), http_status=error.status)
            await self.core.spool.flushed()
            await send_error(self.send, error, self._headers([]))
            return
        why = f"{error.message} What arrived is not the whole answer; ask again."
        notice = stream_notice(self.route, why, self.sent)
        self._record("cut", sse.Answer(error=error.message), is_partial=True)
        await self.send({"type": "http.response.body", "body": notice, "more_body": False})

    async def _log_broke(self, error: SpoolError) -> None:
        """What cannot be logged is not served: the answer's end is withheld. Without a head there
        is no interaction id either, since it would name no row."""
        self.core.metrics.refused(503)
        if not self.started:
            await send_error(self.send, log_unavailable(str(error)))
        else:
            notice = stream_notice(self.route, f"{error} The answer was withheld.", self.sent)
            await self.send({"type": "http.response.body", "body": notice, "more_body": False})

    async def _fail(self) -> None:
        """A defect of ours: one row that says so, and an end that the client understands."""
        error = internal_error()
        is_logged = self._record_failure(error)
        if self.ended:
            return
        if self.started:
            why = f"{error.message} What arrived is not the whole answer; ask again."
            notice = stream_notice(self.route, why, self.sent, error)
            await self.send({"type": "http.response.body", "body": notice, "more_body": False})
        else:  # without a row there is no interaction id either
            await send_error(self.send, error, self._headers([]) if is_logged else None)

    def _record_failure(self, error: ApiError) -> bool:
        """Write the row with what was sent of the answer; without it, where that is what fails."""
        http_status = 200 if self.started else error.status
        choice, replica = self.forwarding.choice, self.forwarding.replica
        try:
            answer = sse.Answer(error=error.message)
            self._record("error", answer, http_status=http_status, is_partial=self.started)
        except Exception:
            logger.exception("The row of %s could not be made.", self.row.interaction_id)
        if self.logged_status:
            return True
        try:
            self.core.spool.append(
                self.row.failed(choice, replica, error.message, http_status=http_status)
            )
        except Exception:  # the last one: of a stream, its first record becomes the row
            logger.exception("The failure of %s could not be logged.", self.row.interaction_id)
            return False
        self.logged_status = "error"
        return True

    # --- the row -------------------------------------------------------------------------------

    def _elapsed_ms(self) -> float:
        return (time.perf_counter() - self.started_at) * 1000

    def _record(
        self,
        status: str,
        answer: sse.Answer,
        *,
        http_status: int = 200,
        is_partial: bool = False,
    ) -> None:
        """Write the row, once. Raises SpoolError."""
        if self.logged_status:
            return
        if is_partial and answer.response is None and self.sent:
            found = READERS[self.route][1](b"".join(self.sent))
            found.error, answer = answer.error, found
        duration_ms = self._elapsed_ms()
        self.core.spool.append(
            self.row.ended(
                self.forwarding.choice,
                self.forwarding.replica,
                answer,
                status=status,
                http_status=http_status,
                sent=self.sent,
                ttft_ms=self.ttft_ms,
                duration_ms=duration_ms,
            )
        )
        self.logged_status = status
        self.core.metrics.count_answer(
            self.route,
            status,
            self.forwarding.choice.arm,
            answer,
            duration_ms=duration_ms,
            ttft_ms=self.ttft_ms,
            is_stream=self.stream,
        )
        if status == "complete":
            if (is_valid := is_well_formed(self.request, answer)) is not None:
                self.core.metrics.structured[is_valid].inc()
            if self.forwarding.replica is not None:
                self.core.last_progress[self.forwarding.replica.url] = time.monotonic()


class PlainExchange(Exchange):
    """An answer that is sent as one JSON body."""

    __slots__ = ()

    async def _deliver(self, response: Response) -> None:
        self.ttft_ms = self._elapsed_ms()
        raw = await response.read()
        try:
            answer = READERS[self.route][0](raw)
        except msgspec.DecodeError as error:
            raise EngineBrokeError(f"The engine's answer cannot be read: {error}.") from error
        if answer.error or answer.finish_reason in ABNORMAL_FINISH:
            raise EngineBrokeError(answer.error or "The engine ended the answer early.")
        body = self._client_body(raw)
        self.sent.append(body)
        self._record("complete", answer)
        await self.core.spool.flushed()
        await respond(self.scope, self.send, 200, body, self._headers([JSON_TYPE]))

    def _client_body(self, raw: bytes) -> bytes:
        """Return what the client gets of the engine's body."""
        return Rewriter(self.row.interaction_id, self.row.model).once(raw)
