"""Prefix tuning (Li and Liang 2021) and prompt tuning (Lester et al. 2021): PEFT's parameters, in
our own loop.

Virtual tokens come before all others and attend to nothing after them, so both are a key-value
cache that is filled beforehand: a prefix is that cache, a soft prompt is run through the model once
to make it. What follows sees an ordinary model with a past, and training, answers and
log-probabilities need no special case.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import Cache, DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from training.methods.loop import as_trained, loss, rows, run
from training.plan.prepare import Prepared

__all__ = ["VirtualTokens", "build", "candidate", "loss", "rows", "run"]

candidate = as_trained


def build(prepared: Prepared) -> VirtualTokens:
    recipe = prepared.recipe
    model = prepared.base.load_model(recipe.dtype)
    torch.manual_seed(recipe.seed)
    kind = PrefixTuningConfig if recipe.method == "prefix" else PromptTuningConfig
    peft_model = get_peft_model(
        model,
        kind(num_virtual_tokens=recipe.virtual_tokens, task_type="CAUSAL_LM"),
        autocast_adapter_dtype=False,
    )
    if recipe.method == "prompt":
        _begin_with_words(peft_model, recipe.seed)
    return VirtualTokens(peft_model)


def _begin_with_words(peft_model: PeftModel, seed: int) -> None:
    """Embeddings of the vocabulary, drawn by the seed: PEFT's own beginning has another scale than
    they, and learns many times slower.
    """
    inner: Any = peft_model
    table = inner.get_base_model().get_input_embeddings().weight
    soft = inner.prompt_encoder["default"].embedding.weight
    rows = torch.randint(len(table), (len(soft),), generator=torch.Generator().manual_seed(seed))
    soft.data.copy_(table.detach()[rows.to(table.device)])


class VirtualTokens(torch.nn.Module):
    """A PEFT model with virtual tokens, called as the bare model is: token ids in, logits of these
    tokens out.
    """

    def __init__(self, peft_model: PeftModel) -> None:
        super().__init__()
        self.peft: Any = peft_model
        self._off = False
        # Of the PEFT configuration, which says inference in a folder that was loaded again: PEFT
        # then reads the table itself.
        self._tokens = int(self.peft.active_peft_config.num_virtual_tokens)
        self.config: Any = self.peft.get_base_model().config
        self.dtype: Any = self.peft.get_base_model().dtype

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """The base, as with every PEFT model."""
        self._off = True
        try:
            yield
        finally:
            self._off = False

    def save_pretrained(self, folder: str) -> None:
        self.peft.save_pretrained(folder, safe_serialization=True)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
        logits_to_keep: int | torch.Tensor = 0,
    ) -> CausalLMOutputWithPast:
        """`input_ids` [B, L], `attention_mask` [B, past + L] and `position_ids` [B, L] without the
        virtual tokens, as the caller knows of none.
        """

        base = self.peft.get_base_model()
        if self._off:
            plain: CausalLMOutputWithPast = base(
                input_ids,
                attention_mask,
                position_ids,
                past_key_values,
                use_cache=use_cache,
                logits_to_keep=logits_to_keep,
            )
            return plain
        cache = DynamicCache(config=self.config) if past_key_values is None else past_key_values
        if cache.get_seq_length() == 0:
            self._fill(cache, len(input_ids))
        if attention_mask is not None:
            attention_mask = torch.cat(
                [attention_mask.new_ones(len(input_ids), self._tokens), attention_mask], dim=1
            )
        if position_ids is not None:
            position_ids = position_ids + self._tokens
        found: CausalLMOutputWithPast = base(
            input_ids,
            attention_mask,
            position_ids,
            cache,
            use_cache=True,
            logits_to_keep=logits_to_keep,
        )
        return found

    def _fill(self, cache: Cache, rows: int) -> None:
        made = self.peft.get_prompt(rows)
        if isinstance(made, torch.Tensor):  # embeddings [B, tokens, width]
            self.peft.get_base_model()(
                inputs_embeds=made.to(self.dtype),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            return
        for number, layer in enumerate(made.layers):
            cache.update(layer.keys, layer.values, number)
