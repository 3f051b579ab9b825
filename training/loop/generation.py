"""Generate answers greedily, in batches."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedConfig

# An answer may be longer than the longest reference by half and this much, before it counts as
# endless
_SPARE_TOKENS = 16


def answer_limit(longest: int) -> int:
    """Tokens after which an answer counts as endless, given the longest reference."""
    return longest + longest // 2 + _SPARE_TOKENS


def greedy(
    model: nn.Module, prompts: list[list[int]], stop_ids: frozenset[int], limit: int
) -> list[list[int]]:
    """The most probable continuation of each prompt, up to `limit` tokens, its end-of-turn token
    included.

    Prompts are padded on the left and share a key-value cache; rows that are finished leave the
    batch.
    """

    device = next(model.parameters()).device
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor(
        [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device
    )
    positions = (mask.cumsum(1) - 1).clamp_(min=0)
    stops = torch.tensor(sorted(stop_ids), device=device)
    answers: list[list[int]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    cache = DynamicCache(config=cast(PreTrainedConfig, model.config))
    with torch.inference_mode():
        for _ in range(limit):
            logits = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
            token = logits[:, -1].argmax(-1)
            for row, value in zip(alive, token.tolist(), strict=True):
                answers[row].append(value)
            going = (~torch.isin(token, stops)).nonzero().squeeze(1)
            if len(going) == 0:
                break
            if len(going) < len(alive):
                cache.batch_select_indices(going)
                mask, positions, token = mask[going], positions[going], token[going]
                alive = [alive[number] for number in going.tolist()]
            ids = token[:, None]
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            positions = positions[:, -1:] + 1
    return answers
