"""A gateway process that is killed under load, and clients that keep a ledger of what they got.

The ledger is the clients' own: the head of an answer, its text so far, and whether its end came.
What the log says afterwards is compared with it.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import select

from serving.keeper import LEASE
from serving.log.drain import Drain
from serving.log.spool import Spool
from tests.serving.conftest import free_port, set_replica, wait_for
from tests.serving.mock_engine import MockEngine
from whet.access import create_key
from whet.clock import now_ms
from whet.context import Context, open_context
from whet.database import reading, writing
from whet.leases import acquire
from whet.settings import load_settings
from whet.tables import interactions

CLIENTS = 20
STREAM_SHARE = 0.7  # of the requests
LEAVE_SHARE = 0.1  # of the streams: their client goes away in the midst
WORDS, WORD_S = 16, 0.08  # a stream lives a second and a half
GATEWAY = (sys.executable, "-m", "serving.gateway")
OPEN_STATUSES = {"complete", "cut", "cancelled"}  # what may have become of a stream that began


@dataclass
class Entry:
    """One answer whose head a client received."""

    interaction_id: str
    question: str
    is_stream: bool
    text: str = ""
    is_whole: bool = False  # all of it, `[DONE]` included
    sha256: str = ""  # of the body, when the transfer ended as it should


@dataclass
class Ledger:
    """What all clients noted. Lists are appended to by threads."""

    entries: list[Entry] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)  # by HTTP status
    unanswered: int = 0  # no head came: refused connections, and those that a kill broke


class Client(threading.Thread):
    """Asks one question after the other until `stop` is set."""

    def __init__(
        self, port: int, key: str, ledger: Ledger, stop: threading.Event, seed: int
    ) -> None:
        super().__init__(name=f"client-{seed}")
        self._port, self._key, self._ledger, self._halt = port, key, ledger, stop
        self._seed, self._chance = seed, random.Random(seed)

    def run(self) -> None:
        number = 0
        while not self._halt.is_set():
            number += 1
            self._ask(f"question {number} of client {self._seed}")

    def _ask(self, question: str) -> None:
        is_stream = self._chance.random() < STREAM_SHARE
        leave_after = self._chance.randrange(WORDS) if self._chance.random() < LEAVE_SHARE else None
        messages = [{"role": "user", "content": question}]
        body = json.dumps({"model": "base", "messages": messages, "stream": is_stream}).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            headers = {"Authorization": f"Bearer {self._key}"}
            connection.request("POST", "/v1/chat/completions", body, headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException):
            self._ledger.unanswered += 1
            self._halt.wait(0.05)
            return
        try:
            if response.status != 200:
                self._ledger.refused[response.status] += 1
                response.read()
                return
            interaction_id = str(response.headers["x-whet-interaction-id"])
            entry = Entry(interaction_id, question, is_stream)
            self._ledger.entries.append(entry)
            if is_stream:
                self._read_stream(response, entry, leave_after)
            else:
                content = response.read()  # raises IncompleteRead when the end is missing
                entry.text = json.loads(content)["choices"][0]["message"]["content"]
                entry.is_whole, entry.sha256 = True, hashlib.sha256(content).hexdigest()
        except (OSError, http.client.HTTPException):
            pass  # the gateway was killed; the entry says how far it came
        finally:
            connection.close()
        self._halt.wait(self._chance.uniform(0, 0.3))

    def _read_stream(
        self, response: http.client.HTTPResponse, entry: Entry, leave_after: int | None
    ) -> None:
        hashed = hashlib.sha256()
        words = 0
        for line in response:
            hashed.update(line)
            if not line.startswith(b"data: ") or not line.endswith(b"\n"):
                continue
            if line == b"data: [DONE]\n":
                entry.is_whole = True
                continue
            for choice in json.loads(line[6:]).get("choices", ()):
                entry.text += choice["delta"].get("content") or ""
            words += 1
            if words == leave_after:
                return
        if entry.is_whole:
            entry.sha256 = hashed.hexdigest()


class Prober(threading.Thread):
    """Asks `/healthz` all the time; `longest_gap` is how long nothing answered."""

    def __init__(self, port: int) -> None:
        super().__init__(name="prober")
        self._port, self._halt = port, threading.Event()
        self.answered_at: list[float] = []

    def run(self) -> None:
        while not self._halt.wait(0.02):
            if get_status(self._port, "/healthz") == 200:
                self.answered_at.append(time.monotonic())

    def stop(self) -> None:
        self._halt.set()
        self.join(10)

    @property
    def longest_gap(self) -> float:
        pairs = zip(self.answered_at, self.answered_at[1:], strict=False)
        return max((after - before for before, after in pairs), default=0.0)


def get_status(port: int, path: str) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


class GatewayProcess:
    """`command` as a process with `workers` workers; killed with SIGKILL, then started again."""

    def __init__(self, context: Context, command: Sequence[str], workers: int) -> None:
        settings = context.settings
        self.port, self.workers, self._command = free_port(), workers, command
        self._spool, self._killed = settings.home / "spool", 0
        self._environment = {
            **os.environ,
            "WHET_HOME": str(settings.home),
            "WHET_GATEWAY_PORT": str(self.port),
            "WHET_GATEWAY_WORKERS": str(workers),
            "WHET_DATABASE_URL": settings.database_url,
            "WHET_LOG_DURABILITY": settings.log_durability,
            "WHET_LOG_LEVEL": "WARNING",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # A group of its own, so that no worker outlives the test.
        self._process = subprocess.Popen(
            self._command, env=self._environment, start_new_session=True
        )
        wait_for(self._is_up, "the gateway's start", timeout_s=60)

    def kill(self, chance: random.Random) -> None:
        """SIGKILL to the process, or with several workers to one of them."""
        assert self._process is not None
        if self.workers == 1:
            self._process.kill()
            self._process.wait(10)
        else:
            worker = chance.choice(self._serving_workers())
            self._killed = worker.pid
            worker.kill()

    def restart(self) -> None:
        """Have it whole again. Of several workers uvicorn starts the killed one again."""
        if self.workers == 1:
            self.start()
        else:
            wait_for(self._is_up, "the worker's restart", timeout_s=60)

    def kill_all(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the gateway process has ended by itself"
        if self.workers > 1 and len(self._serving_workers()) < self.workers:
            return False
        return get_status(self.port, "/readyz") == 200

    def _serving_workers(self) -> list[psutil.Process]:
        """The children that have begun a spool, less the one that was killed."""
        assert self._process is not None
        children = psutil.Process(self._process.pid).children()
        return [
            child
            for child in children
            if child.pid != self._killed and any(self._spool.glob(f"gateway-{child.pid}-*"))
        ]


@dataclass
class Result:
    """What the clients noted beside what the log holds."""

    ledger: Ledger
    rows: dict[str, Any]  # by interaction id
    row_count: int
    restart_s: list[float]
    longest_gap_s: float
    spool_folder: Path

    def faults(self) -> list[str]:
        """Every way in which the log breaks its promise; empty when it keeps it."""
        found = []
        if self.row_count != len(self.rows):
            found.append(f"{self.row_count - len(self.rows)} rows are doubled")
        for entry in self.ledger.entries:
            row = self.rows.get(entry.interaction_id)
            name = f"{entry.interaction_id} ({'stream' if entry.is_stream else 'plain'})"
            if row is None:
                found.append(f"{name} has no row")
            elif row.request["messages"][-1]["content"] != entry.question:
                found.append(f"{name} has the row of another question")
            elif row.status not in OPEN_STATUSES:
                found.append(f"{name} is {row.status}: {row.error}")
            elif entry.is_whole and row.status != "complete":
                found.append(f"{name} came whole and is {row.status}")
            elif entry.is_whole and row.response_text != entry.text:
                found.append(f"{name} came whole with another text")
            elif entry.sha256 and row.response_sha256 != entry.sha256:
                found.append(f"{name} came whole with other bytes")
            elif row.response_text is not None and not row.response_text.startswith(entry.text):
                found.append(f"{name} begins with another text")
        if (self.spool_folder / "rejected.lines").exists():
            found.append("records were rejected")
        return found

    def summary(self) -> str:
        entries, rows = self.ledger.entries, self.rows
        streams = [entry for entry in entries if entry.is_stream]
        broken = [entry for entry in entries if not entry.is_whole]
        by_status = Counter(
            rows[entry.interaction_id].status for entry in broken if entry.interaction_id in rows
        )
        unseen = Counter(row.status for row in rows.values()) - Counter(
            rows[entry.interaction_id].status for entry in entries if entry.interaction_id in rows
        )
        restarts = [round(seconds, 1) for seconds in self.restart_s]
        return (
            f"heads received {len(entries)}, of streams {len(streams)}; "
            f"received whole {len(entries) - len(broken)}; broken off {len(broken)}, "
            f"their rows {dict(by_status)}; rows {self.row_count}, missing "
            f"{sum(entry.interaction_id not in rows for entry in entries)}; "
            f"of requests without a head {dict(unseen)}; "
            f"no head came {self.ledger.unanswered} times, refused {dict(self.ledger.refused)}; "
            f"up again after {restarts} s; longest without an answer {self.longest_gap_s:.2f} s"
        )


def run_ledger(
    home: Path,
    database_url: str,
    *,
    rounds: int,
    command: Sequence[str] = GATEWAY,
    durability: str = "normal",
    workers: int = 1,
    seed: int = 11,
) -> Result:
    """Kill a gateway `rounds` times at random moments under the load of `CLIENTS` clients."""
    settings = load_settings(home=home, database_url=database_url, log_durability=durability)
    context = open_context(settings)
    try:
        with MockEngine(words=WORDS) as engine:
            engine.faults.chunk_delay_s = WORD_S
            return _run(context, engine, rounds, command, workers, random.Random(seed))
    finally:
        context.close()


def _run(
    context: Context,
    engine: MockEngine,
    rounds: int,
    command: Sequence[str],
    workers: int,
    chance: random.Random,
) -> Result:
    with writing(context.database) as connection:
        _, key = create_key(connection, "tests", secret=context.secret, actor="tests", now=now_ms())
    set_replica(context, engine.url, {})
    # The mock is no engine that a reconciler would call ready; so no gateway gets to be one.
    acquire(context.database, LEASE, "tests", now=now_ms(), for_ms=3_600_000)
    gateway = GatewayProcess(context, command, workers)
    ledger, restart_s = Ledger(), []
    try:
        gateway.start()
        with _clients(gateway.port, key, ledger) as prober:
            for _ in range(rounds):
                time.sleep(chance.uniform(1.0, 4.0))
                gateway.kill(chance)
                killed_at = time.monotonic()
                gateway.restart()
                restart_s.append(time.monotonic() - killed_at)
        gap = prober.longest_gap
    finally:
        gateway.kill_all()
    folder = context.settings.home / "spool"
    _drain_orphans(context, folder)
    with reading(context.database) as connection:
        rows = list(connection.execute(select(interactions)))
    return Result(ledger, {row.id: row for row in rows}, len(rows), restart_s, gap, folder)


@contextmanager
def _clients(port: int, key: str, ledger: Ledger) -> Iterator[Prober]:
    """Clients that ask while the block runs, and then end what they began."""
    stop, prober = threading.Event(), Prober(port)
    clients = [Client(port, key, ledger, stop, seed) for seed in range(CLIENTS)]
    for thread in (prober, *clients):
        thread.start()
    try:
        yield prober
    finally:
        stop.set()
        for client in clients:
            client.join(40)
        prober.stop()


def _drain_orphans(context: Context, folder: Path) -> None:
    """Take over what the dead processes left, as the next start does."""
    spool = Spool(folder, "next")
    drain = Drain(context.database, spool)
    drain.start()
    wait_for(
        lambda: list(folder.glob("*.jsonl")) == [spool.files[0].path],
        "the orphans' end",
        timeout_s=30,
    )
    drain.stop()
    spool.close()
