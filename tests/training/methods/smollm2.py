"""SmolLM2-135M for slow tests: adapters of a few dozen rows, and its folder with one part changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.training.tiny import facts
from training.data.rows import read_lines
from training.loop.trainer import train
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.encoded import Encoded
from training.models.fingerprint import fingerprint
from training.models.lora import adapter_weights, plain_config, trainable
from training.recipes.recipe import Recipe
from training.store.adapter_publish import NewAdapter

RANK, ALPHA, LENGTH = 16, 32.0, 512
DTYPES = ("float32", "bfloat16")
CACHE = Path(os.environ.get("WHET_TEST_CACHE") or Path.home() / ".cache" / "whet-tests")
# Two passes over 32 rows: half a minute on two quiet cores, and an effect of some nats.
RECIPE = Recipe(rank=RANK, alpha=ALPHA, epochs=2.0, batch_size=4, learning_rate=1e-3, threads=2)
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
_GROUP = 64  # weights that share a scale in `_requantize`; those of the fetched edition are 32


@dataclass(frozen=True)
class Trained:
    """An adapter, the configuration it is served with, and its fingerprint."""

    weights: dict[str, Any]
    config: dict[str, Any]
    card: dict[str, Any]


def train_adapter(base: BaseModel, dtype: str) -> Trained:
    recipe = Recipe(**{**RECIPE.as_json(), "dtype": dtype, "target_modules": ("all-linear",)})
    encoder = Encoder(base, LENGTH)
    lines = [json.dumps(row).encode() for row in facts(48)]
    rows = [
        row for each in read_lines(lines).rows if isinstance(row := encoder.encode(each), Encoded)
    ]
    model = trainable(base, recipe)
    done = train(model, rows[:32], [], recipe, pad_id=2, on_step=lambda step: None)
    assert done.last_loss < done.first_loss / 2
    found = fingerprint(model, [list(row.ids) for row in rows[32:40]], base.folder, encoder)
    config = plain_config(RANK, ALPHA, sorted(model.peft_config["default"].target_modules))
    return Trained(adapter_weights(model, dtype), config, json.loads(json.dumps(found)))


def new_version(base: BaseModel, dtype: str, version: Trained) -> NewAdapter:
    return NewAdapter(
        name=f"desk-{dtype}",
        weights=version.weights,
        config=version.config,
        base_digest=base.digest,
        template_digest=base.template_digest,
        rank=RANK,
        card={"fingerprint": version.card},
        gate="pass",
    )


def changed_base(base: BaseModel, parts: Sequence[str], folder: Path) -> Path:
    """Write the base with some parts changed: template | tokenizer | revision | other model."""
    shutil.copytree(base.folder, folder)
    changes: dict[str, Callable[[Path], None]] = {
        "template": _other_system_turn,
        "tokenizer": _spaces_before_texts,
        "revision": lambda made: _with_weights(made, _requantize),
        "other model": lambda made: _with_weights(made, _redraw),
    }
    for part in parts:
        changes[part](folder)
    return folder


def _other_system_turn(folder: Path) -> None:
    file = folder / "chat_template.jinja"
    template = file.read_text(encoding="utf-8")
    assert SYSTEM in template
    file.write_text(template.replace(SYSTEM, "You are a helpful assistant"), encoding="utf-8")


def _spaces_before_texts(folder: Path) -> None:
    """As a byte-level tokenizer is made for other models: a space before each text."""
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    assert tokenizer["pre_tokenizer"]["add_prefix_space"] is False
    tokenizer["pre_tokenizer"]["add_prefix_space"] = True
    file.write_text(json.dumps(tokenizer), encoding="utf-8")


def _with_weights(folder: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    torch.manual_seed(1)
    file = folder / "model.safetensors"
    weights = load_file(file)
    changed = {
        name: change(value) if value.dim() == 2 else value for name, value in weights.items()
    }
    save_file(changed, file, metadata={"format": "pt"})


def _requantize(matrix: torch.Tensor) -> torch.Tensor:
    """As another four-bit edition of the same model: symmetric, one scale for 64 weights."""
    groups = matrix.float().reshape(-1, _GROUP)
    scale = groups.abs().amax(dim=1, keepdim=True).clamp_min(1e-8) / 7
    return ((groups / scale).round() * scale).reshape(matrix.shape).to(matrix.dtype)


def _redraw(matrix: torch.Tensor) -> torch.Tensor:
    """Other weights of the same spread."""
    return (torch.randn(matrix.shape) * matrix.float().std()).to(matrix.dtype)
