"""Copy a stored version out of Whet, with its model card: a whole folder or none."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from training.adapters.model_card import CARD_FILE, model_card
from training.evaluation.report import newest_judged
from training.store import adapter_store
from whet.context import Context
from whet.errors import InputError, StoreError
from whet.registry import Adapter


def export_adapter(context: Context, adapter: Adapter, to: Path) -> None:
    """Copy the version's files, after they were hashed, with a model card beside them.

    Raises InputError when `to` exists, StoreError.
    """
    adapter_store.verify(context, adapter)
    source = context.store.local_folder(adapter.path)

    def fill(folder: Path) -> None:
        for file in source.iterdir():
            shutil.copyfile(file, folder / file.name)
        write_card(context, adapter, folder, merged=False)

    whole_folder(to, fill)


def write_card(context: Context, adapter: Adapter, folder: Path, *, merged: bool) -> None:
    (folder / CARD_FILE).write_text(
        model_card(adapter, newest_judged(context, adapter), merged=merged), encoding="utf-8"
    )


def whole_folder(to: Path, fill: Callable[[Path], None]) -> None:
    """A folder that appears complete or not at all."""

    if to.exists():
        raise InputError(f"{to} exists already.", hint="Name a folder that does not.")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}-"))
        try:
            fill(scratch)
            scratch.chmod(0o755)
            os.rename(scratch, to)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except (
        OSError,
        SafetensorError,
    ) as error:  # safetensors has words of its own for a disk that refuses
        said = error.strerror if isinstance(error, OSError) else None
        raise StoreError(
            f"{to} cannot be written: {said or error}.",
            hint="Free disk space or choose another place; nothing half-written is left.",
        ) from error
