"""Which base model the engine must serve, and the name it serves it under.

The name carries the digest, so that an engine with other weights cannot answer to it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from whet.base_config import position_limit
from whet.base_folder import local_base_folder
from whet.context import Context
from whet.errors import ConfigurationError
from whet.named_bases import require_fetched
from whet.settings import Settings
from whet.store import base_model_digest, digest_bytes


@dataclass(frozen=True, slots=True)
class Base:
    """A base model as this installation knows it."""

    source: str  # what the engine is given: a folder, or a hub id
    digest: str | None  # None: a hub id whose files are not on this machine yet
    engine_name: str
    folder: Path | None
    max_positions: int | None = None  # tokens that the base can attend to; None: not known here

    def served_length(self, settings: Settings) -> int:
        """Return the tokens of prompt and answer that an engine on this base is started with."""
        return min(
            settings.engine_max_model_len, self.max_positions or settings.engine_max_model_len
        )


def base_of(context: Context) -> Base:
    """Read the base model's identity.

    The digest of large weights is kept in the home folder and taken again when a file changes.

    Raises StoreError for a folder that is not a model, ConfigurationError for a named base that has
    not been fetched.
    """
    require_fetched(context.settings.home, context.settings.base_model)
    source = context.settings.resolved_base_model
    folder = local_base_folder(source)
    if folder is None:
        return Base(source, None, f"base--{digest_bytes(source.encode())[:8]}", None)
    digest = _cached_digest(context.settings.home / "cache" / "base-digest.json", folder)
    name = digest[:8] if folder == Path(source) else digest_bytes(source.encode())[:8]
    return Base(source, digest, f"base--{name}", folder, _max_positions(folder))


def _max_positions(folder: Path) -> int | None:
    """Raises ConfigurationError for a configuration that cannot be read."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{folder / 'config.json'} cannot be read: {error}.",
            hint="Copy or download the model again, whole.",
        ) from error
    return position_limit(config, str(folder)) if isinstance(config, dict) else None


def _cached_digest(cache: Path, folder: Path) -> str:
    stamp = [
        str(folder),
        *sorted(
            f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}"
            for file in folder.glob("*")
            if file.is_file()
        ),
    ]
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
