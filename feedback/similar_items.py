"""What else was asked like one item: decided conversations to go by, waiting ones to decide alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, select

from feedback.similar import NEAR, normalise, question_key, shingles
from whet.conversation import answer_of, last_question
from whet.tables import interactions, review_items, reviews

_DECIDED, _WAITING = 500, 1000  # newest ones that are looked at: bounded, some 50 ms
_MOST_DECIDED, _MOST_WAITING = 5, 100
_LIKE = (
    0.5  # share of the words that a decided question must share; the same word alone says little
)


@dataclass(frozen=True, slots=True)
class DecidedLike:
    """A decision on a question like the item's. `likeness`: shared words / all words."""

    item_id: str
    question: str
    answer: str  # the right answer, where there is one
    decision: str
    reviewer: str
    decided_at: int
    likeness: float


@dataclass(frozen=True, slots=True)
class WaitingLike:
    """A waiting item that asks nearly the same, up to a word in ten."""

    item_id: str
    question: str
    answer: str
    is_same_answer: bool
    held_by: str | None


@dataclass(frozen=True, slots=True)
class SimilarItems:
    decided: list[DecidedLike]
    waiting: list[WaitingLike]


def find_similar(
    connection: Connection, item: Mapping[str, Any], question: str, answer: str, now: int
) -> SimilarItems:
    """Look for questions of the item's alias like its own, among the newest."""
    return SimilarItems(
        _decided_like(connection, item, question),
        _waiting_like(connection, item, question, answer, now),
    )


def likeness(first: str, second: str) -> float:
    """Shared words / all words of two texts, from 0 to 1."""
    one, other = set(normalise(first).split()), set(normalise(second).split())
    return len(one & other) / len(one | other) if one | other else 0.0


def is_nearly_same(first: str, second: str) -> bool:
    """Whether two questions fall into one group of near-duplicates (`feedback.similar`)."""
    if question_key(first) == question_key(second):
        return True
    one, other = shingles(first), shingles(second)
    shared = len(one & other)
    return shared >= NEAR * (len(one) + len(other) - shared)


def _of_alias(alias: str, item_id: str) -> Select[Any]:
    return (
        select(
            review_items.c.id, interactions.c.request, interactions.c.response,
            interactions.c.response_text,
        )
        .join(interactions, interactions.c.id == review_items.c.interaction_id)
        .where(review_items.c.alias == alias, review_items.c.id != item_id)
    )  # fmt: skip


def _decided_like(
    connection: Connection, item: Mapping[str, Any], question: str
) -> list[DecidedLike]:
    query = (
        _of_alias(item["alias"], item["id"])
        .add_columns(reviews.c.decision, reviews.c.reviewer, reviews.c.answer, reviews.c.created_at)
        .join(reviews, reviews.c.standing == review_items.c.id)
        .order_by(reviews.c.created_at.desc())
        .limit(_DECIDED)
    )
    found = []
    for row in connection.execute(query):
        asked = last_question(row.request)
        if (share := likeness(question, asked)) >= _LIKE:
            found.append(
                DecidedLike(
                    row.id, asked, row.answer or "", row.decision, row.reviewer, row.created_at,
                    share,
                )
            )  # fmt: skip
    found.sort(key=lambda one: (-one.likeness, -one.decided_at))
    return found[:_MOST_DECIDED]


def _waiting_like(
    connection: Connection, item: Mapping[str, Any], question: str, answer: str, now: int
) -> list[WaitingLike]:
    query = (
        _of_alias(item["alias"], item["id"])
        .add_columns(review_items.c.claimed_by, review_items.c.claimed_until)
        .where(review_items.c.state == "waiting")
        .order_by(review_items.c.created_at.desc())
        .limit(_WAITING)
    )
    found = []
    for row in connection.execute(query):
        asked = last_question(row.request)
        if is_nearly_same(question, asked):
            said = answer_of(row.request, row.response, row.response_text).text
            is_held = (row.claimed_until or 0) > now
            found.append(
                WaitingLike(
                    row.id, asked, said, normalise(said) == normalise(answer),
                    row.claimed_by if is_held else None,
                )
            )  # fmt: skip
    return found[:_MOST_WAITING]
