"""A gateway on a real socket in front of a mock engine, and what tests look at afterwards."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
import uvicorn
from sqlalchemy import insert, select

from serving.gateway.app import Gateway, create_gateway
from serving.gateway.embeddings import TextEmbedder
from serving.gateway.http_protocol import GatewayHttpProtocol
from serving.retrieval.records import Searcher
from serving.rollout_store import RolloutStore
from tests.engine_fixture import CONTEXT, LiveEngine
from tests.serving.mock_engine import BASE, MockEngine, fingerprint
from whet.access import create_key
from whet.clock import now_ms
from whet.context import Context, open_context
from whet.database import reading, writing
from whet.registry import engine_name
from whet.settings import load_settings
from whet.store import digest_bytes
from whet.tables import adapters, interactions, replicas

BASE_DIGEST = "b" * 64


def wait_for(
    condition: Callable[[], Any], what: str | Callable[[], str], *, timeout_s: float = 10.0
) -> Any:
    """The first true value of `condition`; fails after the deadline, with `what` as it is then."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    pytest.fail(f"not within {timeout_s:g} s: {what if isinstance(what, str) else what()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def add_version(
    context: Context,
    name: str,
    version: int,
    *,
    gate: str = "pass",
    base_digest: str = BASE_DIGEST,
    rank: int = 8,
    card: dict[str, Any] | None = None,
    created_at: int | None = None,
) -> str:
    """An adapter row with a folder in the store; returns its digest."""
    digest = digest_bytes(f"{name}{version}".encode())
    path = f"adapters/{name}/v{version}--{digest[:8]}"
    context.store.put_folder(path, lambda folder: (folder / "adapter_config.json").write_text("{}"))  # type: ignore[arg-type,return-value]
    card = (
        {"fingerprint": fingerprint(engine_name(name, version, digest))} if card is None else card
    )
    with writing(context.database) as connection:
        connection.execute(
            insert(adapters).values(
                digest=digest,
                name=name,
                version=version,
                path=path,
                base_digest=base_digest,
                template_digest="0" * 64,
                rank=rank,
                gate=gate,
                card=card,
                created_at=created_at or now_ms(),
            )
        )
    return digest


def set_replica(
    context: Context, url: str, digests: dict[str, str], *, state: str = "ready"
) -> None:
    """What the reconciler would have written: `digests` maps a digest to the engine name; the base
    comes by itself.
    """
    ready = {
        "base": {"engine_name": BASE, "proved_at": 1},
        **{digest: {"engine_name": name, "proved_at": 1} for digest, name in digests.items()},
    }
    with writing(context.database) as connection:
        connection.execute(replicas.delete().where(replicas.c.url == url))
        connection.execute(
            insert(replicas).values(
                url=url,
                state=state,
                ready=ready if state == "ready" else {},
                refused={},
                seen_at=now_ms(),
            )
        )


@dataclass
class Running:
    """A gateway served by uvicorn in a thread of its own."""

    context: Context
    engine: MockEngine
    app: Gateway
    port: int
    key: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, key: str | None = None, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=key or self.key, max_retries=0, timeout=20, **options
        )

    def async_client(self, **options: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=30, **options
        )

    def rows(self) -> list[Any]:
        with reading(self.context.database) as connection:
            return list(
                connection.execute(
                    select(interactions).order_by(interactions.c.created_at, interactions.c.id)
                )
            )

    def row(self, interaction_id: str) -> Any:
        """The one row of an interaction; waits for the drain."""

        def look() -> Any:
            with reading(self.context.database) as connection:
                return connection.execute(
                    select(interactions).where(interactions.c.id == interaction_id)
                ).first()

        def state() -> str:
            """Whether the request has not ended, its record lies in the spool, or neither."""
            in_flight = {
                name: [each.in_flight for each in route.stable.replicas]
                for name, route in self.app.core.refresher.current.routes.items()
            }
            return (
                f"the row of {interaction_id}: in flight {in_flight},"
                f" {self.app.core.spool.pending_bytes} bytes in the spool"
                f" ({self.app.core.spool.failure or 'whole'})"
            )

        return wait_for(look, state)

    def refresh(self) -> None:
        """Make the gateway read the database now.

        Twice: callers share a read that is going on, and that one may have begun before the test's
        change.
        """
        for _ in range(2):
            asyncio.run_coroutine_threadsafe(self.app.core.refresher.refresh(), self.loop).result(
                10
            )

    loop: Any = None


def serve(
    context: Context,
    engine: MockEngine,
    *,
    services: tuple[Any, ...] | None = (),
    searcher: Searcher | None = None,
    embedder: TextEmbedder | None = None,
) -> Iterator[Running]:
    with writing(context.database) as connection:
        _, key = create_key(connection, "tests", secret=context.secret, actor="tests", now=now_ms())
    app = create_gateway(context, services=services, searcher=searcher, embedder=embedder)
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host="127.0.0.1",
            port=port,
            log_level="warning",
            http=GatewayHttpProtocol,
            ws="none",
            loop="uvloop",
            lifespan="on",
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=2,
        )
    )
    running = Running(context, engine, app, port, key)

    def run() -> None:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            running.loop = runner.get_loop()
            runner.run(server.serve())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    wait_for(lambda: server.started, "the gateway's start", timeout_s=20)
    try:
        yield running
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def engine() -> Iterator[MockEngine]:
    with MockEngine() as running:
        yield running


@pytest.fixture
def gateway(tmp_path: Path, engine: MockEngine) -> Iterator[Running]:
    """On SQLite, with the base and `support` v1 (stable) and v2 ready; no reconciler, so that the
    test decides what is ready.
    """
    context = open_context(load_settings(home=tmp_path / "home"))
    ready = {}
    for version in (1, 2):
        digest = add_version(context, "support", version)
        ready[digest] = engine_name("support", version, digest)
        engine.adapters[ready[digest]] = "/x"
    set_replica(context, engine.url, ready)
    RolloutStore(context.database, context.settings).promote(
        "support", "support@v1", actor="tests", reason="first", now=now_ms()
    )
    yield from serve(context, engine)
    context.close()


@pytest.fixture(scope="module")
def gateway_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One gateway for the many cases of a table; nothing in it reaches the engine."""
    context = open_context(load_settings(home=tmp_path_factory.mktemp("shared") / "home"))
    with MockEngine() as engine:
        set_replica(context, engine.url, {})
        yield from serve(context, engine)
    context.close()


# --- a gateway in front of the real engine ------------------------------------------------------

READY_S = 120  # proving a version on a busy two-core machine takes seconds


def replica(gateway: Running) -> Any:
    with reading(gateway.context.database) as connection:
        return connection.execute(replicas.select()).first()


def ready(gateway: Running, count: int) -> bool:
    """True when `count` versions and the base are proved."""
    row = replica(gateway)
    return bool(row and row.state == "ready" and len(row.ready) == count + 1)


@pytest.fixture(scope="module")
def live(live_engine: LiveEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway with its reconciler, `support` v1 (live) and v2, `imported` without a fingerprint."""
    home = tmp_path_factory.mktemp("live") / "home"
    context = live_engine.context(
        home, engine_max_model_len=CONTEXT, engine_max_lora_rank=8, rollout_auto=False
    )
    live_engine.register(context, 0, "support", 1)
    live_engine.register(context, 1, "support", 2)
    live_engine.register(context, 2, "imported", 1, fingerprint=False)
    for running in serve(context, live_engine, services=None):  # type: ignore[arg-type]
        wait_for(lambda: ready(running, 3), "three proved versions", timeout_s=READY_S)  # noqa: B023
        store = RolloutStore(context.database, context.settings)
        store.promote("support", "support@v1", actor="tests", reason="first", now=now_ms())
        running.refresh()
        yield running
    context.close()
