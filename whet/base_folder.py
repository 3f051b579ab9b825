"""Finds the folder of the base model on this machine, without loading or downloading anything."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub  # imports its parts when they are used
import huggingface_hub.errors


def local_base_folder(source: str) -> Path | None:
    """Return the folder of a base model named by `source`, a folder or a hub id.

    None: a hub id whose files are not in the hub client's cache yet.
    """
    if Path(source).is_dir() or source.startswith(("/", ".", "~")):
        return Path(source)
    try:
        return Path(huggingface_hub.snapshot_download(source, local_files_only=True))
    except (
        huggingface_hub.errors.LocalEntryNotFoundError,
        huggingface_hub.errors.HFValidationError,
    ):
        return None
