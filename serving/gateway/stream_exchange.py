"""An answer that is passed on as it comes, as server-sent events."""

from __future__ import annotations

import asyncio

import msgspec

from serving.gateway.answers import STREAM_HEADERS
from serving.gateway.engine_errors import EngineError, refusal, stream_notice
from serving.gateway.exchange import ABNORMAL_FINISH, READERS, Exchange
from serving.gateway.forwarding import EngineBrokeError
from serving.gateway.http_protocol import respond
from serving.gateway.request_types import ResponsesRequest
from serving.gateway.stream_editor import DONE, Opening, Rewriter, StreamEditor, read_opening
from serving.gateway.upstream import Response, UpstreamError

END_WAIT_S = 1.0  # for the few bytes after `[DONE]`; the client has its answer by then


class StreamExchange(Exchange):
    """The log's first record is written before the stream's head, the last one before its end."""

    __slots__ = ()

    async def _deliver(self, response: Response) -> None:
        """Pass a stream on. Its head waits for the first event, because an engine that refuses a
        stream says so in an event; the log's first record waits for it too."""
        editor = self._editor()
        send, sent = self.send, self.sent
        opening = b""  # events that wait for the first token
        broke: UpstreamError | None = None
        try:
            while data := await response.read_chunk():
                out = editor.feed(data)
                if not self.started:
                    opening += out
                    if self.ttft_ms is None:
                        self.ttft_ms = self._elapsed_ms()
                    has_begun = self._has_begun(opening + editor.held, editor)
                    if has_begun and not editor.ended:
                        await self._begin_stream()
                        out = opening
                    elif not editor.ended:
                        continue
                if editor.ended:
                    if editor.has_done or editor.error is not None:
                        break
                    continue
                if out:
                    sent.append(out)
                    await send({"type": "http.response.body", "body": out, "more_body": True})
        except UpstreamError as error:
            broke = error
        if not editor.ended:
            if opening and not self.started:
                await self._find_refusal()
            if broke is not None:
                raise broke
        held = editor.held if self.started else opening + editor.held
        await self._end_stream(response, editor, held)

    def _editor(self) -> StreamEditor:
        """Return what makes the client's stream of the engine's."""
        return StreamEditor(
            Rewriter(self.row.interaction_id, self.row.model),
            without_usage=self.strip_usage,
            has_done=self.route != "responses",
        )

    def _has_begun(self, opening: bytes, editor: StreamEditor) -> bool:
        """True when the stream has its first token. Raises EngineRefusal when it has an error
        instead."""
        if editor.ended and editor.error is None:
            return True
        has_begun = read_opening(opening) is Opening.ANSWER
        if editor.error is not None and not has_begun:
            found = self._renamed(editor.error)
            raise refusal(found.code or 500, found, self.request)
        return has_begun

    async def _find_refusal(self) -> None:
        """Some engines announce a stream of the Responses API and cut it when they refuse. Asked
        without a stream they say why. Raises EngineRefusal then."""
        if not isinstance(self.request, ResponsesRequest):
            return
        request = msgspec.structs.replace(self.request, stream=None, max_output_tokens=1)
        response = await self.forwarding.send(request)
        try:
            if response.status != 200:
                raise self._refusal(response.status, await response.read())
        finally:
            response.close()

    def _error_event(self, error: EngineError | None, message: str) -> bytes:
        """The client's notice of an error in the midst of a stream; empty where it has one, as an
        event of the Responses API that says `response.failed`."""
        if error is None:
            return b""
        found = self._renamed(error)
        refused = refusal(found.code or 500, found, None)
        return stream_notice(self.route, refused.message or message, self.sent, refused)

    async def _begin_stream(self) -> None:
        """Log that a stream begins, then send its head: whatever is killed from here on, a client
        that has an interaction id finds its row."""
        self.core.spool.append(self.row.begun(self.forwarding.choice, self.forwarding.replica))
        self.is_begun = True
        await self.core.spool.flushed()
        await self._send_head()

    async def _send_head(self) -> None:
        self.started = True
        head = self._headers(STREAM_HEADERS)
        await self.send({"type": "http.response.start", "status": 200, "headers": head})

    async def _end_stream(self, response: Response, editor: StreamEditor, held: bytes) -> None:
        answer = READERS[self.route][1](b"".join(editor.raw))
        if editor.error is not None or answer.error:
            held = held.removesuffix(DONE) + self._error_event(editor.error, answer.error)
            self.sent.append(held)
            self._record("error", answer, is_partial=True)
        elif (
            not editor.ended
            or answer.finish_reason is None
            or answer.finish_reason in ABNORMAL_FINISH
        ):
            if self.started and (rest := held.removesuffix(DONE)):
                self.sent.append(rest)
                await self.send({"type": "http.response.body", "body": rest, "more_body": True})
            raise EngineBrokeError("It ended the stream before the answer was complete.")
        else:
            self.sent.append(held)
            self._record("complete", answer)
        await self.core.spool.flushed()
        if self.started:
            await self.send({"type": "http.response.body", "body": held, "more_body": False})
        else:  # the whole answer came at once
            self.started = True
            await respond(self.scope, self.send, 200, held, self._headers(STREAM_HEADERS))
        self.ended = True
        if not response.complete:  # the end of the transfer: reading it keeps the connection usable
            async with asyncio.timeout(END_WAIT_S):
                while await response.read_chunk():
                    pass
