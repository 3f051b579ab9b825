"""A base model with a LoRA adapter on it, as PEFT builds it; how its weights go out and come in."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any, cast

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from training.models.base_model import EXPERT_COUNTS, BaseModel
from training.models.kernels import fuse_lora, use_short_attention
from training.recipes.methods import ADAPTER, METHODS
from training.recipes.recipe import Recipe
from training.store.adapter_config import PlainConfig
from whet.errors import AdapterError, InputError
from whet.registry import ENGINE_LORA_MODULES

PREFIX = "base_model.model."  # of every tensor name in a PEFT adapter file
_ALL_LINEAR = "all-linear"
_STARTS = {"default": True}  # a recipe's name → PEFT's, where they differ
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj")


def target_names(
    model: PreTrainedModel, wanted: tuple[str, ...], *, served: bool, head: nn.Module | None = None
) -> list[str]:
    """Names of the layers that get an adapter.

    Raises InputError when one names no linear layer of the model, or when it is to be `served` and
    the engine takes no adapter there.

    `all-linear` becomes the list of names, without the output `head` (by default the model's own),
    because the engine wants to read them; of a mixture of experts it is the attention, because the
    engine's CPU build takes no adapters on experts.
    """

    head = head or cast(Any, model).get_output_embeddings()
    found = sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        }
    )
    if wanted == (_ALL_LINEAR,):
        wanted = (
            tuple(name for name in found if name in ENGINE_LORA_MODULES) if served else tuple(found)
        )
        experts = any(getattr(model.config, name, None) for name in EXPERT_COUNTS)
        return [name for name in wanted if not experts or name in _ATTENTION]
    unknown = sorted(set(wanted) - set(found))
    if unknown:
        raise InputError(
            f"The base has no linear layer named {', '.join(unknown)}.",
            hint=f"It has {', '.join(found)}.",
        )
    unserved = sorted(set(wanted) - set(ENGINE_LORA_MODULES)) if served else []
    if unserved:
        raise InputError(
            f"The engine takes no adapter on layers named {', '.join(unserved)}.",
            hint=f"It takes {', '.join(ENGINE_LORA_MODULES)}; all-linear leaves the others out.",
        )
    return sorted(wanted)


INITIAL = "initial"  # name of the untrained copy of an adapter that started with a part of the base


def add_lora(model: PreTrainedModel, recipe: Recipe) -> PeftModel:
    """Return the PEFT model with its adapter in the base's dtype.

    At first it answers like the base: by default A is random by the seed and B zero. PiSSA (Meng et
    al. 2024) and OLoRA (Büyükakyüz 2024) move a part of the base's weights into the adapter; a copy
    of its start stays beside it, frozen, for `served_adapter`.
    """

    torch.manual_seed(recipe.seed)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=cast(int, recipe.alpha),  # PEFT divides by the rank; a fraction is as good
        lora_dropout=recipe.dropout,
        target_modules=target_names(
            model, recipe.target_modules, served=METHODS[recipe.method].engine == ADAPTER
        ),
        bias="none",
        task_type="CAUSAL_LM",
        use_rslora=recipe.method == "rslora",
        use_dora=recipe.method == "dora",
        init_lora_weights=cast(
            Any, _STARTS.get(recipe.init_lora_weights, recipe.init_lora_weights)
        ),
    )
    compute = getattr(torch, recipe.dtype)
    peft_model = get_peft_model(model, config, autocast_adapter_dtype=False)
    if recipe.changes_base:
        _require_full_rank(peft_model, recipe)
    cast_parameters(
        (parameter for parameter in peft_model.parameters() if parameter.requires_grad), compute
    )
    if recipe.changes_base:
        _keep_start(peft_model, compute)
    return peft_model


def _require_full_rank(peft_model: PeftModel, recipe: Recipe) -> None:
    """Raise InputError where a layer has fewer singular values than the adapter's rank."""
    found = {
        name: min(parameter.shape)
        for name, parameter in peft_model.named_parameters()
        if ".lora_A." in name and parameter.shape[0] != recipe.rank
    }
    if found:
        name, smallest = min(found.items(), key=lambda item: item[1])
        layer = name.removeprefix(PREFIX).partition(".lora_A.")[0]
        raise InputError(
            f"{recipe.init_lora_weights} with rank {recipe.rank} needs {recipe.rank} directions of "
            f"each layer; {layer} has {smallest}.",
            hint=f"Use --rank {smallest} or less, or leave such layers out (--target-modules).",
        )


def _keep_start(peft_model: PeftModel, compute: torch.dtype) -> None:
    """Add a frozen copy of the adapter as it is now, under the name `INITIAL`."""

    config = copy.deepcopy(cast(LoraConfig, peft_model.peft_config["default"]))
    config.init_lora_weights = True
    peft_model.add_adapter(INITIAL, config, autocast_adapter_dtype=False)
    state = get_peft_model_state_dict(peft_model)
    set_peft_model_state_dict(peft_model, state, adapter_name=INITIAL)
    for name, parameter in peft_model.named_parameters():
        if f".{INITIAL}." in name:
            parameter.data = parameter.data.to(compute)
            parameter.requires_grad_(False)


def served_adapter(
    peft_model: PeftModel, dtype: str
) -> tuple[dict[str, torch.Tensor], PlainConfig]:
    """Return (weights, configuration) of the trained adapter as a plain LoRA of the unchanged base.

    Where the adapter started with a part of the base (PiSSA, OLoRA), that start is subtracted as
    PEFT does: [A | A₀], [B | -B₀], twice the rank at the same scale.
    """

    trained = cast(LoraConfig, peft_model.peft_config["default"])
    state = get_peft_model_state_dict(peft_model)
    rank: int = trained.r
    alpha: float = trained.lora_alpha
    if INITIAL in peft_model.peft_config:
        state = cast(Any, peft_model.base_model).subtract_mutated_init(state, INITIAL, {})
        rank, alpha = 2 * rank, alpha * (math.sqrt(2) if trained.use_rslora else 2)
    config = plain_config(
        rank, alpha, sorted(trained.target_modules or ()), rslora=trained.use_rslora
    )
    return _on_cpu(state, dtype), config


def trainable(base: BaseModel, recipe: Recipe) -> PeftModel:
    """The base, loaded, with a fresh adapter on it; on a CPU with the faster kernels that compute
    the same.
    """
    model = base.load_model(recipe.dtype, four_bits=recipe.method == "qlora")
    peft_model = add_lora(model, recipe)
    if next(model.parameters()).device.type == "cpu":
        fuse_lora(peft_model)
        use_short_attention(model)
    return peft_model


def cast_parameters(parameters: Iterable[torch.Tensor], dtype: torch.dtype) -> None:
    """Change the dtype of parameters and of nothing else: `model.to(dtype)` would also round the
    position frequencies, which are float32 in every engine, and shift the meaning of every later
    token.
    """
    for parameter in parameters:
        parameter.data = parameter.data.to(dtype)


def merged_once(model: PreTrainedModel | PeftModel, dtype: str) -> PreTrainedModel:
    """The plain model, as it is written and served: a PEFT model's adapters merged into its
    weights, all in `dtype` (a torch name).

    Each layer is merged in float32 and rounded once: adding in bfloat16 would lose most of a small
    update, and the whole model in float32 needs twice its memory.
    """

    wanted = getattr(torch, dtype)
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        cast_parameters(layer.parameters(), torch.float32)
        layer.merge()
        cast_parameters(layer.parameters(), wanted)
    whole: PreTrainedModel = model.unload() if isinstance(model, PeftModel) else model
    cast_parameters(whole.parameters(), wanted)
    whole.config.dtype = wanted
    whole.requires_grad_(False).train(False)
    return whole


def adapter_weights(peft_model: PeftModel, dtype: str) -> dict[str, torch.Tensor]:
    """Tensor name → tensor on the CPU, in PEFT's naming, in the dtype that the engine computes in."""

    return _on_cpu(get_peft_model_state_dict(peft_model), dtype)


def _on_cpu(state: dict[str, torch.Tensor], dtype: str) -> dict[str, torch.Tensor]:
    kind = getattr(torch, dtype)
    return {
        name: tensor.detach().to("cpu", kind).contiguous() for name, tensor in sorted(state.items())
    }


def set_adapter_weights(peft_model: PeftModel, weights: dict[str, torch.Tensor]) -> None:
    """Put stored weights into the adapter.

    Raises AdapterError when names or shapes differ from what the recipe makes.
    """

    expected = {
        name: tuple(tensor.shape) for name, tensor in get_peft_model_state_dict(peft_model).items()
    }
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if expected != given:
        name = next(
            name for name in sorted({*expected, *given}) if expected.get(name) != given.get(name)
        )
        raise AdapterError(
            f"The adapter to start from does not fit the recipe: {name} has the shape"
            f" {given.get(name)}, expected {expected.get(name)}.",
            hint="Use the rank and target modules it was trained with, or start without init_from.",
        )
    set_peft_model_state_dict(peft_model, weights)


def plain_config(
    rank: int, alpha: float, targets: list[str], *, rslora: bool = False
) -> PlainConfig:
    """`adapter_config.json` with what the engine and PEFT need, and nothing of this machine.

    The base is not named in it: its digest is in the card, and a path would be wrong everywhere
    else.
    """
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": rslora,
    }


def with_stored(
    model: PreTrainedModel | PeftModel,
    config: PlainConfig,
    weights: dict[str, torch.Tensor],
    name: str = "default",
) -> PeftModel:
    """A base (or a PEFT model, which may hold other adapters) with a stored version on it under
    `name`; computes in the base's dtype.
    """

    plain = LoraConfig(
        r=config["r"],
        lora_alpha=config["lora_alpha"],  # type: ignore[arg-type]  # PEFT takes any number
        target_modules=config["target_modules"],
        use_rslora=bool(config.get("use_rslora")),
        bias="none",
        task_type="CAUSAL_LM",
    )
    if isinstance(model, PeftModel):
        peft_model = model
        peft_model.add_adapter(name, plain)
    else:
        peft_model = get_peft_model(model, plain, adapter_name=name, autocast_adapter_dtype=False)
    set_peft_model_state_dict(peft_model, weights, adapter_name=name)
    compute = next(
        parameter.dtype
        for parameter_name, parameter in peft_model.named_parameters()
        if ".lora_" not in parameter_name
    )
    ours = [
        parameter
        for parameter_name, parameter in peft_model.named_parameters()
        if f".{name}." in parameter_name
    ]
    cast_parameters(ours, compute)
    for parameter in ours:
        parameter.requires_grad_(False)
    return peft_model.eval()
