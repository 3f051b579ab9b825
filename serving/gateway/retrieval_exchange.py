"""Exchanges of requests that retrieve: the search before the engine is asked, citations after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from serving.gateway import sse
from serving.gateway.answers import Headers
from serving.gateway.citation_stream import (
    ChatCitationEditor,
    ResponsesCitationEditor,
    annotate_chat,
    annotate_response,
)
from serving.gateway.citations import find_marks
from serving.gateway.exchange import Exchange, PlainExchange
from serving.gateway.prompt_budget import fit_hits
from serving.gateway.query_rewrite import is_multi_turn, rewrite_query
from serving.gateway.retrieval import Retrieval, RetrievalPlan, find_query, may_read, with_hits
from serving.gateway.stream_editor import Rewriter, StreamEditor
from serving.gateway.stream_exchange import StreamExchange
from serving.retrieval.records import Outcome
from whet.conversation import history

_ANNOTATE: dict[str, Callable[[dict[str, Any], Retrieval], None]] = {
    "chat": annotate_chat,
    "responses": annotate_response,
}


class RetrievalExchange(Exchange):
    """What both kinds share. `plan_with` is called before `run`."""

    __slots__ = ("retrieval",)
    retrieval: Retrieval

    def plan_with(self, plan: RetrievalPlan) -> None:
        self.retrieval = Retrieval(plan)

    async def _answer(self) -> None:
        await self._retrieve()
        self.retrieval.refuse_if_wanted()
        await super()._answer()

    async def _retrieve(self) -> None:
        core, retrieval = self.core, self.retrieval
        retrieval.query, retrieval.is_follow_up = find_query(self.request)
        control = core.request_policy.control_tokens
        if not await self._may_read():
            retrieval.outcome = Outcome.FORBIDDEN
        else:
            await self._rewrite()
            await retrieval.search(core.searcher, control)
            core.metrics.retrieval_duration.observe(retrieval.took_ms / 1000)
        if retrieval.hits:
            hits = await fit_hits(core, self.forwarding.choice, self.request, retrieval.hits)
            retrieval.dropped_by_budget = len(retrieval.hits) - len(hits)
            retrieval.hits = hits
            self.request = with_hits(self.request, hits, control)
            self.forwarding.ask(self.request)
        core.metrics.retrievals[retrieval.outcome].inc()
        self.row.retrieved = msgspec.json.encode(retrieval.hits)
        self.row.retrieval = msgspec.json.encode(retrieval.logged())

    async def _rewrite(self) -> None:
        limit_s = self.core.context.settings.query_rewrite_s
        if not limit_s or self.core.searcher is None:
            return
        messages = history(msgspec.to_builtins(self.request))
        if is_multi_turn(messages):
            found = await rewrite_query(self.core, self.forwarding.choice, messages, limit_s)
            self.retrieval.take_rewrite(found)
            self.core.metrics.query_rewrites[not found.problem].inc()

    async def _may_read(self) -> bool:
        refresher, plan = self.core.refresher, self.retrieval.plan
        if plan.collection not in refresher.current.readers:
            await refresher.missed()  # it may be new
        return may_read(refresher.current, plan.collection, self.row.caller.key_id)

    def _headers(self, first: Headers) -> Headers:
        outcome = self.retrieval.outcome.value.encode()
        return [*super()._headers(first), (b"x-whet-retrieval", outcome)]

    def _record(
        self,
        status: str,
        answer: sse.Answer,
        *,
        http_status: int = 200,
        is_partial: bool = False,
    ) -> None:
        retrieval = self.retrieval
        if not self.logged_status and retrieval.hits and answer.text:
            retrieval.marks = find_marks(answer.text, len(retrieval.hits))
            self.core.metrics.invalid_citations.inc(retrieval.marks.invalid)
            self.row.retrieval = msgspec.json.encode(retrieval.logged())
        super()._record(status, answer, http_status=http_status, is_partial=is_partial)


class PlainRetrievalExchange(RetrievalExchange, PlainExchange):
    """An answer with citations as one JSON body."""

    __slots__ = ()

    def _client_body(self, raw: bytes) -> bytes:
        body = msgspec.json.decode(super()._client_body(raw))
        _ANNOTATE[self.route](body, self.retrieval)
        return msgspec.json.encode(body)


class StreamRetrievalExchange(RetrievalExchange, StreamExchange):
    """An answer with citations as server-sent events."""

    __slots__ = ()

    def _editor(self) -> StreamEditor:
        rewrite = Rewriter(self.row.interaction_id, self.row.model)
        if self.route == "responses":
            return ResponsesCitationEditor(rewrite, self.retrieval)
        return ChatCitationEditor(rewrite, self.retrieval, without_usage=self.strip_usage)
