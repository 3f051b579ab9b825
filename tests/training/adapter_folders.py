"""Adapter folders as other trainers leave them, made from small adapters of the built-in base.

PEFT itself writes them where it can. What only a cluster or another library would write is imitated
by its names, shapes or files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from training.models.base_model import BaseModel
from training.store.adapter_store import CONFIG, WEIGHTS

RANK, ALPHA = 8, 16
Tensors = dict[str, torch.Tensor]
Change = Callable[[Tensors], Tensors]


def randomize(model: torch.nn.Module, seed: int = 0) -> None:
    """Gives every trainable parameter random values that bfloat16 and float16 both hold."""
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            drawn = torch.randn(parameter.shape, generator=generator) * 0.05
            drawn[drawn.abs() < 2**-10] = 0  # below, float16 has fewer digits than bfloat16
            parameter.data = drawn.to(torch.bfloat16).to(parameter.dtype)


class Trainer:
    """Writes adapter folders below `root` for one base."""

    def __init__(self, base: BaseModel, root: Path) -> None:
        self.base = base
        self.root = root
        self.plain = self.peft("plain")

    def model(self, dtype: str = "bfloat16") -> torch.nn.Module:
        model: torch.nn.Module = self.base.load_model(dtype, where="cpu")
        return model

    def wrapped(self, dtype: str = "bfloat16", **config: Any) -> PeftModel:
        """A base with an adapter on it that PEFT made and that was given random weights."""
        model = get_peft_model(self.model(dtype), self.lora(**config), autocast_adapter_dtype=False)
        randomize(model)
        assert isinstance(model, PeftModel)
        return model

    @staticmethod
    def lora(**config: Any) -> LoraConfig:
        plain = {"r": RANK, "lora_alpha": ALPHA, "target_modules": "all-linear"}
        return LoraConfig(**{**plain, "task_type": "CAUSAL_LM", **config})

    def peft(self, name: str, dtype: str = "bfloat16", **config: Any) -> Path:
        """What save_pretrained writes."""
        folder = self.root / name
        self.wrapped(dtype, **config).save_pretrained(folder)
        return folder

    def changed(self, name: str, change: Change = lambda tensors: tensors, **config: Any) -> Path:
        """The plain folder with other tensors, and other fields in its configuration."""
        folder = shutil.copytree(self.plain, self.root / name)
        tensors = change(load_file(folder / WEIGHTS))
        save_file({n: t.contiguous().clone() for n, t in tensors.items()}, folder / WEIGHTS)
        declared = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**declared, **config}))
        return folder


# What it is called, what makes it, and what is said of it.
Case = tuple[str, Callable[[Trainer], Path], str]


def rename(old: str, new: str) -> Change:
    return lambda tensors: {name.replace(old, new, 1): t for name, t in tensors.items()}


def layer_of(name: str) -> int:
    return int(name.split("layers.")[1].split(".")[0])


def keep(wanted: Callable[[str], bool]) -> Change:
    return lambda tensors: {name: t for name, t in tensors.items() if wanted(name)}


def replace_first(change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    """Changes one lora_A."""

    def apply(tensors: Tensors) -> Tensors:
        first = min(tensors)
        return {**tensors, first: change(tensors[first])}

    return apply


def shard(folder: Path, parts: int = 2) -> Path:
    """Splits the weights as transformers shards them."""
    tensors = load_file(folder / WEIGHTS)
    where = {}
    for part in range(parts):
        file = f"adapter_model-{part + 1:05d}-of-{parts:05d}.safetensors"
        names = sorted(tensors)[part::parts]
        save_file({name: tensors[name] for name in names}, folder / file)
        where |= dict.fromkeys(names, file)
    (folder / WEIGHTS).unlink()
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    return folder


def add_trainer_state(folder: Path) -> Path:
    """What transformers' Trainer keeps beside an adapter; the pickles hold nothing that loads."""
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state_0.pth"):
        (folder / name).write_bytes(b"\x80\x04.")
    (folder / "trainer_state.json").write_text("{}")
    return folder


def without(kind: str) -> Change:
    return keep(lambda name: kind not in name)


def rename_from_layer(number: int, old: str, new: str) -> Change:
    """Renames in the layers from `number` on."""
    return lambda tensors: {
        name.replace(old, new, 1) if layer_of(name) >= number else name: tensor
        for name, tensor in tensors.items()
    }


def add_embeddings(trainer: Trainer, change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    """Adds the base's embeddings, changed."""
    weight = trainer.model().get_input_embeddings().weight.detach()
    name = "base_model.model.model.embed_tokens.weight"
    return lambda tensors: {**tensors, name: change(weight)}


def checkpoints(trainer: Trainer, *steps: int) -> Path:
    """The output folder of a trainer that saved at these steps."""
    folder = trainer.root / f"output{'-'.join(map(str, steps))}"
    for step in steps:
        add_trainer_state(shutil.copytree(trainer.plain, folder / f"checkpoint-{step}"))
    return folder
