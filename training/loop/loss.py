"""The loss of our own loop, and what changes how it is computed: recomputing, noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations.neftune import neftune_post_forward_hook

from training.loop.batches import IGNORED, Batch, collate, epoch_batches
from training.loop.ranks import SINGLE_PROCESS, Ranks
from training.loop.row_threads import (
    SINGLE_THREADED,
    RowThreadPool,
)
from training.models.encoded import Encoded
from training.recipes.recipe import Recipe

# (model, batch) → mean loss over the learned tokens of the batch
Loss = Callable[[nn.Module, Batch], torch.Tensor]


@contextmanager
def recomputing(model: nn.Module, recipe: Recipe) -> Iterator[None]:
    """Where the recipe asks for it (`gradient_checkpointing`), layers keep their input alone and
    are computed again on the way back.
    """
    base: Any = plain(model)
    if not recipe.gradient_checkpointing:
        yield
        return
    base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    base.disable_input_require_grads()  # which enabling asks for, for re-entrant recomputing alone
    try:
        yield
    finally:
        base.gradient_checkpointing_disable()


@contextmanager
def noisy_embeddings(model: nn.Module, recipe: Recipe) -> Iterator[None]:
    """Add the noise of NEFTune (Jain et al. 2023) to the embeddings in training mode.

    It is uniform within alpha / √(tokens x width) of a batch, as transformers draws it; where the
    recipe's `neftune_noise_alpha` is 0 nothing changes, and nothing does in evaluation mode.
    """
    if not recipe.neftune_noise_alpha:
        yield
        return
    embeddings: Any = plain(model).get_input_embeddings()
    embeddings.neftune_noise_alpha = recipe.neftune_noise_alpha
    hook = embeddings.register_forward_hook(neftune_post_forward_hook)
    try:
        yield
    finally:
        hook.remove()
        del embeddings.neftune_noise_alpha


def plain(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside a PEFT model, or the model itself."""
    return cast(PreTrainedModel, getattr(model, "get_base_model", lambda: model)())


def batch_loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy over the learned tokens, each weighted by its row."""

    logits = model(
        input_ids=batch.ids,
        position_ids=batch.positions,
        logits_to_keep=batch.columns,
        use_cache=False,
    ).logits
    each = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(),
        batch.targets.flatten(),
        ignore_index=IGNORED,
        reduction="none",
    )
    return (each * batch.weights.flatten()).sum() / batch.weights.sum()


def mean_loss(
    model: nn.Module,
    rows: list[Encoded],
    recipe: Recipe,
    pad_id: int,
    loss_of: Loss = batch_loss,
    ranks: Ranks = SINGLE_PROCESS,
    workers: RowThreadPool = SINGLE_THREADED,
) -> float:
    """Loss over some rows without training on them."""

    device = next(model.parameters()).device.type
    was_training = model.training
    model.eval()

    def measure(batch: Batch) -> float:
        with torch.no_grad():  # which each thread has to say for itself
            return batch_weight(batch) * float(loss_of(model, batch))

    total = count = 0.0
    for some in epoch_batches(rows, recipe.micro_batch or recipe.batch_size, 0, 0):
        shares = [
            share_of_rows(mine, collate, pad_id, device, ranks) for mine in workers.split_rows(some)
        ]
        loss, weight = ranks.sum(sum(workers.map(measure, shares)), sum(map(batch_weight, shares)))
        total, count = total + loss, count + weight
    model.train(was_training)
    return total / count if count else 0.0


def share_of_rows(
    some: list[Encoded],
    together: Callable[[list[Encoded], int, str], Batch],
    pad_id: int,
    device: str,
    ranks: Ranks,
) -> Batch:
    """This process's share of some rows.

    Where there are fewer rows than processes, a batch that counts nothing: all have to take part in
    each pass.
    """
    mine = some[ranks.rank :: ranks.size]
    return (
        together(mine, pad_id, device)
        if mine
        else replace(together(some[:1], pad_id, device), tokens=0, trained=0)
    )


def batch_weight(batch: Batch) -> float:
    """What a batch's mean loss counts in the mean of its step."""
    return float(batch.weights.sum()) if batch.trained else 0.0
