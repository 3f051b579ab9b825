"""(IA)³ (Liu et al. 2022) and PEANuT (Zhong et al. 2025) by PEFT: both change what single layers
compute, and can be merged into their weights.
"""

from __future__ import annotations

import torch
from peft import IA3Config, PeanutConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from training.methods.loop import loss, merged, rows, run
from training.models.lora import cast_parameters, target_names
from training.plan.prepare import Prepared
from whet.errors import InputError

__all__ = ["build", "candidate", "loss", "rows", "run"]

candidate = merged

# (IA)³ scales keys, values and the feed-forward layer's inner units; the last ones at the input of
# the layer that takes them.
_SCALED, _SCALED_AT_INPUT = ("k_proj", "v_proj", "qkv_proj"), ("down_proj",)
# Of PEANuT: one hidden layer on each side of the bottleneck, the smallest that is not linear in it
_DEPTH = 1


def build(prepared: Prepared) -> nn.Module:
    """The PEFT model; at first it answers like the base.

    Raises InputError for a base without the layers that the method changes.
    """

    recipe = prepared.recipe
    model = prepared.base.load_model(recipe.dtype)
    torch.manual_seed(recipe.seed)
    config = _ia3(model) if recipe.method == "ia3" else _peanut(model, prepared)
    peft_model: nn.Module = get_peft_model(model, config, autocast_adapter_dtype=False)
    cast_parameters(
        (parameter for parameter in peft_model.parameters() if parameter.requires_grad),
        getattr(torch, recipe.dtype),
    )
    return peft_model


def _ia3(model: PreTrainedModel) -> IA3Config:
    found = target_names(model, ("all-linear",), served=False)
    inner = [name for name in found if name in _SCALED_AT_INPUT]
    targets = [name for name in found if name in (*_SCALED, *inner)]
    if not targets:
        raise InputError(
            "The base has none of the layers that (IA)³ scales"
            f" ({', '.join((*_SCALED, *_SCALED_AT_INPUT))}).",
            hint=f"It has {', '.join(found)}.",
        )
    return IA3Config(target_modules=targets, feedforward_modules=inner, task_type="CAUSAL_LM")


def _peanut(model: PreTrainedModel, prepared: Prepared) -> PeanutConfig:
    recipe = prepared.recipe
    return PeanutConfig(
        r=recipe.rank,
        depth=_DEPTH,
        target_modules=target_names(model, recipe.target_modules, served=False),
        task_type="CAUSAL_LM",
    )
