"""What most families share: our own loop, its cross-entropy, and what is kept of a trained model."""

from __future__ import annotations

from typing import Any, Unpack

from training.base_model import stored_dtype
from training.lora import adapter_weights, cast_parameters, plain_config, with_stored
from training.prepare import Prepared
from training.reporter import Reporter
from training.trainer import Loop, Loss, Trained, batch_loss, train
from whet.context import Context


def rows(context: Context, prepared: Prepared, reporter: Reporter) -> Prepared:
    """Those of the dataset."""
    return prepared


def loss(prepared: Prepared) -> Loss:
    """Cross-entropy of the learned tokens."""
    return batch_loss


def run(model: Any, prepared: Prepared, reporter: Reporter, **loop: Unpack[Loop]) -> Trained:
    """The loop of `training/trainer.py`. In several processes, if the recipe says so: what they leave is a checkpoint without a step to go."""
    if prepared.recipe.processes > 1:
        from training.run.torchrun import in_processes

        loop["resume"] = in_processes(model, prepared, pad_id=loop["pad_id"], on_step=loop["on_step"], checkpoints=loop["checkpoints"])
    return train(model, prepared.train, prepared.validation, prepared.recipe, **loop)


def as_trained(model: Any, prepared: Prepared) -> Any:
    """The trained model itself."""
    return model


def on_plain_base(model: Any, prepared: Prepared) -> Any:
    """The trained LoRA adapter on a base loaded anew: for trainers that leave the one they trained on quantised or patched."""
    recipe = prepared.recipe
    config = plain_config(recipe.rank, recipe.alpha, sorted(model.peft_config["default"].target_modules), rslora=recipe.method == "rslora")
    return with_stored(prepared.base.load_model(recipe.dtype), config, adapter_weights(model, recipe.dtype))


def merged(model: Any, prepared: Prepared) -> Any:
    """The whole model, as it is written and served. Merged in float32 and rounded once: adding in bfloat16 would lose most of a small update."""
    import torch

    cast_parameters(model.parameters(), torch.float32)
    whole = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    cast_parameters(whole.parameters(), getattr(torch, stored_dtype()))
    whole.config.dtype = getattr(torch, stored_dtype())
    return whole.requires_grad_(False).eval()
