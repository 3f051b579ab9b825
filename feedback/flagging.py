"""From what was logged to what waits for a person: reads interactions, ratings and alerts, writes
`review_items`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, insert, select
from sqlalchemy.exc import IntegrityError

from feedback import conversations, left_out, selection
from feedback.erasing import erased_subjects, is_erased
from feedback.left_out import NotQueued
from feedback.selection import DAY_MS, Candidate, Item, LeftOut, Limits, Selection, Taken
from whet.access import same_group
from whet.auditlog import record
from whet.conversation import history
from whet.database import insert_ignore, reading, writing
from whet.errors import ConflictError, InputError, NotFoundError
from whet.feedback_rules import RATING_LOOKBACK_DAYS
from whet.ids import new_id
from whet.json_types import JsonObject
from whet.tables import alerts, interactions, ratings, review_items

AUDIT_SEED = "audit-1"  # a constant, so that a restart draws the same conversations
_RATING_LOOKBACK_MS = RATING_LOOKBACK_DAYS * DAY_MS
_PER_RUN = 2000  # newest candidates of each reason read per run: ten days of the default budget
_PER_ALERT = 50  # conversations one alert brings in; enough to see what it is about
_IN_CLAUSE = 500  # ids per query: SQLite and PostgreSQL both take far more, but plans stay simple
_QUOTE = 120  # characters of an end user's comment that the reason repeats

_ERASED = LeftOut("erased", "What this end user said before an erasure is not reviewed.")

_COLUMNS = (
    interactions.c.id, interactions.c.alias, interactions.c.adapter, interactions.c.status, interactions.c.route,
    interactions.c.request, interactions.c.end_user, interactions.c.created_at,
)  # fmt: skip

# An exact version that was asked for belongs to its adapter's name
_ALIAS = func.coalesce(interactions.c.alias, interactions.c.adapter)
_AUDITED = (interactions.c.status == "complete", _ALIAS.is_not(None))


def flag(
    database: Engine,
    *,
    budget: int,
    secret: bytes,
    now: int,
    audit_from: int = 0,
    volumes: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """One run over everything that could be flagged; returns items added per reason.

    Running it again adds nothing twice.

    `audit_from` (ms) spares the audit what an earlier run looked at; 0 looks at the whole day
    again, with the same draw. `volumes` is what `volumes_before` returned today, when the caller
    has kept it.
    """
    limits = selection.limits_for(budget)
    with reading(database) as connection:
        rated = _from_ratings(connection, now)
        drawn = _from_audit(connection, budget, audit_from, volumes, now)
        erased = erased_subjects(connection)
        by_alias: dict[str, list[Candidate]] = defaultdict(list)
        not_queued: dict[str, NotQueued] = {}
        for candidate in [*rated, *_from_alerts(connection), *drawn]:
            if is_erased(erased, candidate.end_user, candidate.created_at, secret):
                not_queued[candidate.interaction_id] = NotQueued(candidate.alias, _ERASED)
            else:
                by_alias[candidate.alias].append(candidate)
        chosen: list[Item] = []
        for alias, found in sorted(by_alias.items()):
            selected = _choose(connection, alias, found, limits, now)
            chosen += selected.items
            for interaction_id, why in selected.left_out.items():
                not_queued[interaction_id] = NotQueued(alias, why)
    added = dict(_write(database, chosen, now)) if chosen else {}
    with_feedback = {candidate.interaction_id for candidate in rated}
    with_feedback -= {item.candidate.interaction_id for item in chosen}
    kept = {key: item for key, item in not_queued.items() if key in with_feedback}
    left_out.store(database, kept, now=now)
    return added


def _choose(
    connection: Connection, alias: str, found: Sequence[Candidate], limits: Limits, now: int
) -> Selection:
    ids = [candidate.interaction_id for candidate in found]
    return selection.select(found, taken_today(connection, alias, ids, now), limits)


def _write(database: Engine, items: Sequence[Item], now: int) -> Counter[str]:
    added: Counter[str] = Counter()
    with writing(database) as connection:
        left_out.forget(connection, (item.candidate.interaction_id for item in items))
        for item in items:
            candidate = item.candidate
            new = connection.execute(
                insert_ignore(connection, review_items)
                .values(
                    id=new_id("itm", at=now), interaction_id=candidate.interaction_id, alias=candidate.alias, reason=candidate.reason,
                    why=candidate.why, priority=item.priority, sampling_probability=candidate.sampling_probability,
                    alert_id=candidate.alert_id, state="waiting", created_at=now,
                )
                .returning(review_items.c.id)
            ).first()  # fmt: skip
            added[candidate.reason] += new is not None
    return Counter({reason: count for reason, count in added.items() if count})


def taken_today(
    connection: Connection, alias: str, candidate_ids: Sequence[str], now: int
) -> Taken:
    """What the queue took in since midnight UTC for the alias, and which candidates it took at any
    time.
    """
    known: set[str] = set()
    for ids in _blocks(candidate_ids):
        known.update(
            connection.execute(
                select(review_items.c.interaction_id).where(review_items.c.interaction_id.in_(ids))
            ).scalars()
        )
    query = (
        select(
            review_items.c.reason,
            interactions.c.end_user,
            interactions.c.route,
            interactions.c.request,
        )
        .join(interactions, interactions.c.id == review_items.c.interaction_id, isouter=True)
        .where(
            review_items.c.alias == alias,
            review_items.c.created_at >= now - now % DAY_MS,
            review_items.c.reason != "request",
        )
    )
    rows = connection.execute(query).all()
    return Taken(
        interaction_ids=frozenset(known),
        by_reason=Counter(row.reason for row in rows),
        by_user=Counter(row.end_user for row in rows if row.end_user),
        questions=[_question(row.request) for row in rows if row.request],
    )


def _from_ratings(connection: Connection, now: int) -> list[Candidate]:
    query = (
        select(*_COLUMNS, ratings.c.rating, ratings.c.comment, ratings.c.correction)
        .join(interactions, interactions.c.id == ratings.c.interaction_id)
        .join(review_items, review_items.c.interaction_id == ratings.c.interaction_id, isouter=True)
        .where(
            (ratings.c.rating < 0) | ratings.c.correction.is_not(None),
            review_items.c.id.is_(None),
            ratings.c.created_at >= now - _RATING_LOOKBACK_MS,
            same_group(ratings.c.api_key_id, interactions.c.api_key_id),
        )
        .order_by(ratings.c.created_at.desc())
        .limit(_PER_RUN)
    )
    return [
        _candidate(row, *_rating_reason(row))
        for row in connection.execute(query)
        if row.alias or row.adapter
    ]


def _rating_reason(row: Row[*tuple[Any, ...]]) -> tuple[str, str]:
    said = f" and wrote: “{_shorten(row.comment)}”" if row.comment else ""
    if row.correction:
        return "correction", f"The application posted a corrected answer{said}."
    return "rating", f"Somebody rated this answer as bad{said}."


def _from_alerts(connection: Connection) -> list[Candidate]:
    """Conversations named by alerts that are open or acknowledged; both mean that the matter is not
    settled.
    """
    found = []
    for alert in connection.execute(
        select(alerts).where(alerts.c.open_marker.is_not(None)).order_by(alerts.c.opened_at.desc())
    ):
        named = [str(item) for item in (alert.detail or {}).get("interaction_ids") or []]
        for row in _interactions(connection, _not_queued(connection, named)[:_PER_ALERT]):
            found.append(
                _candidate(
                    row,
                    "drift",
                    f"Named by the alert “{_shorten(alert.title)}”.",
                    alias=alert.alias,
                    alert_id=alert.id,
                )
            )
    return found


def volumes_before(connection: Connection, now: int) -> dict[str, int]:
    """Alias → complete interactions of the day (UTC) before that of `now`.

    The same all day long, so it may be kept.
    """
    midnight = now - now % DAY_MS
    query = (
        select(_ALIAS.label("alias"), func.count().label("n"))
        .where(
            *_AUDITED,
            interactions.c.created_at >= midnight - DAY_MS,
            interactions.c.created_at < midnight,
        )
        .group_by(_ALIAS)
    )
    return {row.alias: row.n for row in connection.execute(query)}


def _from_audit(
    connection: Connection,
    budget: int,
    audit_from: int,
    volumes: Mapping[str, int] | None,
    now: int,
) -> list[Candidate]:
    """A uniform draw from today's complete interactions of every alias, with the probability it was
    drawn with.
    """
    volumes = volumes_before(connection, now) if volumes is None else volumes
    since = max(now - now % DAY_MS, audit_from)
    probabilities: dict[str, float] = {}
    ids: list[str] = []
    for row in connection.execute(
        select(interactions.c.id, _ALIAS.label("alias")).where(
            *_AUDITED, interactions.c.created_at >= since
        )
    ):
        p = probabilities.setdefault(
            row.alias, selection.audit_probability(budget, volumes.get(row.alias))
        )
        if selection.drawn(row.id, p, AUDIT_SEED):
            ids.append(row.id)
    return [
        _audit_candidate(row, probabilities)
        for row in _interactions(connection, _not_queued(connection, ids)[:_PER_RUN])
    ]


def _audit_candidate(row: Row[*tuple[Any, ...]], probabilities: dict[str, float]) -> Candidate:
    p = probabilities[row.alias or row.adapter]
    return _candidate(
        row,
        "audit",
        f"Drawn at random: {p:.1%} of the day's answers are, so that the error rate can be"
        " estimated.",
        probability=p,
    )


def _candidate(
    row: Row[*tuple[Any, ...]],
    reason: str,
    why: str,
    *,
    alias: str = "",
    alert_id: str | None = None,
    probability: float | None = None,
) -> Candidate:
    return Candidate(
        interaction_id=row.id, alias=alias or row.alias or row.adapter, reason=reason, why=why, status=row.status,
        question=_question(row.request), created_at=row.created_at, end_user=row.end_user, alert_id=alert_id,
        sampling_probability=probability,
    )  # fmt: skip


def _question(request: JsonObject) -> str:
    return conversations.question([message.as_chat() for message in history(request)])


def _interactions(connection: Connection, ids: Sequence[str]) -> list[Row[*tuple[Any, ...]]]:
    return [
        row
        for block in _blocks(ids)
        for row in connection.execute(select(*_COLUMNS).where(interactions.c.id.in_(block)))
    ]


def _not_queued(connection: Connection, ids: Sequence[str]) -> list[str]:
    queued: set[str] = set()
    for block in _blocks(ids):
        queued.update(
            connection.execute(
                select(review_items.c.interaction_id).where(
                    review_items.c.interaction_id.in_(block)
                )
            ).scalars()
        )
    return [item for item in ids if item not in queued]


def _blocks(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + _IN_CLAUSE] for start in range(0, len(ids), _IN_CLAUSE))


def _shorten(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _QUOTE else flat[: _QUOTE - 1] + "…"


def batch_from_alert(
    database: Engine, alert_id: str, *, limit: int, actor: str, now: int
) -> list[str]:
    """An operator asks for an alert's conversations now, outside the daily budget.

    Returns the ids of new items.

    Raises NotFoundError for an unknown alert, InputError when it names no conversation.
    """
    with writing(database) as connection:
        alert = connection.execute(select(alerts).where(alerts.c.id == alert_id)).first()
        if alert is None:
            raise NotFoundError(
                f"There is no alert {alert_id[:80]!r}.", hint="`whet alerts list` prints them."
            )
        named = [str(item) for item in (alert.detail or {}).get("interaction_ids") or []]
        if not named:
            raise InputError(
                f"The alert {alert_id!r} names no conversations, so there is nothing to review.",
                hint="Search them in Traffic instead.",
            )
        rows = [
            row
            for row in _interactions(connection, _not_queued(connection, named))
            if row.status == "complete"
        ][:limit]
        added = [
            _insert_item(
                connection,
                row,
                alert.alias,
                "drift",
                f"{actor} asked for the conversations behind the alert “{_shorten(alert.title)}”.",
                alert_id,
                now,
            )
            for row in rows
        ]
        record(
            connection,
            actor=actor,
            action="review.batch",
            subject=alert_id,
            detail={"items": len(added)},
            now=now,
        )
    return added


def request_review(database: Engine, interaction_id: str, *, actor: str, now: int) -> str:
    """A person asks for one conversation; returns the item's id, also when it is in the queue
    already.
    """
    with writing(database) as connection:
        row = next(iter(_interactions(connection, [interaction_id])), None)
        if row is None:
            raise NotFoundError(f"There is no interaction {interaction_id[:80]!r}.")
        if row.status != "complete":
            raise ConflictError(
                f"This interaction is {row.status}: only complete answers can be reviewed."
            )
        if not (row.alias or row.adapter):
            raise InputError(
                "The base model answered this one; there is no adapter that could learn from it.",
                hint="Ask through an alias.",
            )
        known = connection.execute(
            select(review_items.c.id).where(review_items.c.interaction_id == interaction_id)
        ).scalar()
        return (
            str(known)
            if known
            else _insert_item(
                connection,
                row,
                row.alias or row.adapter,
                "request",
                f"{actor} asked for a review.",
                None,
                now,
            )
        )


def _insert_item(
    connection: Connection,
    row: Row[*tuple[Any, ...]],
    alias: str,
    reason: str,
    why: str,
    alert_id: str | None,
    now: int,
) -> str:
    item_id = new_id("itm", at=now)
    left_out.forget(connection, [row.id])
    try:
        with connection.begin_nested():
            connection.execute(
                insert(review_items).values(
                    id=item_id, interaction_id=row.id, alias=alias, reason=reason, why=why, alert_id=alert_id, state="waiting",
                    priority=selection.REQUEST_PRIORITY, created_at=now,
                )
            )  # fmt: skip
    except IntegrityError:  # the flagging job queued it a moment ago
        return str(
            connection.execute(
                select(review_items.c.id).where(review_items.c.interaction_id == row.id)
            ).scalar_one()
        )
    return item_id
