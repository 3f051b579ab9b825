"""One logged interaction as monitoring sees it: plain values and two texts, small enough to hold thousands in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from whet.conversation import answer_of, last_question

_TEXT_EDGE = 1000  # characters kept at each end of a text: what a question asks stands at its edges, and memory stays bounded


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
    retrieval_score: float | None = None  # of the best passage
    rating: int | None = None  # -1 | 0 | 1, the latest one
    adapter: str = "base"  # `name@vN` that answered
    application: str = ""  # id of the API key that asked

    @property
    def group(self) -> str:
        """Rows of one user resemble each other; a row without a user stands for itself."""
        return f"user:{self.end_user}" if self.end_user else f"row:{self.id}"


def row_from_record(record: Mapping[str, Any], rating: int | None = None) -> Row:
    """Reduce an `interactions` record to a Row. Odd shapes become empty texts: monitoring must survive what clients send."""
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
        retrieval_score=_best_score(record["retrieved"]),
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


def _best_score(retrieved: Any) -> float | None:
    if not isinstance(retrieved, list):
        return None
    scores = [item["score"] for item in retrieved if isinstance(item, dict) and isinstance(item.get("score"), int | float)]
    return max(scores, default=None)
