"""`python -m benchmarks.training [speed] [memory]`: what training costs here, beside others; writes
nothing but its tables, which training/RESULTS.md keeps.

`speed`: ours, plain Trainer with padding and TRL's SFTTrainer with packing train the same LoRA on
the same rows, each in a process of its own, in turns; the median of the rounds counts. `memory`:
the estimate of a run's peak beside the measured one, for three shapes. About ten minutes together
on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.training.arm import ARMS
from benchmarks.training.memory import SMALL

_GEMM_SIZE = 1024  # of the square matrices whose product says what the machine can do
_GEMM_TIMINGS = 7


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("what", nargs="*", choices=["speed", "memory", []])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=240)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="", help="default: what this machine is faster in")
    options = parser.parse_args(given)
    from training.imports import quiet_environment

    as_anybody = dict(os.environ)
    quiet_environment()
    from training.machine.device import compute_dtype
    from training.models.base_model import BaseModel
    from whet.settings import BUILTIN_BASE

    dtype = options.dtype or compute_dtype("auto")
    if "speed" in options.what or not options.what:
        found: dict[str, list[float]] = {name: [] for name in ARMS}
        rates = []
        for turn in range(options.rounds):
            rates.append(gemm_rate(dtype, options.threads))
            for name in ARMS if turn % 2 == 0 else reversed(ARMS):
                arm = _child(
                    "arm",
                    name,
                    "--rows",
                    str(options.rows),
                    "--dtype",
                    dtype,
                    "--threads",
                    str(options.threads),
                    environment=as_anybody,
                )
                found[name].append(arm["tokens_per_s"])
                print(
                    f"round {turn + 1}: {name} {arm['tokens_per_s']:,.0f} tokens/s in"
                    f" {arm['steps']} steps",
                    file=sys.stderr,
                )
        _tell_speed(
            found, rates, BaseModel(BUILTIN_BASE, "the base").parameters, dtype, options.threads
        )
    if "memory" in options.what or not options.what:
        _tell_memory(
            [
                _child("memory", shape, "--dtype", dtype, "--threads", str(options.threads))
                for shape in SMALL
            ]
        )
    return 0


def gemm_rate(dtype: str, threads: int) -> float:
    """Floating-point operations per second of one large product, the best of a few."""
    import torch

    torch.set_num_threads(threads)
    a, b = (torch.randn(_GEMM_SIZE, _GEMM_SIZE).to(getattr(torch, dtype)) for _ in range(2))
    best = float("inf")
    for _ in range(_GEMM_TIMINGS):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 2 * _GEMM_SIZE**3 / best


def _child(module: str, *given: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.training.{module}", *given],
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode:
        raise BenchmarkError(
            f"The arm {given[0]} failed:"
            f" {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}."
        )
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def _tell_speed(
    found: dict[str, list[float]], rates: list[float], parameters: int, dtype: str, threads: int
) -> None:
    """LoRA's forward and backward pass are 4 operations per weight and token: 2 forward, 2 back
    through frozen weights.
    """
    ours, rate = statistics.median(found["ours"]), statistics.median(rates)
    print(
        f"{dtype}, {threads} threads; products of {_GEMM_SIZE} x {_GEMM_SIZE}:"
        f" {rate / 1e9:.0f} GFLOP/s ({min(rates) / 1e9:.0f} to {max(rates) / 1e9:.0f})\n"
    )
    print(
        "| arm | tokens/s, median | lowest to highest | ours is so many times as fast | share of"
        " the product rate |\n|---|---:|---:|---:|---:|"
    )
    for name, values in found.items():
        middle = statistics.median(values)
        share = 4 * parameters * middle / rate
        print(
            f"| {name} | {middle:,.0f} | {min(values):,.0f} to {max(values):,.0f} |"
            f" {ours / middle:.2f} | {100 * share:.0f} % |"
        )
    print()


def _tell_memory(found: list[dict[str, Any]]) -> None:
    print(
        "| shape | weights | dtype | base | adapter and optimiser | activations | process |"
        " expected peak | measured | error |\n|---|---:|---|---:|---:|---:|---:|---:|---:|---:|"
    )
    for row in found:
        small = row["adapter"] + row["optimiser"]
        parts = [
            f"{size / 1e6:,.0f} MB"
            for size in (
                row["base"],
                small,
                row["activations"],
                row["process"],
                row["expected"],
                row["measured"],
            )
        ]
        print(
            f"| {row['shape']} | {row['parameters'] / 1e6:.1f} M | {row['dtype']} |"
            f" {' | '.join(parts)} | {100 * row['error']:+.0f} % |"
        )


if __name__ == "__main__":
    raise SystemExit(main())
