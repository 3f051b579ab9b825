"""What happened beside the traffic: promotions and roll-backs, dataset versions, incidents."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from sqlalchemy import Connection, and_, select

from whet.tables import adapters, alerts, datasets, rollouts

_MOST = 40  # of each kind: more lines than that hide the chart


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at a time, with the page that shows it.

    `kind`: promotion | trial | rollback | dataset | incident.
    """

    at: int
    kind: str
    text: str
    href: str


def load_marks(connection: Connection, start_at: int, end_at: int, alias: str = "") -> list[Mark]:
    """Read what happened in a time, the newest first; of one alias where one is given."""
    found = [
        *_rollout_marks(connection, start_at, end_at, alias),
        *_dataset_marks(connection, start_at, end_at, alias),
        *_incident_marks(connection, start_at, end_at, alias),
    ]
    return sorted(found, key=lambda mark: (-mark.at, mark.text))


def _rollout_marks(connection: Connection, start_at: int, end_at: int, alias: str) -> list[Mark]:
    before = rollouts.alias()
    query = (
        select(
            rollouts,
            before.c.stable_digest.label("stable_before"),
            before.c.candidate_digest.label("candidate_before"),
            before.c.id.label("id_before"),
        )
        .outerjoin(
            before,
            and_(
                before.c.alias == rollouts.c.alias,
                before.c.generation == rollouts.c.generation - 1,
            ),
        )
        .where(rollouts.c.created_at >= start_at, rollouts.c.created_at < end_at)
        .order_by(rollouts.c.created_at.desc())
        .limit(_MOST)
    )
    if alias:
        query = query.where(rollouts.c.alias == alias)
    rows = connection.execute(query).all()
    digests = {digest for row in rows for digest in (row.stable_digest, row.candidate_digest)}
    named = select(adapters.c.digest, adapters.c.name, adapters.c.version).where(
        adapters.c.digest.in_([digest for digest in digests if digest])
    )
    labels = {row.digest: f"{row.name}@v{row.version}" for row in connection.execute(named)}

    def label(digest: str | None) -> str:
        return labels.get(digest, digest[:8]) if digest else "the base"

    marks = []
    for row in rows:
        href = f"/adapters/{quote(row.alias)}"
        is_other = row.id_before is None or row.stable_digest != row.stable_before
        if row.state == "rolled_back" and (is_other or row.candidate_before):
            text = f"{row.alias} rolled back to {label(row.stable_digest)}"
            marks.append(Mark(row.created_at, "rollback", text, href))
        elif is_other:
            text = f"{label(row.stable_digest)} promoted for {row.alias}"
            marks.append(Mark(row.created_at, "promotion", text, href))
        elif row.candidate_digest and row.candidate_digest != row.candidate_before:
            text = f"{label(row.candidate_digest)} on trial for {row.alias}"
            marks.append(Mark(row.created_at, "trial", text, href))
    return marks


def _dataset_marks(connection: Connection, start_at: int, end_at: int, alias: str) -> list[Mark]:
    kept = datasets.c
    query = (
        select(kept.name, kept.version, kept.created_at)
        .where(kept.created_at >= start_at, kept.created_at < end_at)
        .order_by(kept.created_at.desc())
        .limit(_MOST)
    )
    if alias:
        query = query.where(kept.name == alias)
    return [
        Mark(
            row.created_at,
            "dataset",
            f"dataset {row.name}@{row.version}",
            f"/datasets/{quote(row.name)}@{row.version}",
        )
        for row in connection.execute(query)
    ]


def _incident_marks(connection: Connection, start_at: int, end_at: int, alias: str) -> list[Mark]:
    kept = alerts.c
    query = (
        select(kept.id, kept.title, kept.opened_at)
        .where(kept.opened_at >= start_at, kept.opened_at < end_at)
        .order_by(kept.opened_at.desc())
        .limit(_MOST)
    )
    if alias:
        query = query.where(kept.alias == alias)
    return [
        Mark(row.opened_at, "incident", row.title, f"/drift/incidents/{row.id}")
        for row in connection.execute(query)
    ]
