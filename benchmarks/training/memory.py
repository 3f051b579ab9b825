"""`python -m benchmarks.training.memory SHAPE`: the estimate of a run's peak memory beside the measured one, in a process of its own; prints one JSON line."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.training.rows import mixed_rows
from training.recipe import Recipe
from whet.settings import BUILTIN_BASE

# (architecture, hidden, layers, heads, inner, vocabulary): a few million weights, and about a hundred million.
SHAPES: dict[str, tuple[str, int, int, int, int, int] | None] = {
    "built-in": None,
    "qwen-tiny": ("Qwen2", 384, 8, 6, 1024, 4096),
    "llama-100m": ("Llama", 768, 12, 12, 2048, 16_384),
}
_STEPS = 6  # after which the peak no longer moves


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.memory", description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    options = parser.parse_args(given)
    from training.base_model import BaseModel, quiet_environment
    from training.platform_tuning import keep_memory

    quiet_environment()
    keep_memory()
    import torch

    from training.lora import trainable
    from training.run.checkpoint import Checkpoints
    from training.run.estimates import memory_by_part, peak_memory_bytes, peak_of
    from training.trainer import batch_loss, train

    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="whet-memory-") as scratch:
        folder = _built(options.shape, Path(scratch))
        base = BaseModel(folder, options.shape)
        rows = mixed_rows(_STEPS * options.batch_size, int(base.config["vocab_size"]), min(512, base.max_positions))
        recipe = Recipe(
            rank=16, alpha=32.0, epochs=1.0, batch_size=options.batch_size, learning_rate=1e-3, dtype=options.dtype, max_length=512,
            gradient_checkpointing=options.gradient_checkpointing,
        )  # fmt: skip
        model = trainable(base, recipe)
        memory = memory_by_part(model, rows, recipe, 0, batch_loss, validated=False)
        train(model, rows, [], recipe, pad_id=0, on_step=lambda step: None, checkpoints=Checkpoints(Path(scratch) / "run"))
    expected, measured = peak_of(memory), peak_memory_bytes()
    found = {"shape": options.shape, "parameters": sum(parameter.numel() for parameter in model.parameters()), "dtype": options.dtype}
    print(json.dumps({**found, **memory, "expected": expected, "measured": measured, "error": round(expected / measured - 1, 3)}))
    return 0


def _built(shape: str, scratch: Path) -> Path:
    """A base of random weights of that shape, made in another process, whose memory is not ours."""
    values = SHAPES[shape]
    if values is None:
        return BUILTIN_BASE
    import subprocess

    code = "import sys, json; from benchmarks.training.memory import build; build(json.loads(sys.argv[1]), sys.argv[2])"
    subprocess.run([sys.executable, "-c", code, json.dumps(values), str(scratch / "base")], check=True)
    return scratch / "base"


def build(values: list[Any], folder: str) -> None:
    import torch
    import transformers

    architecture, hidden, layers, heads, inner, vocabulary = values
    config = getattr(transformers, f"{architecture}Config")(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads,
        max_position_embeddings=1024, tie_word_embeddings=True,
    )  # fmt: skip
    getattr(transformers, f"{architecture}ForCausalLM")(config).to(torch.bfloat16).save_pretrained(folder, safe_serialization=True)


if __name__ == "__main__":
    sys.exit(main())
