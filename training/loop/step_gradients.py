"""The gradients of one step, summed in the FP32 master weights."""

from __future__ import annotations

import torch
from torch import nn

from training.loop.batches import Batch, collate, in_parts, pack
from training.loop.loss import Loss, batch_weight, share_of_rows
from training.loop.master_weights import MasterWeights
from training.loop.ranks import Ranks
from training.loop.row_threads import RowThreadPool
from training.models.encoded import Encoded
from training.recipes.recipe import Recipe


def step_gradients(
    model: nn.Module,
    masters: MasterWeights,
    some: list[Encoded],
    recipe: Recipe,
    pad_id: int,
    device: str,
    loss_of: Loss,
    ranks: Ranks,
    workers: RowThreadPool,
) -> tuple[float, int, int]:
    """(loss, tokens, learned tokens) of one step's rows, of which each process computes
    `micro_batch` at a time; the gradients are summed in the masters.
    """
    together = pack if recipe.packing else collate
    parts = in_parts(some, recipe.micro_batch * ranks.size or len(some))
    at_once = [
        [share_of_rows(rows, together, pad_id, device, ranks) for rows in workers.split_rows(part)]
        for part in parts
    ]
    batches = [batch for shares in at_once for batch in shares]
    total = ranks.sum(sum(map(batch_weight, batches)))[0]

    def compute(batch: Batch) -> tuple[float, list[torch.Tensor | None]]:
        weight = batch_weight(batch)
        part = loss_of(model, batch) * (1.0 if weight == total else weight / total)
        return float(part.detach()), masters.gradients(part, sharded=ranks.size > 1)

    loss = 0.0
    for shares in at_once:
        for part, gradients in workers.map(compute, shares):
            masters.add(gradients)
            loss += part
    loss, tokens, learned = ranks.sum(
        loss, sum(batch.tokens for batch in batches), sum(batch.trained for batch in batches)
    )
    return loss, int(tokens), int(learned)
