"""Batches with little padding: rows of similar length together, in an order that follows from the
seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from training.models.encoded import Encoded

# Tokens of a packed sequence: up to here attention over the whole sequence is cheap
# (training/models/kernels.py), although a row needs only its own part.
PACKED_TOKENS = 384
# Lengths are rounded up to a multiple of this, so that steps repeat a few shapes: oneDNN makes and
# keeps a kernel for each (without it 1.6 GB instead of 1.0 GB and a tenth of the speed on the
# built-in base in bfloat16), and tensor cores want multiples of 8. The padding that it adds is 3 to
# 4 tokens a row.
_MULTIPLE = 8
# Batches whose rows are sorted together: enough to cut padding to a few per cent, few enough to
# stay random
_POOL_BATCHES = 8


@dataclass(frozen=True)
class Batch:
    """Tensors of one step; B rows, L tokens, right-padded."""

    ids: torch.Tensor  # int64 [B, L]
    # int64 [C]: positions in the rows: all after which a row has a token to learn, and a few more
    columns: Any
    targets: torch.Tensor  # int64 [B, C]: the token that follows, or IGNORED
    weights: torch.Tensor  # float32 [B, C]: of each target, by its row; 0 where there is none
    # int64 [B, L], from 0 again at each packed row; None where a sequence holds one row
    positions: Any
    tokens: int  # without padding
    trained: int  # tokens in the loss


IGNORED = -100
_Row = TypeVar("_Row")


def epoch_batches(
    rows: list[Encoded], batch_size: int, seed: int, epoch: int
) -> list[list[Encoded]]:
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


def endless(
    passes: Sequence[list[Encoded]], batch_size: int, seed: int, first: int = 0
) -> Iterator[list[Encoded]]:
    """Yield batches epoch after epoch, without the first `first`.

    Epoch `n` has the rows of `passes[n % len(passes)]`; all passes have the same number of rows.
    """
    epoch, skipped = divmod(first, math.ceil(len(passes[0]) / batch_size))
    while True:
        yield from epoch_batches(passes[epoch % len(passes)], batch_size, seed, epoch)[skipped:]
        epoch, skipped = epoch + 1, 0


def in_parts(rows: list[_Row], size: int) -> list[list[_Row]]:
    """The rows in their order, at most `size` together."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def filled(rows: Iterable[_Row], fits: Callable[[list[_Row], _Row], bool]) -> list[list[_Row]]:
    """The rows in their order, each beside those before it as long as it `fits` to them; at least
    one together.
    """
    found: list[list[_Row]] = []
    for row in rows:
        if found and fits(found[-1], row):
            found[-1].append(row)
        else:
            found.append([row])
    return found


def collate(rows: list[Encoded], pad_id: int, device: str) -> Batch:
    """Tensors of some rows, one to a sequence.

    Real tokens never attend to the padding, which comes after them, so no mask is needed.
    """
    return _tensors([[row] for row in rows], pad_id, device)


def pack(rows: list[Encoded], pad_id: int, device: str, room: int = PACKED_TOKENS) -> Batch:
    """Tensors of some rows, several to a sequence of at most `room` tokens (a longer row alone).

    Positions begin at 0 with each row; from that transformers makes a mask under which a row sees
    itself alone.
    """
    sequences: list[list[Encoded]] = []
    # The longest first, each where it first fits: little is left over
    for row in sorted(rows, key=lambda row: -len(row.ids)):
        fitting = (
            sequence
            for sequence in sequences
            if sum(len(each.ids) for each in sequence) + len(row.ids) <= room
        )
        place = next(fitting, None)
        if place is None:
            sequences.append([row])
        else:
            place.append(row)
    return _tensors(sequences, pad_id, device)


def _tensors(sequences: list[list[Encoded]], pad_id: int, device: str) -> Batch:
    length = _rounded(max(sum(len(row.ids) for row in sequence) for sequence in sequences))
    shape = (len(sequences), length)
    ids, positions = (
        torch.full(shape, pad_id, dtype=torch.int64),
        torch.zeros(shape, dtype=torch.int64),
    )
    following = torch.full(shape, IGNORED, dtype=torch.int64)
    weights = torch.zeros(shape, dtype=torch.float32)
    for number, sequence in enumerate(sequences):
        at = 0
        for row in sequence:
            end = at + len(row.ids)
            tokens, learned = torch.tensor(row.ids), torch.tensor(row.trained)
            ids[number, at:end], positions[number, at:end] = tokens, torch.arange(end - at)
            following[number, at : end - 1] = torch.where(learned[1:], tokens[1:], IGNORED)
            weights[number, at : end - 1] = learned[1:] * row.weight
            at = end
        positions[number, at:] = torch.arange(length - at)  # padding is a row of its own
    learned_somewhere = (following != IGNORED).any(dim=0)
    columns, others = (
        learned_somewhere.nonzero().squeeze(1),
        (~learned_somewhere).nonzero().squeeze(1),
    )
    # Where nothing is learned, and nothing counts
    columns = torch.cat([columns, others[: _rounded(len(columns)) - len(columns)]]).sort().values
    targets = following[:, columns]
    packed = positions.to(device) if len(sequences) < sum(map(len, sequences)) else None
    count = sum(len(row.ids) for sequence in sequences for row in sequence)
    return Batch(
        ids.to(device),
        columns.to(device),
        targets.to(device),
        weights[:, columns].to(device),
        packed,
        count,
        int((targets != IGNORED).sum()),
    )


def _rounded(length: int) -> int:
    return math.ceil(length / _MULTIPLE) * _MULTIPLE
