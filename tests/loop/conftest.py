"""One running product for the tests of the whole circle: `whet up` with the real engine and the
built-in base.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.zenith.story.product import Product
from tests.loop import desk
from whet.context import Context, open_context
from whet.settings import load_settings

COMPRESSED = {
    "WHET_DRIFT_INTERVAL_S": "10",
    "WHET_FLAG_INTERVAL_S": "1",
    "WHET_SCHEDULER_TICK_S": "1",
    "WHET_WORKER_POLL_S": "1",
    "WHET_RETRAIN_MIN_EXAMPLES": "25",  # of 40 reviews, since many ask the same
    "WHET_RETRAIN_QUIET_S": "3",
    "WHET_RETRAIN_COOLDOWN_S": "0",
    "WHET_ROLLOUT_STEPS": "0.5,1.0",
    "WHET_ROLLOUT_MIN_REQUESTS": "5",
    "WHET_ENGINE_MAX_MODEL_LEN": "512",
}


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Running(Product):
    """The product, and the means to do harm to it."""

    def processes(self) -> dict[str, dict[str, Any]]:
        """Name → what the supervisor says of it."""
        status = json.loads((self.home / "run" / "status.json").read_text())
        return {row["name"]: row for row in status["processes"]}

    def kill(self, name: str) -> int:
        """`kill -9` of one process; returns the pid that died."""
        pid = int(self.processes()[name]["pid"])
        os.kill(pid, signal.SIGKILL)
        return pid

    def context(self) -> Context:
        """A reader's view of its database and store."""
        return open_context(load_settings(home=self.home))


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = Path(tmp_path_factory.mktemp("product"))
    gateway, console, engine, metrics = _free_ports(4)
    ports = {
        "WHET_GATEWAY_PORT": gateway,
        "WHET_CONSOLE_PORT": console,
        "WHET_ENGINE_PORT": engine,
        "WHET_METRICS_PORT": metrics,
    }
    running = Running(home, {**COMPRESSED, **{name: str(port) for name, port in ports.items()}})
    try:
        running.start(timeout_s=400)
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def first_version(product: Running, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """`bakery@v1`, trained from a file by the command line and live."""
    data = Path(tmp_path_factory.mktemp("data")) / "bakery.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in desk.rows(150, desk.CAKES, seed=1)))
    run: dict[str, Any] = product.run("train", "run", str(data), "--alias", "bakery", "--seed", "1")
    product.run("rollout", "promote", "bakery")
    return run
