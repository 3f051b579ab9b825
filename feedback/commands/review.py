"""`whet review`: claim, count and decide what waits for a person."""

from __future__ import annotations

import sys
from dataclasses import asdict

from feedback import claims, inbox, queue
from feedback.calls import read_calls
from whet.cli import actor, emit, opened
from whet.clock import now_ms
from whet.control_tokens import load_control_tokens
from whet.database import reading
from whet.registry import alias_filter


def claim_next(*, alias: str, reason: str, as_json: bool) -> None:
    """Claim the next conversation and print it. Exit code 0 also when the queue is empty."""
    with opened() as context:
        with reading(context.database) as connection:
            alias_filter(connection, alias)
        claim_ms = int(context.settings.review_claim_s * 1000)
        item_id = claims.next_item(
            context.database,
            actor(),
            claim_ms=claim_ms,
            now=now_ms(),
            wanted=claims.QueueFilter(alias, reason),
        )
        if item_id is None:
            emit({"item": None} if as_json else {"queue": "Nothing waits for review."}, as_json)
            return
        with reading(context.database) as connection:
            view = inbox.load(connection, item_id)
        emit(view.as_json(), as_json)


def show_stats(*, alias: str, as_json: bool) -> None:
    """What waits, what was decided today, and how fast."""
    with opened() as context, reading(context.database) as connection:
        alias_filter(connection, alias)
        emit(inbox.stats(connection, reviewer=actor(), now=now_ms(), alias=alias or None), as_json)


def decide(
    *,
    item_id: str,
    decision: str,
    answer: str,
    label: list[str] | None,
    tool_calls: str,
    note: str,
    accept_cut: bool,
    accept_labels: bool,
    passage_verdict: str,
    passage: list[str] | None,
    as_json: bool,
) -> None:
    """Record a decision."""
    text = sys.stdin.read().rstrip("\n") if answer == "-" else answer
    with opened() as context:
        called = read_calls(tool_calls) if tool_calls else None
        said = queue.Decision(
            decision, text or None, label or [], note, tool_calls=called, accept_cut=accept_cut,
            accept_labels=accept_labels, passage_verdict=passage_verdict, passage_ids=passage or [],
        )  # fmt: skip
        outcome = queue.decide(
            context.database, item_id, actor(), said, now=now_ms(),
            control=load_control_tokens(context),
        )  # fmt: skip
        emit(asdict(outcome), as_json)
