"""One logged interaction as monitoring sees it: plain values and two texts, small enough to hold
thousands in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from whet.conversation import answer_of, last_question
from whet.text_overlap import overlap_share

# Characters kept at each end of a text: what a question asks stands at its edges, and memory stays
# bounded
_TEXT_EDGE = 1000


@dataclass(frozen=True, slots=True)
class RowRetrieval:
    """What the search of one request came to. Scores are 0 to 1, comparable within one embedder."""

    outcome: str  # found | empty | failed | forbidden
    collection: str = ""
    digest: str = ""  # of the collection's documents, as they were searched
    best_score: float | None = None
    score_gap: float | None = None  # between the two best
    took_ms: float | None = None
    support: float | None = None  # share of the answer that the passages support


@dataclass(frozen=True, slots=True)
class Row:
    """One answered request. `None` means "not known", never zero."""

    id: str
    created_at: int  # ms
    end_user: str | None
    question: str  # the last thing the user said
    answer: str
    status: str  # complete | cut
    stream: bool = False
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    ttft_ms: float | None = None
    duration_ms: float | None = None
    wants_json: bool = False  # the application asked for a JSON answer
    calls_tools: bool = False
    retrieval: RowRetrieval | None = None  # None: nothing was searched
    rating: int | None = None  # -1 | 0 | 1, the latest one
    adapter: str = "base"  # `name@vN` that answered
    application: str = ""  # id of the API key that asked

    @property
    def group(self) -> str:
        """Rows of one user resemble each other; a row without a user stands for itself."""
        return f"user:{self.end_user}" if self.end_user else f"row:{self.id}"


def row_from_record(record: Mapping[str, Any], rating: int | None = None) -> Row:
    """Reduce an `interactions` record to a Row.

    Odd shapes become empty texts: monitoring must survive what clients send.
    """
    request = record["request"] if isinstance(record["request"], dict) else {}
    answer = answer_of(request, record["response"], record["response_text"])
    return Row(
        id=record["id"],
        created_at=record["created_at"],
        end_user=record["end_user"] or None,
        question=shorten(last_question(request)),
        answer=shorten(answer.text),
        status=record["status"],
        stream=bool(record["stream"]),
        finish_reason=record["finish_reason"],
        prompt_tokens=record["prompt_tokens"],
        completion_tokens=record["completion_tokens"],
        ttft_ms=record["ttft_ms"],
        duration_ms=record["duration_ms"],
        wants_json=_wants_json(request),
        calls_tools=bool(answer.tool_calls),
        retrieval=retrieval_from_record(record.get("retrieval"), record["retrieved"], answer.text),
        rating=rating,
        adapter=f"{record['adapter']}@v{record['version']}" if record["adapter"] else "base",
        application=record["api_key_id"] or "",
    )


def shorten(text: str) -> str:
    """At most two edges of a text."""
    return text if len(text) <= 2 * _TEXT_EDGE else f"{text[:_TEXT_EDGE]}\n{text[-_TEXT_EDGE:]}"


def _wants_json(request: Mapping[str, Any]) -> bool:
    wanted = request.get("response_format")
    return isinstance(wanted, dict) and wanted.get("type") in ("json_object", "json_schema")


def retrieval_from_record(facts: Any, retrieved: Any, answer: str = "") -> RowRetrieval | None:
    """Reduce the columns `retrieval` and `retrieved` of an interaction; None: nothing searched."""
    known = facts if isinstance(facts, dict) else {}
    given = retrieved if isinstance(retrieved, list) else []
    hits = [one for one in given if isinstance(one, dict)]
    if not known and not hits:
        return None
    scores = sorted((one["score"] for one in hits if _is_number(one.get("score"))), reverse=True)
    took_ms = known.get("took_ms")
    return RowRetrieval(
        outcome=str(known.get("outcome") or "found"),
        collection=str(known.get("collection") or (hits or [{}])[0].get("collection") or ""),
        digest=str(known.get("digest") or ""),
        best_score=scores[0] if scores else None,
        score_gap=scores[0] - scores[1] if len(scores) > 1 else None,
        took_ms=float(took_ms) if _is_number(took_ms) else None,
        support=overlap_share(answer, [str(one.get("text") or "") for one in hits]),
    )


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
