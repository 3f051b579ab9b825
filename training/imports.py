"""Imports torch, transformers and PEFT before a run, in two thirds of the time that plain imports
take.

Three things cost time and give nothing: the garbage collector, which looks through a million new
objects again and again; bitsandbytes, which brings torch's compiler with it and which only 4-bit
bases need; and SciPy for losses of object detection (see `base_model.import_transformers`).
"""

from __future__ import annotations

import gc

from training.base_model import import_transformers
from training.bitsandbytes_import import hide_bitsandbytes


def import_libraries(*, four_bits: bool) -> None:
    """Import everything heavy. `four_bits`: bitsandbytes too; else only when it is asked for."""
    gc.disable()
    try:
        if not four_bits:
            hide_bitsandbytes()
        import_transformers()
        import peft  # noqa: F401
        import torch
        import torch.utils.tensorboard  # half a second that the first step would wait for  # noqa: F401
        import transformers.models.llama.modeling_llama  # noqa: F401

        import training.kernels
        import training.pipeline  # noqa: F401
    finally:
        gc.freeze()  # they stay until the end: no collection need look at them again
        gc.enable()
