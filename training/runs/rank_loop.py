"""The loop in one process of several. Rank 0 tells each step and writes the checkpoints."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from training.data.datasets import Dataset
from training.loop.checkpoint import Checkpoints, ReadOnly
from training.loop.faults import translate_oom
from training.loop.loss import plain
from training.loop.ranks import Ranks, shard
from training.loop.trainer import train
from training.methods.families import family
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.plan.prepare import Prepared
from training.plan.torchrun import ORDER, START, Order, rows_in, step_line, tell
from training.recipes.methods import METHODS
from training.recipes.recipe import recipe_from
from whet.errors import WhetError


def main(folder: Path) -> int:
    """Do what the folder's order says; exit status."""

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        _train(folder, json.loads((folder / ORDER).read_text(encoding="utf-8")))
    except WhetError as error:
        tell(error=[error.message, error.hint])
        return 1
    torch.distributed.destroy_process_group()
    return 0


def _train(folder: Path, order: Order) -> None:
    prepared = _prepared(order)
    recipe, method = prepared.recipe, family(METHODS[prepared.recipe.method])
    ranks = Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size())
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    where, every_s = order["checkpoints"]
    checkpoints = (Checkpoints if ranks.first else ReadOnly)(Path(where), every_s=every_s)
    checkpoints.belongs_to(order["recipe"], order["identity"])
    with translate_oom(recipe):
        model, loss_of = method.build(prepared), method.loss(prepared)
        _begin_with(folder, model)
        shard(model, plain(model)._no_split_modules or ())
        train(
            model,
            prepared.train,
            prepared.validation,
            recipe,
            pad_id=order["pad_id"],
            on_step=step_line if ranks.first else lambda step: None,
            loss_of=loss_of,
            checkpoints=checkpoints,
            resume=checkpoints.resume(),
            ranks=ranks,
            variants=prepared.variants,
        )


def _prepared(order: Order) -> Prepared:
    """The run as far as the loop knows it."""

    recipe, (folder, name) = recipe_from(order["recipe"]), order["base"]
    base = BaseModel(Path(folder), name)
    train, validation = rows_in(order["train"]), rows_in(order["validation"])
    variants = [rows_in(rows) for rows in order["variants"]]
    return Prepared(
        "",
        Dataset("", "", "", [], [], []),
        recipe,
        base,
        Encoder(base, recipe.max_length),
        train,
        validation,
        [],
        None,
        [],
        variants,
    )


def _begin_with(folder: Path, model: nn.Module) -> None:
    """The weights of the version that the run starts from, where there is one."""

    if (folder / START).is_file():
        weights = load_file(folder / START)
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        with torch.no_grad():
            for number, parameter in enumerate(learned):
                parameter.copy_(weights[str(number)])
