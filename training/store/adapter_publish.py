"""Store a version: its files whole, then its rows; read its weights."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save
from sqlalchemy import Connection, func, insert, select, update

from training.store.adapter_config import PlainConfig
from training.store.adapter_store import CARD, CONFIG, WEIGHTS, evaluation_values, verify
from training.store.evaluation_types import NewEvaluation
from whet import leases
from whet.auditlog import record
from whet.clock import now_ms
from whet.context import Context
from whet.database import reading, writing
from whet.errors import ConflictError, StoreError
from whet.ids import check_name, new_id
from whet.registry import Adapter, adapter_path
from whet.store import digest_files
from whet.tables import adapters, evaluations

# Publishing takes well under a second; a publisher that dies blocks the name for this long
_PUBLISH_LEASE_MS = 60_000


@dataclass(frozen=True)
class NewAdapter:
    """Everything about a version but its number. `card` gets the hashes, name and version added."""

    name: str
    weights: dict[str, torch.Tensor]  # on the CPU, by name
    config: PlainConfig
    base_digest: str
    template_digest: str
    rank: int
    card: Mapping[str, object]
    dataset_digest: str | None = None
    run_id: str | None = None
    gate: str = "none"
    # A row of `evaluations` without id, adapter_digest and created_at
    evaluation: NewEvaluation | None = None
    created_by: str = "training"
    # Joins the transaction
    also: Callable[[Connection, Adapter], None] = field(default=lambda connection, adapter: None)


def publish(context: Context, new: NewAdapter) -> Adapter:
    """Store a version and make it visible: folder first, in one rename; then its row, its
    evaluation's row and whatever `also` does in one transaction. The same weights under the same
    name are the same version, and come back as it.

    Raises StoreError, and whatever `also` raises; then nothing is visible.
    """
    check_name(new.name, "adapter name")
    with tempfile.TemporaryDirectory(prefix="whet-adapter-") as scratch:
        folder = Path(scratch)
        try:
            _write_weights(folder, new)
        except OSError as error:
            raise StoreError(
                f"The version cannot be written to {tempfile.gettempdir()}:"
                f" {error.strerror or error}.",
                hint="Free disk space there, or set TMPDIR; nothing was stored.",
            ) from error
        digest = digest_files(folder, (CONFIG, WEIGHTS))
        with _publishing(context, new.name):
            return _publish(context, new, folder, digest)


def _write_weights(folder: Path, new: NewAdapter) -> None:
    # The name is part of the content, so that equal weights under two names stay two adapters with
    # two digests.
    content = save(new.weights, metadata={"format": "pt", "whet.name": new.name})
    (folder / WEIGHTS).write_bytes(_canonical(content))
    (folder / CONFIG).write_text(json.dumps(new.config, indent=1, sort_keys=True), encoding="utf-8")


def _canonical(content: bytes) -> bytes:
    """The same safetensors file with its header in sorted order: the library writes metadata in a
    random one, and a digest is taken of the bytes.

    A file is the header's length (8 bytes, little-endian), the header (JSON, padded with spaces to
    8 bytes), then the tensors, whose offsets count from the header's end.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(
        json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")
    ).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


@contextmanager
def _publishing(context: Context, name: str) -> Iterator[None]:
    """One publisher per name at a time: version numbers are counted without gaps, and leftovers can
    be told from work in progress.
    """
    owner, lease = new_id("pub"), f"adapters:{name}"
    deadline = time.monotonic() + 2 * _PUBLISH_LEASE_MS / 1000
    while (
        leases.acquire(context.database, lease, owner, now=now_ms(), for_ms=_PUBLISH_LEASE_MS)
        is None
    ):
        if time.monotonic() > deadline:
            raise ConflictError(
                f"Another process is storing a version of {name!r} and does not finish.",
                hint="Try again in a minute.",
            )
        time.sleep(0.05)
    try:
        yield
    finally:
        leases.release(context.database, lease, owner)


def _publish(context: Context, new: NewAdapter, scratch: Path, digest: str) -> Adapter:
    now = now_ms()
    with reading(context.database) as connection:
        known = connection.execute(select(adapters).where(adapters.c.digest == digest)).first()
        version = known.version if known else _next_version(connection, new.name)
    path = adapter_path(new.name, version, digest)
    card = _card(new, version, digest, scratch, now)
    if known is None:
        # What a publisher left that died before its row was written
        context.store.remove_folder(path)

    def fill(folder: Path) -> None:
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(scratch / name, folder / name)
        (folder / CARD).write_text(json.dumps(card, ensure_ascii=False, indent=1), encoding="utf-8")

    context.store.put_folder(path, fill)
    with writing(context.database) as connection:
        _write_row(connection, new, digest, None if known else (version, path, card), now)
        if new.evaluation is not None:
            connection.execute(
                insert(evaluations).values(
                    id=new_id("evl", at=now),
                    adapter_digest=digest,
                    created_at=now,
                    **evaluation_values(new.evaluation),
                )
            )
        adapter = Adapter(
            **connection.execute(select(adapters).where(adapters.c.digest == digest)).one()._mapping
        )
        new.also(connection, adapter)
        record(
            connection,
            actor=new.created_by[:64],
            action="adapter.store",
            subject=adapter.label,
            detail={"digest": digest, "gate": new.gate},
            now=now,
        )
    return adapter


def _card(new: NewAdapter, version: int, digest: str, scratch: Path, now: int) -> dict[str, object]:
    """What `card.json` and the version's row say of it."""
    return {
        "name": new.name,
        "version": version,
        "digest": digest,
        "files": {
            CONFIG: digest_files(scratch, (CONFIG,)),
            WEIGHTS: digest_files(scratch, (WEIGHTS,)),
        },
        "base_digest": new.base_digest,
        "template_digest": new.template_digest,
        "dataset_digest": new.dataset_digest,
        "run_id": new.run_id,
        "rank": new.rank,
        "gate": new.gate,
        "evaluation": new.evaluation,
        "created_at": now,
        "created_by": new.created_by,
        **new.card,
    }


def _write_row(
    connection: Connection,
    new: NewAdapter,
    digest: str,
    placed: tuple[int, str, Mapping[str, object]] | None,
    now: int,
) -> None:
    """`placed`: (version, path, card) of a new version; None: the same weights are stored already."""
    if placed is None:
        again = update(adapters).where(adapters.c.digest == digest)
        connection.execute(again.values(removed_at=None, gate=new.gate))
        return
    version, path, card = placed
    connection.execute(
        insert(adapters).values(
            digest=digest,
            name=new.name,
            version=version,
            path=path,
            base_digest=new.base_digest,
            template_digest=new.template_digest,
            dataset_digest=new.dataset_digest,
            run_id=new.run_id,
            rank=new.rank,
            gate=new.gate,
            card=card,
            created_at=now,
            removed_at=None,
        )
    )


def read_weights(context: Context, adapter: Adapter) -> tuple[dict[str, torch.Tensor], PlainConfig]:
    """(tensors, configuration) of a stored version, after its files were hashed."""

    verify(context, adapter)
    folder = context.store.local_folder(adapter.path)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return load_file(str(folder / WEIGHTS)), cast(PlainConfig, config)


def _next_version(connection: Connection, name: str) -> int:
    """Numbers of removed versions are not given again."""
    return (
        int(
            connection.execute(
                select(func.max(adapters.c.version)).where(adapters.c.name == name)
            ).scalar()
            or 0
        )
        + 1
    )
