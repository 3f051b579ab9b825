"""Decisions of the review queue: what was said of an item, once. Races settle in the database.

A decision stands alone per item (`reviews.standing` is unique); undoing frees it again. An approved
or edited answer becomes an example at the same moment. A skip stands for its reviewer alone: the
item waits for the others (`feedback.claims`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from feedback import acceptance, calls, claims, conversations
from feedback.passage_verdicts import settle_passage_ids, without_wrong
from whet.auditlog import record
from whet.control_tokens import ControlTokens
from whet.conversation import Answer, answer_of, history, request_tools
from whet.database import reading, writing
from whet.errors import ConflictError, InputError, NotFoundError
from whet.ids import new_id
from whet.json_types import Json
from whet.store import digest_json
from whet.tables import datasets, examples, interactions, review_items, reviews

DECISIONS = ("approve", "edit", "reject", "skip")
# Beside an edited row: the answer it replaces, kept because the conversation itself is deleted one
# day. Not part of the training row.
REPLACED = "replaced"
_MAX_ANSWER = 100_000  # characters; longer than any context window that is served here
_MAX_NOTE = 4000
_MAX_LABELS = 20
_MAX_LABEL = 64
_NO_CONTROL_TOKENS = ControlTokens(())


@dataclass(frozen=True, slots=True)
class Decision:
    """What a reviewer says about one item."""

    decision: str
    answer: str | None = None  # required for `edit`, unless there are calls of tools
    labels: Sequence[str] = ()
    note: str = ""
    seconds: float | None = None  # spent on it
    # Strings that every right answer to this question contains; kept in the example
    checks: Sequence[str] = ()
    # Calls of tools of an edited answer (`feedback.calls`); None: it makes none. Of an approved one
    # they need not be repeated.
    tool_calls: Sequence[Any] | None = None
    accept_cut: bool = False  # approve although the answer ended at its token limit
    accept_labels: bool = False  # approve although a label says what is wrong with the answer
    passage_verdict: str = ""  # feedback.passage_verdicts; empty: nothing is said of the passages
    passage_ids: Sequence[str] = ()  # which of them
    bulk_id: str | None = None  # shared by decisions that are made in one go


@dataclass(frozen=True, slots=True)
class Outcome:
    review_id: str
    item_id: str
    decision: str
    example_id: str | None


def decide(
    database: Engine,
    item_id: str,
    reviewer: str,
    said: Decision,
    *,
    now: int,
    control: ControlTokens = _NO_CONTROL_TOKENS,
) -> Outcome:
    """Record a decision, once. The same decision sent twice by the same reviewer is one decision.

    `control` finds the base model's control tokens: no example may hold one.
    Raises InputError (what is said does not fit), CutAnswerError (an answer that ended at its
    token limit, without `accept_cut`), NotFoundError, or ConflictError when somebody else holds
    the item or has decided it. Nothing is written then.
    """
    _check(said)
    try:
        with writing(database) as connection:
            item = _load(connection, item_id)
            standing = connection.execute(
                select(reviews).where(reviews.c.standing == item_id)
            ).first()
            if standing is not None:
                return _repeated(connection, item, standing, reviewer, said)
            if item.claimed_by not in (None, reviewer) and item.claimed_until > now:
                raise ConflictError(
                    f"{item.claimed_by} is looking at this conversation now.",
                    hint="Take the next one; your text has not been stored.",
                )
            if said.decision == "skip":
                return _skip(connection, item, reviewer, said, now)
            return _record_decision(connection, item, reviewer, said, now, control)
    except IntegrityError as error:  # PostgreSQL: another transaction committed its decision first
        raise ConflictError(
            "Somebody else decided this conversation at the same moment.",
            hint="Take the next one; your text has not been stored.",
        ) from error


def _check(said: Decision) -> None:
    if said.decision not in DECISIONS:
        raise InputError(f"Decision {said.decision!r} is not one of {', '.join(DECISIONS)}.")
    if said.decision == "edit" and not (said.answer or "").strip() and not said.tool_calls:
        raise InputError(
            "An edit needs the right answer; the text is empty.",
            hint="Write the answer, or reject the conversation.",
        )
    if len(said.answer or "") > _MAX_ANSWER:
        raise InputError(
            f"The answer has {len(said.answer or '')} characters; expected at most {_MAX_ANSWER}."
        )
    called = json.dumps(list(said.tool_calls or ()), ensure_ascii=False)
    if len(called) > _MAX_ANSWER:
        raise InputError(
            f"The calls of tools have {len(called)} characters; expected at most {_MAX_ANSWER}."
        )
    if len(said.note) > _MAX_NOTE:
        raise InputError(f"The note has {len(said.note)} characters; expected at most {_MAX_NOTE}.")
    if any(
        _unstorable(text)
        for text in (said.answer or "", called, said.note, *said.labels, *said.checks)
    ):
        raise InputError(
            "A text contains a character that cannot be stored: NUL, or half of a surrogate pair.",
            hint="Remove it and send the decision again.",
        )
    for what, values in (("label", said.labels), ("check", said.checks)):
        if len(values) > _MAX_LABELS or any(
            not isinstance(value, str) or not value.strip() or len(value) > _MAX_LABEL * 4
            for value in values
        ):
            raise InputError(
                f"Expected at most {_MAX_LABELS} {what}s, each a text of 1 to"
                f" {_MAX_LABEL * 4} characters."
            )


def _unstorable(text: str) -> bool:
    return isinstance(text, str) and (
        "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text)
    )


def _load(connection: Connection, item_id: str) -> Row[*tuple[Any, ...]]:
    columns = (
        review_items, interactions.c.request, interactions.c.response, interactions.c.response_text,
        interactions.c.finish_reason, interactions.c.retrieved, interactions.c.retrieval,
        interactions.c.end_user, interactions.c.status,
    )  # fmt: skip
    query = (
        select(*columns)
        .join(interactions, interactions.c.id == review_items.c.interaction_id, isouter=True)
        .where(review_items.c.id == item_id)
    )
    row = connection.execute(query).first()
    if row is None:
        raise NotFoundError(
            f"There is no review item {item_id[:80]!r}.", hint="`whet review next` gives one."
        )
    if row.status is None:
        raise NotFoundError(
            "The conversation behind this item is gone (its retention ended, or its user was"
            " erased).",
            hint="Take the next one.",
        )
    return row


def _repeated(
    connection: Connection,
    item: Row[*tuple[Any, ...]],
    standing: Row[*tuple[Any, ...]],
    reviewer: str,
    said: Decision,
) -> Outcome:
    same = standing.reviewer == reviewer and standing.decision in _equivalents(said.decision)
    if same and said.decision == "edit":
        edited = calls.settled_calls(said.tool_calls, _original(item).tool_calls)
        same = standing.answer == calls.answer_text(said.answer or "", edited)
    if not same:
        raise ConflictError(
            f"{standing.reviewer} decided this conversation already: {standing.decision}.",
            hint="Take the next one; your text has not been stored.",
        )
    example_id = connection.execute(
        select(examples.c.id).where(examples.c.review_id == standing.id)
    ).scalar()
    return Outcome(standing.id, standing.item_id, standing.decision, example_id)


def _equivalents(decision: str) -> tuple[str, ...]:
    return ("edit", "approve") if decision == "edit" else (decision,)


def _record_decision(
    connection: Connection,
    item: Row[*tuple[Any, ...]],
    reviewer: str,
    said: Decision,
    now: int,
    control: ControlTokens,
) -> Outcome:
    decision, answer = _settle(item, said)
    passage_ids = settle_passage_ids(
        said.passage_verdict, said.passage_ids, item.retrieved, item.retrieval
    )
    review_id = _insert_review(
        connection, item, reviewer, said, now, decision=decision, standing=item.id,
        answer=calls.answer_text(answer.text, answer.tool_calls) if answer else None,
        passage_verdict=said.passage_verdict or None, passage_ids=passage_ids or None,
    )  # fmt: skip
    connection.execute(
        update(review_items)
        .where(review_items.c.id == item.id)
        .values(state="done", claimed_by=None, claimed_until=None)
    )
    example_id = None
    if answer is not None:
        example_id = _make_example(
            connection, item, review_id, decision, answer, said.checks, now, control,
            without_wrong(item.retrieved, said.passage_verdict, passage_ids),
        )  # fmt: skip
    return Outcome(review_id, item.id, decision, example_id)


def _insert_review(
    connection: Connection,
    item: Row[*tuple[Any, ...]],
    reviewer: str,
    said: Decision,
    now: int,
    **settled: Any,
) -> str:
    review_id = new_id("rev", at=now)
    connection.execute(
        insert(reviews).values(
            id=review_id, item_id=item.id, interaction_id=item.interaction_id, reviewer=reviewer,
            labels=[label.strip() for label in said.labels], note=said.note.strip() or None,
            seconds=None if said.seconds is None else max(0.0, min(float(said.seconds), 86_400.0)),
            bulk_id=said.bulk_id, created_at=now, **settled,
        )
    )  # fmt: skip
    return review_id


def _skip(
    connection: Connection, item: Row[*tuple[Any, ...]], reviewer: str, said: Decision, now: int
) -> Outcome:
    """Leave the item to the other reviewers: it goes on waiting, and nobody holds it."""
    review_id = connection.execute(
        select(reviews.c.id).where(
            reviews.c.item_id == item.id,
            reviews.c.reviewer == reviewer,
            reviews.c.decision == "skip",
            reviews.c.undone_at.is_(None),
        )
    ).scalar()
    if review_id is None:
        review_id = _insert_review(
            connection, item, reviewer, said, now, decision="skip", standing=None
        )
    connection.execute(
        update(review_items)
        # Somebody else may have claimed it since it was read
        .where(review_items.c.id == item.id, review_items.c.claimed_by == reviewer)
        .values(claimed_by=None, claimed_until=None)
    )
    return Outcome(review_id, item.id, "skip", None)


def _settle(item: Row[*tuple[Any, ...]], said: Decision) -> tuple[str, Answer | None]:
    """The decision as it will stand, and the right answer if there is one."""
    if said.decision not in ("approve", "edit"):
        return said.decision, None
    original = _original(item)
    given = (
        original.tool_calls
        if said.decision == "approve" and said.tool_calls is None
        else calls.settled_calls(said.tool_calls, original.tool_calls)
    )
    changed = given != original.tool_calls
    if said.decision == "approve" and (
        changed or (said.answer is not None and said.answer != original.text)
    ):
        raise InputError(
            "The answer was changed, and approving would throw the change away.",
            hint="Save it as an edit, or restore the original and approve.",
        )
    if said.decision == "edit" and (changed or (said.answer or "") != original.text):
        calls.require_objects(given)
        return "edit", Answer(said.answer or "", given)
    if not original.text.strip() and not original.tool_calls:
        raise InputError(
            "There is nothing to approve: the model answered with nothing.",
            hint="Edit, reject or skip it.",
        )
    calls.require_objects(original.tool_calls)
    acceptance.require_no_error_label(said.labels, accept_labels=said.accept_labels)
    acceptance.require_whole_answer(item.finish_reason, accept_cut=said.accept_cut)
    return "approve", original  # an edit that changes nothing is an approval


def _original(item: Row[*tuple[Any, ...]]) -> Answer:
    return answer_of(item.request, item.response, item.response_text)


def _make_example(
    connection: Connection,
    item: Row[*tuple[Any, ...]],
    review_id: str,
    decision: str,
    answer: Answer,
    checks: Sequence[str],
    now: int,
    control: ControlTokens,
    retrieved: Sequence[Mapping[str, Json]],
) -> str:
    if checks and answer.tool_calls:
        raise InputError(
            "A call of a tool is compared by its name and arguments, not by what it contains.",
            hint="Leave out what every right answer contains.",
        )
    missing = [check for check in checks if not _contains(answer.text, check)]
    if missing:
        raise InputError(
            f"The answer does not contain {missing[0]!r}, which every right answer is said to"
            " contain.",
            hint="Correct the answer or the check.",
        )
    messages = history(item.request)
    roles = (message.role for message in messages)
    strange = next((role for role in roles if role not in conversations.TRAINABLE_ROLES), None)
    if strange is not None or not messages:
        found = f"a turn with the role {strange!r}" if strange is not None else "no question"
        raise InputError(
            f"This conversation has {found}, which no training row can hold.",
            hint="Reject or skip it.",
        )
    passages = conversations.retrieved_texts(retrieved)
    tools = request_tools(item.request)
    acceptance.require_no_control_tokens(
        control, messages=messages, passages=passages, answer=answer.text,
        calls=answer.tool_calls, tools=tools, checks=checks, is_edit=decision == "edit",
    )  # fmt: skip
    example_id = new_id("exm", at=now)
    row = conversations.training_row(
        example_id=example_id, messages=[message.as_chat() for message in messages],
        answer=answer.text, calls=answer.tool_calls, tools=tools, context=passages, checks=checks,
    )  # fmt: skip
    digest = digest_json({key: value for key, value in row.items() if key != "id"})
    if decision == "edit":
        original = _original(item)
        row[REPLACED] = calls.answer_text(original.text, original.tool_calls)
    connection.execute(
        insert(examples).values(
            id=example_id, digest=digest, alias=item.alias, interaction_id=item.interaction_id, review_id=review_id, row=row, source="approved" if decision == "approve" else "edited",
            end_user=item.end_user, created_at=now,
        )
    )  # fmt: skip
    return example_id


def _contains(answer: str, check: str) -> bool:
    """As the scorer compares: without case and surplus space."""
    return " ".join(check.casefold().split()) in " ".join(answer.casefold().split())


def undo(
    database: Engine,
    review_id: str,
    reviewer: str,
    *,
    claim_ms: int,
    now: int,
    may_undo_others: bool = False,
) -> str:
    """Take a decision back: the item waits again, claimed by `reviewer`, and its example is
    withdrawn.

    A dataset version that contains the example already stays as it is; the next one leaves it out.
    Returns a sentence.
    """
    with writing(database) as connection:
        review = connection.execute(
            select(reviews).where(reviews.c.id == review_id).with_for_update()
        ).first()
        if review is None:
            raise NotFoundError(f"There is no review {review_id[:80]!r}.")
        if review.reviewer != reviewer and not may_undo_others:
            raise ConflictError(
                f"This decision is {review.reviewer}'s; only they or an operator can undo it."
            )
        if review.undone_at is not None:
            raise ConflictError("This decision was undone already.")
        connection.execute(
            update(reviews).where(reviews.c.id == review_id).values(undone_at=now, standing=None)
        )
        if review.standing is not None:
            connection.execute(
                update(review_items)
                .where(review_items.c.id == review.item_id)
                .values(state="waiting", claimed_by=reviewer, claimed_until=now + claim_ms)
            )
            is_yours = True
        else:  # a skip left the item to the others, who may have taken it
            until = claims.claim_in(
                connection, review.item_id, reviewer, claim_ms=claim_ms, now=now
            )
            is_yours = until is not None
        example = connection.execute(
            select(examples.c.id, examples.c.alias).where(examples.c.review_id == review_id)
        ).first()
        held_by = _datasets_with(connection, example) if example else []
        if example:
            connection.execute(
                update(examples)
                .where(examples.c.id == example.id, examples.c.withdrawn_at.is_(None))
                .values(withdrawn_at=now)
            )
        record(
            connection,
            actor=reviewer,
            action="review.undo",
            subject=review_id,
            detail={"item": review.item_id, "datasets": held_by},
            now=now,
        )
    if held_by:
        return (
            f"Undone. {', '.join(held_by)} contains the example and stays as it is; the next"
            " version leaves it out."
        )
    if not is_yours:
        return "Undone. Somebody else holds or decided the conversation meanwhile."
    return "Undone. The conversation is yours again."


def _datasets_with(connection: Connection, example: Row[*tuple[Any, ...]]) -> list[str]:
    query = select(datasets.c.name, datasets.c.version, datasets.c.example_ids).where(
        datasets.c.name == example.alias
    )
    return [
        f"{row.name}@{row.version}"
        for row in connection.execute(query)
        if example.id in row.example_ids
    ]


def last_decision(database: Engine, reviewer: str) -> str | None:
    """Id of the reviewer's newest decision that was not undone: what `u` undoes."""
    query = (
        select(reviews.c.id)
        .where(reviews.c.reviewer == reviewer, reviews.c.undone_at.is_(None))
        .order_by(reviews.c.created_at.desc(), reviews.c.id.desc())
        .limit(1)
    )
    with reading(database) as connection:
        return connection.execute(query).scalar()
