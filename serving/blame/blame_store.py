"""Queries of blame: the logged answer with its review, and the verdicts, which serving writes."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, select

from serving.blame.records import Case, PassageVerdict, Report, Review, Trace, Who
from serving.retrieval.records import Hit
from whet.conversation import answer_of, last_question
from whet.errors import NotFoundError
from whet.json_types import JsonObject
from whet.registry import current_rollouts
from whet.tables import adapters, blame_verdicts, interactions, reviews

_TRACE_FIELDS = frozenset(Trace.__struct_fields__)
_HIT_DEFAULTS: dict[str, Any] = {
    "passage_id": "", "document_id": "", "collection": "", "title": "", "address": "",
    "section": "", "text": "", "score": 0.0,
}  # fmt: skip


class StoredVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `blame_verdicts`."""

    interaction_id: str
    alias: str
    review_id: str | None
    fault: str
    detail: str
    reason: str
    report: dict[str, Any]
    actor: str
    created_at: int


def read_case(connection: Connection, interaction_id: str, *, base: str, answer: str = "") -> Case:
    """Return a logged answer with its standing review and the versions that can be asked.

    Args:
        base: the name under which the gateway answers with the base.
        answer: what the answer should have been, in place of a review's.

    Raises NotFoundError.
    """
    row = connection.execute(
        select(interactions).where(interactions.c.id == interaction_id)
    ).first()
    if row is None:
        raise NotFoundError(
            f"There is no interaction {interaction_id[:80]!r}.",
            hint="The response header x-whet-interaction-id names it; the log keeps it for the "
            "retention time.",
        )
    review = Review(answer=answer) if answer else standing_review(connection, interaction_id)
    return Case(
        interaction_id=row.id,
        alias=row.alias or row.adapter or "",
        route=row.route,
        request=row.request,
        question=last_question(row.request),
        logged=answer_of(row.request, row.response, row.response_text).text,
        created_at=row.created_at,
        is_complete=row.status == "complete",
        review=review,
        trace=_trace(row.retrieval),
        passages=tuple(_hit(each) for each in row.retrieved or ()),
        versions=_versions(connection, row, base),
        then_label=f"{row.adapter}@v{row.version}" if row.adapter else base,
    )


def standing_review(connection: Connection, interaction_id: str) -> Review | None:
    """Return the review of an answer that stands; a rejection says nothing of what is right."""
    query = select(reviews).where(
        reviews.c.interaction_id == interaction_id,
        reviews.c.undone_at.is_(None),
        reviews.c.decision.in_(("approve", "edit")),
    )
    row = connection.execute(query.order_by(reviews.c.created_at.desc())).first()
    if row is None:
        return None
    return Review(
        id=row.id, decision=row.decision, answer=row.answer or "", reviewer=row.reviewer,
        passage_verdict=PassageVerdict(row.passage_verdict) if row.passage_verdict else None,
        passage_ids=tuple(row.passage_ids or ()),
    )  # fmt: skip


def reviewed_answers(
    connection: Connection, alias: str, last: int, *, again: bool = False
) -> list[str]:
    """Return the ids of the newest answers of an alias that a reviewer corrected.

    Those with a verdict on the same review are left out, unless `again`.
    """
    query = (
        select(reviews.c.interaction_id)
        .join(interactions, interactions.c.id == reviews.c.interaction_id)
        .where(
            func.coalesce(interactions.c.alias, interactions.c.adapter) == alias,
            reviews.c.decision == "edit",
            reviews.c.undone_at.is_(None),
        )
        .order_by(reviews.c.created_at.desc(), reviews.c.id)
    )
    if not again:
        known = select(blame_verdicts.c.review_id).where(blame_verdicts.c.review_id.is_not(None))
        query = query.where(reviews.c.id.not_in(known))
    return [str(found) for found in connection.execute(query.limit(last)).scalars()]


def save_report(connection: Connection, report: Report, *, actor: str, now: int) -> None:
    """Keep the newest verdict on an answer."""
    case, verdict = report.evidence.case, report.verdict
    connection.execute(
        delete(blame_verdicts).where(blame_verdicts.c.interaction_id == case.interaction_id)
    )
    values = {
        "interaction_id": case.interaction_id,
        "alias": case.alias,
        "review_id": case.review.id or None if case.review else None,
        "fault": verdict.fault.value,
        "detail": verdict.detail,
        "reason": verdict.reason,
        "report": msgspec.to_builtins(report),
        "actor": actor,
        "created_at": now,
    }
    connection.execute(insert(blame_verdicts).values(**values))


def get_verdict(connection: Connection, interaction_id: str) -> StoredVerdict | None:
    """Return the newest verdict on an answer."""
    query = select(blame_verdicts).where(blame_verdicts.c.interaction_id == interaction_id)
    row = connection.execute(query).first()
    if row is None:
        return None
    return StoredVerdict(**{str(name): value for name, value in row._mapping.items()})


def count_verdicts(connection: Connection, alias: str) -> dict[str, int]:
    """Return {fault: answers of the alias}."""
    query = select(blame_verdicts.c.fault, func.count()).where(blame_verdicts.c.alias == alias)
    rows = connection.execute(query.group_by(blame_verdicts.c.fault))
    return {str(fault): int(count) for fault, count in rows}


def _versions(connection: Connection, row: Row[Any], base: str) -> dict[Who, str]:
    versions = {Who.BASE: base}
    if row.adapter is None:
        versions[Who.THEN] = base
    elif _is_served(connection, row.adapter_digest):
        versions[Who.THEN] = f"{row.adapter}@v{row.version}"
    live = current_rollouts(connection).get(row.alias or row.adapter or "")
    if live is not None:
        versions[Who.NOW] = _label(connection, live.stable_digest) or base
    elif Who.THEN in versions:
        versions[Who.NOW] = versions[Who.THEN]
    return versions


def _is_served(connection: Connection, digest: str | None) -> bool:
    query = select(adapters.c.digest).where(adapters.c.digest == digest)
    return connection.execute(query.where(adapters.c.removed_at.is_(None))).first() is not None


def _label(connection: Connection, digest: str | None) -> str | None:
    query = select(adapters.c.name, adapters.c.version).where(
        adapters.c.digest == digest, adapters.c.removed_at.is_(None)
    )
    row = connection.execute(query).first()
    return f"{row.name}@v{row.version}" if row else None


def _trace(logged: Any) -> Trace | None:
    if not isinstance(logged, dict) or not logged.get("collection"):
        return None
    values = {"outcome": "", "query": "", **logged}
    return msgspec.convert(
        {name: value for name, value in values.items() if name in _TRACE_FIELDS}, Trace
    )


def _hit(logged: JsonObject) -> Hit:
    return msgspec.convert({**_HIT_DEFAULTS, **logged}, Hit)
