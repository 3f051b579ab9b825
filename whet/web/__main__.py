"""`python -m whet.web`: the console alone."""

from __future__ import annotations

import logging
import os
import sys

import uvicorn

from whet.context import open_context
from whet.errors import WhetError
from whet.settings import IDLE_CONNECTION_S, load_settings
from whet.web.console import create_console

# Open event streams end when the process does; nobody waits for them longer than this
_GOODBYE_S = 3


def main() -> int:
    logging.basicConfig(
        level=os.environ.get("WHET_LOG_LEVEL", "INFO"),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    try:
        context = open_context(load_settings())
        app = create_console(context)
    except WhetError as error:
        print(f"whet: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    settings = context.settings
    uvicorn.run(
        app,
        host=settings.console_host,
        port=settings.console_port,
        access_log=False,
        server_header=False,
        log_level="warning",
        timeout_keep_alive=IDLE_CONNECTION_S,
        timeout_graceful_shutdown=_GOODBYE_S,
    )
    context.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
