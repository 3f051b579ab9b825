"""The process that `whet up` starts for training."""

from __future__ import annotations

import sys

from whet.context import Context
from whet.plugins import ProcessSpec


def processes(context: Context) -> list[ProcessSpec]:
    """Entry point `whet.processes`."""
    return [
        ProcessSpec(
            name="worker",
            argv=[sys.executable, "-m", "training.worker"],
            environment={"WHET_HOME": str(context.settings.home)},
            stop_within_s=15,
            order=55,
        )
    ]
