"""LoRA (Hu et al. 2021), rsLoRA (Kalajdzievski 2023), QLoRA (Dettmers et al. 2023) and DoRA (Liu et
al. 2024), as PEFT builds them, in our own loop.
"""

from __future__ import annotations

from peft import PeftModel
from torch import nn

from training.methods.loop import loss, merged, on_plain_base, rows, run, servable
from training.models.lora import trainable
from training.plan.prepare import Prepared

__all__ = ["build", "candidate", "loss", "rows", "run"]


def build(prepared: Prepared) -> PeftModel:
    return trainable(prepared.base, prepared.recipe)


def candidate(model: PeftModel, prepared: Prepared) -> nn.Module:
    """DoRA is merged; a base that was held in 4 bits gives way to the 16-bit one that the engine
    serves, so that evidence is computed on that.
    """
    if prepared.recipe.method == "dora":
        return merged(model, prepared)
    if prepared.recipe.method == "qlora":
        return on_plain_base(model, prepared)
    return servable(model, prepared)
