"""Several processes at one loop: whose rows are whose, sums over all of them, and the model held in
shares by torch's `fully_shard` (FSDP2).

Every process draws the same rows for a step and computes its share of them. A gradient is weighted
by the learned tokens of the whole step before it is summed over the processes, so the sum is the
gradient that one process would have found. The loop calls everything here alike with one process,
where a share is the whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


@dataclass(frozen=True)
class Ranks:
    """This process among those at work: `rank` from 0 below `size`.

    Rank 0 is the one that tells and writes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Each value summed over the processes, in float64."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(
            values, dtype=torch.float64, device="cuda" if torch.cuda.is_available() else "cpu"
        )
        torch.distributed.all_reduce(sums)
        return [float(value) for value in sums.tolist()]


SINGLE_PROCESS = Ranks()


def shard(model: nn.Module, layers: Iterable[str]) -> nn.Module:
    """Hold the model's weights in shares, in place: each process keeps its part of every tensor,
    and gathers one layer at a time to compute with it.

    `layers` are the class names of the repeated blocks. Gradients are summed, not averaged: the
    loop has weighted them already.
    """

    # A sum of bfloat16 over many processes would lose the small ones
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for module in [module for module in model.modules() if type(module).__name__ in layers]:
        fully_shard(module, mp_policy=policy)
    fully_shard(model, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other
            module.set_gradient_divide_factor(1.0)
    return model


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return a sharded tensor put together; every process has to ask.

    Any other tensor is returned as it is.
    """
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def to_local(tensor: torch.Tensor) -> torch.Tensor:
    """Return this process's shard of a sharded tensor; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def shard_like(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor sharded over the processes as `like` is."""
    if not isinstance(like, DTensor):
        return tensor.to(like.device)
    # Each process has the whole tensor, so nothing has to be sent.
    return distribute_tensor(
        tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )
