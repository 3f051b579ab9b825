"""The passages of one answer, for its page: how the search ended, and what the answer shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.retrieval.records import Outcome
from whet.text_overlap import Piece, find_overlap
from whet.web.filters import clip, percent, plural

_KINDS = {
    Outcome.FOUND: "good",
    Outcome.EMPTY: "attention",
    Outcome.FAILED: "bad",
    Outcome.FORBIDDEN: "attention",
}


@dataclass(frozen=True)
class PassageView:
    """A passage of the prompt. `share`: of the answer's words that stand in it too."""

    number: int
    hit: Mapping[str, Any]  # serving.retrieval.records.Hit, as logged
    pieces: list[Piece]
    share: float
    is_cited: bool


@dataclass(frozen=True)
class RetrievalView:
    """How the search of one request ended."""

    outcome: str
    kind: str  # of the badge
    sentence: str
    details: str
    overlap_sentence: str
    answer: list[Piece]
    passages: list[PassageView]


def describe_retrieval(
    retrieval: Mapping[str, Any] | None, retrieved: Sequence[Mapping[str, Any]] | None, answer: str
) -> RetrievalView | None:
    """Return what a conversation's page shows of retrieval; None: nothing was searched."""
    if not retrieval and not retrieved:
        return None
    logged, hits = retrieval or {}, list(retrieved or [])
    found = find_overlap(answer, [str(hit.get("text") or "") for hit in hits])
    cited = set(logged.get("cited") or [])
    outcome = Outcome(logged.get("outcome", Outcome.FOUND.value))
    return RetrievalView(
        outcome=outcome.value,
        kind=_KINDS[outcome],
        sentence=_outcome_sentence(outcome, logged, len(hits)),
        details=_details(logged),
        overlap_sentence=_overlap_sentence(found.share, found.shares),
        answer=found.answer if hits else [],
        passages=[
            PassageView(number, hit, pieces, share, number in cited)
            for number, (hit, pieces, share) in enumerate(
                zip(hits, found.passages, found.shares, strict=True), start=1
            )
        ],
    )


def _outcome_sentence(outcome: Outcome, logged: Mapping[str, Any], passages: int) -> str:
    collection = f"`{logged['collection']}`" if logged.get("collection") else "the collection"
    message = str(logged.get("message") or "").rstrip(".")
    return {
        Outcome.FOUND: f"{plural(passages, 'passage')} of {collection} stood in the prompt.",
        Outcome.EMPTY: f"Nothing in {collection} fits the question; "
        "the model was asked without passages.",
        Outcome.FAILED: f"The search of {collection} failed{': ' + message if message else ''}. "
        "The model was asked without passages.",
        Outcome.FORBIDDEN: f"For this key there is no collection {collection}; "
        "the model was asked without passages.",
    }[outcome]


def _details(logged: Mapping[str, Any]) -> str:
    """Say what was searched for, and what was left out."""
    parts = []
    if logged.get("query"):
        parts.append(f"Searched for “{clip(logged['query'], 200)}”")
    if logged.get("rewritten_from"):
        parts.append(f"rewritten from “{clip(logged['rewritten_from'], 200)}”")
    elif (logged.get("rewrite") or {}).get("problem"):
        parts.append(f"as it stands, since it was not rewritten: {logged['rewrite']['problem']}")
    if logged.get("is_follow_up"):
        parts.append("with the turn before it")
    if logged.get("source") == "default":
        parts.append("by the model's default")
    if logged.get("dropped_by_budget"):
        parts.append(f"{plural(logged['dropped_by_budget'], 'passage')} left out for want of room")
    if logged.get("invalid_marks"):
        marks = plural(logged["invalid_marks"], "mark")
        parts.append(f"{marks} in the answer name no passage")
    if logged.get("is_stale"):
        parts.append("by an index that was older than the documents")
    return ", ".join(parts) + "." if parts else ""


def _overlap_sentence(share: float | None, shares: Sequence[float]) -> str:
    if share is None or not shares:
        return ""
    if not share:
        return "Nothing of the answer stands in them word for word."
    own = ", ".join(
        f"[{number}] {percent(one)}" for number, one in enumerate(shares, start=1) if one
    )
    return f"{percent(share)} of the answer's words stand in them too: {own}."
