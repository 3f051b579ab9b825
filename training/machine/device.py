"""Where models are computed on this machine, and in which dtype."""

from __future__ import annotations

import functools
import time

import torch

# Of the square matrices that are multiplied to compare dtypes: as many rows as a step of a small
# base has tokens
_TIMED_SIZE = 512
_TIMINGS = 5  # of which the best counts; a few milliseconds in all
_CLEARLY = 1.3  # times as long


def device() -> str:
    """`cuda` where there is a GPU, else `cpu`."""

    return "cuda" if torch.cuda.is_available() else "cpu"


def stored_dtype() -> str:
    """What whole models are written in: half the size, where this machine can compute in it at all."""

    if torch.cuda.is_available():
        # Emulated it is slower than float32
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None) or getattr(
        torch.cpu, "_is_avx512_bf16_supported_", None
    )
    return "bfloat16" if probe is not None and probe() else "float32"


def compute_dtype(wanted: str) -> str:
    """`wanted`, or for `auto` what this machine computes faster in.

    Having the instructions is not enough: products in bfloat16 are five times as fast as in float32
    on one processor that has them, and take twice as long on another. So a processor is asked by
    timing one product.
    """

    if wanted != "auto":
        return wanted
    return (
        stored_dtype()
        if torch.cuda.is_available() or stored_dtype() == "float32"
        else _faster_on_this_processor()
    )


@functools.cache
def _faster_on_this_processor() -> str:
    """bfloat16 unless float32 is clearly faster, so that a tie has the same answer in every
    process.
    """

    best: dict[str, float] = {}
    for _ in range(_TIMINGS):
        for name in ("bfloat16", "float32"):
            a, b = (
                torch.ones(_TIMED_SIZE, _TIMED_SIZE, dtype=getattr(torch, name)) for _ in range(2)
            )
            began = time.perf_counter()
            a @ b
            best[name] = min(best.get(name, float("inf")), time.perf_counter() - began)
    return "float32" if best["bfloat16"] > _CLEARLY * best["float32"] else "bfloat16"
