"""Batches with little padding: rows of similar length together, in an order that follows from the seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from training.encode import Encoded

_POOL_BATCHES = 8  # batches whose rows are sorted together: enough to cut padding to a few per cent, few enough to stay random


@dataclass(frozen=True)
class Batch:
    """Tensors of one step; B rows, L tokens, right-padded."""

    ids: Any  # int64 [B, L]
    columns: Any  # int64 [C]: positions in the rows after which at least one row has a token to learn
    targets: Any  # int64 [B, C]: the token that follows, or IGNORED
    weights: Any  # float32 [B]
    tokens: int  # without padding
    trained: int  # tokens in the loss


IGNORED = -100


def epoch_batches(rows: list[Encoded], batch_size: int, seed: int, epoch: int) -> list[list[Encoded]]:
    """All rows once, in batches of similar length, shuffled by (seed, epoch)."""
    order = list(rows)
    shuffle = random.Random(seed * 1_000_003 + epoch)
    shuffle.shuffle(order)
    pool = batch_size * _POOL_BATCHES
    batches: list[list[Encoded]] = []
    for start in range(0, len(order), pool):
        near = sorted(order[start : start + pool], key=lambda row: len(row.ids))
        batches += [near[first : first + batch_size] for first in range(0, len(near), batch_size)]
    shuffle.shuffle(batches)
    return batches


def endless(rows: list[Encoded], batch_size: int, seed: int) -> Iterator[list[Encoded]]:
    """Epoch after epoch."""
    epoch = 0
    while True:
        yield from epoch_batches(rows, batch_size, seed, epoch)
        epoch += 1


def collate(rows: list[Encoded], pad_id: int, device: str) -> Batch:
    """Tensors of some rows. Real tokens never attend to the padding, which comes after them, so no mask is needed."""
    import torch

    length = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), length), pad_id, dtype=torch.int64)
    following = torch.full((len(rows), length), IGNORED, dtype=torch.int64)
    for number, row in enumerate(rows):
        tokens = torch.tensor(row.ids)
        ids[number, : len(row.ids)] = tokens
        learned = torch.tensor(row.trained)
        following[number, : len(row.ids) - 1] = torch.where(learned[1:], tokens[1:], IGNORED)
    columns = (following != IGNORED).any(dim=0).nonzero().squeeze(1)
    targets = following[:, columns]
    weights = torch.tensor([row.weight for row in rows], dtype=torch.float32)
    return Batch(ids.to(device), columns.to(device), targets.to(device), weights.to(device), sum(len(row.ids) for row in rows), int((targets != IGNORED).sum()))
