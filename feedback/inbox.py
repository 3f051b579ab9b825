"""What the review pages and commands show: one item with its conversation, lists with filters,
progress and pace.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, or_, select

from feedback import pace
from feedback.acceptance import LENGTH
from feedback.calls import answer_text, editable_calls
from feedback.claims import QueueFilter, count_for, count_held, was_skipped
from feedback.left_out import count_recent
from feedback.passage_verdicts import count_passage_verdicts
from feedback.selection import DAY_MS, SHARES
from whet.access import same_group
from whet.conversation import Answer, Message, answer_of, history, last_question
from whet.errors import NotFoundError
from whet.json_types import JsonObject
from whet.tables import alerts, examples, interactions, ratings, review_items, reviews

PAGE = 50  # rows of a list at a time
_PACE_WINDOW_MS = 3_600_000  # pace is said per hour, so an hour is looked at
_LIST_TEXTS = ("request", "response", "response_text")  # read for a list, and not shown as they are
_RECENT = 200  # newest decisions from which the usual time per decision is taken


@dataclass(frozen=True, slots=True)
class View:
    """One item, with everything a reviewer needs to judge it."""

    item: dict[str, Any]
    turns: list[Message]
    answered: Answer
    finish_reason: str | None
    retrieved: list[dict[str, Any]]
    retrieval: dict[str, Any] | None  # what was searched and how it ended; None: nothing was
    # ratings: {"rating", "comment", "correction", "labels", "created_at"}
    feedback: list[dict[str, Any]]
    alert: dict[str, Any] | None
    review: dict[str, Any] | None  # the standing decision
    history: list[dict[str, Any]]  # every decision, also undone ones, newest first
    answered_by: str
    created_at: int

    @property
    def question(self) -> str:
        """The last text of a user."""
        asked = (turn.content for turn in reversed(self.turns) if turn.role == "user")
        return next(filter(None, asked), "")

    @property
    def answer(self) -> str:
        return self.answered.text

    @property
    def answer_as_text(self) -> str:
        """The answer with its calls of tools, as a decision keeps it."""
        return answer_text(self.answer, self.answered.tool_calls)

    @property
    def editable_calls(self) -> str:
        """Calls of tools in the answer as JSON for a text field; empty without any."""
        return editable_calls(self.answered.tool_calls)

    @property
    def is_cut(self) -> bool:
        """Whether the answer ended at its token limit."""
        return self.finish_reason == LENGTH

    @property
    def suggestion(self) -> str:
        """What the editor starts with: the application's correction if it posted one, else the
        answer as given.
        """
        return next(
            (str(rating["correction"]) for rating in self.feedback if rating["correction"]),
            self.answer,
        )

    def as_json(self) -> JsonObject:
        return {
            "item_id": self.item["id"], "interaction_id": self.item["interaction_id"], "alias": self.item["alias"], "reason": self.item["reason"],
            "why": self.item["why"], "state": self.item["state"], "sampling_probability": self.item["sampling_probability"],
            "claimed_by": self.item["claimed_by"], "claimed_until": self.item["claimed_until"],
            "messages": [message.as_chat() for message in self.turns], "answer": self.answer,
            "tool_calls": [call.as_chat() for call in self.answered.tool_calls],
            "finish_reason": self.finish_reason,
            "suggestion": self.suggestion, "retrieved": self.retrieved,
            "retrieval": self.retrieval, "feedback": self.feedback, "answered_by": self.answered_by,
            "created_at": self.created_at, "review": self.review,
        }  # fmt: skip


def load(connection: Connection, item_id: str) -> View:
    """Raises NotFoundError for an unknown item, or one whose conversation is gone."""
    item = connection.execute(select(review_items).where(review_items.c.id == item_id)).first()
    if item is None:
        raise NotFoundError(
            f"There is no review item {item_id[:80]!r}.",
            hint="Open the review page for the next one.",
        )
    row = connection.execute(
        select(interactions).where(interactions.c.id == item.interaction_id)
    ).first()
    if row is None:
        raise NotFoundError(
            "The conversation behind this item is gone: its retention ended, or its user was"
            " erased.",
            hint="Open the review page for the next one.",
        )
    posted = connection.execute(
        select(ratings)
        .where(
            ratings.c.interaction_id == row.id,
            same_group(ratings.c.api_key_id, row.api_key_id),
        )
        .order_by(ratings.c.created_at.desc())
    ).all()
    alert = (
        connection.execute(
            select(alerts.c.id, alerts.c.title, alerts.c.state).where(alerts.c.id == item.alert_id)
        ).first()
        if item.alert_id
        else None
    )
    decisions = [
        dict(r._mapping)
        for r in connection.execute(
            select(reviews)
            .where(reviews.c.item_id == item_id)
            .order_by(reviews.c.created_at.desc())
        )
    ]
    return View(
        item=dict(item._mapping),
        turns=history(row.request),
        answered=answer_of(row.request, row.response, row.response_text),
        finish_reason=row.finish_reason,
        retrieved=list(row.retrieved or []),
        retrieval=row.retrieval,
        feedback=[
            {
                key: r._mapping[key]
                for key in ("rating", "comment", "correction", "labels", "created_at")
            }
            for r in posted
        ],
        alert=dict(alert._mapping) if alert else None,
        review=next((decision for decision in decisions if decision["standing"]), None),
        history=decisions,
        answered_by=f"{row.adapter}@v{row.version}" if row.adapter else "base",
        created_at=row.created_at,
    )


def listing(
    connection: Connection,
    *,
    state: str = "waiting",
    reason: str = "",
    alias: str = "",
    alert: str = "",
    passages: str = "",
    reviewer: str = "",
    is_hasty: bool = False,
    assignee: str = "",
    batch: str = "",
    after: str = "",
) -> tuple[list[JsonObject], str]:
    """One page of items in queue order, and the mark with which the next page starts (empty: this
    was the last).
    """
    query: Select[Any] = (
        select(
            review_items, interactions.c.request, interactions.c.response,
            interactions.c.response_text, reviews.c.decision, reviews.c.reviewer,
            reviews.c.passage_verdict,
            reviews.c.id.label("review_id"), reviews.c.created_at.label("decided_at"),
        )
        .join(interactions, interactions.c.id == review_items.c.interaction_id, isouter=True)
        .join(reviews, reviews.c.standing == review_items.c.id, isouter=True)
        .order_by(review_items.c.priority.desc(), review_items.c.id)
        .limit(PAGE + 1)
    )  # fmt: skip
    if state == "skipped":  # by somebody, or taken out because its end user was erased
        skipped = and_(review_items.c.state == "waiting", was_skipped())
        query = query.where(or_(review_items.c.state == "skipped", skipped))
    elif state != "all":
        query = query.where(review_items.c.state == state)
    if is_hasty:
        query = query.where(pace.is_hasty())
    for column, wanted in (
        (review_items.c.reason, reason),
        (review_items.c.alias, alias),
        (review_items.c.alert_id, alert),
        (reviews.c.reviewer, reviewer),
        (review_items.c.assignee, assignee),
        (review_items.c.batch_id, batch),
    ):
        if wanted:
            query = query.where(column == wanted)
    if passages:
        query = query.where(reviews.c.passage_verdict == passages)
    if (mark := _mark(after)) is not None:
        priority, item_id = mark
        query = query.where(
            (review_items.c.priority < priority)
            | ((review_items.c.priority == priority) & (review_items.c.id > item_id))
        )
    rows = connection.execute(query).all()
    more = f"{rows[PAGE - 1].priority}:{rows[PAGE - 1].id}" if len(rows) > PAGE else ""
    skippers = _skippers(connection, [row.id for row in rows[:PAGE]])
    found: list[JsonObject] = [
        {**_list_row(row), "skipped_by": [*skippers.get(row.id, [])]} for row in rows[:PAGE]
    ]
    return found, more


def bulk_rows(connection: Connection, bulk_id: str) -> list[dict[str, Any]]:
    """Return the decisions that were made in one go, with their questions. Raises NotFoundError."""
    query = (
        select(
            reviews.c.item_id, reviews.c.decision, reviews.c.reviewer, reviews.c.created_at,
            reviews.c.undone_at, interactions.c.request,
        )
        .join(interactions, interactions.c.id == reviews.c.interaction_id, isouter=True)
        .where(reviews.c.bulk_id == bulk_id)
        .order_by(reviews.c.id)
    )  # fmt: skip
    rows = connection.execute(query).all()
    if not rows:
        raise NotFoundError(
            "Nothing was decided in that go.",
            hint="Every item may have been refused: see the List.",
        )
    return [{**row._mapping, "question": last_question(row.request)} for row in rows]


def _skippers(connection: Connection, item_ids: list[str]) -> dict[str, list[str]]:
    query = select(reviews.c.item_id, reviews.c.reviewer).where(
        reviews.c.item_id.in_(item_ids),
        reviews.c.decision == "skip",
        reviews.c.undone_at.is_(None),
    )
    found: dict[str, list[str]] = {}
    for row in connection.execute(query.order_by(reviews.c.created_at)):
        found.setdefault(row.item_id, []).append(row.reviewer)
    return found


def _mark(after: str) -> tuple[float, str] | None:
    priority, _, item_id = after.partition(":")
    try:
        return (float(priority), item_id) if item_id else None
    except ValueError:
        return None  # an address somebody shortened shows the first page


def _list_row(row: Row[*tuple[Any, ...]]) -> JsonObject:
    answered = answer_of(row.request, row.response, row.response_text)
    calls = ", ".join(f"calls {call.name}" for call in answered.tool_calls)
    return {
        "question": last_question(row.request), "answer": answered.text or calls,
        **{name: value for name, value in row._mapping.items() if name not in _LIST_TEXTS},
    }  # fmt: skip


def choices(connection: Connection) -> dict[str, list[str]]:
    """Aliases that occur, and all reasons: the choices of the filters."""
    return {
        "aliases": [
            str(a)
            for a in connection.execute(
                select(review_items.c.alias).distinct().order_by(review_items.c.alias)
            ).scalars()
        ],
        "reasons": [*SHARES, "request"],
    }


def stats(
    connection: Connection,
    *,
    reviewer: str,
    now: int,
    alias: str | None = None,
    wanted: QueueFilter | None = None,
) -> JsonObject:
    """Progress and pace: what waits, what was decided today and in the last hour, by whom it does
    not matter, and my share.

    `wanted`: what the reviewer filters by; `waiting_for_me` counts what it offers them.
    """
    wanted = wanted or QueueFilter(alias or "")
    midnight = now - now % DAY_MS
    items = select(
        review_items.c.reason,
        func.count().label("n"),
        func.min(review_items.c.created_at).label("oldest"),
    )
    items = items.where(review_items.c.state == "waiting").group_by(review_items.c.reason)
    decided = select(reviews.c.decision, reviews.c.reviewer, func.count().label("n")).where(
        _counts(), reviews.c.created_at >= midnight
    )
    decided = decided.group_by(reviews.c.decision, reviews.c.reviewer)
    standing = select(func.count()).select_from(examples).where(examples.c.withdrawn_at.is_(None))
    if alias:
        items = items.where(review_items.c.alias == alias)
        decided = decided.join(review_items, review_items.c.id == reviews.c.item_id).where(
            review_items.c.alias == alias
        )
        standing = standing.where(examples.c.alias == alias)
    waiting = connection.execute(items).all()
    today = connection.execute(decided).all()
    mine = (
        select(func.count())
        .select_from(reviews)
        .where(
            _counts(),
            reviews.c.reviewer == reviewer,
            reviews.c.created_at >= now - _PACE_WINDOW_MS,
        )
    )
    return {
        "waiting": sum(row.n for row in waiting),
        "waiting_by_reason": {row.reason: row.n for row in waiting},
        "waiting_for_me": count_for(connection, reviewer, now, wanted),
        "held": count_held(connection, now, alias),
        "oldest_waiting_ms": now - min(row.oldest for row in waiting) if waiting else None,
        "decided_today": sum(row.n for row in today),
        "decided_today_by_me": sum(row.n for row in today if row.reviewer == reviewer),
        "decided_today_by_decision": {
            kind: sum(row.n for row in today if row.decision == kind)
            for kind in ("approve", "edit", "reject", "skip")
        },
        "my_decisions_last_hour": connection.execute(mine).scalar_one(),
        "median_seconds": _median_seconds(connection, reviewer),
        "hasty_in_a_row": _hasty_in_a_row(connection, reviewer),
        "passage_verdicts": count_passage_verdicts(connection, alias),
        "left_out": [
            asdict(each) for each in count_recent(connection, since=now - DAY_MS, alias=alias)
        ],
        "examples": connection.execute(standing).scalar_one(),
    }


def _counts() -> Any:
    """Whether a decision counts: it stands, or it is a skip, which stands for its reviewer."""
    skip = and_(reviews.c.decision == "skip", reviews.c.undone_at.is_(None))
    return or_(reviews.c.standing.is_not(None), skip)


def _hasty_in_a_row(connection: Connection, reviewer: str) -> int:
    query = (
        select(reviews.c.seconds, func.coalesce(func.length(interactions.c.response_text), 0))
        .join(interactions, interactions.c.id == reviews.c.interaction_id)
        .where(reviews.c.reviewer == reviewer, reviews.c.standing.is_not(None))
        .order_by(reviews.c.created_at.desc(), reviews.c.id.desc())
        .limit(pace.ASK_AFTER)
    )
    return pace.count_hasty([(row[0], row[1]) for row in connection.execute(query)])


def _median_seconds(connection: Connection, reviewer: str) -> float | None:
    query = (
        select(reviews.c.seconds)
        .where(reviews.c.reviewer == reviewer, reviews.c.seconds.is_not(None))
        .order_by(reviews.c.created_at.desc())
        .limit(_RECENT)
    )
    seconds = sorted(connection.execute(query).scalars())
    return round(seconds[len(seconds) // 2], 1) if seconds else None


def item_of_review(connection: Connection, review_id: str) -> str | None:
    return connection.execute(select(reviews.c.item_id).where(reviews.c.id == review_id)).scalar()
