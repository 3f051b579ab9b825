"""The console as a process of `whet up`."""

from __future__ import annotations

import sys

from whet.context import Context
from whet.plugins import ProcessSpec


def processes(context: Context) -> list[ProcessSpec]:
    """Entry point `whet.processes`."""
    settings = context.settings
    host = "127.0.0.1" if settings.console_host in ("0.0.0.0", "::") else settings.console_host
    return [
        ProcessSpec(
            name="console",
            argv=[sys.executable, "-m", "whet.web"],
            environment={"WHET_HOME": str(settings.home)},
            ready_url=f"http://{host}:{settings.console_port}/healthz",
            ready_within_s=60,
            stop_within_s=10,
            listens_on=((settings.console_host, settings.console_port),),
            order=60,
        )
    ]
