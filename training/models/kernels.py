"""Two computations done in fewer passes over memory on a CPU: the LoRA layer, and attention over
short rows.

Both compute what PEFT and transformers compute (tests compare values and gradients); only the
number of intermediate tensors differs. On the built-in base they halve the time of a step.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from peft.tuners.lora.layer import Linear
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

# Above this many tokens the L x L scores no longer fit the processor's cache and torch's own
# blockwise kernel wins.
_SHORT_TOKENS = 384
ATTENTION = "whet_short_rows"


def fuse_lora(peft_model: nn.Module) -> None:
    """Let every plain LoRA layer of the model compute with fewer tensors.

    Layers with dropout, a bias or another variant keep PEFT's forward.
    """

    for module in peft_model.modules():
        if (
            isinstance(module, Linear)
            and module.get_base_layer().bias is None
            and not module.lora_variant
        ):
            dropout = module.lora_dropout["default"]
            if isinstance(dropout, torch.nn.Identity) or getattr(dropout, "p", 0.0) == 0.0:
                module.forward = _Forward(module)  # type: ignore[method-assign]


class _Forward:
    """The replaced `forward` of one layer: y = x Wᵀ + s (x Aᵀ) Bᵀ with the second product added in
    place; W is frozen.

    x [..., in], W [out, in], A [r, in], B [out, r]. PEFT's form makes three more tensors of the
    size of y. Of torch's own operations, although a function with a backward of its own would add
    one product more in place: that backward would be Python, for which row-parallel threads
    (training/loop/row_threads.py) wait for each other.
    """

    def __init__(self, layer: Linear) -> None:
        self._layer, self._plain = layer, layer.forward
        self._base = cast(nn.Linear, layer.get_base_layer())

    def __call__(self, x: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        layer, name = self._layer, _only(self._layer.active_adapters)
        if name is None or layer.disable_adapters or layer.merged or name not in layer.lora_A:
            return self._plain(x, *args, **kwargs)
        rows = x.reshape(-1, x.shape[-1])
        a = cast(nn.Linear, layer.lora_A[name]).weight
        b = cast(nn.Linear, layer.lora_B[name]).weight
        y = (rows @ self._base.weight.t()).addmm_(rows @ a.t(), b.t(), alpha=layer.scaling[name])
        return y.view(*x.shape[:-1], y.shape[-1])


def _only(names: list[str]) -> str | None:
    return names[0] if len(names) == 1 else None


def short_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as two batched products; query [B, H, L, D], key and value [B, G, K, D] with H a
    multiple of G.

    In training, of whole rows that are padded on the right (L = K), so the mask is the causal one
    unless the model brings its own (a sliding window). Of one token each after those in a cache (L
    = 1), for which torch's kernel for bfloat16 takes three times as long, in float32: scores are
    not rounded, as the engine's are not. Everything else is torch's: questions padded on the left
    have positions that see nothing.
    """
    batch, heads, length, width = query.shape
    keys = key.shape[2]
    whole = length == keys and torch.is_grad_enabled()
    if keys > _SHORT_TOKENS or dropout or not (whole or length == 1):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    groups, dtype = key.shape[1], query.dtype
    if length == 1:  # the heads of a group are as good as positions that see the same
        flat, rows = batch * groups, heads // groups
        query, key, value = query.float(), key.float(), value.float()
    else:
        flat, rows = batch * heads, length
        if groups != heads:
            key, value = (part.repeat_interleave(heads // groups, dim=1) for part in (key, value))
    bias = (
        _bias(attention_mask, length, keys, query)
        .expand(batch, flat // batch, rows, keys)
        .reshape(flat, rows, keys)
    )
    asked, offered = (
        query.reshape(flat, rows, width),
        key.reshape(flat, keys, width).transpose(1, 2),
    )
    scores = torch.baddbmm(
        bias, asked, offered, alpha=scaling if scaling is not None else width**-0.5
    )
    mixed = torch.bmm(torch.softmax(scores, -1), value.reshape(flat, keys, width))
    return mixed.view(batch, heads, length, width).transpose(1, 2).contiguous().to(dtype), None


def _bias(mask: torch.Tensor | None, length: int, keys: int, like: torch.Tensor) -> torch.Tensor:
    """What is added to the scores, [B or 1, 1, L, K].

    Without a mask each position sees itself and those before it, and the last one is the last of
    all.
    """
    if mask is None:
        hidden = torch.full((length, keys), float("-inf"), dtype=like.dtype, device=like.device)
        return hidden.triu_(1 + keys - length)[None, None]
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=like.dtype).masked_fill_(~mask, float("-inf"))
    return mask[..., :length, :keys].to(like.dtype)


def use_short_attention(model: PreTrainedModel) -> None:
    """Make a CPU model that attends with SDPA use `short_attention`."""

    if model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(ATTENTION, short_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)
