"""Reads what became of one answer's feedback: its ratings, its review, datasets and versions.

Read only, and only for keys of the group that asked. Reviewers' names and texts are never read.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, Text, cast, or_, select

from serving.feedback_status import (
    Dataset,
    Facts,
    Interaction,
    LeftOut,
    Rating,
    Review,
    Version,
    descendants,
    live_times,
)
from serving.log.records import RatingRecord
from whet.access import same_group
from whet.tables import (
    adapters,
    api_keys,
    datasets,
    examples,
    interactions,
    ratings,
    review_items,
    review_left_out,
    reviews,
    rollouts,
)


def is_own_interaction(connection: Connection, interaction_id: str, key_id: str) -> bool | None:
    """Whether a key of `key_id`'s group asked for the answer; None while its row is not there."""
    query = select(same_group(interactions.c.api_key_id, key_id))
    found = connection.execute(query.where(interactions.c.id == interaction_id)).scalar()
    return None if found is None else bool(found)


def load_facts(
    connection: Connection, interaction_id: str, key_id: str, received: Sequence[RatingRecord] = ()
) -> Facts | None:
    """Read what became of an answer for a key of the group that asked for it.

    `received`: ratings of this process that may not be in the database yet.
    Returns None when no such answer and no rating is known, or they are another group's.
    """
    row = connection.execute(
        select(
            interactions.c.status,
            interactions.c.alias,
            interactions.c.adapter,
            same_group(interactions.c.api_key_id, key_id).label("is_own"),
        ).where(interactions.c.id == interaction_id)
    ).first()
    if row is not None and not row.is_own:
        return None
    given = _ratings(connection, interaction_id, key_id, received)
    if row is None:
        return Facts(interaction_id, given) if given else None
    interaction = Interaction(row.status, bool(row.alias or row.adapter))
    return _reviewed(connection, interaction_id, interaction, given)


def _ratings(
    connection: Connection, interaction_id: str, key_id: str, received: Sequence[RatingRecord]
) -> list[Rating]:
    stored = connection.execute(
        select(ratings).where(
            ratings.c.interaction_id == interaction_id, same_group(ratings.c.api_key_id, key_id)
        )
    )
    found = {
        row.id: Rating(
            row.id, row.rating, row.comment, row.correction, row.labels or [], row.created_at
        )
        for row in stored
    }
    keys = {record.api_key_id for record in received}
    mates = select(api_keys.c.id).where(api_keys.c.id.in_(keys), same_group(api_keys.c.id, key_id))
    own = {key_id, *connection.execute(mates).scalars()} if keys else set()
    for record in received:
        if record.api_key_id in own and record.id not in found:
            labels = msgspec.json.decode(record.labels) or []
            found[record.id] = Rating(
                record.id, record.rating, record.comment, record.correction, labels,
                record.created_at,
            )  # fmt: skip
    return sorted(found.values(), key=lambda rating: (rating.created_at, rating.id))


def _reviewed(
    connection: Connection, interaction_id: str, interaction: Interaction, given: Sequence[Rating]
) -> Facts:
    item = connection.execute(
        select(review_items.c.state, review_items.c.created_at).where(
            review_items.c.interaction_id == interaction_id
        )
    ).first()
    if item is None:
        left_out = connection.execute(
            select(review_left_out.c.reason, review_left_out.c.sentence).where(
                review_left_out.c.interaction_id == interaction_id
            )
        ).first()
        return Facts(
            interaction_id,
            given,
            interaction,
            left_out=LeftOut(left_out.reason, left_out.sentence) if left_out else None,
        )
    decisions = connection.execute(
        select(
            reviews.c.id, reviews.c.decision, reviews.c.created_at, reviews.c.standing,
            reviews.c.undone_at,
        ).where(reviews.c.interaction_id == interaction_id)
    ).all()  # fmt: skip
    made = connection.execute(
        select(
            examples.c.id, examples.c.review_id, examples.c.created_at, examples.c.withdrawn_at,
            examples.c.alias,
        ).where(examples.c.review_id.in_([decision.id for decision in decisions]))
    ).all()  # fmt: skip
    decision = next((each for each in decisions if each.standing is not None), None)
    of_review = [each for each in made if decision is not None and each.review_id == decision.id]
    stands = any(each.withdrawn_at is None for each in of_review)
    counted = of_review or made  # after an undo: what older versions still hold
    alias = counted[0].alias if counted else ""
    since = min((each.created_at for each in counted), default=0)
    known = _datasets(connection, [each.id for each in counted], since) if counted else {}
    holding = [dataset for dataset, holds in known.values() if holds]
    newest = max(
        (each for each in known.values() if each[0].label.rpartition("@")[0] == alias),
        key=lambda each: each[0].created_at,
        default=None,
    )
    return Facts(
        interaction_id,
        given,
        interaction,
        queued_at=item.created_at,
        is_taken_out=item.state == "skipped" and decision is None,
        was_undone=any(each.undone_at is not None for each in decisions),
        review=decision and Review(decision.decision, decision.created_at, stands),
        holding=holding,
        newest_without=newest[0] if newest and not newest[1] else None,
        versions=_versions(connection, holding, [dataset for dataset, _ in known.values()]),
    )


def _datasets(
    connection: Connection, example_ids: Sequence[str], since: int
) -> dict[str, tuple[Dataset, bool]]:
    """Digest → the version, and whether it holds one of the examples; oldest first."""
    ids = cast(datasets.c.example_ids, Text)
    holds = or_(*(ids.contains(f'"{each}"', autoescape=True) for each in example_ids))
    query = select(
        datasets.c.digest, datasets.c.name, datasets.c.version, datasets.c.parents,
        datasets.c.created_at, holds.label("holds"),
    ).where(datasets.c.created_at >= since)  # fmt: skip
    rows = connection.execute(query.order_by(datasets.c.created_at, datasets.c.version))
    return {
        row.digest: (
            Dataset(row.digest, f"{row.name}@{row.version}", row.created_at, row.parents or []),
            bool(row.holds),
        )
        for row in rows
    }


def _versions(
    connection: Connection, holding: Sequence[Dataset], later: Sequence[Dataset]
) -> list[Version]:
    """Versions trained on a dataset that holds the example, or on one built on such a dataset."""
    reached = {dataset.digest: dataset for dataset in descendants(holding, later)}
    if not reached:
        return []
    columns = (
        adapters.c.digest, adapters.c.name, adapters.c.version, adapters.c.dataset_digest,
    )  # fmt: skip
    trained = connection.execute(
        select(*columns)
        .where(adapters.c.dataset_digest.in_(reached))
        .order_by(adapters.c.created_at, adapters.c.version)
    ).all()
    stable = rollouts.alias()
    digests = [row.digest for row in trained]
    concerned = select(stable.c.alias).where(stable.c.stable_digest.in_(digests))
    history = connection.execute(
        select(rollouts.c.alias, rollouts.c.stable_digest, rollouts.c.created_at)
        .where(rollouts.c.alias.in_(concerned))
        .order_by(rollouts.c.alias, rollouts.c.generation)
    )
    times = live_times([(row.alias, row.stable_digest, row.created_at) for row in history])
    found = []
    for row in trained:
        since, is_live = times.get(row.digest, (None, False))
        label, dataset = f"{row.name}@v{row.version}", reached[row.dataset_digest]
        found.append(Version(label, dataset, since, is_live))
    return found
