"""The only writer of `rollouts`: every change of an alias is a new row, and an audit entry in the
same transaction.

Two people who act on the same generation cannot both win: the second gets a ConflictError and
nothing is changed.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.exc import IntegrityError

from whet.auditlog import record
from whet.clock import iso
from whet.database import writing
from whet.errors import ConflictError, InputError, NotFoundError
from whet.ids import check_name, new_id
from whet.json_types import JsonObject
from whet.registry import (
    Adapter,
    Rollout,
    current_rollouts,
    find_adapter,
    list_adapters,
    objection,
    rollout_history,
)
from whet.settings import Settings
from whet.tables import replicas, rollouts


class NotReadyError(ConflictError):
    """No engine can answer with the version yet; a moment later one may."""


class RolloutStore:
    """All methods return the new generation.

    `expected` is the generation the caller saw; None: whatever is current.
    """

    def __init__(self, database: Engine, settings: Settings) -> None:
        self._database = database
        self._base_alias = settings.base_alias

    def start(
        self,
        alias: str,
        version: str,
        share: float,
        *,
        actor: str,
        reason: str,
        now: int,
        expected: int | None = None,
    ) -> Rollout:
        """Put `version` (a label, digest or name) on trial with `share` of the alias's traffic, 0 <
        share < 1.
        """
        if not 0 < share < 1:
            raise InputError(
                f"share is {share}; expected more than 0 and less than 1.",
                hint=f"To give a version all traffic: whet rollout promote {alias} {version}.",
            )
        with writing(self._database) as connection:
            current = self._current(connection, alias, expected)
            if current is None:
                raise NotFoundError(
                    f"The alias {alias!r} has no stable version to try a candidate beside.",
                    hint=f"whet rollout promote {alias} {version}",
                )
            adapter = self._adapter(connection, version)
            self._not_pinned(current)
            if current.candidate_digest is not None:
                raise ConflictError(
                    f"The alias {alias!r} has a candidate on trial already.",
                    hint=f"whet rollout promote {alias}, or whet rollout rollback {alias}, first.",
                )
            if adapter.digest == current.stable_digest:
                raise ConflictError(f"{adapter.label} is the stable version of {alias!r} already.")
            return self._next(
                connection,
                current,
                alias,
                "rollout.start",
                actor,
                reason,
                now,
                candidate_digest=adapter.digest,
                candidate_share=share,
                state="canary",
            )

    def set_share(
        self,
        alias: str,
        share: float,
        *,
        actor: str,
        reason: str,
        now: int,
        expected: int | None = None,
    ) -> Rollout:
        """Change the share of the candidate on trial, 0 < share < 1."""
        if not 0 < share < 1:
            raise InputError(
                f"share is {share}; expected more than 0 and less than 1.",
                hint=(
                    f"whet rollout promote {alias} gives it all traffic, whet rollout rollback"
                    f" {alias} none."
                ),
            )
        with writing(self._database) as connection:
            current = self._canary(connection, alias, expected)
            return self._next(
                connection,
                current,
                alias,
                "rollout.share",
                actor,
                reason,
                now,
                candidate_share=share,
            )

    def promote(
        self,
        alias: str,
        version: str | None = None,
        *,
        actor: str,
        reason: str,
        now: int,
        expected: int | None = None,
        force: bool = False,
    ) -> Rollout:
        """Give all traffic to `version`, or to the candidate on trial.

        Creates the alias if it is new.

        A version whose newest evaluation failed, or broke reviewed conversations, needs `force`, or
        the signature of a person for those conversations.
        """
        with writing(self._database) as connection:
            current = self._current(connection, alias, expected)
            if current is None:
                self._check_new_alias(alias)
            else:
                self._not_pinned(current)
            adapter = self._to_promote(connection, alias, version, current)
            if not force and (why := objection(connection, adapter)):
                raise ConflictError(
                    f"{adapter.label} {why}.",
                    hint=(
                        f"`whet eval report {adapter.label}` shows why. Where only reviewed "
                        "conversations broke, "
                        f"`whet eval sign {adapter.label} --reason WHY` answers for them; "
                        f"`whet rollout promote {alias} {adapter.label} --force` promotes it "
                        "nevertheless."
                    ),
                )
            return self._make_stable(
                connection, current, alias, adapter.digest, "rollout.promote", actor, reason, now
            )

    def rollback(
        self, alias: str, *, actor: str, reason: str, now: int, expected: int | None = None
    ) -> Rollout:
        """Take a candidate off trial; without one, go back to the version before the stable one."""
        with writing(self._database) as connection:
            current = self._current(connection, alias, expected)
            if current is None:
                raise NotFoundError(
                    f"There is no alias {alias!r}.", hint="`whet rollout show` prints them."
                )
            if current.candidate_digest is not None:
                return self._next(
                    connection,
                    current,
                    alias,
                    "rollout.rollback",
                    actor,
                    reason,
                    now,
                    candidate_digest=None,
                    candidate_share=0.0,
                    state="rolled_back",
                )
            self._not_pinned(current)
            if current.stable_digest is None:
                raise ConflictError(
                    f"The alias {alias!r} is answered by the base; there is nothing before it."
                )
            earlier = self._previous_of(connection, alias, current.previous_digest)
            return self._next(
                connection,
                current,
                alias,
                "rollout.rollback",
                actor,
                reason,
                now,
                stable_digest=current.previous_digest,
                previous_digest=earlier,
                state="rolled_back",
            )

    def pin(
        self,
        alias: str,
        version: str | None = None,
        *,
        actor: str,
        reason: str,
        now: int,
        expected: int | None = None,
    ) -> Rollout:
        """Hold the alias at `version` (default: its stable one): nothing moves it until `unpin`.

        A candidate goes off trial.
        """
        with writing(self._database) as connection:
            current = self._current(connection, alias, expected)
            if current is None:
                raise NotFoundError(
                    f"There is no alias {alias!r}.",
                    hint=f"whet rollout promote {alias} VERSION makes it.",
                )
            digest = self._adapter(connection, version).digest if version else current.stable_digest
            return self._make_stable(
                connection, current, alias, digest, "rollout.pin", actor, reason, now, pinned=True
            )

    def unpin(
        self, alias: str, *, actor: str, reason: str, now: int, expected: int | None = None
    ) -> Rollout:
        """Let rollouts move the alias again."""
        with writing(self._database) as connection:
            current = self._current(connection, alias, expected)
            if current is None or not current.pinned:
                raise ConflictError(f"The alias {alias!r} is not pinned.")
            return self._next(
                connection,
                current,
                alias,
                "rollout.unpin",
                actor,
                reason,
                now,
                pinned=False,
                state="live",
            )

    # --- parts ------------------------------------------------------------------------------------------------------

    def _current(self, connection: Connection, alias: str, expected: int | None) -> Rollout | None:
        current = current_rollouts(connection).get(alias)
        if expected is not None and (current.generation if current else 0) != expected:
            raise ConflictError(
                f"The alias {alias!r} was changed meanwhile: you saw generation {expected}, now it"
                f" is {current.generation if current else 0}"
                + (f" ({current.reason}, by {current.actor})." if current else "."),
                hint="Look at it again, then decide.",
            )
        return current

    def _canary(self, connection: Connection, alias: str, expected: int | None) -> Rollout:
        current = self._current(connection, alias, expected)
        if current is None or current.candidate_digest is None:
            raise ConflictError(
                f"The alias {alias!r} has no candidate on trial.",
                hint=f"whet rollout start {alias} VERSION puts one on trial.",
            )
        return current

    def _not_pinned(self, current: Rollout) -> None:
        if current.pinned:
            raise ConflictError(
                f"The alias {current.alias!r} is pinned ({current.reason}).",
                hint=f"whet rollout unpin {current.alias} first.",
            )

    def _check_new_alias(self, alias: str) -> None:
        check_name(alias, "alias")
        if alias == self._base_alias:
            raise InputError(
                f"{alias!r} is the name of the base model.",
                hint="Choose another alias, or change WHET_BASE_ALIAS.",
            )

    def _adapter(self, connection: Connection, version: str) -> Adapter:
        adapter = find_adapter(connection, version)
        ready = [row for row in connection.execute(select(replicas)) if row.state == "ready"]
        if ready and not any(adapter.digest in row.ready for row in ready):
            refused = next(
                (row.refused[adapter.digest] for row in ready if adapter.digest in row.refused), ""
            )
            if refused:
                raise ConflictError(f"No engine can answer with {adapter.label}: {refused}")
            raise NotReadyError(
                f"No engine can answer with {adapter.label} yet: it is not loaded and proved. Try"
                " again in a few seconds."
            )
        return adapter

    def _to_promote(
        self, connection: Connection, alias: str, version: str | None, current: Rollout | None
    ) -> Adapter:
        if version is not None:
            adapter = self._adapter(connection, version)
        elif current is not None and current.candidate_digest is not None:
            adapter = self._adapter(connection, current.candidate_digest)
        else:
            adapter = self._adapter(connection, alias)
        if (
            current is not None
            and current.stable_digest == adapter.digest
            and current.candidate_digest is None
        ):
            raise ConflictError(f"{adapter.label} is the stable version of {alias!r} already.")
        return adapter

    def _make_stable(
        self,
        connection: Connection,
        current: Rollout | None,
        alias: str,
        digest: str | None,  # None: the base
        action: str,
        actor: str,
        reason: str,
        now: int,
        **also: Any,
    ) -> Rollout:
        """`digest` answers every request under the alias; what answered before it becomes the
        version to go back to.
        """
        before = current.stable_digest if current else None
        previous = before if before != digest else (current.previous_digest if current else None)
        columns = {
            "stable_digest": digest,
            "previous_digest": previous,
            "candidate_digest": None,
            "candidate_share": 0.0,
            "state": "live",
            **also,
        }
        return self._next(connection, current, alias, action, actor, reason, now, **columns)

    def _previous_of(self, connection: Connection, alias: str, digest: str | None) -> str | None:
        """What was live before `digest` first became stable, so that a second rollback goes further
        back, not forth.
        """
        if digest is None:
            return None
        made = [
            row
            for row in rollout_history(connection, alias, limit=10_000)
            if row.stable_digest == digest
        ]
        return made[-1].previous_digest if made else None

    def _next(
        self,
        connection: Connection,
        current: Rollout | None,
        alias: str,
        action: str,
        actor: str,
        reason: str,
        now: int,
        **changes: Any,
    ) -> Rollout:
        start = {
            "stable_digest": None,
            "candidate_digest": None,
            "candidate_share": 0.0,
            "previous_digest": None,
            "pinned": False,
            "state": "live",
        }
        kept = {name: getattr(current, name) for name in start} if current else start
        row = Rollout(
            id=new_id("rol", at=now), alias=alias, generation=(current.generation if current else 0) + 1, reason=reason, actor=actor, created_at=now, **{**kept, **changes}
        )  # fmt: skip
        values = {name: getattr(row, name) for name in Rollout.__slots__}
        try:
            connection.execute(insert(rollouts).values(**values))
        except IntegrityError as error:
            raise ConflictError(
                f"Somebody else changed the alias {alias!r} in the same moment.",
                hint="Look at it again, then decide.",
            ) from error
        detail = {
            "generation": row.generation,
            "reason": reason,
            "stable": row.stable_digest,
            "candidate": row.candidate_digest,
            "share": row.candidate_share,
        }
        record(connection, actor=actor, action=action, subject=alias, detail=detail, now=now)
        return row


def rollout_rows(connection: Connection, alias: str = "", limit: int = 100) -> list[JsonObject]:
    """What every alias points to, or the history of one, newest first, in the words that scripts
    read.
    """
    labels = {adapter.digest: adapter.label for adapter in list_adapters(connection, removed=True)}
    found = (
        rollout_history(connection, alias, limit=limit)
        if alias
        else list(current_rollouts(connection).values())
    )

    def label(digest: str | None) -> str | None:
        return labels.get(digest, digest[:8]) if digest else None

    return [
        {
            "alias": row.alias, "generation": row.generation, "stable": label(row.stable_digest) or "base", "candidate": label(row.candidate_digest),
            "share": row.candidate_share if row.candidate_digest else None, "previous": label(row.previous_digest), "state": row.state,
            "pinned": row.pinned, "at": iso(row.created_at), "created_at": row.created_at, "actor": row.actor, "reason": row.reason,
        }
        for row in found
    ]  # fmt: skip
