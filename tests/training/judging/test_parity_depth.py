"""Parity on models of 2 to 80 layers: the right adapter is accepted in every pair of dtypes, and
twelve planted mismatches are refused with their causes.

Random weights, so wide apart from a real model in everything but depth; transformers plays the
engine, with attention computed in another way than in the trainer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import set_peft_model_state_dict
from peft.tuners.lora import LoraLayer

from serving.parity import EngineLogprobs, ParityResult, check_parity
from tests.training.tiny import CHATML, TURNS, build_base
from training.models import fingerprint as fingerprints
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.fingerprint import ASKED, fingerprint, logprobs
from training.models.lora import adapter_weights, plain_config, trainable, with_stored
from training.recipes.recipe import Recipe

RANK, ALPHA, LIMIT = 8, 16.0, 512
DTYPES = ("float32", "bfloat16")
TEXTS = (
    "How long is the warranty of the kettle?",
    "Send it to the service desk, please.",
    "the quick brown fox",
    "It is 24 months, see page 7 of the manual.",
)
Weights = dict[str, Any]


@dataclass(frozen=True)
class World:
    """A base of some depth, an adapter on it in both dtypes, and its fingerprints."""

    base: BaseModel
    layers: int
    weights: dict[str, Weights]
    cards: dict[str, dict[str, Any]]

    @property
    def conversations(self) -> list[list[int]]:
        turn = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\nIt is 24 months.<|im_end|>"
        tokenizer = self.base.tokenizer
        return [
            list(tokenizer(turn.format(text), add_special_tokens=False)["input_ids"])
            for text in TEXTS
        ]

    def served(
        self,
        weights: Weights,
        dtype: str,
        *,
        alpha: float = ALPHA,
        rslora: bool = False,
        noise: float = 0.0,
        base: BaseModel | None = None,
    ) -> EngineLogprobs:
        """What an engine with these weights would measure; `noise` changes the base's weights by
        that share of their spread."""
        model = _loaded(base or self.base, dtype, noise)
        set_peft_model_state_dict(model, weights)
        for module in model.modules():
            if isinstance(module, LoraLayer):
                module.scaling["default"] = alpha / (math.sqrt(RANK) if rslora else RANK)
        adapter = self._asked(model)
        with model.disable_adapter():
            return EngineLogprobs(adapter, self._asked(model))

    def _asked(self, model: Any) -> list[float]:
        found = (logprobs(model, ids)[1:] for ids in self.conversations)
        return [value for values in found for value in values if value is not None]


@lru_cache(maxsize=4)  # for a model of 80 layers, loading takes longer than asking
def _loaded(base: BaseModel, dtype: str, noise: float) -> Any:
    """A base with room for an adapter, as an engine has it: attention computed in another way."""
    loaded = base.load_model(dtype)
    loaded.set_attn_implementation("eager")
    generator = torch.Generator().manual_seed(3)
    for parameter in loaded.parameters() if noise else ():
        moved = torch.randn(parameter.shape, generator=generator) * noise
        parameter.data += (moved * parameter.data.float().std()).to(parameter.dtype)
    return _with_adapter(loaded, _random_adapter(base, 1, 1.0))


def _with_adapter(loaded: Any, weights: Weights) -> Any:
    targets = sorted({name.split(".lora_")[0].rsplit(".", 1)[-1] for name in weights})
    return with_stored(loaded, plain_config(RANK, ALPHA, targets), weights)


def _random_adapter(base: BaseModel, seed: int, spread: float) -> Weights:
    model = trainable(base, Recipe(rank=RANK, alpha=ALPHA, dtype="float32", threads=1))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                scale = spread if ".lora_B" in name else 1 / math.sqrt(parameter.shape[1])
                parameter.normal_(0, scale, generator=generator)
    return adapter_weights(model, "float32")


def _spread(layers: int) -> float:
    """Of B, by which the adapter moves log-probabilities by about half a nat at every depth."""
    return 0.08 / math.sqrt(layers)


@lru_cache(maxsize=4)
def _world(folder: Path, layers: int, spread: float) -> World:
    if not folder.exists():
        build_base(folder, template=CHATML, layers=layers, initializer_range=0.1)
    base = BaseModel(folder, f"{layers} layers")
    exact = _random_adapter(base, 1, spread)
    weights = {
        dtype: {name: value.to(getattr(torch, dtype)) for name, value in exact.items()}
        for dtype in DTYPES
    }
    world = World(base, layers, weights, {})
    for dtype in DTYPES:
        model = _with_adapter(base.load_model(dtype), weights[dtype])
        card = fingerprint(model, world.conversations, base.folder, Encoder(base, LIMIT))
        world.cards[dtype] = json.loads(json.dumps(card))
    return world


@pytest.fixture(
    scope="module",
    params=[4, *(pytest.param(layers, marks=pytest.mark.slow) for layers in (16, 80))],
    ids=lambda layers: f"{layers}layers",
)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("depth") / str(request.param)
    return _world(folder, request.param, _spread(request.param))


PAIRS = [(trained, served) for trained in DTYPES for served in DTYPES]


@pytest.mark.parametrize(("trained", "served"), PAIRS, ids=lambda dtype: dtype)
def test_what_was_trained_is_accepted(world: World, trained: str, served: str) -> None:
    result = check_parity(
        "x@v1", world.cards[trained], world.served(world.weights[trained], served), limit=LIMIT
    )
    assert result.reason == "", result
    assert result.parity["expected_difference_from_base"] > 0.1, "an adapter without effect"
    deviation, allowed = result.parity["deviation"], result.parity["allowed"]
    assert served == "bfloat16" or max(deviation.values()) < 0.001, result
    assert served == "float32" or allowed["adapter"] < 4 * deviation["adapter"], "no wide door"


@pytest.mark.parametrize("share", [0.1, 0.01], ids=["a tenth", "a hundredth"])
@pytest.mark.parametrize(("trained", "served"), PAIRS, ids=lambda dtype: dtype)
def test_adapter_of_little_effect_is_accepted(
    world: World, trained: str, served: str, share: float
) -> None:
    weak = _world(world.base.folder, world.layers, share * _spread(world.layers))
    result = check_parity(
        "x@v1", weak.cards[trained], weak.served(weak.weights[trained], served), limit=LIMIT
    )
    assert result.reason == "", result


def _layer(name: str) -> int:
    return int(name.split(".layers.")[1].split(".")[0])


def _without(weights: Weights, drop: Callable[[str], bool]) -> Weights:
    return {
        name: torch.zeros_like(value) if drop(name) else value for name, value in weights.items()
    }


def _swapped_layers(weights: Weights, one: int, other: int) -> Weights:
    to = {one: other, other: one}
    return {
        name.replace(
            f".layers.{_layer(name)}.", f".layers.{to.get(_layer(name), _layer(name))}."
        ): v
        for name, v in weights.items()
    }


def _swapped_modules(weights: Weights) -> Weights:
    def moved(name: str) -> str:
        there = name.replace("gate_proj", "?").replace("up_proj", "gate_proj")
        return there.replace("?", "up_proj")

    return {moved(name): value for name, value in weights.items()}


SCALE, WEIGHTS, BASE = "its scale is wrong", "its weights or the layers", "engine's base answers"
PLANTED: dict[str, tuple[str, Callable[[World, Weights, str], EngineLogprobs]]] = {
    "alpha halved": ("at 0.50 times", lambda w, a, d: w.served(a, d, alpha=ALPHA / 2)),
    "alpha doubled": ("at 2.00 times", lambda w, a, d: w.served(a, d, alpha=ALPHA * 2)),
    "rsLoRA": ("at 2.83 times", lambda w, a, d: w.served(a, d, rslora=True)),
    "zeroed": ("is not applied", lambda w, a, d: w.served(_without(a, lambda _: True), d)),
    "upper half missing": (
        WEIGHTS,
        lambda w, a, d: w.served(_without(a, lambda n: _layer(n) >= w.layers // 2), d),
    ),
    "lower half missing": (
        WEIGHTS,
        lambda w, a, d: w.served(_without(a, lambda n: _layer(n) < w.layers // 2), d),
    ),
    "two layers swapped": (WEIGHTS, lambda w, a, d: w.served(_swapped_layers(a, 1, 2), d)),
    "other modules": (WEIGHTS, lambda w, a, d: w.served(_swapped_modules(a), d)),
    "attention alone": (
        WEIGHTS,
        lambda w, a, d: w.served(_without(a, lambda n: ".mlp." in n), d),
    ),
    "another adapter": (
        WEIGHTS,
        lambda w, a, d: w.served(_random_adapter(w.base, 2, _spread(w.layers)), d),
    ),
    "another revision": (BASE, lambda w, a, d: w.served(a, d, noise=0.05)),
    "another base": (BASE, lambda w, a, d: w.served(a, d, base=_other_base(w))),
}


def _other_base(world: World) -> BaseModel:
    folder = world.base.folder.with_name("other")
    if not folder.exists():
        build_base(folder, template=CHATML, layers=world.layers, initializer_range=0.1, seed=1)
    return BaseModel(folder, "other")


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize(("trained", "served"), PAIRS, ids=lambda dtype: dtype)
def test_planted_mismatch_is_refused_by_its_cause(
    world: World, trained: str, served: str, planted: str
) -> None:
    cause, measure = PLANTED[planted]
    found = measure(world, world.weights[trained], served)
    result: ParityResult = check_parity("x@v1", world.cards[trained], found, limit=LIMIT)
    assert cause in result.reason, f"{planted}: {result}"


@pytest.mark.parametrize("served", DTYPES)
def test_other_template_is_refused_whatever_the_dtype(
    world: World, served: str, tmp_path: Path
) -> None:
    other = BaseModel(build_base(tmp_path / "turns", template=TURNS), "turns")
    made = Encoder(other, LIMIT).asked_ids(ASKED)
    found = replace(world.served(world.weights["float32"], served), asked=made)
    result = check_parity("x@v1", world.cards["float32"], found, limit=LIMIT)
    assert "another chat template or tokenizer" in result.reason
    assert result.parity["template"] == "other"


@pytest.mark.parametrize("served", DTYPES)
def test_trainer_to_which_bfloat16_is_slow_records_the_noise_of_few_prompts(
    world: World, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "stored_dtype", lambda: "float32")
    weights = world.weights["float32"]
    model = _with_adapter(world.base.load_model("float32"), weights)
    card = fingerprint(model, world.conversations)
    assert ["bfloat16" in prompt for prompt in card["prompts"]] == [True, True, False, False]
    right = check_parity("x@v1", card, world.served(weights, served), limit=LIMIT)
    halved = world.served(weights, served, alpha=ALPHA / 2)
    assert right.reason == "", right
    assert "at 0.50 times" in check_parity("x@v1", card, halved, limit=LIMIT).reason
