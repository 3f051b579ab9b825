"""Who is asked to decide which items: by hand, by rule, and in batches with an owner and a day.

An item that is assigned is offered to nobody else (`feedback.claims`); a link opens it for everybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

from sqlalchemy import Connection, Engine, case, func, insert, select, update

from whet.auditlog import record
from whet.database import writing
from whet.errors import InputError, NotFoundError
from whet.ids import new_id
from whet.tables import review_batches, review_items, review_rules, users

_AT_ONCE = 500  # items of one action, and of one look of the rules
_MOST_NAME = 120


@dataclass(frozen=True, slots=True)
class Rule:
    """New items of an alias and a reason go to some people, shared alike. Empty: every one."""

    id: str
    alias: str
    reason: str
    people: tuple[str, ...]

    def takes(self, alias: str, reason: str) -> bool:
        return self.alias in ("", alias) and self.reason in ("", reason)


@dataclass(frozen=True, slots=True)
class Batch:
    """Items that somebody looks after together, and how far they are."""

    id: str
    name: str
    owner: str | None
    due_at: int | None
    created_by: str
    created_at: int
    waiting: int
    decided: int

    def is_late(self, now: int) -> bool:
        return self.due_at is not None and self.due_at < now and self.waiting > 0


def assignee_of(item_id: str, alias: str, reason: str, rules: Sequence[Rule]) -> str | None:
    """Return whom the rules give an item: the most special one decides, of equals the newest.

    `rules`: the newest first. The person follows from the item's id, so that every look says the
    same and the shares are alike.
    """
    found = [rule for rule in rules if rule.people and rule.takes(alias, reason)]
    if not found:
        return None
    people = max(found, key=lambda rule: bool(rule.alias) + bool(rule.reason)).people
    return people[crc32(item_id.encode()) % len(people)]


def assign(
    database: Engine, item_ids: Sequence[str], assignee: str, *, actor: str, now: int
) -> int:
    """Ask a reviewer to decide waiting items; an empty name: whoever comes first.

    Returns how many changed. Raises NotFoundError for a person who may not review.
    """
    ids = _checked(item_ids)
    with writing(database) as connection:
        if assignee:
            _require_reviewers(connection, [assignee])
        changed = connection.execute(
            update(review_items)
            .where(
                review_items.c.id.in_(ids),
                review_items.c.state == "waiting",
                func.coalesce(review_items.c.assignee, "") != assignee,
            )
            .values(assignee=assignee or None)
        ).rowcount
        if changed:
            detail = {"assignee": assignee or None, "items": changed}
            record(
                connection, actor=actor, action="review.assign", subject=ids[0], detail=detail,
                now=now,
            )  # fmt: skip
    return changed


def add_rule(
    database: Engine, alias: str, reason: str, people: Sequence[str], *, actor: str, now: int
) -> str:
    """Give items that wait unassigned, and new ones, to people; returns the rule's id."""
    names = tuple(dict.fromkeys(name.strip() for name in people if name.strip()))
    if not names:
        raise InputError("A rule needs somebody.", hint="Name one reviewer or several.")
    rule_id = new_id("rul", at=now)
    with writing(database) as connection:
        _require_reviewers(connection, names)
        connection.execute(
            insert(review_rules).values(
                id=rule_id, alias=alias, reason=reason, people=list(names), created_by=actor,
                created_at=now,
            )
        )  # fmt: skip
        detail = {"alias": alias or None, "reason": reason or None, "people": ", ".join(names)}
        record(
            connection, actor=actor, action="review.rule", subject=rule_id, detail=detail, now=now
        )
    apply_rules(database)
    return rule_id


def remove_rule(database: Engine, rule_id: str, *, actor: str, now: int) -> None:
    """End a rule; what it assigned stays assigned. Raises NotFoundError."""
    with writing(database) as connection:
        changed = connection.execute(
            update(review_rules)
            .where(review_rules.c.id == rule_id, review_rules.c.removed_at.is_(None))
            .values(removed_at=now)
        )
        if changed.rowcount == 0:
            raise NotFoundError(f"There is no rule {rule_id[:80]!r}.")
        record(
            connection, actor=actor, action="review.rule_end", subject=rule_id, detail={}, now=now
        )


def list_rules(connection: Connection) -> list[Rule]:
    """Return the rules that hold, the newest first; people who left are in none of them."""
    query = select(review_rules).where(review_rules.c.removed_at.is_(None))
    order = review_rules.c.created_at.desc(), review_rules.c.id.desc()
    there = set(list_reviewers(connection))
    return [
        Rule(row.id, row.alias, row.reason, tuple(name for name in row.people if name in there))
        for row in connection.execute(query.order_by(*order))
    ]


def apply_rules(database: Engine) -> int:
    """Assign waiting items that nobody has and that a rule takes; returns how many."""
    with writing(database) as connection:
        rules = list_rules(connection)
        if not rules:
            return 0
        query = select(review_items.c.id, review_items.c.alias, review_items.c.reason).where(
            review_items.c.state == "waiting",
            review_items.c.assignee.is_(None),
            review_items.c.claimed_by.is_(None),
        )
        given = 0
        for row in connection.execute(query.order_by(review_items.c.created_at)).all():
            person = assignee_of(row.id, row.alias, row.reason, rules)
            if person is not None and given < _AT_ONCE:
                is_it = review_items.c.id == row.id
                connection.execute(update(review_items).where(is_it).values(assignee=person))
                given += 1
    return given


def make_batch(
    database: Engine,
    name: str,
    item_ids: Sequence[str],
    *,
    owner: str = "",
    due_at: int | None = None,
    actor: str,
    now: int,
) -> str:
    """Put waiting items into a batch of their own; returns its id."""
    ids, title = _checked(item_ids), name.strip()
    if not 0 < len(title) <= _MOST_NAME:
        raise InputError(
            f"The batch's name has {len(title)} characters; expected 1 to {_MOST_NAME}."
        )
    batch_id = new_id("bat", at=now)
    with writing(database) as connection:
        if owner:
            _require_reviewers(connection, [owner])
        connection.execute(
            insert(review_batches).values(
                id=batch_id, name=title, owner=owner or None, due_at=due_at, created_by=actor,
                created_at=now,
            )
        )  # fmt: skip
        own = review_items.c.id.in_(ids), review_items.c.state == "waiting"
        count = connection.execute(
            update(review_items).where(*own).values(batch_id=batch_id)
        ).rowcount
        if not count:
            raise InputError("None of these items waits.", hint="Select waiting conversations.")
        detail = {"name": title, "items": count, "owner": owner or None, "due_at": due_at}
        record(
            connection, actor=actor, action="review.batch_make", subject=batch_id, detail=detail,
            now=now,
        )  # fmt: skip
    return batch_id


def list_batches(connection: Connection, *, limit: int = 50) -> list[Batch]:
    """Return batches, those with waiting items first, the earliest day first."""
    waiting = func.sum(case((review_items.c.state == "waiting", 1), else_=0))
    counted = (
        select(review_items.c.batch_id, waiting.label("waiting"), func.count().label("n"))
        .where(review_items.c.batch_id.is_not(None))
        .group_by(review_items.c.batch_id)
        .subquery()
    )
    query = (
        select(review_batches, counted.c.waiting, counted.c.n)
        .join(counted, counted.c.batch_id == review_batches.c.id)
        .order_by(
            (counted.c.waiting == 0), review_batches.c.due_at.is_(None), review_batches.c.due_at,
            review_batches.c.created_at.desc(),
        )
        .limit(limit)
    )  # fmt: skip
    return [
        Batch(
            row.id, row.name, row.owner, row.due_at, row.created_by, row.created_at,
            int(row.waiting), int(row.n) - int(row.waiting),
        )
        for row in connection.execute(query)
    ]  # fmt: skip


def list_reviewers(connection: Connection) -> list[str]:
    """Return who may decide: reviewers, operators and admins."""
    query = select(users.c.name).where(users.c.removed_at.is_(None), users.c.role != "viewer")
    return [str(name) for name in connection.scalars(query.order_by(users.c.name))]


def count_assigned(connection: Connection) -> dict[str, int]:
    """Reviewer → waiting items that are assigned to them."""
    query = select(review_items.c.assignee, func.count()).where(
        review_items.c.state == "waiting", review_items.c.assignee.is_not(None)
    )
    rows = connection.execute(query.group_by(review_items.c.assignee))
    return {str(name): int(count) for name, count in rows}


def _checked(item_ids: Sequence[str]) -> list[str]:
    ids = list(dict.fromkeys(item_ids))
    if not 0 < len(ids) <= _AT_ONCE:
        raise InputError(
            f"{len(ids)} conversations are selected; expected 1 to {_AT_ONCE}.",
            hint="Select the rows that you mean.",
        )
    return ids


def _require_reviewers(connection: Connection, names: Sequence[str]) -> None:
    there = set(list_reviewers(connection))
    for name in names:
        if name not in there:
            raise NotFoundError(
                f"There is no console user {name[:64]!r} who may review.",
                hint="People are listed under Settings.",
            )
