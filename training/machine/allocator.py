"""Settings of memory allocators: keep freed memory, give it back, keep few kernels."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4  # glibc, malloc.h
_MAPPINGS = 65_536  # glibc's own bound
# The largest threshold that glibc takes. A step of the built-in base has no such block; a matrix of
# a base of a billion weights is one
LARGE_BYTES = 32 << 20
_TOP_PAD_BYTES = 256 << 20  # one step of a small base allocates and frees about this much
# The products of one batch take some 30: 23 % less memory than with all, 3 % more time
# (training/RESULTS.md)
_KERNELS = 64


def keep_memory() -> None:
    """Let glibc keep freed blocks: returning them to the kernel and faulting them in again at every
    step took up to half of the time.

    To be called before training starts; does nothing where the C library is another one.
    """
    _set({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: _TOP_PAD_BYTES})


def give_large_blocks_back() -> None:
    """Let blocks of `LARGE_BYTES` and more go back to the kernel when they are freed, also after
    `keep_memory`.

    For a base whose single matrices are that large: those that are unpacked one after the other
    would leave holes between what stays, into which nothing fits, and a product with one takes far
    longer than to map its memory.
    """
    # What the heap has in store serves a large block first
    _set({_M_MMAP_THRESHOLD: LARGE_BYTES, _M_MMAP_MAX: _MAPPINGS, _M_TOP_PAD: 0})


def keep_few_kernels() -> None:
    """Let oneDNN hold some kernels instead of a thousand: each keeps memory of its own to work in,
    and a loop whose batches are of ever other lengths makes more and more of them. To be called
    before the first product of the process; a setting of the user's stands.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_KERNELS))


def _set(options: dict[int, int]) -> None:
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for option, value in options.items():
        mallopt(option, value)


def return_memory() -> None:
    """Give freed blocks back to the kernel once: what loading or a model that was let go leaves
    behind is larger than what training will want.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
