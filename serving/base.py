"""Which base model the engine must serve, and the name it serves it under.

The name carries the digest, so that an engine with other weights cannot answer to it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from whet.base_folder import local_base_folder
from whet.context import Context
from whet.store import base_model_digest, digest_bytes


@dataclass(frozen=True, slots=True)
class Base:
    """A base model as this installation knows it."""

    source: str  # what the engine is given: a folder, or a hub id
    digest: str | None  # None: a hub id whose files are not on this machine yet
    engine_name: str
    folder: Path | None


def base_of(context: Context) -> Base:
    """Read the base model's identity. The digest of large weights is kept in the home folder and taken again when a file changes.

    Raises StoreError for a folder that is not a model.
    """
    source = context.settings.resolved_base_model
    folder = local_base_folder(source)
    if folder is None:
        return Base(source, None, f"base--{digest_bytes(source.encode())[:8]}", None)
    digest = _cached_digest(context.settings.home / "cache" / "base-digest.json", folder)
    name = digest[:8] if folder == Path(source) else digest_bytes(source.encode())[:8]
    return Base(source, digest, f"base--{name}", folder)


def _cached_digest(cache: Path, folder: Path) -> str:
    stamp = [str(folder), *sorted(f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in folder.glob("*") if file.is_file())]
    if cache.is_file():
        known = json.loads(cache.read_text())
        if known["stamp"] == stamp:
            return str(known["digest"])
    digest = base_model_digest(folder)
    cache.parent.mkdir(parents=True, exist_ok=True)
    scratch = cache.with_suffix(".tmp")
    scratch.write_text(json.dumps({"stamp": stamp, "digest": digest}))
    scratch.replace(cache)
    return digest
