"""The scheduler, except that it stops at one named moment, says so by writing a file, and waits to
be killed.

python -m tests.feedback.paused_scheduler MOMENT FILE
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import feedback.datasets
import feedback.retraining
import whet.scheduler
from whet.store import Store

# (where the function is, its name): the process stops before the function does anything.
MOMENTS: dict[str, tuple[Any, str]] = {
    "folder filled, not published": (Store, "_publish"),
    "folder published, no row": (feedback.datasets, "register"),
    "version registered, no request": (feedback.retraining, "insert_ignore"),
    "": (None, ""),
}


def main(moment: str, reached: Path) -> None:
    # So that the test need not wait for the next one
    whet.scheduler.LEASE_MS, whet.scheduler._RENEW_S = 1500, 0.4
    owner, name = MOMENTS[moment]
    if owner is not None:
        assert hasattr(owner, name), f"{owner} has no {name}, so {moment!r} would never come"
        setattr(owner, name, _stopping(reached))
    whet.scheduler.main()


def _stopping(reached: Path) -> Callable[..., None]:
    def stop(*_: object, **__: object) -> None:
        reached.touch()
        time.sleep(600)

    return stop


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
