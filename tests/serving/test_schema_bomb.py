"""One client's schemas must not take the engine from the others: measured on the real one."""

from __future__ import annotations

import itertools
import json
import statistics
import threading
import time
from typing import Any

import httpx
import pytest

from tests.serving.conftest import Running, replica
from tests.serving.test_requests import bomb

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1500)]
DEPTHS = range(4, 15)
OTHERS = 2  # clients beside the one with the schemas
SECONDS = 20.0  # of each measurement
# Below this a doubled p95 is the noise of two cores that also run the clients.
UNNOTICED_S = 0.25


def ask(client: httpx.Client, **more: Any) -> httpx.Response:
    body = {"model": "base", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
    return client.post("/v1/chat/completions", json={**body, "temperature": 0, **more})


def p95_s(gateway: Running, seconds: float) -> float:
    """The 95th percentile of what OTHERS wait for a short answer, in seconds."""
    waited: list[float] = []
    ends = time.monotonic() + seconds

    def talk() -> None:
        with client_of(gateway) as client:
            while time.monotonic() < ends:
                began = time.monotonic()
                assert ask(client).status_code == 200
                waited.append(time.monotonic() - began)

    threads = [threading.Thread(target=talk) for _ in range(OTHERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statistics.quantiles(waited, n=20)[-1]


def client_of(gateway: Running) -> httpx.Client:
    headers = {"Authorization": f"Bearer {gateway.key}"}
    return httpx.Client(base_url=gateway.url, headers=headers, timeout=120)


def body_of(depth: int, kind: str) -> bytes:
    """A request whose schema the engine has not seen, once NONCE in it is replaced."""
    schema = {**bomb(depth, kind), "description": "NONCE"}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": "base", "messages": messages, "max_tokens": 8, "response_format": form}
    return json.dumps(body).encode()


def test_nested_alternatives_hold_nobody_up(live: Running) -> None:
    with client_of(live) as client:  # the engine builds its kernels at the first constraint
        ask(client, structured_outputs={"choice": ["a", "b"]})
    alone = p95_s(live, SECONDS)
    statuses: dict[int, set[int]] = {depth: set() for depth in DEPTHS}
    stop = threading.Event()

    bodies = [(depth, body_of(depth, kind)) for depth in DEPTHS for kind in ("oneOf", "anyOf")]

    def throw() -> None:
        with client_of(live) as client:
            for number in itertools.count():
                for depth, body in bodies:
                    if stop.is_set():
                        return
                    found = client.post(
                        "/v1/chat/completions",
                        content=body.replace(b"NONCE", b"%d" % number),
                        headers={"content-type": "application/json"},
                    )
                    statuses[depth].add(found.status_code)

    thrower = threading.Thread(target=throw)
    thrower.start()
    beside = p95_s(live, SECONDS)
    stop.set()
    thrower.join()
    print(f"p95 of others: {alone:.3f} s alone, {beside:.3f} s beside the schemas; {statuses}")
    assert replica(live).state == "ready", "the replica left rotation"
    assert {status for found in statuses.values() for status in found} <= {200, 400, 413}
    assert statuses[4] == {200} and statuses[10] == {400}
    assert beside <= max(2 * alone, UNNOTICED_S), (
        f"others waited {beside:.2f} s, alone {alone:.2f} s"
    )
