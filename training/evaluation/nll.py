"""What the reference answers cost a model: the numbers behind perplexity."""

from __future__ import annotations

import torch
from torch import nn

from training.data.rows import Row
from training.evaluation.answers import NllSum
from training.loop.batches import IGNORED, collate, filled
from training.loop.row_threads import compute_threads, row_thread_pool
from training.models.encode import Encoder
from training.models.encoded import Encoded

# A forward pass without gradients of this many tokens fits where a training step of a batch does,
_BATCH_TOKENS = 8192
# As long as its logits do: half a gigabyte in float32, of which three exist at once
_LOGITS = 1 << 27


def reference_nll(model: nn.Module, encoder: Encoder, rows: list[Row]) -> dict[str, NllSum]:
    """Row id → negative log-likelihood of the row's learned tokens, in nats, and how many they are.

    A long text counts with all its windows. Rows that the encoder refuses are left out. `model`
    answers as it is set; nothing of it changes.
    """

    windows = [(row.id, encoder.encode_windows(row)) for row in rows]
    encoded = sorted(
        ((row_id, one) for row_id, some in windows if isinstance(some, list) for one in some),
        key=lambda item: len(item[1].ids),
    )
    device = next(model.parameters()).device.type
    at_once = min(_BATCH_TOKENS, _LOGITS // int(encoder.base.config["vocab_size"]))

    def totals(some: list[tuple[str, Encoded]]) -> list[float]:
        with torch.inference_mode():
            batch = collate([one for _, one in some], min(encoder.base.stop_ids), device)
            logits = model(
                input_ids=batch.ids, logits_to_keep=batch.columns, use_cache=False
            ).logits
            each = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1).float(),
                batch.targets.flatten(),
                ignore_index=IGNORED,
                reduction="none",
            )
            return list(each.view_as(batch.targets).sum(1).tolist())

    with row_thread_pool(compute_threads(model), len(encoded)) as workers:
        most = at_once // workers.count  # tokens of a batch, whose last row is the longest
        batches = filled(encoded, lambda batch, row: (len(batch) + 1) * len(row[1].ids) <= most)
        costs: dict[str, NllSum] = {}
        for some, found in zip(batches, workers.map(totals, batches), strict=True):
            for (row_id, one), total in zip(some, found, strict=True):
                before = costs.get(row_id, NllSum(0.0, 0))
                # Nothing comes before the first token, so it costs nothing.
                costs[row_id] = NllSum(before.nats + total, before.tokens + sum(one.trained[1:]))
        return costs
