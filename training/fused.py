"""Two computations done in fewer passes over memory on a CPU: the LoRA layer, and attention over short rows.

Both compute what PEFT and transformers compute (tests compare values and gradients); only the number of intermediate
tensors differs. On the built-in base they halve the time of a step.
"""

from __future__ import annotations

from typing import Any, cast

import torch

# Above this many tokens the L x L scores no longer fit the processor's cache and torch's own blockwise kernel wins.
_SHORT_TOKENS = 384
ATTENTION = "whet_short_rows"


class LoraLinear(torch.autograd.Function):
    """y = x Wᵀ + s (x Aᵀ) Bᵀ with the second product added in place; W is frozen.

    x [T, in], W [out, in], A [r, in], B [out, r]. PEFT's form makes three more tensors of the size of y.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
        inner = x @ a.t()
        y = x @ weight.t()
        y.addmm_(inner, b.t(), alpha=scale)
        ctx.save_for_backward(x, weight, a, b, inner)
        ctx.scale = scale
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, a, b, inner = ctx.saved_tensors
        grad_b = (grad.t() @ inner).mul_(ctx.scale)
        grad_inner = (grad @ b).mul_(ctx.scale)
        grad_a = grad_inner.t() @ x
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ weight
            grad_x.addmm_(grad_inner, a)
        return grad_x, None, grad_a, grad_b, None


def fuse_lora(peft_model: Any) -> None:
    """Let every plain LoRA layer of the model compute with `LoraLinear` while it trains. Layers with dropout, a bias or another
    variant keep PEFT's forward."""
    from peft.tuners.lora.layer import Linear

    for module in peft_model.modules():
        if isinstance(module, Linear) and module.get_base_layer().bias is None and not module.lora_variant:
            dropout = module.lora_dropout["default"]
            if isinstance(dropout, torch.nn.Identity) or getattr(dropout, "p", 0.0) == 0.0:
                module.forward = _Forward(module)  # type: ignore[method-assign]


class _Forward:
    """The replaced `forward` of one layer."""

    def __init__(self, layer: Any) -> None:
        self._layer, self._plain = layer, layer.forward
        self._scale = float(layer.scaling["default"])

    def __call__(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        layer = self._layer
        if layer.disable_adapters or layer.merged or not torch.is_grad_enabled():
            return cast(torch.Tensor, self._plain(x, *args, **kwargs))
        a, b, weight = layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.get_base_layer().weight
        y = cast(torch.Tensor, cast(Any, LoraLinear).apply(x.reshape(-1, x.shape[-1]), weight, a, b, self._scale))
        return y.view(*x.shape[:-1], y.shape[-1])


def short_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention as two batched products; query [B, H, L, D], key and value [B, G, L, D] with H a multiple of G.

    Used in training only, where nothing is cached and rows are padded on the right, so the mask is the causal one unless the
    model brings its own (a sliding window).
    """
    batch, heads, length, width = query.shape
    if length > _SHORT_TOKENS or key.shape[2] != length or dropout or not torch.is_grad_enabled():
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    if key.shape[1] != heads:
        key, value = (part.repeat_interleave(heads // part.shape[1], dim=1) for part in (key, value))
    bias = _bias(attention_mask, batch, heads, length, query)
    flat = batch * heads
    scores = torch.baddbmm(
        bias, query.reshape(flat, length, width), key.reshape(flat, length, width).transpose(1, 2), alpha=scaling if scaling is not None else width**-0.5
    )
    mixed = torch.bmm(torch.softmax(scores, -1), value.reshape(flat, length, width))
    return mixed.view(batch, heads, length, width).transpose(1, 2).contiguous(), None


def _bias(mask: torch.Tensor | None, batch: int, heads: int, length: int, like: torch.Tensor) -> torch.Tensor:
    """What is added to the scores, [B·H, L, L]."""
    if mask is None:
        return torch.full((length, length), float("-inf"), dtype=like.dtype, device=like.device).triu_(1).expand(batch * heads, length, length)
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=like.dtype).masked_fill_(~mask, float("-inf"))
    return mask[..., :length, :length].expand(batch, heads, length, length).reshape(batch * heads, length, length)


def use_short_attention(model: Any) -> None:
    """Make a CPU model that attends with SDPA use `short_attention`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(ATTENTION, short_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)
