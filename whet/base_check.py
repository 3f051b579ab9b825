"""Looks at a base model's folder before an engine is started on it. Reads headers, loads nothing.

Every problem is one that ends the engine's start or a training run, found in milliseconds instead
of at the end of a start.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from whet.base_config import position_limit, text_config
from whet.errors import ConfigurationError, WhetError
from whet.json_types import Json
from whet.lines import split_lines
from whet.settings import Settings

FORMAT_HINT = (
    "Set WHET_BASE_MODEL to a folder in Hugging Face format: config.json, *.safetensors, "
    "tokenizer and chat template."
)
_COPY_AGAIN = "Copy or download the model again, whole."
_LARGEST_HEADER_BYTES = 100 << 20  # the safetensors library's own limit
_LFS_POINTER = b"version https://git-lfs"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "vocab.txt")
# What the engine computes with (float32 is served as bfloat16); and what it can read weights of.
_DTYPES = frozenset({"auto", "bfloat16", "float16", "half", "float32", "float"})
_FLOATS = frozenset({"F32", "F16", "BF16"})
# What vLLM's CPU attention has kernels for; a GPU's kernels take these and more.
_CPU_HEAD_SIZES = frozenset({32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512})
# As transformers reads templates: `break` and `continue`, and a tag that marks what is learned.
_JINJA = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"])
_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")
# Besides weights and cache: Python, torch and vLLM's compiled parts, measured on the CPU build.
ENGINE_OVERHEAD_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about a base that an engine or a run would fail of."""

    found: str
    todo: str
    is_certain: bool = True  # False: it may still work


@dataclass(frozen=True, slots=True)
class Weights:
    """What the headers of a folder's weight files say."""

    bytes: int
    dtypes: Mapping[str, int]  # safetensors name → tensors


def check_base(folder: Path, settings: Settings, *, on_gpu: bool) -> Iterator[Problem]:
    """Yield what is wrong with the base in `folder` for the engine of these settings."""
    if not folder.is_dir():
        yield Problem(f"The base model's folder {folder} does not exist.", FORMAT_HINT)
        return
    try:
        config = _read_json(folder / "config.json")
        weights = read_weights(folder)
        yield from _dtype_problems(config, weights)
        yield from _shape_problems(config, on_gpu=on_gpu)
        position_limit(config, f"{folder}")
        yield from _text_problems(folder)
    except WhetError as error:
        yield Problem(error.message, error.hint)
        return
    if settings.starts_engine and not on_gpu:
        yield from _memory_problems(weights, settings)


def _read_json(path: Path) -> dict[str, Any]:
    """Raises ConfigurationError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path} is missing.", hint=FORMAT_HINT) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}.", hint=_COPY_AGAIN) from error
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path} holds no JSON object.", hint=_COPY_AGAIN)
    return value


def read_weights(folder: Path) -> Weights:
    """Read the headers of the weight files. Raises ConfigurationError for a torn or missing one."""
    files = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = _read_json(index).get("weight_map")
        wanted = set(names.values()) if isinstance(names, dict) else set()
        missing = sorted(wanted - {file.name for file in files})
        if missing:
            raise ConfigurationError(
                f"{folder} lacks {len(missing)} of the {len(wanted)} weight files that "
                f"{index.name} names, such as {missing[0]}.",
                hint=_COPY_AGAIN,
            )
    if not files:
        others = sorted(
            path.name for path in folder.glob("*") if path.suffix in (".bin", ".pt", ".gguf")
        )
        found = f"; it holds {', '.join(others[:3])}" if others else ""
        raise ConfigurationError(
            f"{folder} holds no weights (*.safetensors){found}.", hint=FORMAT_HINT
        )
    count, dtypes = 0, dict[str, int]()
    for file in files:
        size, kinds = _read_header(file)
        count += size
        for kind in kinds:
            dtypes[kind] = dtypes.get(kind, 0) + 1
    return Weights(count, dtypes)


def _read_header(file: Path) -> tuple[int, list[str]]:
    """Return (bytes of tensors, dtype of each tensor). Raises ConfigurationError."""
    try:
        with file.open("rb") as stream:
            head = stream.read(len(_LFS_POINTER))
            if head == _LFS_POINTER:
                raise ConfigurationError(
                    f"{file} is a Git LFS pointer, not the weights.",
                    hint="Run `git lfs pull` in the model's folder.",
                )
            (length,) = struct.unpack("<Q", head[:8].ljust(8, b"\0"))
            if not 2 <= length <= _LARGEST_HEADER_BYTES:
                raise ValueError("its header is damaged")
            stream.seek(8)
            header = json.loads(stream.read(length))
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        end = max((entry["data_offsets"][1] for entry in tensors), default=0)
        if file.stat().st_size < 8 + length + end:
            raise ValueError(f"{8 + length + end:,} bytes expected, {file.stat().st_size:,} found")
        return end, [str(entry["dtype"]) for entry in tensors]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{file} is not a whole safetensors file: {error}.", hint=_COPY_AGAIN
        ) from error


def _dtype_problems(config: Mapping[str, Json], weights: Weights) -> Iterator[Problem]:
    text = text_config(config)
    given = text.get("dtype") or text.get("torch_dtype") or config.get("torch_dtype") or "auto"
    name = str(given).removeprefix("torch.")
    if name not in _DTYPES:
        yield Problem(
            f"config.json says the dtype {name}, which the engine does not compute with; it takes "
            "bfloat16, float16 and float32.",
            "Load the model with transformers in bfloat16 and save it again.",
        )
    if config.get("quantization_config") is None:
        other = sorted(set(weights.dtypes) - _FLOATS)
        if other and not set(weights.dtypes) & _FLOATS:
            yield Problem(
                f"The weights are stored as {', '.join(other)}, and config.json has no "
                "quantization_config that says what they stand for.",
                "Use the model in bfloat16, float16 or float32.",
            )


def _shape_problems(config: Mapping[str, Json], *, on_gpu: bool) -> Iterator[Problem]:
    text = text_config(config)
    if not config.get("model_type") and not config.get("architectures"):
        yield Problem("config.json names neither model_type nor architectures.", _COPY_AGAIN)
    heads, hidden = text.get("num_attention_heads"), text.get("hidden_size")
    size = text.get("head_dim")
    if size is None and isinstance(heads, int) and isinstance(hidden, int) and heads > 0:
        size = hidden // heads
    if isinstance(size, int) and not on_gpu and size not in _CPU_HEAD_SIZES:
        yield Problem(
            f"The base has attention heads of {size}; vLLM on the CPU has kernels for "
            f"{', '.join(map(str, sorted(_CPU_HEAD_SIZES)))}.",
            "Use another base, or an engine on a GPU (WHET_ENGINE_URLS).",
            is_certain=False,  # models with attention of their own (MLA, Mamba) read other fields
        )


def _text_problems(folder: Path) -> Iterator[Problem]:
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        yield Problem(
            f"{folder} has no tokenizer: none of {', '.join(_TOKENIZERS)}.",
            "Put the tokenizer that belongs to these weights into the folder.",
        )
        return
    if (folder / "tokenizer.json").is_file():
        _read_json(folder / "tokenizer.json")
    own = folder / "tokenizer_config.json"
    config = _read_json(own) if own.is_file() else {}
    templates = list(_templates(folder, config))
    if not templates and not (folder / "tekken.json").is_file():  # Mistral's has one built in
        yield Problem(
            f"{folder} has no chat template, so no conversation could be answered.",
            "Put a chat_template.jinja into the folder; the instruction-tuned edition of a model "
            "has one.",
        )
    for template in templates:
        # The engine starts with a torn template and refuses every conversation afterwards.
        try:
            _JINJA.parse(_GENERATION.sub("", template))
        except jinja2.TemplateSyntaxError as error:
            yield Problem(
                f"The chat template of {folder} cannot be read: line {error.lineno}: "
                f"{error.message}.",
                _COPY_AGAIN,
            )


def _templates(folder: Path, config: Mapping[str, Json]) -> Iterator[str]:
    """Yield the chat templates of a folder; its own file counts before the tokenizer's field."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        yield file.read_text(encoding="utf-8", errors="replace")
        return
    found: list[Any] = [config.get("chat_template")]
    if (folder / "chat_template.json").is_file():
        found.append(_read_json(folder / "chat_template.json").get("chat_template"))
    for each in found:
        named = each if isinstance(each, list) else [each]  # several, as {"name", "template"}
        for one in named:
            text = one.get("template") if isinstance(one, dict) else one
            if isinstance(text, str) and text:
                yield text


def _memory_problems(weights: Weights, settings: Settings) -> Iterator[Problem]:
    free = available_memory_bytes()
    needed = weights.bytes + (settings.engine_kv_cache_gib << 30) + ENGINE_OVERHEAD_BYTES
    if free is not None and free < needed:
        yield Problem(
            f"The engine needs about {needed / 2**30:.1f} GiB (weights "
            f"{weights.bytes / 2**30:.1f}, cache {settings.engine_kv_cache_gib}, the rest for "
            f"itself); {free / 2**30:.1f} GiB are free.",
            "End what else takes memory, use a smaller base, or lower WHET_ENGINE_KV_CACHE_GIB.",
            is_certain=False,
        )


def available_memory_bytes() -> int | None:
    """Return the memory that a new process can have, bounded by a container's; None if unknown."""
    try:
        lines = split_lines(Path("/proc/meminfo").read_text())
        found = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return found
    return max(0, min(found, limit - used))
