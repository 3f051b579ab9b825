"""The log's record of one request: the part known when it is accepted, then each version of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from serving.gateway.core import Caller
from serving.gateway.request_types import ChatRequest, Request, ResponsesRequest
from serving.gateway.routing import Choice, Replica
from serving.gateway.sse import Answer
from serving.log.records import BEGUN, NULL, InteractionRecord, encode

_HASH_PIECE = 2047  # bytes
_HASH_WITHOUT_PAUSE = _HASH_PIECE * 32  # 64 KB take some 50 microseconds
_OPEN_STATUSES = ("in_progress", "incomplete")  # of a Responses item that the engine continues


class RowBuilder:
    """What the rows of one request have in common."""

    __slots__ = (
        "caller",
        "created_at",
        "ignored",
        "interaction_id",
        "metadata",
        "model",
        "prefix",
        "request_json",
        "retrieval",
        "retrieved",
        "route",
        "stream",
        "user",
    )

    def __init__(
        self,
        route: str,
        request: Request,
        *,
        interaction_id: str,
        caller: Caller,
        created_at: int,
        ignored: Sequence[str],
    ) -> None:
        """Call `take_request` with the body for the log before a row is asked for."""
        self.route, self.interaction_id, self.caller = route, interaction_id, caller
        self.created_at, self.stream = created_at, bool(request.stream)
        self.model, self.user = request.model, request.user or None
        self.metadata = msgspec.json.encode(request.metadata) if request.metadata else None
        self.prefix = answer_prefix(request)
        self.ignored = ignored_header(ignored) if ignored else b""
        self.request_json = b""
        self.retrieved = self.retrieval = b"null"  # JSON of a request that retrieves

    def begun(self, choice: Choice, replica: Replica | None) -> bytes:
        """The first record of a stream, for the case that there is no other."""
        return encode(self._record(choice, replica, status=BEGUN, http_status=200))

    def ended(
        self,
        choice: Choice,
        replica: Replica | None,
        answer: Answer,
        *,
        status: str,
        http_status: int,
        sent: Sequence[bytes],
        ttft_ms: float | None,
        duration_ms: float,
    ) -> bytes:
        """The record of the whole exchange. `sent`: the body's bytes, as the client got them."""
        text = answer.text
        if self.prefix and text is not None:
            text = self.prefix + text
        response = answer.response
        return encode(
            self._record(
                choice,
                replica,
                status=status,
                http_status=http_status,
                completed_at=self.created_at + round(duration_ms),
                error=answer.error or None,
                finish_reason=answer.finish_reason and answer.finish_reason[:32],
                response=NULL if response is None else msgspec.Raw(msgspec.json.encode(response)),
                response_text=text,
                response_sha256=_sha256(b"".join(sent)) if sent else None,
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=answer.completion_tokens,
                ttft_ms=ttft_ms and round(ttft_ms, 3),
                duration_ms=round(duration_ms, 3),
            )
        )

    def failed(
        self, choice: Choice, replica: Replica | None, message: str, *, http_status: int
    ) -> bytes:
        """The record of an exchange of which nothing but its failure can be said."""
        return encode(
            self._record(choice, replica, status="error", http_status=http_status, error=message)
        )

    def _record(self, choice: Choice, replica: Replica | None, **more: Any) -> InteractionRecord:
        adapter = choice.target.adapter
        return InteractionRecord(
            id=self.interaction_id,
            request_id=self.caller.request_id or self.interaction_id,
            created_at=self.created_at,
            api_key_id=self.caller.key_id,
            end_user=self.user,
            route=self.route,
            model=self.model,
            alias=choice.alias,
            adapter=adapter.name if adapter else None,
            version=adapter.version if adapter else None,
            adapter_digest=adapter.digest if adapter else None,
            arm=choice.arm,
            rollout_generation=choice.generation,
            replica=replica.url if replica else None,
            stream=self.stream,
            retry=self.caller.retry,
            request=msgspec.Raw(self.request_json),
            retrieved=msgspec.Raw(self.retrieved),
            retrieval=msgspec.Raw(self.retrieval),
            metadata=msgspec.Raw(self.metadata) if self.metadata else NULL,
            **more,
        )


def _sha256(data: bytes) -> str:
    """Hash in pieces: above 2,047 bytes hashlib lets another thread have the interpreter, and the
    answer would wait for its turn."""
    if len(data) <= _HASH_PIECE:
        return hashlib.sha256(data).hexdigest()
    found, view = hashlib.sha256(), memoryview(data)
    for start in range(0, min(len(data), _HASH_WITHOUT_PAUSE), _HASH_PIECE):
        found.update(view[start : start + _HASH_PIECE])
    if len(data) > _HASH_WITHOUT_PAUSE:
        found.update(view[_HASH_WITHOUT_PAUSE:])
    return found.hexdigest()


def answer_prefix(request: Request) -> str:
    """The beginning of the answer that the client wrote itself: part of the logged answer, so that
    search, review and training see one message. Empty in the usual case."""
    if isinstance(request, ChatRequest):
        if not request.continue_final_message:
            return ""
        content = request.messages[-1].content
        if isinstance(content, str):
            return content
        return "".join(_text_of(msgspec.to_builtins(part)) for part in content or ())
    if isinstance(request, ResponsesRequest) and isinstance(request.input, list):
        last = request.input[-1]
        if last.get("role") == "assistant" and last.get("status") in _OPEN_STATUSES:
            content = last.get("content")
            if isinstance(content, str):
                return content
            return "".join(map(_text_of, content if isinstance(content, list) else ()))
    return ""


def _text_of(part: Any) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text", part.get("refusal", "")) if isinstance(part, dict) else ""
    return text if isinstance(text, str) else ""


_MAX_IGNORED = 16  # names in the header; a history of hundreds of messages repeats a few
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.[]")


def ignored_header(names: Sequence[str]) -> bytes:
    """The value of `x-whet-ignored`: names of fields, as far as they may stand in a header."""
    shown = [
        bytes(byte if byte in _SAFE else ord("?") for byte in name[:80].encode())
        for name in names[:_MAX_IGNORED]
    ]
    if len(names) > _MAX_IGNORED:
        shown.append(b"...")
    return b", ".join(shown)
