"""Error rates by week: reads what was drawn and judged, keeps one row per alias and week, and opens
an alert when errors became more.

The only writer of `audit_weeks`. A week is Monday to Sunday, UTC; its figures follow the reviewers
for five weeks, its verdict is given once.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    case,
    func,
    literal_column,
    or_,
    select,
    update,
)

from monitoring.alert_store import alerts_of_kind
from monitoring.alerting import MAX_EXAMPLES, Change, dedup_key, resolved
from monitoring.audit import (
    BASELINE_WEEKS,
    Estimate,
    Judged,
    Standing,
    Week,
    compare,
    estimate,
    learn,
)
from monitoring.days import DAY_MS
from monitoring.each import for_each_alias
from monitoring.history_store import AuditWeek, weeks_since
from monitoring.run import apply
from whet.access import same_group
from whet.context import Context
from whet.database import insert_ignore, reading, writing
from whet.records.monitoring import AUDIT_POPULATION, AlertDetail, AlertSignal
from whet.retention import retention_before
from whet.tables import audit_weeks, interactions, ratings, review_items, reviews

KIND: Literal["errors"] = "errors"
# A judgement that comes later than this changes nothing that anybody still looks at
_FOLLOWED_WEEKS = 5
# A day's answers and ratings are counted anew until it has been over for so long
_SETTLED_MS = 2 * DAY_MS
# After the end of a week, for reviewers to come to the rest of what was drawn
_PATIENCE_MS = 3 * DAY_MS
_MOST_JUDGED = 0.9  # of what was drawn: then nobody is waited for
# The constant is written out: as a parameter, PostgreSQL takes the expression in SELECT and the one
# in GROUP BY for two.
_DAY = interactions.c.created_at // literal_column(str(DAY_MS), BigInteger)
_DECIDED = ("approve", "edit", "reject")


@dataclass(frozen=True, slots=True)
class Found:
    """A week as it stands now."""

    week: int
    population: dict[int, dict[str, int]]
    drawn: int
    estimate: Estimate | None
    standing: Standing


def week_of(day: int) -> int:
    """The Monday of a day's week; both in days since 1970-01-01, a Thursday."""
    return day - (day + 3) % 7


def run_audit(context: Context, now: int) -> str | None:
    """Bring every alias's weeks up to date."""

    def one(alias: str) -> str:
        return ", ".join(
            found.standing.verdict
            for found in run_alias(context, alias, now)
            if found.standing.verdict in ("worse", "better")
        )

    return for_each_alias(context, "Working out the error rate", one)


def run_alias(context: Context, alias: str, now: int) -> list[Found]:
    """The weeks whose verdict is new."""
    this_week = week_of(now // DAY_MS)
    first = this_week - 7 * _FOLLOWED_WEEKS
    with reading(context.database) as connection:
        stored = _stored(connection, alias, first - 7 * BASELINE_WEEKS)
        judged = _judged(connection, alias, first - 7 * BASELINE_WEEKS)
        drawn = _drawn(connection, alias, first)
    by_week: dict[int, list[Judged]] = defaultdict(list)
    for one in judged:
        by_week[week_of(one.day)].append(one)
    fresh = []
    kept_from = retention_before(context.settings.retention_days, now) // DAY_MS
    for week in range(first, this_week + 7, 7):
        if week < kept_from:
            continue  # its conversations are being deleted: what was counted stands
        with reading(context.database) as connection:
            population = _population(connection, alias, week, stored.get(week), now)
        if not population:
            continue
        earlier = [
            one
            for start, ones in by_week.items()
            if week - 7 * BASELINE_WEEKS <= start < week
            for one in ones
        ]
        found = _look(
            week, Week(population, by_week[week]), earlier, stored, drawn.get(week, 0), now
        )
        if _keep(context, alias, found, by_week[week], stored, now):
            fresh.append(found)
    return fresh


def _look(
    week: int,
    known: Week,
    earlier: list[Judged],
    stored: dict[int, AuditWeek],
    drawn: int,
    now: int,
) -> Found:
    figures = estimate(known, learn(earlier))
    before = [
        known_week
        for start, row in sorted(stored.items())
        if start < week and row.verdict != "worse" and (known_week := _estimate_of(row))
    ]
    standing = compare(figures, before)
    end = (week + 7) * DAY_MS
    given = stored[week].verdict if week in stored else "unknown"
    due = now >= end and (len(known.judged) >= _MOST_JUDGED * drawn or now >= end + _PATIENCE_MS)
    if given != "unknown":
        standing = Standing(given, stored[week].usual, standing.sentence)
    elif not due:
        standing = Standing("unknown", standing.usual, f"So far: {standing.sentence}")
    return Found(
        week,
        {day: dict(cells) for day, cells in known.population.items()},
        drawn,
        figures,
        standing,
    )


def _estimate_of(row: AuditWeek) -> Estimate | None:
    """Return a stored week's estimate; None while nothing was judged."""
    if row.rate is None:
        return None
    population = sum(sum(cells.values()) for cells in (row.population or {}).values())
    low, high = row.interval
    return Estimate(row.rate, low, high, row.judged, row.wrong, population, row.effective or 0.0)


def _keep(
    context: Context,
    alias: str,
    found: Found,
    judged: list[Judged],
    stored: dict[int, AuditWeek],
    now: int,
) -> bool:
    """Write the row and what follows from a new verdict, in one transaction; whether the verdict is
    new.
    """
    figures, before = found.estimate, stored.get(found.week)
    week = AuditWeek(
        alias,
        found.week,
        found.drawn,
        figures.judged if figures else 0,
        figures.wrong if figures else 0,
        figures.rate if figures else None,
        figures.low if figures else None,
        figures.high if figures else None,
        figures.effective if figures else None,
        found.standing.usual,
        found.standing.verdict,
        found.standing.sentence,
        now,
        {str(day): cells for day, cells in found.population.items()},
    )
    if before is not None and replace(before, changed_at=now) == week:
        return False
    new = found.standing.verdict != (before.verdict if before else "unknown")
    stored[found.week] = week
    values = week.as_json() | {"population": AUDIT_POPULATION.encode(week.population or {})}
    key = audit_weeks.c.alias == alias, audit_weeks.c.week == found.week
    with writing(context.database) as connection:
        connection.execute(insert_ignore(connection, audit_weeks).values(**values))
        connection.execute(update(audit_weeks).where(*key).values(**values))
        if new:
            _tell(
                connection, alias, found, judged, [stored[start] for start in sorted(stored)], now
            )
    return new


def _tell(
    connection: Connection,
    alias: str,
    found: Found,
    judged: list[Judged],
    weeks: list[AuditWeek],
    now: int,
) -> None:
    """Open an alert when errors became more; close it by a later week that is as usual."""
    known = alerts_of_kind(connection, alias, KIND)
    open_one = next((alert for alert in known if alert.is_open), None)
    if found.standing.verdict == "worse":
        title = f"{alias}: more answers are wrong. {found.standing.sentence}"
        detail = _detail(found, judged, weeks)
        deed: Literal["extend", "open"] = "extend" if open_one else "open"
        apply(
            connection,
            alias,
            Change(
                deed,
                KIND,
                title,
                detail,
                open_one.id if open_one else None,
                "bad",
                dedup_key(alias, KIND),
            ),
            now,
        )
    elif open_one is not None and open_one.detail.week < found.week:
        resolution = (
            f"In the week after, {found.standing.sentence[0].lower()}{found.standing.sentence[1:]}"
        )
        apply(
            connection,
            alias,
            Change(
                "resolve",
                KIND,
                open_one.title,
                resolved(open_one.detail, resolution),
                open_one.id,
            ),
            now,
        )


def _detail(found: Found, judged: list[Judged], weeks: list[AuditWeek]) -> AlertDetail:
    assert found.estimate is not None  # there is no verdict without one
    signal = AlertSignal(
        name="error_rate",
        label="wrong answers",
        unit="",
        shape="rate",
        sentence=found.standing.sentence,
        reference=found.standing.usual,
        window=found.estimate.rate,
        effect=found.estimate.rate - (found.standing.usual or 0.0),
        adjusted_p_value=None,
        series=[[row.week * DAY_MS, row.rate] for row in weeks if row.rate is not None],
    )
    return AlertDetail(
        week=found.week,
        since_at=found.week * DAY_MS,
        since_is_exact=False,
        interaction_ids=[one.interaction_id for one in judged if one.wrong][:MAX_EXAMPLES],
        signals=[signal],
    )


# --- reading -------------------------------------------------------------------------------------------------------


def _stored(connection: Connection, alias: str, since: int) -> dict[int, AuditWeek]:
    return {row.week: row for row in weeks_since(connection, alias, since)}


def _of(alias: str) -> ColumnElement[bool]:
    """Answers of the alias; an exact version that was asked for belongs to its adapter's name, as
    in the queue.
    """
    return or_(
        interactions.c.alias == alias,
        interactions.c.alias.is_(None) & (interactions.c.adapter == alias),
    )


def _population(
    connection: Connection, alias: str, week: int, stored: AuditWeek | None, now: int
) -> dict[int, dict[str, int]]:
    """Day → cell → complete answers.

    Days that were settled when the row was written are not counted again.
    """
    known = {
        int(day): cells for day, cells in ((stored.population if stored else None) or {}).items()
    }
    settled = (stored.changed_at - _SETTLED_MS) // DAY_MS if stored else 0
    found = {day: cells for day, cells in known.items() if day < settled}
    first = max(week, settled)
    last = min(week + 7, now // DAY_MS + 1)
    if first >= last:
        return found
    within = (
        interactions.c.status == "complete",
        _of(alias),
        interactions.c.created_at >= first * DAY_MS,
        interactions.c.created_at < last * DAY_MS,
    )
    totals = {
        row.day: row.n
        for row in connection.execute(
            select(_DAY.label("day"), func.count().label("n")).where(*within).group_by(_DAY)
        )
    }
    # Ratings are few beside answers, so they are gathered first. Whoever rated it down counts,
    # whatever others said.
    rated = (
        select(
            ratings.c.interaction_id,
            func.min(ratings.c.rating).label("lowest"),
            func.max(ratings.c.rating).label("highest"),
        )
        .join(interactions, interactions.c.id == ratings.c.interaction_id)
        .where(
            ratings.c.created_at >= first * DAY_MS,
            same_group(ratings.c.api_key_id, interactions.c.api_key_id),
        )
        .group_by(ratings.c.interaction_id)
        .subquery()
    )
    cell = case((rated.c.lowest < 0, "down"), (rated.c.highest > 0, "up"), else_="quiet")
    query = (
        select(_DAY.label("day"), cell.label("cell"), func.count().label("n"))
        .join_from(rated, interactions, interactions.c.id == rated.c.interaction_id)
        .where(*within)
        .group_by(_DAY, cell)
    )
    for number, total in totals.items():
        found[number] = {"quiet": total}
    for row in connection.execute(query):
        if row.cell != "quiet":
            found[row.day][row.cell] = row.n
            found[row.day]["quiet"] -= row.n
    return found


def _judged(connection: Connection, alias: str, since: int) -> list[Judged]:
    counted = (
        ratings.c.interaction_id == interactions.c.id,
        same_group(ratings.c.api_key_id, interactions.c.api_key_id),
    )
    lowest = select(func.min(ratings.c.rating)).where(*counted).scalar_subquery()
    highest = select(func.max(ratings.c.rating)).where(*counted).scalar_subquery()
    query = (
        select(
            interactions.c.id,
            interactions.c.created_at,
            reviews.c.decision,
            lowest.label("lowest"),
            highest.label("highest"),
        )
        .join_from(review_items, interactions, interactions.c.id == review_items.c.interaction_id)
        .join(reviews, reviews.c.standing == review_items.c.id)
        .where(
            review_items.c.alias == alias,
            review_items.c.reason == "audit",
            reviews.c.decision.in_(_DECIDED),
            interactions.c.status == "complete",
            interactions.c.created_at >= since * DAY_MS,
        )
        .order_by(interactions.c.created_at, interactions.c.id)
    )
    return [
        Judged(
            day=row.created_at // DAY_MS,
            cell="down" if (row.lowest or 0) < 0 else "up" if (row.highest or 0) > 0 else "quiet",
            wrong=row.decision != "approve",
            interaction_id=row.id,
        )
        for row in connection.execute(query)
    ]


def _drawn(connection: Connection, alias: str, since: int) -> dict[int, int]:
    """Week → answers in the queue by the draw."""
    query = (
        select(_DAY.label("day"), func.count().label("n"))
        .join_from(review_items, interactions, interactions.c.id == review_items.c.interaction_id)
        .where(
            review_items.c.alias == alias,
            review_items.c.reason == "audit",
            interactions.c.created_at >= since * DAY_MS,
        )
        .group_by(_DAY)
    )
    counts: dict[int, int] = defaultdict(int)
    for row in connection.execute(query):
        counts[week_of(row.day)] += row.n
    return dict(counts)
