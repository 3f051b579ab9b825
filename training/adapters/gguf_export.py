"""GGUF files of a version, for llama.cpp and what is built on it: the merged model, or the adapter
alone.

Llama's and Qwen's dense architectures, with byte-level BPE tokenizers. Formats: the GGUF
specification and llama.cpp's tensor names, as the package `gguf` has them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Quantization
from gguf import LlamaFileType as FileType
from gguf import quants
from torch import nn

from training.models.base_model import BaseModel
from training.models.gguf_vocabulary import Vocabulary, vocabulary_of
from training.models.lora import PREFIX
from training.store.adapter_config import PlainConfig
from whet.errors import InputError, StoreError

# `--type` → (what matrices are stored as, llama.cpp's number of such a file).
TYPES: dict[str, tuple[Quantization, FileType]] = {
    "f32": (Quantization.F32, FileType.ALL_F32),
    "f16": (Quantization.F16, FileType.MOSTLY_F16),
    "bf16": (Quantization.BF16, FileType.MOSTLY_BF16),
    "q8_0": (Quantization.Q8_0, FileType.MOSTLY_Q8_0),
}
_ARCHITECTURES = {
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "Qwen2ForCausalLM": gguf.MODEL_ARCH.QWEN2,
    "Qwen3ForCausalLM": gguf.MODEL_ARCH.QWEN3,
}
_CONVERTER = "convert_hf_to_gguf.py"


@dataclass(frozen=True, slots=True)
class Architecture:
    """What is needed of a base's configuration. Raises InputError for one that is not supported."""

    kind: gguf.MODEL_ARCH
    layers: int
    heads: int
    key_value_heads: int
    head_size: int

    @classmethod
    def of(cls, base: BaseModel) -> Architecture:
        config = base.config
        name = (config.get("architectures") or ["none"])[0]
        kind = _ARCHITECTURES.get(name)
        if kind is None:
            raise _unsupported(
                base, f"its architecture is {name}, and known are {', '.join(_ARCHITECTURES)}"
            )
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        scaling = rope.get("rope_type", rope.get("type", "default"))
        if scaling != "default":
            raise _unsupported(base, f"its positions are scaled ({scaling})")
        if config.get("hidden_act", "silu") != "silu":
            raise _unsupported(base, f"its activation is {config['hidden_act']}, not silu")
        if config.get("use_sliding_window"):
            raise _unsupported(base, "its attention has a sliding window")
        if kind == gguf.MODEL_ARCH.LLAMA and (
            config.get("attention_bias") or config.get("mlp_bias")
        ):
            raise _unsupported(base, "its linear layers have biases")
        heads = int(config["num_attention_heads"])
        return cls(
            kind,
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            key_value_heads=int(config.get("num_key_value_heads") or heads),
            head_size=int(config.get("head_dim") or config["hidden_size"] // heads),
        )

    @property
    def name(self) -> str:
        return str(gguf.MODEL_ARCH_NAMES[self.kind])

    def rotated(self, layer: str, value: torch.Tensor) -> torch.Tensor:
        """Return rows of a query or key matrix in the order in which llama.cpp rotates them.

        For Llama it turns neighbours, (0, 1), (2, 3) …, where transformers turns the two halves of
        a head against each other.
        """
        end = layer.rsplit(".", 1)[-1]
        if self.kind != gguf.MODEL_ARCH.LLAMA or end not in ("q_proj", "k_proj"):
            return value
        heads = self.heads if end == "q_proj" else self.key_value_heads
        halves = value.reshape(heads, 2, self.head_size // 2, -1)
        return halves.transpose(1, 2).reshape(value.shape)


def _unsupported(base: BaseModel, why: str) -> InputError:
    return InputError(
        f"{base.name} cannot be written as GGUF here: {why}.",
        hint=(
            "Export the merged model (`whet export merge VERSION --to FOLDER`) and convert it with "
            f"llama.cpp's own {_CONVERTER}."
        ),
    )


def require_type(name: str) -> None:
    """Raises InputError for a type that is not written."""
    if name not in TYPES:
        raise InputError(
            f"--type is {name!r}; expected one of {', '.join(TYPES)}.",
            hint="llama.cpp's llama-quantize makes smaller ones of an f16 file.",
        )


def require_absent(to: Path) -> None:
    """Raises InputError for a file that exists."""
    if os.path.exists(to):
        raise InputError(f"{to} exists already.", hint="Name a file that does not.")


def require_supported(base: BaseModel) -> None:
    """Raises InputError for a base that no GGUF file is written of; loads no weights."""
    Architecture.of(base)
    vocabulary_of(base)


def write_model(
    model: nn.Module, base: BaseModel, to: Path, type_name: str, about: Mapping[str, str]
) -> None:
    """Write a whole model with its tokenizer and chat template.

    `about`: name, description and license. Raises InputError where `to` exists, StoreError where it
    cannot be written.
    """
    require_type(type_name)
    architecture, vocabulary = Architecture.of(base), vocabulary_of(base)
    wanted, file_type = TYPES[type_name]
    names = gguf.get_tensor_name_map(architecture.kind, architecture.layers)
    is_tied = bool(base.config.get("tie_word_embeddings"))
    tensors = {
        _gguf_name(names, name, base): (name, value)
        for name, value in model.state_dict().items()
        if not (is_tied and name == "lm_head.weight")
    }

    def write(writer: gguf.GGUFWriter) -> None:
        _add_configuration(writer, architecture, base)
        _add_vocabulary(writer, vocabulary)
        _add_about(writer, about)
        writer.add_file_type(file_type)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _write_tensors(
            writer,
            {name: (value, _stored_as(value, wanted)) for name, (_, value) in tensors.items()},
            lambda name, value: architecture.rotated(
                tensors[name][0].removesuffix(".weight"), value
            ),
        )

    _write_file(to, architecture.name, write)


def write_adapter(
    weights: Mapping[str, torch.Tensor],
    config: PlainConfig,
    base: BaseModel,
    to: Path,
    about: Mapping[str, str],
) -> None:
    """Write a LoRA adapter alone, in 32 bits; it is loaded beside a GGUF file of its base.

    llama.cpp scales by alpha / rank, so a scale of rsLoRA's is written as the alpha that gives it.
    Raises what `write_model` raises.
    """
    architecture = Architecture.of(base)
    names = gguf.get_tensor_name_map(architecture.kind, architecture.layers)
    rank, alpha = config["r"], config["lora_alpha"]
    if config.get("use_rslora"):
        alpha *= rank**0.5
    tensors: dict[str, tuple[torch.Tensor, Quantization]] = {}
    for name, value in weights.items():
        layer, _, end = name.removeprefix(PREFIX).rpartition(".lora_")
        part = end.removesuffix(".weight")
        if part == "B":
            value = architecture.rotated(layer, value)
        target = _gguf_name(names, f"{layer}.weight", base)
        tensors[f"{target}.lora_{part.lower()}"] = (value, Quantization.F32)

    def write(writer: gguf.GGUFWriter) -> None:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
        _add_about(writer, about)
        _write_tensors(writer, tensors, lambda name, value: value)

    _write_file(to, architecture.name, write)


def _gguf_name(names: gguf.TensorNameMap, name: str, base: BaseModel) -> str:
    found = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise _unsupported(base, f"llama.cpp has no name for its tensor {name}")
    return str(found)


def _stored_as(value: torch.Tensor, wanted: Quantization) -> Quantization:
    """Return the type of one tensor: vectors stay in 32 bits, and what does not fill blocks in 16."""
    if value.ndim < 2:
        return Quantization.F32
    block, _ = gguf.GGML_QUANT_SIZES[wanted]
    return Quantization.F16 if value.shape[-1] % block else wanted


def _write_tensors(
    writer: gguf.GGUFWriter,
    tensors: Mapping[str, tuple[torch.Tensor, Quantization]],
    ordered: Callable[[str, torch.Tensor], torch.Tensor],
) -> None:
    """Write header and tensors, one after the other, so that one at a time is held twice."""
    for name, (value, kind) in tensors.items():
        shape = quants.quant_shape_to_byte_shape(tuple(value.shape), kind)
        size = int(np.prod(shape)) if kind not in (Quantization.F32, Quantization.F16) else 0
        if size:
            writer.add_tensor_info(name, shape, np.dtype(np.uint8), size, raw_dtype=kind)
        else:
            dtype = np.dtype(np.float32 if kind == Quantization.F32 else np.float16)
            writer.add_tensor_info(name, tuple(value.shape), dtype, value.numel() * dtype.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, (value, kind) in tensors.items():
        plain = ordered(name, value.detach().to("cpu", torch.float32)).numpy()
        writer.write_tensor_data(quants.quantize(plain, kind))


def _add_configuration(
    writer: gguf.GGUFWriter, architecture: Architecture, base: BaseModel
) -> None:
    config = base.config
    rope = config.get("rope_parameters") or {}
    writer.add_block_count(architecture.layers)
    writer.add_context_length(base.max_positions)
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(architecture.heads)
    writer.add_head_count_kv(architecture.key_value_heads)
    writer.add_key_length(architecture.head_size)
    writer.add_value_length(architecture.head_size)
    writer.add_rope_dimension_count(architecture.head_size)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_vocab_size(int(config["vocab_size"]))


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre_tokenizer)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_eos_token_id(vocabulary.eos_id)
    writer.add_eot_token_id(vocabulary.end_of_turn_id)
    if vocabulary.padding_id is not None:
        writer.add_pad_token_id(vocabulary.padding_id)
    if vocabulary.bos_id is not None:
        writer.add_bos_token_id(vocabulary.bos_id)
    writer.add_add_bos_token(False)  # the chat template writes it where the model wants one
    writer.add_chat_template(vocabulary.template)


def _add_about(writer: gguf.GGUFWriter, about: Mapping[str, str]) -> None:
    for key, add in (
        ("name", writer.add_name),
        ("description", writer.add_description),
        ("version", writer.add_version),
    ):
        if about.get(key):
            add(about[key])


@contextmanager
def _scratch(to: Path) -> Iterator[Path]:
    """A file beside `to` that is gone afterwards, whatever happens."""
    scratch = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    try:
        yield scratch
    finally:
        with suppress(OSError):
            scratch.unlink()


def _write_file(to: Path, architecture: str, write: Callable[[gguf.GGUFWriter], None]) -> None:
    """Write a file that appears complete or not at all."""
    require_absent(to)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with _scratch(to) as scratch:
            writer = gguf.GGUFWriter(scratch, architecture)
            try:
                write(writer)
            finally:
                writer.close()
            os.replace(scratch, to)
    except OSError as error:
        raise StoreError(
            f"{to} cannot be written: {error.strerror or error}.",
            hint="Free disk space or choose another place; nothing half-written is left.",
        ) from error
