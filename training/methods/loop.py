"""What most families share: our own loop, its cross-entropy, and what is kept of a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from training.loop.loss import Loss, batch_loss
from training.loop.trainer import Loop, Trained, train
from training.machine.allocator import return_memory
from training.machine.device import device, stored_dtype
from training.models.lora import merged_once, served_adapter, with_stored
from training.plan.prepare import Prepared
from training.plan.reporter import Reporter
from training.plan.torchrun import in_processes
from whet.context import Context

# Times a base's weights: keys, values and logits of the rows that are answered together, and the
# adapter. A guess with room, no measurement: no GPU was at hand.
_BESIDE = 1.25


def rows(context: Context, prepared: Prepared, reporter: Reporter, folder: Path) -> Prepared:
    """Those of the dataset."""
    return prepared


def loss(prepared: Prepared) -> Loss:
    """Cross-entropy of the learned tokens."""
    return batch_loss


def run(model: nn.Module, prepared: Prepared, reporter: Reporter, **loop: Unpack[Loop]) -> Trained:
    """The loop of `training/loop/trainer.py`.

    In several processes, if the recipe says so: what they leave is a checkpoint without a step to
    go.
    """
    if prepared.recipe.processes > 1:
        loop["resume"] = in_processes(
            model,
            prepared,
            pad_id=loop["pad_id"],
            on_step=loop["on_step"],
            checkpoints=loop["checkpoints"],
        )
    return train(
        model,
        prepared.train,
        prepared.validation,
        prepared.recipe,
        variants=prepared.variants,
        **loop,
    )


def as_trained(model: nn.Module, prepared: Prepared) -> nn.Module:
    """The trained model itself."""
    return model


def servable(model: PeftModel, prepared: Prepared) -> PeftModel:
    """Return the trained LoRA adapter on the base that is served: the model itself, or, where its
    start changed the base (PiSSA, OLoRA), the converted adapter on the base loaded anew."""
    return on_plain_base(model, prepared) if prepared.recipe.changes_base else model


def on_plain_base(model: PeftModel, prepared: Prepared) -> PeftModel:
    """The trained LoRA adapter on a base loaded anew, for trainers that leave the one they trained
    on quantised or patched; that one's memory is free again before.
    """
    recipe = prepared.recipe
    weights, config = served_adapter(model, recipe.dtype)
    free_model(model)
    return with_stored(
        prepared.base.load_model(recipe.dtype, where=roomy(prepared)), config, weights
    )


def free_model(model: nn.Module) -> None:
    """Free a model's weights, whoever still holds the model: two bases at once are what a machine
    cannot take that had just room for one.
    """

    for parameter in model.parameters():
        parameter.grad = None
        parameter.data = torch.empty(0, dtype=parameter.dtype)
    return_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def roomy(prepared: Prepared) -> str:
    """Where the base in 16 bits has room: on the GPU, or, where that holds it in 4 bits only, on
    the processor, which is slow.
    """

    if device() == "cpu":
        return "cpu"
    needed = prepared.base.parameters * getattr(torch, prepared.recipe.dtype).itemsize
    return place(needed, torch.cuda.mem_get_info()[0])


def place(needed: int, free: int) -> str:
    """`cuda` where `needed` bytes of weights and what answering takes beside them fit into the
    `free` ones, else `cpu`.
    """
    return "cuda" if needed * _BESIDE <= free else "cpu"


def merged(model: PreTrainedModel | PeftModel, prepared: Prepared) -> PreTrainedModel:
    """The whole model, as it is written and served."""
    return merged_once(model, stored_dtype())
