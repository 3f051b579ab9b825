"""Planted faults and negative controls as cases of the matrix, with what has to be named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.blame.worlds import Fact, World
from serving.blame.records import Case, Fault, Review, Trace, Who
from serving.retrieval.records import Hit

# What a control may be called: no fault, or cannot tell.
_CONTROL = frozenset({Fault.NONE, Fault.UNKNOWN})
# Which of the matrix's faults names a planted one.
EXPECTED: dict[str, frozenset[Fault]] = {
    "document missing": frozenset({Fault.DOCUMENT}),
    "below the cut": frozenset({Fault.INDEX}),
    "ignored": frozenset({Fault.PROMPT}),
    "contradicted by the adapter": frozenset({Fault.ADAPTER}),
    "skill forgotten": frozenset({Fault.ADAPTER}),
    "base's limits": frozenset({Fault.BASE}),
    "right answer": _CONTROL,
    "wrong review": _CONTROL,
}
FAULTS = tuple(EXPECTED)[:6]
CONTROLS = tuple(EXPECTED)[6:]
# The matrix tells the two faults of an adapter apart by their detail.
DETAILS = {"contradicted by the adapter": "contradicts", "skill forgotten": "forgot_skill"}


@dataclass(frozen=True)
class Planted:
    """One case: what was planted, and where it came from."""

    kind: str
    case: Case


def request_of(question: str) -> dict[str, Any]:
    """Return a greedy request of the chat route."""
    return {
        "model": "support",
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": 40,
    }


def build_case(
    number: int,
    *,
    question: str,
    logged: str,
    review: Review,
    passages: tuple[Hit, ...],
    then: str,
    base: str = "base",
    top_k: int = 4,
    outcome: str = "found",
    min_score: float = 0.0,
    given_filter: dict[str, Any] | None = None,
    created_at: int = 1 << 60,
) -> Case:
    """Return a case as the log and the review would give it."""
    trace = Trace(
        collection="shop", outcome=outcome, query=question, top_k=top_k, min_score=min_score,
        filter=given_filter or {},
    )  # fmt: skip
    return Case(
        interaction_id=f"int_{number:04d}", alias="support", route="chat",
        request=request_of(question), question=question, logged=logged, created_at=created_at,
        is_complete=True, review=review, trace=trace, passages=passages,
        versions={Who.BASE: base, Who.THEN: then, Who.NOW: then}, then_label=then,
    )  # fmt: skip


def correction(world: World, fact: Fact, value: str = "") -> Review:
    """Return a reviewer's answer with the fact's value, or with another one."""
    return Review(id="rev", decision="edit", answer=world.answer(fact, value), reviewer="anna")


def approval(answer: str) -> Review:
    return Review(id="rev", decision="approve", answer=answer, reviewer="anna")
