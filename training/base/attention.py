"""Causal attention in plain matrix products, for training the built-in base on a CPU.

With heads of 32 and documents of some 150 tokens, on two cores: 4,000 to 6,200 tokens/s with the
``sdpa`` kernel, whose backward pass is slow at this size; 9,200 with transformers' ``eager``, which
keeps several fp32 copies of the scores. This one keeps the probabilities only, in bf16.
"""

import functools

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "whet_plain_causal"


@functools.lru_cache(maxsize=64)
def _mask(tokens: int, dtype: torch.dtype) -> torch.Tensor:
    """``[tokens, tokens]`` with minus infinity above the diagonal."""

    return torch.full((tokens, tokens), float("-inf"), dtype=dtype).triu(1)


def plain_causal(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attention of ``[batch, heads, tokens, size]``; padding must be on the right, where a causal
    model never looks.
    """

    scores = torch.matmul(query * scaling, key.transpose(2, 3))
    scores.add_(_mask(query.shape[2], query.dtype))
    mixed = torch.matmul(torch.softmax(scores, dim=-1), value)
    return mixed.transpose(1, 2).contiguous(), None


def use(model: PreTrainedModel) -> None:
    """Make ``model`` attend with ``plain_causal``."""

    ALL_ATTENTION_FUNCTIONS.register(NAME, plain_causal)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, lambda *args, **kwargs: None)
    model.config._attn_implementation = NAME
