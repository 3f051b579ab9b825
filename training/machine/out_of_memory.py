"""Whether an error means that memory ran out."""

from __future__ import annotations

import errno

# Torch has a class of its own for a full GPU's allocator only; on a CPU, and from CUDA itself,
# comes a plain RuntimeError with one of these in it.
_NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "cannot allocate memory",
    "out of memory",
    "cublas_status_alloc_failed",
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, Python or the system means that memory ran out."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and any(words in str(error).casefold() for words in _NO_MEMORY)
    )
