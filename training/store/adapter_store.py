"""The only writer of `adapters`: versions go in whole, are checked on the way, and never change."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import insert, select, update

from training.store.evaluation_types import NewEvaluation
from whet.auditlog import record
from whet.context import Context
from whet.database import reading, writing
from whet.errors import AdapterError, ConflictError, StoreError
from whet.ids import new_id
from whet.records.training import EVALUATION_METRICS, EVALUATION_THRESHOLDS
from whet.registry import Adapter, current_rollouts, find_adapter
from whet.store import digest_files
from whet.tables import adapters, evaluations, replicas

WEIGHTS, CONFIG, CARD = "adapter_model.safetensors", "adapter_config.json", "card.json"
# An engine that still holds a removed adapter may read its files again: they go an hour later
_REMOVED_FILES_KEPT_MS = 3_600_000


def add_evaluation(
    context: Context,
    adapter: Adapter,
    evaluation: NewEvaluation,
    *,
    actor: str,
    now: int,
    action: str = "adapter.evaluate",
    detail: Mapping[str, object] | None = None,
) -> str:
    """Store a later evaluation of a version (or a signature, which is one too); returns its id.

    The version's own gate stays what it was when it was made.
    """
    evaluation_id = new_id("evl", at=now)
    with writing(context.database) as connection:
        connection.execute(
            insert(evaluations).values(
                id=evaluation_id,
                adapter_digest=adapter.digest,
                created_at=now,
                **evaluation_values(evaluation),
            )
        )
        record(
            connection,
            actor=actor,
            action=action,
            subject=adapter.label,
            detail={"verdict": evaluation["verdict"], **(detail or {})},
            now=now,
        )
    return evaluation_id


def evaluation_values(evaluation: NewEvaluation) -> dict[str, object]:
    """Return the columns of a new row of `evaluations`, JSON as its record writes it."""
    metrics = EVALUATION_METRICS.decode(evaluation["metrics"])
    thresholds = EVALUATION_THRESHOLDS.decode(evaluation["thresholds"])
    return {
        **evaluation,
        "metrics": EVALUATION_METRICS.encode(metrics),
        "thresholds": EVALUATION_THRESHOLDS.encode(thresholds),
    }


def verify(context: Context, adapter: Adapter) -> None:
    """Hash the stored files again.

    Raises StoreError that names the file which is not what was stored.
    """
    folder = context.store.local_folder(adapter.path)
    for name, expected in (adapter.card.get("files") or {}).items():
        if not (folder / name).is_file():
            raise StoreError(
                f"{adapter.label}: {name} is missing from {adapter.path}.",
                hint="Restore the folder from a backup, or train the version again.",
            )
        if digest_files(folder, (name,)) != expected:
            raise StoreError(
                f"{adapter.label}: {name} was changed after it was stored.",
                hint="Restore the folder from a backup, or remove the version.",
            )
    if digest_files(folder, (CONFIG, WEIGHTS)) != adapter.digest:
        raise StoreError(
            f"{adapter.label}: its files do not have the digest {adapter.digest[:8]}.",
            hint="Restore the folder from a backup, or remove the version.",
        )


def remove(context: Context, reference: str, *, actor: str, now: int) -> Adapter:
    """Withdraw a version: it can no longer be addressed, and engines unload it.

    Its files go later, see `sweep`.

    Raises ConflictError while an alias points to it.
    """
    with writing(context.database) as connection:
        adapter = find_adapter(connection, reference)
        for rollout in current_rollouts(connection).values():
            if adapter.digest in (rollout.stable_digest, rollout.candidate_digest):
                raise ConflictError(
                    f"{adapter.label} answers under {rollout.alias!r}.",
                    hint=(
                        "Promote another version first: `whet rollout promote"
                        f" {rollout.alias} VERSION`."
                    ),
                )
            if adapter.digest == rollout.previous_digest:
                raise ConflictError(
                    f"{adapter.label} is where a rollback of {rollout.alias!r} goes.",
                    hint="Remove it after the next promotion.",
                )
        connection.execute(
            update(adapters).where(adapters.c.digest == adapter.digest).values(removed_at=now)
        )
        record(
            connection,
            actor=actor,
            action="adapter.remove",
            subject=adapter.label,
            detail={"digest": adapter.digest},
            now=now,
        )
    return adapter


def sweep(context: Context, now: int) -> list[str]:
    """Delete the files of versions that were removed an hour ago and that no engine holds; returns
    their folders.

    An engine dies when the files of an adapter it knows disappear, so the replicas are asked first.
    """
    with reading(context.database) as connection:
        held = {
            digest for row in connection.execute(select(replicas.c.ready)) for digest in row.ready
        }
        rows = connection.execute(
            select(adapters.c.digest, adapters.c.path).where(
                adapters.c.removed_at < now - _REMOVED_FILES_KEPT_MS
            )
        ).all()
    gone = [row.path for row in rows if row.digest not in held and context.store.exists(row.path)]
    for path in gone:
        context.store.remove_folder(path)
    return gone


def require_base(adapter: Adapter, base_digest: str, base_name: str) -> None:
    """Raises AdapterError when the adapter was trained on another base."""
    if adapter.base_digest != base_digest:
        raise AdapterError(
            f"{adapter.label} belongs to the base {adapter.base_digest[:8]}, but {base_name} is"
            f" {base_digest[:8]}.",
            hint=(
                "Set WHET_BASE_MODEL to the base it was trained on, or train a version for this"
                " base."
            ),
        )
