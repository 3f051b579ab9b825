"""Finds an adapter in a folder that somebody else wrote: its configuration and weight files.

What is not an adapter in PEFT's format is refused by what it is: a whole model, a pickle, the parts
of a sharded checkpoint, a file of MLX or llama.cpp.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.adapters.config import read_object
from training.store.adapter_store import CONFIG, WEIGHTS
from whet.errors import AdapterError

_INDEX = f"{WEIGHTS}.index.json"
_MAX_INDEX_BYTES = 1 << 24  # names of the tensors of some thousand layers
_SEARCH_DEPTH = 2  # `output/checkpoint-500/adapter_model/` is as deep as trainers nest an adapter
_SHOWN = 5  # names in a sentence
_HUB_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
# What transformers, accelerate and DeepSpeed keep beside an adapter to resume a run; never read.
_TRAINER_STATE = (
    "training_args.bin",
    "optimizer.pt",
    "optimizer.bin",
    "scheduler.pt",
    "scheduler.bin",
    "scaler.pt",
    "sampler*.bin",
    "rng_state*.pth",
    "random_states_*.pkl",
    "custom_checkpoint_*.pkl",
    "*_model_states.pt",
    "*_optim_states.pt",
)
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_SAVE_AGAIN = "Save the adapter again with PEFT's save_pretrained and safe_serialization=True."


@dataclass(frozen=True)
class AdapterFiles:
    """The files of one adapter. `weights` are all its safetensors files: one, or every shard."""

    folder: Path
    weights: tuple[Path, ...]
    notices: tuple[str, ...]  # what was chosen or left out, in sentences

    @property
    def config(self) -> Path:
        return self.folder / CONFIG


def find_adapter_files(given: Path) -> AdapterFiles:
    """Finds the adapter in `given` or in the only folder below it that holds one.

    Raises AdapterError when there is none, when there are several, when one of its files is a link,
    and when a pickle lies among them that is not the state of a trainer.
    """
    _require_folder(given)
    folder = _adapter_folder(given)
    notices = []
    if folder != given:
        notices.append(f"The adapter lies in {folder.relative_to(given)}/ of the folder.")
    state = _check_entries(folder)
    if state:
        notices.append(f"Not read, because it is the trainer's own state: {_listed(state)}.")
    return AdapterFiles(folder, _weight_files(folder), tuple(notices))


def _require_folder(given: Path) -> None:
    hint = f"Name the folder that holds {CONFIG} and {WEIGHTS}."
    if given.is_symlink():
        raise AdapterError(f"{given} is a link.", hint=hint)
    if given.is_dir():
        return
    if given.suffix == ".gguf" and given.is_file():
        raise _gguf(given.name)
    if given.is_file():
        raise AdapterError(f"{given} is a file, not a folder.", hint=hint)
    if _HUB_ID.fullmatch(str(given)):
        hint = f"From the hub: hf download {given} --local-dir FOLDER, then import FOLDER."
    raise AdapterError(f"{given} is not a folder.", hint=hint)


def _adapter_folder(given: Path) -> Path:
    """The folder itself when it holds an adapter's configuration, else the only one below it."""
    if (given / CONFIG).is_file():
        return given
    found = sorted(_below(given, _SEARCH_DEPTH), key=_natural)
    if len(found) > 1:
        names = [str(folder.relative_to(given)) for folder in found]
        raise AdapterError(
            f"{given} holds {len(found)} adapters: {_listed(names)}.",
            hint=f"Name one of them: whet adapters import {found[-1]}",
        )
    if not found:
        raise _explain_absence(given, CONFIG)
    return found[0]


def _below(folder: Path, depth: int) -> Iterator[Path]:
    if not depth:
        return
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink() or not entry.is_dir():
            continue
        if (entry / CONFIG).is_file():
            yield entry
        else:
            yield from _below(entry, depth - 1)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts checkpoint-500 before checkpoint-1000."""
    parts = re.findall(r"\d+|\D+", str(path))
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]


def _check_entries(folder: Path) -> list[str]:
    """Names of the trainer's state files. Raises AdapterError for links and for other pickles."""
    state = []
    for parent, folders, files in os.walk(folder, followlinks=False):
        for entry in (*folders, *files):
            path = Path(parent) / entry
            name = str(path.relative_to(folder))
            if path.is_symlink():
                raise AdapterError(
                    f"{name} is a link; an adapter is plain files.",
                    hint=f"Copy the files themselves: cp -rL {folder} NEW_FOLDER",
                )
            if path.suffix.lower() not in _PICKLES or path.is_dir():
                continue
            if any(fnmatch.fnmatch(entry, pattern) for pattern in _TRAINER_STATE):
                state.append(name)
                continue
            raise _pickle(name)
    return sorted(state)


def _pickle(name: str) -> AdapterError:
    return AdapterError(
        f"{name} is a pickle, which can run code when it is read; "
        f"expected {WEIGHTS} and no pickles.",
        hint=f"{_SAVE_AGAIN} Then remove the pickle.",
    )


def _weight_files(folder: Path) -> tuple[Path, ...]:
    """One safetensors file, or the shards that the index names. Raises AdapterError."""
    weights = folder / WEIGHTS
    if weights.is_file():
        _refuse_lfs_pointer(weights)
        return (weights,)
    if not (folder / _INDEX).is_file():
        raise _explain_absence(folder, WEIGHTS)
    shards = read_object(folder / _INDEX, _MAX_INDEX_BYTES).get("weight_map")
    listed = list(shards.values()) if isinstance(shards, dict) else []
    names = {name for name in listed if isinstance(name, str) and name == Path(name).name}
    if not names or any(name not in names for name in listed):
        raise AdapterError(
            f"{_INDEX} does not name the files of the adapter (weight_map).", hint=_SAVE_AGAIN
        )
    for name in sorted(names):
        if not (folder / name).is_file():
            raise AdapterError(
                f"{_INDEX} names {name}, which is not in the folder: the adapter is not whole.",
                hint="Copy the missing file too.",
            )
        _refuse_lfs_pointer(folder / name)
    return tuple(folder / name for name in sorted(names))


def _refuse_lfs_pointer(file: Path) -> None:
    with file.open("rb") as opened:
        if opened.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise AdapterError(
                f"{file.name} is a pointer of Git LFS, not the weights themselves.",
                hint="Run `git lfs pull` in that repository, or download it with `hf download`.",
            )


def _explain_absence(folder: Path, wanted: str) -> AdapterError:
    """The refusal of a folder without the file `wanted`, by what else lies in it."""
    names = sorted(entry.name for entry in folder.iterdir())

    def first(*patterns: str) -> str | None:
        return next((n for n in names if any(fnmatch.fnmatch(n, p) for p in patterns)), None)

    if gguf := first("*.gguf"):
        return _gguf(gguf)
    if mlx := first("adapters.safetensors", "*_adapters.safetensors", "adapters.npz"):
        return AdapterError(
            f"{mlx} is an adapter of MLX; expected PEFT's {CONFIG} and {WEIGHTS}.",
            hint="Merge it with mlx_lm.fuse --dequantize and set WHET_BASE_MODEL to the result, "
            "or train it with PEFT, TRL, Axolotl, LLaMA-Factory or Unsloth.",
        )
    if (sharded := first("*.distcp", "pytorch_model_fsdp*", ".metadata", "global_step*")) or first(
        "zero_to_fp32.py"
    ):
        return AdapterError(
            f"The folder holds a checkpoint in parts ({sharded or 'zero_to_fp32.py'}), one for "
            f"each process of FSDP or DeepSpeed, and no file {wanted}.",
            hint="Gather it when it is saved (FSDP: state_dict_type FULL_STATE_DICT; DeepSpeed: "
            "stage3_gather_16bit_weights_on_model_save), with the trainer's save_model.",
        )
    if diffusers := first("pytorch_lora_weights.safetensors"):
        return AdapterError(
            f"{diffusers} is an adapter of an image model (diffusers).",
            hint="Whet serves adapters of language models.",
        )
    if pickle := first(*(f"adapter*{suffix}" for suffix in _PICKLES)):
        return _pickle(pickle)
    whole = first("model.safetensors", "model-*-of-*.safetensors", "pytorch_model*.bin")
    if whole and "config.json" in names:
        return AdapterError(
            f"The folder holds a whole model ({whole}), not an adapter.",
            hint=f"Use it as the base: WHET_BASE_MODEL={folder}. Adapters belong beside the base "
            "that they were trained on.",
        )
    if "adapter_model.safetensors" not in names and (
        shard := first("adapter_model-*-of-*.safetensors")
    ):
        return AdapterError(
            f"The folder holds {shard}, a part of an adapter, without {_INDEX}.",
            hint="Copy all parts and the index, or save the adapter again in one file.",
        )
    return AdapterError(
        f"{folder} has no file {wanted}.",
        hint="Save the adapter with PEFT's save_pretrained and safetensors.",
    )


def _gguf(name: str) -> AdapterError:
    return AdapterError(
        f"{name} is a file of llama.cpp; expected PEFT's {CONFIG} and {WEIGHTS}.",
        hint="Import the PEFT folder that it was converted from.",
    )


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
