"""The product as `whet up` starts it, each process killed or stopped in turn: within 15 s the
console's headline says so, with the time at which it happened and a link to what to do.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serving.base import base_of
from tests import builders
from tests.serving import mock_engine
from tests.serving.conftest import free_port, wait_for
from tests.serving.mock_engine import MockEngine
from whet.clock import now_ms
from whet.context import Context, open_context
from whet.database import writing
from whet.settings import load_settings
from whet.up import state

pytestmark = pytest.mark.slow

WITHIN_S = 15.0
# Engines are found hung by a silence of seconds, so the moment of it is earlier than it is found
SINCE_OFF_MS = 12_000


@dataclass
class Product:
    """A running `whet up` with a mock engine, and what its console says."""

    context: Context
    engine: MockEngine
    console_port: int

    def items(self) -> list[dict[str, Any]]:
        """What needs a person, most urgent first; empty while the console does not answer."""
        password = (self.context.settings.home / "admin.password").read_text().strip()
        basic = base64.b64encode(f"admin:{password}".encode()).decode()
        connection = http.client.HTTPConnection("127.0.0.1", self.console_port, timeout=10)
        try:
            connection.request("GET", "/api/health", headers={"Authorization": f"Basic {basic}"})
            found = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException):
            return [{"code": "console_silent", "kind": "bad", "since": 0, "href": ""}]
        finally:
            connection.close()
        assert "items" in found, found
        return list(found["items"])

    def pid(self, name: str) -> int:
        found = state.read_status(self.context.settings.home)
        assert found is not None
        return int(next(row["pid"] for row in found["processes"] if row["name"] == name))

    def is_well(self) -> bool:
        return not [item for item in self.items() if item["kind"] == "bad"]

    def expect(self, code: str, began: int) -> dict[str, Any]:
        """Wait until `code` is the headline; check its time and its link."""

        def first() -> dict[str, Any] | None:
            items = self.items()
            return items[0] if items and items[0]["code"] == code else None

        item: dict[str, Any] = wait_for(
            first, lambda: f"{code} as the first of {self.items()}", timeout_s=WITHIN_S
        )
        assert began - SINCE_OFF_MS <= item["since"] <= now_ms() + 1000, item
        assert re.match(r"/health#|/drift/incidents/", item["href"]) and item["todo"], item
        return item


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    home = tmp_path_factory.mktemp("health") / "home"
    ports = {
        name: free_port()
        for name in ("gateway_port", "console_port", "retrieval_port", "metrics_port")
    }
    with MockEngine() as engine:
        given: dict[str, Any] = {
            "home": home, "engine_urls": engine.url, **ports, "worker_poll_s": 0.5,
            "notify_urls": "json://127.0.0.1:9/nobody-listens",
        }  # fmt: skip
        context = open_context(load_settings(**given))
        # Else the engine watcher refuses the engine for serving another base
        patch = pytest.MonkeyPatch()
        patch.setattr(mock_engine, "BASE", base_of(context).engine_name)
        with writing(context.database) as connection:
            builders.add_interaction(connection, now_ms())
        environment = {f"WHET_{name.upper()}": str(value) for name, value in given.items()}
        output = (home / "up.out").open("wb")
        up = subprocess.Popen(
            [sys.executable, "-m", "whet.cli", "up"],
            env={**os.environ, **environment, "PYTHONPATH": str(Path.cwd())},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            found = Product(context, engine, ports["console_port"])
            wait_for(
                lambda: (home / "admin.password").exists() and found.is_well(),
                lambda: f"{found.items()}\n{(home / 'up.out').read_text()[-2000:]}",
                timeout_s=120,
            )
            yield found
        finally:
            up.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                up.wait(60)
            up.kill()
            context.close()
            patch.undo()


def kill(product: Product, name: str) -> Callable[[], None]:
    os.kill(product.pid(name), signal.SIGKILL)  # the supervisor starts it again
    return lambda: None


def stop(product: Product, name: str) -> Callable[[], None]:
    pid = product.pid(name)
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


def hang_engine(product: Product, _: str) -> Callable[[], None]:
    product.engine.faults.hang = product.engine.faults.hang_list = True

    def go_on() -> None:
        product.engine.faults.hang = product.engine.faults.hang_list = False

    return go_on


def end_engine(product: Product, _: str) -> Callable[[], None]:
    product.engine.stop()
    return product.engine.start


@pytest.mark.parametrize(
    ("name", "break_it", "code"),
    [
        ("engine", hang_engine, "engine_down"),
        ("engine", end_engine, "engine_down"),
        ("gateway", stop, "gateway_stopped"),
        ("gateway", kill, "gateway_stopped"),
        ("scheduler", stop, "scheduler_stopped"),
        ("scheduler", kill, "scheduler_stopped"),
        ("worker", stop, "worker_stopped"),
        ("worker", kill, "worker_stopped"),
        ("retrieval", stop, "retrieval_stopped"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_headline_says_what_died_within_15_s_and_when_it_is_back(
    product: Product, name: str, break_it: Callable[[Product, str], Callable[[], None]], code: str
) -> None:
    wait_for(product.is_well, lambda: f"a well product: {product.items()}", timeout_s=60)
    began = now_ms()
    repair = break_it(product, name)
    try:
        product.expect(code, began)
    finally:
        repair()
    wait_for(product.is_well, lambda: f"a well product: {product.items()}", timeout_s=60)


def test_headline_says_which_service_refuses_notifications(product: Product) -> None:
    wait_for(product.is_well, lambda: f"a well product: {product.items()}", timeout_s=60)
    began = now_ms()
    with writing(product.context.database) as connection:
        alert = builders.add_alert(connection, began, severity="bad")

    def refused() -> dict[str, Any] | None:
        found = (item for item in product.items() if item["code"] == "notification_undelivered")
        return next(found, None)

    # The scheduler sends every 20 s; the headline follows within 15 s
    item = wait_for(refused, lambda: f"{product.items()}", timeout_s=20 + WITHIN_S)
    assert item["sentence"].startswith("json://… has refused 1 notification, after 1 attempt")
    assert item["href"] == f"/drift/incidents/{alert}" and item["since"] >= began
