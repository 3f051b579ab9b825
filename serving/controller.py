"""Moves rollouts along: counts what both arms did, asks `rollout.decide`, writes the step.

Runs under the reconciler's lease.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from sqlalchemy import Connection, and_, case, distinct, func, select

from serving.rollout import Action, Counts, Policy, candidate_for, decide
from serving.rollout_store import RolloutStore
from whet.access import same_group
from whet.context import Context
from whet.database import reading
from whet.errors import ConflictError
from whet.outcomes import counts_for_version, is_empty_answer, service_failed
from whet.registry import Adapter, Rollout, current_rollouts, objection, rollout_history
from whet.tables import adapters, interactions, ratings, replicas

logger = logging.getLogger(__name__)

ACTOR = "rollout-controller"


def policy_of(context: Context) -> Policy:
    settings = context.settings
    return Policy(
        tuple(settings.rollout_shares),
        settings.rollout_min_requests,
        settings.rollout_max_hours,
        settings.rollout_auto,
    )


def count_arms(connection: Connection, rollout: Rollout) -> dict[str, Counts]:
    """Map each arm to what it did in this generation, of the requests that count for a version."""
    unit = func.coalesce(interactions.c.end_user, interactions.c.id)
    here = and_(
        interactions.c.alias == rollout.alias,
        interactions.c.created_at >= rollout.created_at,
        interactions.c.rollout_generation == rollout.generation,
        counts_for_version(),
    )
    counted = (
        select(
            interactions.c.arm,
            func.count().label("answers"),
            func.count(distinct(case((service_failed(), unit)))).label("broken"),
            func.count(distinct(case((is_empty_answer(), unit)))).label("empty"),
        )
        .where(here)
        .group_by(interactions.c.arm)
    )
    unhappy = (
        select(interactions.c.arm, func.count(distinct(unit)).label("negative"))
        .join(ratings, ratings.c.interaction_id == interactions.c.id)
        .where(
            here,
            ratings.c.rating < 0,
            same_group(ratings.c.api_key_id, interactions.c.api_key_id),
        )
        .group_by(interactions.c.arm)
    )
    negative = {row.arm: row.negative for row in connection.execute(unhappy)}
    return {
        row.arm: Counts(
            row.answers,
            {"broken": row.broken, "empty": row.empty, "negative": negative.get(row.arm, 0)},
        )
        for row in connection.execute(counted)
    }


class RolloutController:
    """One `tick` per second while this process holds the lease."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = RolloutStore(context.database, context.settings)
        self._policy = policy_of(context)

    def tick(self, now: int) -> list[Action]:
        """Decide and act for every alias; returns what was done.

        Raises SQLAlchemyError when the database is away.
        """
        done = []
        with reading(self._context.database) as connection:
            steps = [
                (rollout, self._step(connection, rollout, now))
                for rollout in current_rollouts(connection).values()
            ]
        for rollout, action in steps:
            if action.kind != "hold" and self._perform(rollout, action, now):
                done.append(action)
        return done

    def _step(self, connection: Connection, rollout: Rollout, now: int) -> Action:
        if rollout.state == "canary":
            arms = count_arms(connection, rollout)
            return decide(
                rollout,
                arms.get("candidate", Counts()),
                arms.get("stable", Counts()),
                self._policy,
                now,
            )
        columns = [column for column in adapters.columns if column.name != "card"]
        found = connection.execute(
            select(*columns).where(
                adapters.c.removed_at.is_(None),
                (adapters.c.name == rollout.alias) | (adapters.c.digest == rollout.stable_digest),
            )
        )
        versions = [Adapter(**row._mapping, card={}) for row in found]
        # What a later evaluation found stands in the way of a trial as it does of a promotion. Only
        # those that passed are tried, so only they are asked about.
        versions = [
            (
                replace(version, gate="fail")
                if version.gate == "pass" and objection(connection, version)
                else version
            )
            for version in versions
        ]
        stable = next(
            (version for version in versions if version.digest == rollout.stable_digest), None
        )
        return candidate_for(
            rollout,
            versions,
            rollout_history(connection, rollout.alias),
            ready_everywhere=_ready_everywhere(connection),
            policy=self._policy,
            stable=stable,
        )

    def _perform(self, rollout: Rollout, action: Action, now: int) -> bool:
        how = {"actor": ACTOR, "reason": action.reason, "now": now, "expected": rollout.generation}
        try:
            if action.kind == "start" and action.share >= 1.0:
                self._store.promote(rollout.alias, action.digest, **how)  # type: ignore[arg-type]
            elif action.kind == "start":
                self._store.start(rollout.alias, str(action.digest), action.share, **how)  # type: ignore[arg-type]
            elif action.kind == "raise":
                self._store.set_share(rollout.alias, action.share, **how)  # type: ignore[arg-type]
            elif action.kind == "promote":
                self._store.promote(rollout.alias, **how)  # type: ignore[arg-type]
            else:
                self._store.rollback(rollout.alias, **how)  # type: ignore[arg-type]
        except ConflictError as error:
            logger.info("Alias %s was not moved: %s", rollout.alias, error)
            return False
        logger.info("Alias %s: %s. %s", rollout.alias, action.kind, action.reason)
        return True


def _ready_everywhere(connection: Connection) -> set[str]:
    """Digests that every ready replica has proved."""
    ready = [
        set(row.ready)
        for row in connection.execute(select(replicas.c.ready).where(replicas.c.state == "ready"))
    ]
    return set.intersection(*ready) if ready else set()
