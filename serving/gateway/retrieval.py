"""Retrieval for one request: what is searched, the search, and the passages in its prompt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from serving.gateway.answers import ApiError
from serving.gateway.citations import Marks, describe_citations
from serving.gateway.query_rewrite import Rewrite
from serving.gateway.request_types import ChatRequest, Message, Rag, Request
from serving.gateway.routing import Snapshot
from serving.retrieval.defaults_store import RetrievalDefault
from serving.retrieval.records import Hit, Mode, Outcome, Searcher, SearchRequest, SearchResult
from whet.control_tokens import ControlTokens
from whet.conversation import history
from whet.json_types import JsonObject
from whet.rag_prompt import format_passage, insert_into_request

SEARCH_TIMEOUT_S = 6.0  # above the 5 s of the retrieval client, whose sentence says more
TOP_K = 4
MAX_QUERY = 2000  # characters, from the end; embedders read some 500 tokens
# A turn as short as "And for lamps?" seldom says what it is about; the turn before it does.
FOLLOW_UP_WORDS = 5
_SAFE_SENTENCES: Mapping[Outcome, str] = {
    Outcome.FOUND: "",
    Outcome.EMPTY: "Nothing that fits was found.",
    Outcome.FAILED: "The search failed, so the model was asked without passages.",
    Outcome.FORBIDDEN: "There is no such collection for this key.",
}


@dataclass(frozen=True, slots=True)
class RetrievalPlan:
    """What one request retrieves."""

    source: Literal["request", "default"]
    collection: str
    top_k: int = TOP_K
    min_score: float = 0.0
    filter: Mapping[str, Any] = field(default_factory=dict)
    mode: Mode = Mode.HYBRID
    neighbours: int = 0
    fails: bool = False  # a failed search fails the request


def plan_retrieval(request: Request, default: RetrievalDefault | None) -> RetrievalPlan | None:
    """Decide what to retrieve; None: nothing. Raises ApiError 400.

    `default`: that of the model that was asked for.
    """
    rag = request.rag
    if rag is False or (rag is None and default is None):
        return None
    asked = rag if isinstance(rag, Rag) else Rag()
    if asked.collection is None and default is None:
        raise ApiError(
            400,
            f"The field 'rag' names no collection, and {request.model[:80]!r} has no default. "
            "Name one in rag.collection.",
            param="rag.collection",
            code="missing_field",
        )
    # A default's threshold and filter belong to its collection.
    is_default = asked.collection is None or (
        default is not None and asked.collection == default.collection
    )
    own = (
        default if is_default and default is not None else RetrievalDefault(alias="", collection="")
    )
    return RetrievalPlan(
        source="request" if asked.collection else "default",
        collection=asked.collection or own.collection,
        top_k=own.top_k if asked.top_k is None else asked.top_k,
        min_score=own.min_score if asked.min_score is None else asked.min_score,
        filter=own.filter if asked.filter is None else asked.filter,
        mode=Mode(asked.mode or Mode.HYBRID),
        neighbours=asked.neighbours or 0,
        fails=asked.on_error == "fail",
    )


def may_read(snapshot: Snapshot, collection: str, key_id: str) -> bool:
    """Tell whether the collection exists and the key may read it."""
    if collection not in snapshot.readers:
        return False
    allowed = snapshot.readers[collection]
    return allowed is None or key_id in allowed


def find_query(request: Request) -> tuple[str, bool]:
    """Return what is searched for: the last user turn, and whether the one before it was added.

    A follow-up of a few words is searched together with the user's turn before it.
    """
    turns = [turn.content.strip() for turn in history(msgspec.to_builtins(request))
             if turn.role == "user"]  # fmt: skip
    turns = [turn for turn in turns if turn]
    if not turns:
        return "", False
    is_follow_up = len(turns) > 1 and len(turns[-1].split()) <= FOLLOW_UP_WORDS
    text = "\n".join(turns[-2:]) if is_follow_up else turns[-1]
    return text[-MAX_QUERY:], is_follow_up


@dataclass(slots=True)
class Retrieval:
    """One request's retrieval: the plan, then how it went."""

    plan: RetrievalPlan
    query: str = ""
    is_follow_up: bool = False
    rewrite: Rewrite | None = None  # None: not asked for
    asked: str = ""  # what would have been searched for, where `query` is rewritten
    outcome: Outcome = Outcome.FAILED
    hits: list[Hit] = field(default_factory=list)  # those in the prompt, in its order
    result: SearchResult | None = None
    dropped_by_budget: int = 0
    took_ms: float = 0.0
    message: str = ""  # for the log
    marks: Marks = field(default_factory=Marks)  # of the first choice

    def take_rewrite(self, rewrite: Rewrite) -> None:
        """Search for the rewritten question, if there is one."""
        self.rewrite = rewrite
        if rewrite.text:
            self.asked, self.query, self.is_follow_up = self.query, rewrite.text, False

    async def search(self, searcher: Searcher | None, control: ControlTokens) -> None:
        """Ask for passages. A search that fails is an outcome, not an exception."""
        started = time.perf_counter()
        plan = self.plan
        if not self.query:
            self.outcome, self.message = Outcome.EMPTY, "The request has no turn of a user."
            return
        if searcher is None:
            self.message = "No retrieval process is known to this gateway."
            return
        asked = SearchRequest(
            collection=plan.collection,
            query=self.query,
            top_k=plan.top_k,
            min_score=plan.min_score,
            filter=dict(plan.filter),
            mode=plan.mode,
            neighbours=plan.neighbours,
        )
        try:
            async with asyncio.timeout(SEARCH_TIMEOUT_S):
                self.result = result = await searcher.search(asked)
        except TimeoutError:
            self.message = f"The search took longer than {SEARCH_TIMEOUT_S:g} s."
        else:
            self.outcome, self.message = result.outcome, result.message
            if result.outcome is Outcome.FOUND:
                self._take(result.hits, control)
        self.took_ms = (time.perf_counter() - started) * 1000

    def _take(self, hits: Sequence[Hit], control: ControlTokens) -> None:
        """Keep what was asked for, whatever the search returned, without control tokens."""
        plan = self.plan
        own = [
            _neutralise(hit, control)
            for hit in hits
            if hit.collection == plan.collection and hit.score >= plan.min_score
        ]
        # Pieces can make a control token together: such a passage stays out.
        self.hits = [hit for hit in own if control.find(passage_text(hit)) is None][: plan.top_k]
        if not self.hits:
            self.outcome = Outcome.EMPTY

    def refuse_if_wanted(self) -> None:
        """Raise ApiError where the client wants no answer without a search."""
        if self.outcome is Outcome.FORBIDDEN and self.plan.source == "request":
            raise ApiError(
                404,
                f"There is no collection {self.plan.collection!r} to retrieve from.",
                param="rag.collection",
                code="collection_not_found",
            )
        if self.outcome is Outcome.FAILED and self.plan.fails:
            raise ApiError(
                503,
                "The search for passages failed, and rag.on_error asks for no answer then. Try "
                "again, or leave on_error out for an answer without passages.",
                param="rag",
                code="retrieval_failed",
                retry_after_s=1,
            )

    # --- what others are told --------------------------------------------------------------

    def describe(self) -> JsonObject:
        """Return `whet.retrieval` of the response."""
        return {
            "outcome": self.outcome.value,
            "collection": self.plan.collection,
            "digest": self.result.collection_digest if self.result else "",
            "is_stale": bool(self.result and self.result.is_stale),
            "query": self.query,
            **({"rewritten_from": self.asked} if self.asked else {}),
            "passages": len(self.hits),
            "dropped_by_budget": self.dropped_by_budget,
            "message": _SAFE_SENTENCES[self.outcome],
        }

    def whet_field(self, cited: Sequence[int] | None) -> JsonObject:
        """Return the field `whet` of the response; `cited` is None before the answer."""
        return {
            "retrieval": self.describe(),
            "citations": [*describe_citations(self.hits, cited)],
        }

    def logged(self) -> JsonObject:
        """Return the column `retrieval` of the interaction."""
        plan = self.plan
        return {
            **self.describe(),
            "message": self.message,
            "source": plan.source,
            "is_follow_up": self.is_follow_up,
            "top_k": plan.top_k,
            "min_score": plan.min_score,
            "filter": dict(plan.filter),
            "mode": plan.mode.value,
            "neighbours": plan.neighbours,
            "dropped_hits": self.result.dropped if self.result else 0,
            "took_ms": round(self.took_ms, 3),
            "cited": [*self.marks.cited],
            "invalid_marks": self.marks.invalid,
            **self._logged_rewrite(),
        }

    def _logged_rewrite(self) -> JsonObject:
        if self.rewrite is None:
            return {}
        took_ms = round(self.rewrite.took_ms, 3)
        return {"rewrite": {"problem": self.rewrite.problem, "took_ms": took_ms}}


def _neutralise(hit: Hit, control: ControlTokens) -> Hit:
    texts = {name: control.neutralise(getattr(hit, name))
             for name in ("title", "section", "address", "text")}  # fmt: skip
    return msgspec.structs.replace(hit, **texts)


def passage_text(hit: Hit) -> str:
    """Return the passage as it stands in the prompt, without its number."""
    return format_passage(msgspec.structs.asdict(hit))


def with_hits(request: Request, hits: Sequence[Hit], control: ControlTokens) -> Request:
    """Return the request with the passages in its system message."""
    if not hits:
        return request
    passages = [passage_text(hit) for hit in hits]
    if isinstance(request, ChatRequest):  # only the first message changes
        given = {"messages": msgspec.to_builtins(request.messages[:1])}
        rest: list[Any] = list(request.messages[1:])
        found = insert_into_request(given, passages)["messages"]
        found[0]["content"] = control.neutralise(found[0]["content"])
        messages = [*msgspec.convert(found, list[Message]), *rest]
        return msgspec.structs.replace(request, messages=messages)
    found = insert_into_request(msgspec.to_builtins(request), passages)
    if found.get("instructions"):
        found["instructions"] = control.neutralise(found["instructions"])
    return msgspec.convert(found, type(request))
