"""What the next dataset version of an alias would hold. Reads only; `feedback.datasets` builds it.

A version is the seed rows and every reviewed example that stands. The seed rows are those at the
root of what the live adapter was trained on, or those that were imported from files since. It is
assembled anew from these each time, so an example that was withdrawn leaves no trace in the next
one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from feedback.assembly import Assembled, Example, assemble
from feedback.dataset_store import (
    DatasetVersion,
    manifest,
    newest,
    newest_import,
    read_rows,
    rows_digest,
)
from feedback.erasing import erased_subjects, is_erased
from feedback.queue import REPLACED
from whet.context import Context
from whet.control_tokens import load_control_tokens
from whet.database import reading
from whet.errors import StoreError
from whet.registry import current_rollouts, list_adapters
from whet.store import Store, digest_json
from whet.tables import examples

_MAX_ANCESTORS = 1000  # a loop in parents cannot happen by digests; this bounds a damaged manifest
_REMEMBERED = 32  # previews: one per alias is enough, and a preview is small


@dataclass(frozen=True, slots=True)
class NextVersion:
    """An assembled version that need not exist yet."""

    digest: str
    assembled: Assembled
    parents: list[str]  # digests
    seed_path: str | None  # folder of the seed rows, relative to the store
    standing: int  # reviewed examples it was made from


@dataclass(frozen=True, slots=True)
class Preview:
    """What the policy needs to know of the next version."""

    digest: str
    example_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Inputs:
    """Everything that decides what the next version holds."""

    parent: tuple[str, str] | None  # (digest, folder)
    standing: list[str]  # ids of the reviewed examples, in order
    erased: dict[str, int]
    before: DatasetVersion | None


_previews: OrderedDict[str, Preview | None] = OrderedDict()


def assemble_next(context: Context, alias: str) -> NextVersion:
    """Assemble the version that a build would make now.

    Raises StoreError when the seed rows are gone or their folder is damaged.
    """
    return _assemble(context, alias, _inputs(context, alias))


def preview(context: Context, alias: str) -> Preview | None:
    """Return what the next version would be, or None where it would have no training row.

    The answer is remembered until something that decides it changes. Raises what `assemble_next`
    raises.
    """
    inputs = _inputs(context, alias)
    key = _fingerprint(context, alias, inputs)
    if key not in _previews:
        made = _assemble(context, alias, inputs)
        has_rows = bool(made.assembled.rows["train"])
        known = Preview(made.digest, frozenset(made.assembled.example_ids)) if has_rows else None
        _previews[key] = known
        while len(_previews) > _REMEMBERED:
            _previews.popitem(last=False)
    return _previews[key]


def _fingerprint(context: Context, alias: str, inputs: _Inputs) -> str:
    # An example's row changes only when it is erased, and then it stands no longer.
    return digest_json(
        {
            "database": str(context.database.url),
            "alias": alias,
            "parent": inputs.parent,
            "standing": inputs.standing,
            "erased": inputs.erased,
            "before": inputs.before.digest if inputs.before else None,
            "base": str(context.base_folder),
        }
    )


def _inputs(context: Context, alias: str) -> _Inputs:
    with reading(context.database) as connection:
        return _Inputs(
            _parent(connection, alias),
            _standing_ids(connection, alias),
            erased_subjects(connection),
            newest(connection, alias),
        )


def _assemble(context: Context, alias: str, inputs: _Inputs) -> NextVersion:
    known = set(inputs.standing)  # one that came since belongs to the next look
    with reading(context.database) as connection:
        standing = [e for e in standing_examples(connection, alias) if e.id in known]
    chain = ancestors(context.store, inputs.parent[1]) if inputs.parent else []
    seed = _seed_rows(context, chain[-1], inputs.erased) if chain else {}
    assigned = _assigned(context.store, inputs.before)
    assembled = assemble(seed, standing, assigned, load_control_tokens(context))
    digest = rows_digest(assembled.rows, assembled.regression)
    parents = [inputs.parent[0]] if inputs.parent and inputs.parent[0] != digest else []
    return NextVersion(digest, assembled, parents, chain[-1] if chain else None, len(standing))


def _parent(connection: Connection, alias: str) -> tuple[str, str] | None:
    """Return (digest, folder) of the dataset behind the live adapter, or of a later import.

    Without a live one: behind the newest adapter; without any: the newest dataset version.
    """
    live = current_rollouts(connection).get(alias)
    versions = [a for a in list_adapters(connection, alias, removed=True) if a.dataset_digest]
    served = (a for a in versions if live and a.digest == live.stable_digest)
    chosen = next(served, None) or next((a for a in versions if a.removed_at is None), None)
    imported = newest_import(connection, alias)
    if imported and (chosen is None or imported.created_at > chosen.created_at):
        return imported.digest, imported.path
    if chosen and chosen.dataset_digest:
        path = chosen.card.get("dataset_path") or f"datasets/{chosen.dataset_digest}"
        return chosen.dataset_digest, str(path)
    version = newest(connection, alias)
    return (version.digest, version.path) if version else None


def seed_version(context: Context, alias: str) -> str | None:
    """Return the digest of the seed rows that the next version builds upon, if there are some."""
    with reading(context.database) as connection:
        parent = _parent(connection, alias)
    return ancestors(context.store, parent[1])[-1].rsplit("/", 1)[-1] if parent else None


def ancestors(store: Store, path: str) -> list[str]:
    """Return the folder and those it was built from, up to the seed."""
    chain = [path]
    while len(chain) < _MAX_ANCESTORS:
        parents = manifest(store, chain[-1]).get("parents") or []
        if not parents or not store.exists(f"datasets/{parents[0]}"):
            return chain
        chain.append(f"datasets/{parents[0]}")
    raise StoreError(
        f"{path} has more than {_MAX_ANCESTORS} ancestors; its manifest.json is damaged.",
        hint="Compare with `whet doctor`.",
    )


def _seed_rows(
    context: Context, path: str, erased: Mapping[str, int]
) -> dict[str, list[dict[str, Any]]]:
    if not context.store.exists(path):
        raise StoreError(
            f"The rows that the live adapter was trained on are gone: the store has no {path}.",
            hint="Restore the folder, or train a new first version from a file.",
        )
    known, secret = dict(erased), context.secret
    return {
        split: [row for row in rows if not is_erased(known, row.get("user"), 0, secret)]
        for split, rows in read_rows(context.store, path).items()
    }


def _standing_ids(connection: Connection, alias: str) -> list[str]:
    stands = (examples.c.alias == alias, examples.c.withdrawn_at.is_(None))
    query = select(examples.c.id).where(*stands).order_by(examples.c.id)
    return list(connection.execute(query).scalars())


def standing_examples(connection: Connection, alias: str) -> list[Example]:
    """Return the alias's reviewed examples that stand."""
    query = select(examples).where(examples.c.alias == alias, examples.c.withdrawn_at.is_(None))
    found = []
    for row in connection.execute(query):
        content = {key: value for key, value in row.row.items() if key != REPLACED}
        replaced = row.row.get(REPLACED)
        found.append(Example(row.id, content, row.end_user, row.created_at, replaced))
    return found


def _assigned(store: Store, before: DatasetVersion | None) -> dict[str, str]:
    return dict(manifest(store, before.path).get("assigned") or {}) if before else {}
