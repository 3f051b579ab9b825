"""What leaves Whet: a version in PEFT's format, or the base with the version merged into it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training import adapter_store
from training.base_model import BaseModel
from training.device import stored_dtype
from training.judging.report import newest_judged
from training.lora import merged_once, with_stored
from training.model_card import CARD_FILE, model_card
from whet.context import Context
from whet.errors import InputError, StoreError
from whet.registry import Adapter

_BASE_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json")


def export_adapter(context: Context, adapter: Adapter, to: Path) -> None:
    """Copy the version's files, after they were hashed, with a model card beside them. Raises InputError when `to` exists, StoreError."""
    adapter_store.verify(context, adapter)
    source = context.store.local_folder(adapter.path)

    def fill(folder: Path) -> None:
        for file in source.iterdir():
            shutil.copyfile(file, folder / file.name)
        _write_card(context, adapter, folder, merged=False)

    whole_folder(to, fill)


def _write_card(context: Context, adapter: Adapter, folder: Path, *, merged: bool) -> None:
    (folder / CARD_FILE).write_text(model_card(adapter, newest_judged(context, adapter), merged=merged), encoding="utf-8")


def export_merged(context: Context, adapter: Adapter, base: BaseModel, to: Path) -> None:
    """A model folder with merged weights, tokenizer, template and model card. Raises AdapterError for another base, InputError, StoreError."""
    adapter_store.require_base(adapter, base.digest, base.name)
    weights, config = adapter_store.read_weights(context, adapter)
    # On the processor, whose memory is the larger one, and as the files are: what a float32 file holds is rounded once, after the merge.
    merged = merged_once(with_stored(base.load_model("auto", where="cpu"), config, weights), stored_dtype())

    def fill(folder: Path) -> None:
        save_model(merged, base, folder)
        _write_card(context, adapter, folder, merged=True)

    whole_folder(to, fill)


def save_model(model: Any, base: BaseModel, folder: Path) -> None:
    """Weights, tokenizer and chat template: all that transformers and the engine need."""
    model.config.use_cache = True
    model.save_pretrained(str(folder), safe_serialization=True)
    for name in _BASE_FILES:
        if (base.folder / name).is_file():
            shutil.copyfile(base.folder / name, folder / name)


def whole_folder(to: Path, fill: Callable[[Path], None]) -> None:
    """A folder that appears complete or not at all."""
    from safetensors import SafetensorError

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
    except (OSError, SafetensorError) as error:  # safetensors has words of its own for a disk that refuses
        said = error.strerror if isinstance(error, OSError) else None
        raise StoreError(f"{to} cannot be written: {said or error}.", hint="Free disk space or choose another place; nothing half-written is left.") from error
