"""`python -m benchmarks.training.memory SHAPE`: the estimate of a run's peak memory beside the
measured one, in a process of its own; prints one JSON line.

Figures are resident bytes of the process on a CPU, and allocated ones on a GPU. `peak_training`
counts from the loaded model on, without what loading took for a moment.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.training.rows import mixed_rows
from training.recipes.recipe import load_recipe
from whet.settings import BUILTIN_BASE

_SHARD_BYTES = 2_000_000_000  # of a weight file
# Configurations: a few million weights, about a hundred million, and the sizes of Llama 3.2 1B and
# Llama 3.1 8B.
SHAPES: dict[str, dict[str, Any]] = {
    "built-in": {},
    "qwen-tiny": {"architecture": "Qwen2", "hidden_size": 384, "num_hidden_layers": 8, "num_attention_heads": 6, "intermediate_size": 1024, "vocab_size": 4096},
    "llama-100m": {"architecture": "Llama", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 2048, "vocab_size": 16_384},
    "llama-1b": {
        "architecture": "Llama", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 8192,
        "vocab_size": 128_256,
    },
    "llama-8b": {
        "architecture": "Llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14_336,
        "vocab_size": 128_256, "tie_word_embeddings": False,
    },
}  # fmt: skip
SMALL = ("built-in", "qwen-tiny", "llama-100m")


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training.memory", description=__doc__
    )
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument(
        "--base",
        type=Path,
        help=(
            "a folder with a model of that shape, made there if it is missing; default: one that is"
            " made and removed"
        ),
    )
    parser.add_argument("--method", choices=("lora", "qlora"), default="lora")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--micro-batch", type=int, default=0)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--longest", type=int, default=512, help="tokens of the longest rows")
    parser.add_argument(
        "--tensors",
        action="store_true",
        help=(
            "also count what torch's tensors take at most, as a GPU's allocator would; slows the"
            " steps down"
        ),
    )
    parser.add_argument(
        "--steps", type=int, default=6, help="after six the peak of a small model no longer moves"
    )
    options = parser.parse_args(given)
    from training.imports import quiet_environment

    quiet_environment()
    from training.machine.allocator import keep_memory
    from training.models.base_model import BaseModel

    keep_memory()
    import torch

    from training.loop.checkpoint import Checkpoints
    from training.loop.loss import batch_loss
    from training.loop.trainer import train
    from training.models.lora import trainable
    from training.plan.estimates import memory_by_part, peak_memory_bytes, peak_of

    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="whet-memory-") as scratch:
        folder = built(options.shape, options.base or Path(scratch) / "base")
        base = BaseModel(folder, options.shape)
        rows = mixed_rows(
            options.steps * options.batch_size,
            int(base.config["vocab_size"]),
            min(options.longest, base.max_positions),
        )
        recipe = replace(
            load_recipe("lora"), method=options.method, rank=16, alpha=32.0, epochs=1.0, batch_size=options.batch_size, learning_rate=1e-3, dtype=options.dtype,
            max_length=options.longest, micro_batch=options.micro_batch, gradient_checkpointing=options.gradient_checkpointing, threads=options.threads,
        )  # fmt: skip
        model = trainable(base, recipe)
        loading = peak_memory_bytes()
        forget_peak()
        memory = memory_by_part(model, rows, recipe, 0, batch_loss, validated=False)
        parameters = base.parameters
        with _tensors(model) if options.tensors else nullcontext({}) as tensors:
            done = train(
                model,
                rows,
                [],
                recipe,
                pad_id=0,
                on_step=lambda step: None,
                checkpoints=Checkpoints(Path(scratch) / "run"),
            )
    found = {
        "shape": options.shape,
        "method": options.method,
        "parameters": parameters,
        "dtype": options.dtype,
        **memory,
        "loading": loading,
    }
    expected, trained = peak_of({**memory, "loading": 0}), peak_memory_bytes()
    measured = max(loading, trained)
    sizes = {
        "expected": expected,
        "peak_training": trained,
        "measured": measured,
        "error": round(expected / trained - 1, 3),
        **tensors,
    }
    print(json.dumps({**found, **sizes, "tokens_per_s": round(done.tokens_per_s, 1)}))
    return 0


@contextmanager
def _tensors(model: Any) -> Iterator[dict[str, int]]:
    """What torch's allocator held at its fullest meanwhile, and the model's weights; filled in at
    the end. The scales of 4-bit weights (3 % of these) are missing.
    """
    import torch

    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    found: dict[str, int] = {}
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        yield found
    events = [
        event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"
    ]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    found["peak_tensors"] = weights + most


def forget_peak() -> None:
    """From here on the peak is that of what is still to come."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform.startswith("linux"):
        # Man 5 proc: resets the largest resident size
        Path("/proc/self/clear_refs").write_text("5")


def built(shape: str, folder: Path) -> Path:
    """A base of random weights of that shape, made in another process, whose memory is not ours."""
    if not SHAPES[shape]:
        return BUILTIN_BASE
    if not (folder / "config.json").is_file():
        code = (
            "import sys, json; from benchmarks.training.memory import build;"
            " build(json.loads(sys.argv[1]), sys.argv[2])"
        )
        subprocess.run(
            [sys.executable, "-c", code, json.dumps(SHAPES[shape]), str(folder)], check=True
        )
        # Words, for who needs them: its vocabulary is the smallest of all
        for path in BUILTIN_BASE.glob("*token*"):
            shutil.copy(path, folder)
        for path in BUILTIN_BASE.glob("*.jinja"):
            shutil.copy(path, folder)
    return folder


def build(values: dict[str, Any], folder: str) -> None:
    """Tensor by tensor, so that a machine can make what it could not hold twice."""
    import torch
    import transformers
    from safetensors.torch import save_file

    own = dict(values)
    architecture = own.pop("architecture")
    config = getattr(transformers, f"{architecture}Config")(
        **{
            "num_key_value_heads": own["num_attention_heads"],
            "max_position_embeddings": 1024,
            "tie_word_embeddings": True,
            **own,
        },
        dtype="bfloat16",
    )
    config.architectures = [f"{architecture}ForCausalLM"]
    with torch.device("meta"):
        model = getattr(transformers, config.architectures[0])(config)
    torch.manual_seed(0)
    shard: dict[str, Any] = {}
    index: dict[str, str] = {}
    Path(folder).mkdir(parents=True, exist_ok=True)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    names = [name for name in model.state_dict() if name not in tied]
    for name in names:
        tensor = torch.empty(model.state_dict()[name].shape, dtype=torch.bfloat16)
        shard[name] = (
            tensor.fill_(1.0) if "norm" in name else tensor.normal_(0, config.initializer_range)
        )
        if name == names[-1] or sum(tensor.nbytes for tensor in shard.values()) > _SHARD_BYTES:
            file = f"model-{len(set(index.values())) + 1:05}.safetensors"
            save_file(shard, str(Path(folder) / file), metadata={"format": "pt"})
            index |= dict.fromkeys(shard, file)
            shard = {}
    (Path(folder) / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    config.save_pretrained(folder)


if __name__ == "__main__":
    sys.exit(main())
