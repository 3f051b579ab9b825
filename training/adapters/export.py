"""What leaves Whet: a version in PEFT's format or as GGUF, or the base with the version merged into
it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from transformers import PreTrainedModel

from training.adapters.copies import whole_folder, write_card
from training.adapters.gguf_export import (
    require_absent,
    require_supported,
    require_type,
    write_adapter,
    write_model,
)
from training.machine.device import stored_dtype
from training.models.base_model import BaseModel
from training.models.lora import merged_once, with_stored
from training.models.ollama import modelfile
from training.store import adapter_publish, adapter_store
from whet.context import Context
from whet.errors import StoreError
from whet.registry import Adapter

_BASE_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)


def export_merged(context: Context, adapter: Adapter, base: BaseModel, to: Path) -> None:
    """A model folder with merged weights, tokenizer, template and model card.

    Raises AdapterError for another base, InputError, StoreError.
    """
    merged = _merged(context, adapter, base, stored_dtype())

    def fill(folder: Path) -> None:
        save_model(merged, base, folder)
        write_card(context, adapter, folder, merged=True)

    whole_folder(to, fill)


def _merged(context: Context, adapter: Adapter, base: BaseModel, dtype: str) -> PreTrainedModel:
    """Return the plain model with the version merged into it. Raises AdapterError for another base."""
    adapter_store.require_base(adapter, base.digest, base.name)
    weights, config = adapter_publish.read_weights(context, adapter)
    # On the processor, whose memory is the larger one, and as the files are: what a float32 file
    # holds is rounded once, after the merge.
    return merged_once(with_stored(base.load_model("auto", where="cpu"), config, weights), dtype)


class GgufJson(TypedDict):
    """A `GgufExport` as the command prints it."""

    file: str
    bytes: int
    modelfile: str | None
    notices: list[str]


@dataclass(frozen=True, slots=True)
class GgufExport:
    """What was written, and what is missing."""

    file: Path
    modelfile: Path | None
    notices: list[str]

    def as_json(self) -> GgufJson:
        """Return what the command prints."""
        return {
            "file": str(self.file),
            "bytes": self.file.stat().st_size,
            "modelfile": str(self.modelfile) if self.modelfile else None,
            "notices": self.notices,
        }


def export_gguf(
    context: Context, adapter: Adapter, base: BaseModel, to: Path, type_name: str
) -> GgufExport:
    """Write the merged model as a GGUF file, and a Modelfile for Ollama beside it.

    Raises AdapterError for another base, InputError for one that GGUF files are not written of and
    for a file that exists, StoreError.
    """
    require_type(type_name)
    require_supported(base)
    named = to.with_suffix(".Modelfile")
    for file in (to, named):
        require_absent(file)
    write_model(_merged(context, adapter, base, "float32"), base, to, type_name, _about(adapter))
    room = min(base.max_positions, context.settings.engine_max_model_len)
    text, notice = modelfile(base, to.name, context_tokens=room)
    try:
        named.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"{named} cannot be written: {error.strerror}.",
            hint=f"{to} is complete; free disk space and write the Modelfile by hand.",
        ) from error
    return GgufExport(to, named, [notice] if notice else [])


def export_gguf_adapter(
    context: Context, adapter: Adapter, base: BaseModel, to: Path
) -> GgufExport:
    """Write the adapter alone as a GGUF file. Raises what `export_gguf` raises."""
    adapter_store.require_base(adapter, base.digest, base.name)
    weights, config = adapter_publish.read_weights(context, adapter)
    write_adapter(weights, config, base, to, _about(adapter))
    notice = (
        f"It is loaded beside a GGUF file of {base.name}: llama-server -m BASE --lora {to.name}"
    )
    return GgufExport(to, None, [notice])


def _about(adapter: Adapter) -> dict[str, str]:
    """Return what a GGUF file says of itself."""
    return {
        "name": adapter.name,
        "version": f"v{adapter.version}",
        "description": f"{adapter.label} ({adapter.digest[:12]}), made by Whet",
    }


def save_model(model: PreTrainedModel, base: BaseModel, folder: Path) -> None:
    """Weights, tokenizer and chat template: all that transformers and the engine need."""
    model.config.use_cache = True
    model.save_pretrained(str(folder), safe_serialization=True)
    for name in _BASE_FILES:
        if (base.folder / name).is_file():
            shutil.copyfile(base.folder / name, folder / name)
