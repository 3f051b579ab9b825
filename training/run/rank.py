"""One process of several at a run's loop: `python -m training.run.rank FOLDER`, started by
torchrun. Rank 0 tells each step and writes the checkpoints.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.allocator import keep_memory
from training.parent_process import end_with_parent

if TYPE_CHECKING:
    from training.prepare import Prepared


def main(folder: Path) -> int:
    """Do what the folder's order says; exit status."""
    from training.base_model import quiet_environment

    quiet_environment()
    keep_memory()
    import torch

    from training.run.torchrun import ORDER, tell
    from whet.errors import WhetError

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


def _train(folder: Path, order: dict[str, Any]) -> None:
    import torch

    from training.methods.registry import METHODS, family
    from training.run.checkpoint import Checkpoints, ReadOnly
    from training.run.faults import translate_oom
    from training.run.ranks import Ranks, shard
    from training.run.torchrun import step_line
    from training.trainer import plain, train

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


def _prepared(order: dict[str, Any]) -> Prepared:
    """The run as far as the loop knows it."""
    from training.base_model import BaseModel
    from training.datasets import Dataset
    from training.encode import Encoder
    from training.prepare import Prepared
    from training.recipe import recipe_from
    from training.run.torchrun import rows_in

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


def _begin_with(folder: Path, model: Any) -> None:
    """The weights of the version that the run starts from, where there is one."""
    import torch
    from safetensors.torch import load_file

    from training.run.torchrun import START

    if (folder / START).is_file():
        weights = load_file(folder / START)
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        with torch.no_grad():
            for number, parameter in enumerate(learned):
                parameter.copy_(weights[str(number)])


if __name__ == "__main__":
    end_with_parent(os.getppid())
    sys.exit(main(Path(sys.argv[1])))
