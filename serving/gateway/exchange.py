"""One accepted request: from the choice of a replica to the row in the log, and only then the last byte."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Any

import msgspec

from serving.gateway import sse
from serving.gateway.answers import JSON_TYPE, SSE_TYPE, ApiError, Headers, Receive, Send, error_body, send_bytes, send_error
from serving.gateway.core import Caller, Core
from serving.gateway.requests import Request, engine_body
from serving.gateway.routing import Choice, Replica, pick_replica
from serving.gateway.structured import readable
from serving.gateway.upstream import NoAnswerError, Response, UpstreamError
from serving.log.records import NULL, InteractionRecord, encode
from serving.log.spool import SpoolError

PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "responses": "/v1/responses"}
ENGINE_WAIT_S = 5.0  # a restarting replica behind others is replaced within a second; a cold start takes a minute, which no client should wait
MAX_WAITING = 512  # requests held back while no engine is ready; more are refused at once, so that an outage does not fill the memory
RETRY_AFTER_S = 5
END_WAIT_S = 1.0  # for the few bytes that follow `[DONE]`; the client has its answer by then
_ABNORMAL_FINISH = {"abort", "error"}  # the engine ended the answer, the model did not
_READERS: dict[str, tuple[Callable[[bytes], sse.Answer], Callable[[bytes], sse.Answer]]] = {
    "chat": (sse.read_json, sse.read_stream),
    "completions": (sse.read_json, sse.read_stream),
    "responses": (sse.read_responses, sse.read_responses_stream),
}


class EngineBrokeError(Exception):
    """The engine's answer ended before its end; the argument says how."""


class Exchange:
    """Runs once. Its row is written before the last bytes leave, or when the client or the engine goes away."""

    __slots__ = (
        "caller",
        "choice",
        "core",
        "created_at",
        "gone",
        "interaction_id",
        "logged_request",
        "logged_status",
        "metadata",
        "model",
        "receive",
        "replica",
        "request",
        "response",
        "route",
        "send",
        "sent",
        "started",
        "started_at",
        "stream",
        "strip_usage",
        "task",
        "ttft_ms",
        "user",
    )

    def __init__(
        self, core: Core, route: str, receive: Receive, send: Send, *, caller: Caller, choice: Choice, request: Request, logged_request: bytes,
        interaction_id: str, model: str, user: str | None, metadata: bytes | None, strip_usage: bool, created_at: int,
    ) -> None:  # fmt: skip
        self.core, self.route, self.receive, self.send = core, route, receive, send
        self.caller, self.choice, self.request, self.logged_request = caller, choice, request, logged_request
        self.interaction_id, self.model, self.user, self.metadata = interaction_id, model, user, metadata
        self.strip_usage, self.stream, self.created_at = strip_usage, bool(request.stream), created_at
        self.started_at = time.perf_counter()
        self.ttft_ms: float | None = None
        self.replica: Replica | None = None
        self.response: Response | None = None
        self.sent: list[bytes] = []  # body bytes handed to the client
        self.started = False  # the response's head was sent
        self.logged_status = ""
        self.gone = False  # the client went away
        self.task: asyncio.Task[None] | None = None

    # --- the path ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Answer the client, whatever happens to the engine, the log or the client itself."""
        self.task = asyncio.current_task()
        watcher: asyncio.Task[Any] = asyncio.get_running_loop().create_task(self.receive())  # type: ignore[arg-type]
        watcher.add_done_callback(self._client_left)
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
            self.task.uncancel()  # type: ignore[union-attr]  # it was our own doing, and it is dealt with
        finally:
            watcher.cancel()
            if self.replica is not None:
                self.replica.in_flight -= 1
            if self.response is not None:
                self.response.close()  # gives the connection back when it was read to its end; else closes it, and the engine stops generating

    async def _answer(self) -> None:
        response = self.response = await self._forward()
        if response.status != 200:
            await self._engine_refused(response)
        elif self.stream:
            await self._relay(response)
        else:
            await self._whole(response)

    def _interrupted(self) -> None:
        """The client left, or the gateway is being stopped: the row says how far it came."""
        try:
            if self.gone:
                self._record("cancelled", sse.Answer(), http_status=499, partial=True)
            else:
                self._record("cut", sse.Answer(error="The gateway was stopped."), partial=True)
        except SpoolError:
            self.core.metrics.refused(503)  # nobody is there to be told

    def _client_left(self, watcher: asyncio.Task[object]) -> None:
        if not watcher.cancelled() and not self.logged_status and self.task is not None:
            self.gone = True
            self.task.cancel()

    async def _forward(self) -> Response:
        """The head of an engine's response. A connection that breaks before it is tried once more, elsewhere if possible."""
        core, avoid, tries = self.core, None, 0
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
                response = await self._post(replica, tries)
            except NoAnswerError as error:
                if tries > 1 and time.perf_counter() > deadline:
                    raise EngineBrokeError(f"The engine at {replica.url} cannot be reached: {error}.") from error
                # A kept connection that the engine had closed breaks at once: the same replica may be tried again.
                avoid = replica if tries > 1 else None
            else:
                if response.status != 404 or tries > 2:
                    return response
                response.close()
                avoid = replica  # it restarted and does not have the version yet
            core.metrics.retries.inc()

    def _take(self, replica: Replica) -> None:
        if self.replica is not None:
            self.replica.in_flight -= 1
        self.replica = replica
        replica.in_flight += 1

    async def _post(self, replica: Replica, tries: int) -> Response:
        body = engine_body(self.request, self.choice.target.engine_model or replica.base_model, self.interaction_id)
        name = self.interaction_id if tries == 1 else f"{self.interaction_id}-{tries}"
        return await self.core.upstream.post(replica.url, PATHS[self.route], body, name)

    async def _wait_for_engine(self, deadline: float) -> None:
        """Return when the snapshot was read again. Raises ApiError 503 when the time is over."""
        core = self.core
        left = deadline - time.perf_counter()
        if left <= 0 or core.waiting >= MAX_WAITING:
            raise self._nobody_ready()
        core.waiting += 1
        try:
            await core.refresher.next_change(left)
        finally:
            core.waiting -= 1
        self.choice = await core.choose(self.model, self.user or self.interaction_id)

    def _nobody_ready(self) -> ApiError:
        label = self.choice.target.label
        what = "No engine is ready" if not self.core.refresher.current.base_ready else f"No engine has {label} ready"
        return ApiError(
            503,
            f"{what} at this moment. Try again in {RETRY_AFTER_S} seconds; `whet status` and `whet adapters show {label}` say why.",
            code="engine_unavailable",
            retry_after_s=RETRY_AFTER_S,
        )

    # --- what the client gets ---------------------------------------------------------------------------------------

    def _headers(self, kind: tuple[bytes, bytes]) -> Headers:
        own = self.interaction_id.encode()
        return [
            kind,
            (b"x-whet-interaction-id", own),
            (b"x-whet-adapter", self.choice.target.label.encode()),
            (b"x-request-id", self.caller.request_id.encode() or own),
        ]

    async def _whole(self, response: Response) -> None:
        self.ttft_ms = self._elapsed_ms()
        raw = await response.read()
        try:
            answer = _READERS[self.route][0](raw)
        except msgspec.DecodeError as error:
            raise EngineBrokeError(f"The engine's answer cannot be read: {error}.") from error
        body = sse.Rewriter(self.interaction_id, self.model).once(raw)
        self.sent.append(body)
        abnormal = answer.error or answer.finish_reason in _ABNORMAL_FINISH
        if abnormal:
            self.sent.clear()
            raise EngineBrokeError(answer.error or "The engine ended the answer early.")
        self._record("complete", answer)
        await self.core.spool.flushed()
        await send_bytes(self.send, 200, body, self._headers(JSON_TYPE))

    async def _relay(self, response: Response) -> None:
        await self.send({"type": "http.response.start", "status": 200, "headers": self._headers(SSE_TYPE)})
        self.started = True
        rewrite = sse.Rewriter(self.interaction_id, self.model)
        send, sent, strip, openai_end = self.send, self.sent, self.strip_usage, self.route != "responses"
        raw: list[bytes] = []
        tail, held, ended = b"", b"", False
        try:
            while data := await response.some():
                if not raw:
                    self.ttft_ms = self._elapsed_ms()
                raw.append(data)
                if tail:
                    data = tail + data
                if data.endswith(b"\n\n"):
                    tail = b""
                else:
                    cut = data.rfind(b"\n\n") + 2
                    if cut == 1:
                        tail = data
                        continue
                    data, tail = data[:cut], data[cut:]
                data = rewrite(held + data)
                held = b""
                if strip and (b'"choices":[]' in data or b'"choices": []' in data):
                    data = sse.without_usage(data)
                if openai_end:
                    if data.endswith(sse.DONE):
                        held, ended = data, True
                        break
                elif sse.ends_response(data):
                    held, ended = data, True
                    continue
                if data:
                    sent.append(data)
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        except UpstreamError:
            if not ended:
                raise
        await self._end_stream(response, b"".join(raw), held, ended)

    async def _end_stream(self, response: Response, raw: bytes, held: bytes, ended: bool) -> None:
        answer = _READERS[self.route][1](raw)
        if answer.error:
            held = held.removesuffix(sse.DONE)  # the error event itself is the client's notice
            self.sent.append(held)
            self._record("error", answer, partial=True)
        elif not ended or answer.finish_reason is None or answer.finish_reason in _ABNORMAL_FINISH:
            if rest := held.removesuffix(sse.DONE):
                self.sent.append(rest)
                await self.send({"type": "http.response.body", "body": rest, "more_body": True})
            raise EngineBrokeError("It ended the stream before the answer was complete.")
        else:
            self.sent.append(held)
            self._record("complete", answer)
        await self.core.spool.flushed()
        await self.send({"type": "http.response.body", "body": held, "more_body": False})
        if not response.complete:  # the end of the transfer, on its way: reading it keeps the connection usable
            async with asyncio.timeout(END_WAIT_S):
                while await response.some():
                    pass

    # --- what went wrong --------------------------------------------------------------------------------------------

    async def _refuse(self, error: ApiError) -> None:
        self._record("error", sse.Answer(error=error.message), http_status=error.status)
        await send_error(self.send, error, self._headers(JSON_TYPE)[1:])

    async def _engine_refused(self, response: Response) -> None:
        """The engine said no before it began: its sentence goes to the client, its inner names do not."""
        raw = await response.read()
        message = sse.error_message(raw).replace(self.choice.target.engine_model or "\0", self.model)
        status = response.status if response.status in {400, 422, 429, 503} else 502
        if status == 502:
            message = f"The engine failed ({response.status}): {message[:500]}"
        code = "engine_refused" if status < 500 else "engine_error"
        raise ApiError(400 if status == 422 else status, message, code=code, retry_after_s=RETRY_AFTER_S if status in {429, 503} else None)

    async def _engine_broke(self, cause: Exception) -> None:
        """The engine went away or ran out of time; what the client has so far is marked as not complete."""
        late = isinstance(cause, TimeoutError)
        why = f"The answer took longer than {self.core.context.settings.request_timeout_s:g} s and was cut." if late else f"The engine broke off: {cause}"
        why = why if why.endswith(".") else why + "."
        if self.logged_status:
            return
        if late:
            self.core.metrics.timeouts.inc()
        if not self.started:
            error = ApiError(504 if late else 502, f"{why} Try again.", code="engine_error", retry_after_s=1)
            self._record("cut" if late else "error", sse.Answer(error=why), http_status=error.status)
            await send_error(self.send, error, self._headers(JSON_TYPE)[1:])
            return
        notice = self._notice(f"{why} What arrived is not the whole answer; ask again.")
        self._record("cut", sse.Answer(error=why), partial=True)
        await self.send({"type": "http.response.body", "body": notice, "more_body": False})

    async def _log_broke(self, error: SpoolError) -> None:
        """What cannot be logged is not served: the answer's end is withheld."""
        self.core.metrics.refused(503)
        if not self.started:
            await send_error(
                self.send,
                ApiError(503, f"{error} Nothing is answered that is not logged.", code=error.code, retry_after_s=RETRY_AFTER_S),
                self._headers(JSON_TYPE)[1:],
            )
        else:
            await self.send({"type": "http.response.body", "body": self._notice(f"{error} The answer was withheld."), "more_body": False})

    def _notice(self, message: str) -> bytes:
        if self.route == "responses":
            return b"event: error\ndata: %s\n\n" % msgspec.json.encode({"type": "error", "code": "engine_error", "message": message, "param": None})
        return b"data: %s\n\n" % error_body(502, message, code="engine_error")

    # --- the row ----------------------------------------------------------------------------------------------------

    def _elapsed_ms(self) -> float:
        return (time.perf_counter() - self.started_at) * 1000

    def _record(self, status: str, answer: sse.Answer, *, http_status: int = 200, partial: bool = False) -> None:
        """Write the row, once. Raises SpoolError."""
        if self.logged_status:
            return
        if partial and answer.response is None and self.sent:
            found = _READERS[self.route][1](b"".join(self.sent))
            found.error, answer = answer.error, found
        choice, adapter, duration_ms = self.choice, self.choice.target.adapter, self._elapsed_ms()
        record = InteractionRecord(
            id=self.interaction_id, request_id=self.caller.request_id or self.interaction_id, created_at=self.created_at, completed_at=self.created_at + round(duration_ms),
            api_key_id=self.caller.key_id, end_user=self.user, route=self.route, model=self.model, alias=choice.alias,
            adapter=adapter.name if adapter else None, version=adapter.version if adapter else None, adapter_digest=adapter.digest if adapter else None,
            arm=choice.arm, rollout_generation=choice.generation, replica=self.replica.url if self.replica else None, stream=self.stream,
            status=status, http_status=http_status, error=answer.error or None, finish_reason=answer.finish_reason and answer.finish_reason[:32],
            request=msgspec.Raw(self.logged_request), response=msgspec.Raw(msgspec.json.encode(answer.response)) if answer.response is not None else NULL,
            response_text=answer.text, response_sha256=hashlib.sha256(b"".join(self.sent)).hexdigest() if self.sent else None,
            prompt_tokens=answer.prompt_tokens, completion_tokens=answer.completion_tokens,
            ttft_ms=self.ttft_ms and round(self.ttft_ms, 3), duration_ms=round(duration_ms, 3), metadata=msgspec.Raw(self.metadata) if self.metadata else NULL,
        )  # fmt: skip
        self.core.spool.append(encode(record))
        self.logged_status = status
        self._count(status, answer, duration_ms)

    def _count(self, status: str, answer: sse.Answer, duration_ms: float) -> None:
        metrics = self.core.metrics
        metrics.answers[self.route, status, self.choice.arm].inc()
        metrics.duration[self.route].observe(duration_ms / 1000)
        if self.ttft_ms is not None:
            metrics.ttft[self.route].observe(self.ttft_ms / 1000)
        if answer.prompt_tokens:
            metrics.prompt_tokens.inc(answer.prompt_tokens)
        if answer.completion_tokens:
            metrics.completion_tokens.inc(answer.completion_tokens)
        if self.stream and self.ttft_ms is not None and answer.completion_tokens and answer.completion_tokens > 1:
            metrics.time_per_token.observe((duration_ms - self.ttft_ms) / 1000 / (answer.completion_tokens - 1))
        if status == "complete" and (valid := readable(self.request, answer)) is not None:
            metrics.structured[valid].inc()
        if status == "complete" and self.replica is not None:
            self.core.last_progress[self.replica.url] = time.monotonic()
