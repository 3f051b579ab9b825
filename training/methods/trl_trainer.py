"""TRL's trainers inside a run of ours: our tokens go in, steps and the wish to cancel come out
(`trl_progress.py`), and the same things stop them.

TRL tokenises by its own reading of a chat template. Ours is proved to be what the engine sees, so
the rows go in as token ids and TRL's preparation is left out (`Ready`).
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any, TypeVar

import torch
from datasets import Dataset
from peft.optimizers import create_loraplus_optimizer
from torch import nn
from transformers import Trainer, TrainingArguments

from training.loop.master_weights import MasterWeights
from training.loop.pairs import at_once
from training.loop.trainer import FLOOR, total_steps
from training.machine.disk_space import translate_disk_full
from training.methods.loop import on_plain_base
from training.plan.prepare import Prepared

__all__ = ["Bare", "Ready", "arguments", "on_one_gpu", "on_plain_base"]

# Torch's writer of files, which names itself and no cause when a disk is full
_TORN = "inline_container"


Config = TypeVar("Config", bound=TrainingArguments)
Arguments = dict[str, Any]  # of transformers' TrainingArguments and TRL's, by name


class Bare:
    """Put before a TRL trainer among the bases of a class: its optimiser sees float32 copies of
    what is trained (`masters`), the weights of its checkpoints are kept and put back by `Progress`,
    and no card is written.
    """

    args: Any
    model: Any  # what the trainer beside it says
    masters: MasterWeights
    optimizer: Any
    loraplus_lr_ratio: float = 1.0

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        made: torch.optim.Optimizer = self._loraplus() or super().create_optimizer(model)  # type: ignore[misc]
        if not hasattr(self, "masters"):
            self.masters = MasterWeights(self.model)
            self.masters.attach_to(made)
        return made

    def _loraplus(self) -> torch.optim.Optimizer | None:
        """Return a new optimiser for LoRA+ (Hayou et al. 2024), as PEFT makes it.

        None where both matrices learn at one rate, or where there is an optimiser already.
        """
        if self.loraplus_lr_ratio == 1.0 or self.optimizer is not None:
            return None
        kind, given = Trainer.get_optimizer_cls_and_kwargs(self.args, self.model)
        optimizer: torch.optim.Optimizer = create_loraplus_optimizer(
            self.model,
            kind,
            loraplus_lr_ratio=self.loraplus_lr_ratio,
            loraplus_weight_decay=self.args.weight_decay,
            **given,
        )
        self.optimizer = optimizer
        return optimizer

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        Path(output_dir or self.args.output_dir).mkdir(parents=True, exist_ok=True)

    def _load_from_checkpoint(self, *_: object, **__: object) -> None:
        pass

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        with translate_disk_full(Path(self.args.output_dir), "The checkpoint"):
            try:
                Trainer._save_checkpoint(self, model, trial)  # type: ignore[arg-type]
            except RuntimeError as error:
                if _TORN not in str(error):
                    raise
                raise OSError(errno.EIO, "not all of a file could be written") from error


class Ready(Bare):
    """As `Bare`, and its rows are tokens already."""

    def _prepare_dataset(self, dataset: Dataset, *_: object, **__: object) -> Dataset:
        return dataset


def on_one_gpu(config: Config) -> Config:
    """The trainer's arguments, which then know of one GPU at most: transformers counts all that it
    sees and puts the model into DataParallel, which TRL's trainers refuse and ORPO's does not
    expect. A run of ours has one.
    """
    # Read first: that is when transformers counts, and it counts once
    config._n_gpu = min(config.n_gpu, 1)
    return config


def arguments(prepared: Prepared, folder: str, rows: int) -> Arguments:
    """What transformers' TrainingArguments share; `rows` is the number of training rows."""

    recipe = prepared.recipe
    steps = total_steps(rows, recipe)
    schedule: dict[str, object] = {
        "lr_scheduler_type": {
            "cosine": "cosine_with_min_lr",
            "linear": "linear",
            "constant": "constant_with_warmup",
        }[recipe.schedule]
    }
    if recipe.schedule == "cosine":
        schedule["lr_scheduler_kwargs"] = {"min_lr_rate": FLOOR}
    return {
        "output_dir": folder,
        "per_device_train_batch_size": at_once(recipe),
        "per_device_eval_batch_size": at_once(recipe),
        "gradient_accumulation_steps": recipe.batch_size // at_once(recipe),
        "max_steps": steps,
        "learning_rate": recipe.learning_rate,
        "warmup_steps": max(1, round(recipe.warmup * steps)),
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.clip,
        "seed": recipe.seed,
        "use_cpu": not torch.cuda.is_available(),
        # The model computes in the recipe's dtype already; autocast would cast what is float32 on
        # purpose
        "bf16": False,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "logging_steps": 1,
        # Which would put an earlier mean in place of a loss that is no number, and
        # `check_divergence` never saw it
        "logging_nan_inf_filter": False,
        "save_strategy": "no",  # nor held-out rows by its own clock: `Progress` says when
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **schedule,
    }
