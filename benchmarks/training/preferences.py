"""`python -m benchmarks.training.preferences SHAPE --method METHOD`: time and peak memory of a run
in TRL's trainers as expected and as measured, in a process of its own; prints one JSON line. Rows
of random words: both answers of each have lengths of their own (`benchmarks/training/rows.py`).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.training.memory import SHAPES, built, forget_peak
from benchmarks.training.rows import length
from training.recipes.recipe import load_recipe

_WORDS = ("lamp", "kettle", "order", "month", "repair", "claim", "store", "blue", "seven", "desk")
_WORD = 2  # tokens that one takes, about


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training.preferences", description=__doc__
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
    parser.add_argument("--method", choices=("dpo", "kto", "orpo", "rlhf"), default="dpo")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument(
        "--longest", type=int, default=256, help="tokens of the longest conversations"
    )
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args(given)
    from training.imports import quiet_environment

    quiet_environment()
    from training.machine.allocator import keep_memory, return_memory
    from training.models.base_model import BaseModel

    keep_memory()
    import torch

    from training.loop.checkpoint import Checkpoints
    from training.loop.pairs import max_completion_tokens, work
    from training.loop.throughput import choose_threads, write
    from training.loop.trainer import total_steps
    from training.methods.families import family
    from training.models.encode import Encoder
    from training.plan.estimates import estimate, memory_of, peak_memory_bytes, peak_of
    from training.recipes.methods import METHODS

    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="whet-preferences-") as scratch:
        base = BaseModel(
            built(options.shape, options.base or Path(scratch) / "base"), options.shape
        )
        recipe = replace(
            load_recipe(options.method), rank=16, alpha=32.0, epochs=1.0, batch_size=options.batch_size, learning_rate=1e-4, dtype=options.dtype,
            max_length=options.longest + 64, threads=options.threads,
        )  # fmt: skip
        encoder = Encoder(base, recipe.max_length)
        rows = _rows(
            options.steps * options.batch_size // (2 if options.method == "kto" else 1),
            options.longest,
        )
        train, rows, _ = encoder.encode_all(rows)
        done = work(recipe, encoder, rows)
        prepared: Any = SimpleNamespace(
            recipe=recipe, base=base, encoder=encoder, train=train, validation=[], work=done, steps=total_steps(done.examples, recipe),
            dataset=SimpleNamespace(train=rows, validation=[]),
        )  # fmt: skip
        method = family(METHODS[options.method])
        model, loss_of = method.build(prepared), method.loss(prepared)
        _, speed = choose_threads(model, train, recipe, 0, loss_of)
        return_memory()
        memory = memory_of(model, prepared, 0, loss_of)
        written = (
            write(model, train, recipe, 0, base.stop_ids, max_completion_tokens(train))
            if options.method == "rlhf"
            else None
        )
        expected = estimate(prepared, speed, memory, written=written)
        forget_peak()
        reporter: Any = SimpleNamespace(working=lambda *_: None, stage=lambda _: None)
        made = method.run(
            model,
            prepared,
            reporter,
            pad_id=0,
            loss_of=loss_of,
            on_step=lambda step: None,
            checkpoints=Checkpoints(Path(scratch) / "run"),
            resume=None,
        )
    peak = peak_memory_bytes()
    sizes = {"expected": peak_of({**memory, "loading": 0}), "measured": peak}
    seconds = {"expected_seconds": expected["seconds"], "seconds": round(made.seconds, 1)}
    errors = {
        "memory_error": round(sizes["expected"] / peak - 1, 3),
        "time_error": round(expected["seconds"] / made.seconds - 1, 3),
    }
    print(
        json.dumps(
            {
                "shape": options.shape,
                "method": options.method,
                "dtype": options.dtype,
                "padding": round(done.padding, 2),
                **memory,
                **sizes,
                **seconds,
                **errors,
            }
        )
    )
    return 0


def _rows(count: int, longest: int) -> list[Any]:
    from training.data.rows import read_lines

    chance = random.Random(0)

    def words(tokens: int) -> str:
        return " ".join(chance.choice(_WORDS) for _ in range(max(2, tokens // _WORD)))

    made = []
    for number in range(count):
        asked, chosen, rejected = (length(chance, longest) for _ in range(3))
        row = {
            "prompt": f"{number} {words(2 * asked // 3)}",
            "chosen": f"good {words(chosen // 3)}",
            "rejected": f"bad {words(rejected // 3)}",
        }
        made.append(json.dumps(row).encode())
    return read_lines(made).rows


if __name__ == "__main__":
    sys.exit(main())
