"""End this process with its parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1  # linux, prctl.h


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however it ends; also when it has
    ended already.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def end_with_pipe(descriptor: int) -> None:
    """The same by a pipe whose other end the parent holds: works everywhere, and when a thread of
    the parent made this process.
    """

    def wait() -> None:
        while os.read(descriptor, 1 << 12):
            pass
        os._exit(1)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()
