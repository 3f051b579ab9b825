"""`python -m serving.gateway`: the gateway as a process of its own, with `WHET_GATEWAY_WORKERS`
workers.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys

import uvicorn

from serving.gateway.http_protocol import GatewayHttpProtocol
from whet.context import open_context
from whet.errors import WhetError
from whet.settings import IDLE_CONNECTION_S, Settings, load_settings

STOP_WITHIN_S = 10  # running answers may finish; longer ones are cut and say so in their row
BACKLOG = 4096
# With several workers, one that says nothing for so long is killed and replaced. A worker that
# starts on a busy machine says nothing for five seconds, while it imports; and one that dies just
# when it is asked is missed for as long as this.
WORKER_SILENT_S = 10


def main() -> None:
    logging.basicConfig(
        level=os.environ.get("WHET_LOG_LEVEL", "INFO"),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    try:
        settings = load_settings()
        open_context(settings).close()  # migrated once here, not by every worker at the same time
    except WhetError as error:
        print(f"whet gateway: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    if settings.gateway_workers > 1:
        _share_metrics(settings)
    uvicorn.run(
        "serving.gateway.app:from_environment",
        factory=True,
        host=settings.gateway_host,
        port=settings.gateway_port,
        workers=settings.gateway_workers,
        loop="uvloop",
        http=GatewayHttpProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_CONNECTION_S,
        timeout_graceful_shutdown=STOP_WITHIN_S,
        timeout_worker_healthcheck=WORKER_SILENT_S,
    )


def _share_metrics(settings: Settings) -> None:
    """Files in which the workers of this start add up their counters; those of an earlier start are
    gone.
    """
    folder = settings.home / "run" / "gateway-metrics"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


if __name__ == "__main__":
    main()
