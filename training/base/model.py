"""The shape of the built-in base: a small Llama."""

from typing import Any, cast

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from training.base.tokenizer import CONTEXT_TOKENS, SPECIAL, VOCABULARY

# 5.6 million parameters. Head size 32 is one that every attention backend of the engine knows.
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 32,
    "max_position_embeddings": CONTEXT_TOKENS,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
}


def new_model(seed: int) -> LlamaForCausalLM:
    """A freshly initialised ``LlamaForCausalLM`` in fp32."""

    torch.manual_seed(seed)
    config = LlamaConfig(
        **SHAPE,
        pad_token_id=SPECIAL.index("<|pad|>"),
        eos_token_id=SPECIAL.index("<|end|>"),
        bos_token_id=None,
        dtype="float32",
    )
    config._attn_implementation = "sdpa"
    model: LlamaForCausalLM = cast(Any, LlamaForCausalLM)(config)
    return model
