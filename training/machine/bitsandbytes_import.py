"""Keep bitsandbytes from being imported where no base is loaded in 4 bits."""

from __future__ import annotations

import sys

from training.optional import PEFT_CHECKS, TRANSFORMERS_CHECKS
from whet.lazy import load

_BITSANDBYTES = "bitsandbytes"


def hide_bitsandbytes() -> None:
    """Let PEFT and transformers find no bitsandbytes, unless they have found it already.

    It brings torch's compiler with it: 2.5 s of a start, for bases in 4 bits alone.
    """
    if _BITSANDBYTES not in sys.modules and "peft" not in sys.modules:
        sys.modules[_BITSANDBYTES] = None  # type: ignore[assignment]


def show_bitsandbytes() -> None:
    """Take `hide_bitsandbytes` back."""
    if sys.modules.get(_BITSANDBYTES, _BITSANDBYTES) is not None:
        return
    del sys.modules[_BITSANDBYTES]
    peft_checks, transformers_checks = load(PEFT_CHECKS), load(TRANSFORMERS_CHECKS)
    for remembered in (
        peft_checks.is_bnb_available,
        peft_checks.is_bnb_4bit_available,
        transformers_checks.is_bitsandbytes_available,
    ):
        remembered.cache_clear()
