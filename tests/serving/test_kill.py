"""kill -9 of the gateway at random moments under load: what a client received in full has its row, once, with the same bytes.

The ledger is the client's own: it notes an answer only after the last byte of it, with the hash of what arrived. The
control switches the order (log after sending) and must lose rows, or this test could not notice.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select

from serving.log.drain import Drain
from serving.log.spool import Spool
from tests.serving.conftest import free_port, set_replica, wait_for
from tests.serving.mock_engine import MockEngine
from whet.access import create_key
from whet.clock import now_ms
from whet.context import Context, open_context
from whet.database import reading, writing
from whet.settings import load_settings
from whet.tables import interactions

_LATE = """
import serving.gateway.exchange as exchange, time
from serving.gateway.__main__ import main
record, later = exchange.Exchange._record, []
def after_sending(self, *arguments, **options):
    import asyncio
    asyncio.get_running_loop().call_later(0.3, lambda: record(self, *arguments, **options))
exchange.Exchange._record = after_sending
from serving.gateway.app import create_gateway
import uvicorn, sys
from whet.context import open_context
from whet.settings import load_settings
settings = load_settings()
uvicorn.run(create_gateway(open_context(settings), services=()), host="127.0.0.1", port=settings.gateway_port, log_level="warning", access_log=False)
"""
_RIGHT = """
from serving.gateway.app import create_gateway
import uvicorn
from whet.context import open_context
from whet.settings import load_settings
settings = load_settings()
uvicorn.run(create_gateway(open_context(settings), services=()), host="127.0.0.1", port=settings.gateway_port, log_level="warning", access_log=False, loop="uvloop", http="httptools")
"""


class Killed:
    """A gateway process that is killed and started again, and clients that keep a ledger."""

    def __init__(self, context: Context, key: str, code: str) -> None:
        self.context, self.key, self.code = context, key, code
        self.port = free_port()
        self.ledger: list[tuple[str, str]] = []  # (interaction id, hash of the body) of answers received in full
        self.stop = threading.Event()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {
            **os.environ,
            "WHET_HOME": str(self.context.settings.home),
            "WHET_GATEWAY_PORT": str(self.port),
            "WHET_DATABASE_URL": self.context.settings.database_url,
        }
        self.process = subprocess.Popen([sys.executable, "-c", self.code], env=environment)
        wait_for(self._up, "the gateway's start", timeout_s=60)

    def _up(self) -> bool:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def client(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.stop.is_set():
            body = json.dumps({"model": "base", "messages": [{"role": "user", "content": f"{seed}"}], "stream": chance.random() < 0.5}).encode()
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                connection.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {self.key}"})
                response = connection.getresponse()
                content = response.read()  # raises IncompleteRead when the end is missing
                if response.status == 200:
                    self.ledger.append((response.headers["x-whet-interaction-id"], hashlib.sha256(content).hexdigest()))
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)

    def rows(self) -> Counter[tuple[str, str]]:
        with reading(self.context.database) as connection:
            return Counter(
                (row.id, row.response_sha256)
                for row in connection.execute(select(interactions.c.id, interactions.c.response_sha256).where(interactions.c.status == "complete"))
            )


def run(tmp_path: Path, database_url: str, code: str, kills: int) -> tuple[list[tuple[str, str]], Counter[tuple[str, str]], Context]:
    context = open_context(load_settings(home=tmp_path / "home", database_url=database_url))
    with writing(context.database) as connection:
        _, key = create_key(connection, "tests", secret=context.secret, actor="tests", now=now_ms())
    with MockEngine() as engine:
        engine.faults.chunk_delay_s = 0.004
        set_replica(context, engine.url, {})
        killed = Killed(context, key, code)
        killed.start()
        clients = [threading.Thread(target=killed.client, args=(seed,)) for seed in range(8)]
        for client in clients:
            client.start()
        chance = random.Random(11)
        for _ in range(kills):
            time.sleep(chance.uniform(0.1, 1.0))
            killed.kill()
            killed.start()
        killed.stop.set()
        for client in clients:
            client.join(20)
        killed.kill()
    # A fresh process of this home takes over what the dead ones left, as the next start does.
    spool = Spool(context.settings.home / "spool", "taker")
    drain = Drain(context.database, spool)
    drain.start()
    wait_for(
        lambda: list(spool.folder.glob("*.jsonl")) == [spool.files[0].path],
        "the orphans' end",
        timeout_s=30,
    )
    drain.stop()
    return killed.ledger, killed.rows(), context


def test_no_answer_received_in_full_is_without_its_row_and_none_has_two(tmp_path: Path, database_url: str) -> None:
    ledger, rows, context = run(tmp_path, database_url, _RIGHT, kills=3)
    assert len(ledger) > 30 and len(set(ledger)) == len(ledger)
    missing = [entry for entry in ledger if rows[entry] != 1]
    assert not missing, f"{len(missing)} of {len(ledger)} answers have no row with the same bytes"
    assert not (context.settings.home / "spool" / "rejected.lines").exists()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_control_that_logs_after_sending_loses_rows(tmp_path: Path, database_url: str) -> None:
    ledger, rows, _ = run(tmp_path, database_url, _LATE, kills=1)
    assert [entry for entry in ledger if rows[entry] != 1]
