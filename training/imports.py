"""Imports torch, transformers and PEFT before what needs them, in two thirds of the time that plain
imports take.

Three things cost time and give nothing: the garbage collector, which looks through a million new
objects again and again; bitsandbytes, which brings torch's compiler with it and which only 4-bit
bases need; and scikit-learn, pandas and SciPy for losses and ways of generating that nothing uses.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from typing import Any

from training.machine.bitsandbytes_import import hide_bitsandbytes
from training.optional import TRANSFORMERS_UTILS
from whet import lazy


def load(target: str) -> Any:
    """Import "module:attribute" of a module that needs torch, and return the attribute.

    Every process that trains or judges begins with it: what it sets is read at the import.
    """
    if target.partition(":")[0] in sys.modules:
        return lazy.load(target)
    gc.disable()
    try:
        hide_bitsandbytes()
        prepare_transformers()
        return lazy.load(target)
    finally:
        gc.freeze()  # they stay until the end: no collection need look at them again
        gc.enable()


def quiet_environment() -> None:
    """To be called before torch or transformers is imported.

    Waiting OpenMP threads sleep instead of spinning, because the engine shares the processor
    (spinning cost two thirds of the speed); nothing is reported to anybody; no progress bars of
    others.
    """
    for name, value in {
        "KMP_BLOCKTIME": "0",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        # ORPO's trainer stands among those whose names may change; the version is pinned
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }.items():
        os.environ.setdefault(name, value)
    # It warns of kernels for 4-bit weights, which a CPU lacks
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def prepare_transformers() -> None:
    """Import transformers without what nothing here uses; to be called before anything else does.

    For a way of generating it would import scikit-learn and pandas, for losses of object detection
    SciPy: three seconds of each start.
    """
    quiet_environment()
    utils = lazy.load(TRANSFORMERS_UTILS)
    vars(utils)["is_sklearn_available"] = lambda: False
    vars(utils)["is_scipy_available"] = lambda: False
