"""`python -m serving.retrieval`: the process that searches and embeds, on loopback."""

from __future__ import annotations

import logging
import os
import sys

import uvicorn

from serving.retrieval.server import create_retrieval_app
from whet.context import open_context
from whet.errors import WhetError
from whet.settings import IDLE_CONNECTION_S, load_settings


def main() -> None:
    logging.basicConfig(
        level=os.environ.get("WHET_LOG_LEVEL", "INFO"),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    try:
        context = open_context(load_settings())
    except WhetError as error:
        print(f"whet retrieval: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    uvicorn.run(
        create_retrieval_app(context),
        host="127.0.0.1",
        port=context.settings.retrieval_port,
        loop="uvloop",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        timeout_keep_alive=IDLE_CONNECTION_S,
        timeout_graceful_shutdown=5,  # searches take milliseconds
    )


if __name__ == "__main__":
    main()
